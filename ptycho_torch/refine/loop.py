"""The loop: sweeps of batches under one rule, which yields the state after each.

It is a generator, so a caller's own loop can print, plot, save or stop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch

from ptycho.errors import RunError
from ptycho_torch.refine.beliefs import BELIEFS, Believe
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.phases import Run, Sweep, make_phases, resting_patterns, silent_patterns
from ptycho_torch.refine.prior import asked_for, noise_is_all
from ptycho_torch.refine.result import IterationState
from ptycho_torch.refine.rule import Rule
from ptycho_torch.refine.rules import make_rule
from ptycho_torch.refine.scan import RefineScan, counts_of, total_counts
from ptycho_torch.refine.schedule import Schedule
from ptycho_torch.refine.state import RefineState
from ptycho_torch.refine.unknowns import illumination


def iterate(
    scan: RefineScan,
    state: RefineState,
    *,
    epochs: int | None = None,
    seed: int = 0,
    options: RefineOptions | None = None,
    rule: Rule | None = None,
    believe: Believe | None = None,
) -> Iterator[IterationState]:
    """Sweep `state` in place from `state.epoch` to `epochs`, yielding after each sweep.

    believe: how misfit maps become distributions of positions, instead of what `position_belief` says.
    epochs None: until R no longer improves (schedule.py). The order of patterns depends on (seed, sweep)
    only, so a resumed run repeats an uninterrupted one to the byte. Time: about 4 FFTs of N x N a pattern,
    mode and sweep. Memory: the scan, the canvas and one batch (RAAR: all exit waves).
    """
    options = (options or RefineOptions()).check()
    if rule is None:
        rule = make_rule(options.rule, **options.rule_options)
        rule.start(scan, state)
    prior = asked_for(scan, state, options)
    schedule = Schedule(options, epochs, short=prior == "learned" and noise_is_all(scan, state))
    light = illumination(scan, state) if options.smoothness else state.object.real
    believe = believe or BELIEFS[options.believer(scan.mean_counts)]
    whole = Run(scan, state, rule, options, schedule, seed, light, prior, believe)
    if prior == "tv" and state.epoch == 0:
        state.first = state.object.clone()
    phases = make_phases()
    total = total_counts(scan.counts)
    begun = time.perf_counter()
    while state.epoch < whole.epochs:
        epoch = state.epoch
        sweep = Sweep(
            epoch,
            schedule.strength(epoch, state.course),
            options.probe_from is not None and epoch >= options.probe_from,
            np.random.default_rng([seed, epoch, 1]),
            silent=silent_patterns(whole, epoch),
            resting=resting_patterns(whole, epoch),
        )
        for phase in phases:
            if phase.due(whole, sweep):
                phase.work(whole, sweep)
        seen = total if sweep.absent is None else total - counts_of(scan, sweep.absent)
        r = (sweep.wrong / seen) ** 0.5
        if not np.isfinite(r):
            raise RunError(
                f"refinement diverged in sweep {epoch + 1}; check positions and probe, or lower the step"
            )
        past = [] if state.course is None else state.course.tolist()
        state.course = torch.tensor([*past, r], dtype=torch.float64)
        state.epoch = epoch + 1
        yield IterationState(
            state, epoch + 1, whole.epochs, r, sweep.strength, time.perf_counter() - begun, rule
        )
