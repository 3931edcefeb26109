"""What a sweep is made of: small objects, each with one idea, that the loop asks in order.

A phase says whether it is due in a sweep and does its work on the state in place. The list is made once for
a run; its order is the order of the work. Phases keep nothing between sweeps that the state does not hold, so
a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.refine import learned_step, prior
from ptycho_torch.refine.batches import make_batches
from ptycho_torch.refine.coarse import coarse_step, share
from ptycho_torch.refine.decode_sweep import decode_patterns, grid_of, resting
from ptycho_torch.refine.held_out import judges
from ptycho_torch.refine.joint import joint_sweep
from ptycho_torch.refine.noise import misfit
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.rule import Rule
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.schedule import Schedule
from ptycho_torch.refine.search import find_lost, held, kept, relocate, search_batch
from ptycho_torch.refine.shared import add_up, hand_round, total
from ptycho_torch.refine.state import RefineState
from ptycho_torch.refine.strain import undo_strain
from ptycho_torch.refine.unknowns import (
    background_ratio,
    believe_positions,
    constrain,
    illumination,
    intensity_step,
)

_STRAIN_FROM = 10
_GRID = 2.0**20
#: share of the sweeps after which the judges of the prior take part like all others
_JUDGES_UNTIL = 0.75


@dataclass
class Run:
    """What the phases of one run share.

    light: illumination of the start, where an option needs it; prior: "learned", "tv" or "none".
    """

    scan: RefineScan
    state: RefineState
    rule: Rule
    options: RefineOptions
    schedule: Schedule
    seed: int
    light: Tensor
    prior: str

    @property
    def searches(self) -> int:
        """Sweeps that look for positions at random."""
        return self.schedule.searches()

    @property
    def joint(self) -> tuple[int, ...]:
        """Sweeps that solve for positions and all else together."""
        return self.schedule.joint()

    @property
    def epochs(self) -> int:
        """Sweeps in all, as it looks now."""
        return self.schedule.length(self.state.course)

    @property
    def middle(self) -> int:
        """The sweep after which the learned prior is asked first: no joint step, half of the line done."""
        middle = self.schedule.middle(self.state.course)
        return next((epoch for epoch in range(middle, self.epochs) if epoch not in self.joint), middle)


@dataclass
class Sweep:
    """One sweep. wrong: the misfit it met on its way; rng: its own. silent: patterns that judge the prior;
    resting: those whose positions are decoded after it; neither has a part in it."""

    epoch: int
    strength: float
    probing: bool
    rng: np.random.Generator
    wrong: float = 0.0
    silent: Tensor | None = field(default=None)
    resting: Tensor | None = field(default=None)

    @property
    def absent(self) -> Tensor | None:
        """The patterns that have no part in it, None where all have."""
        return self.silent if self.resting is None else self.resting


class Phase:
    """One idea of the loop."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """Whether it has work in this sweep."""
        raise NotImplementedError

    def work(self, run: Run, sweep: Sweep) -> None:
        """Change the state in place."""
        raise NotImplementedError


class Batches(Phase):
    """Every pattern once under the update rule, with trials of other places while positions are searched."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """In every sweep that is not a joint step."""
        return sweep.epoch not in run.joint

    def work(self, run: Run, sweep: Sweep) -> None:
        """4 FFTs a pattern and mode; the background's own step at the end."""
        scan, state, options = run.scan, run.state, run.options
        # a small scan still needs a few dozen steps a sweep
        size = options.batch_size or max(4, min(run.rule.batch_size, scan.size // 32))
        background = torch.zeros_like(scan.counts[0])
        visited = torch.zeros(scan.size, dtype=torch.bool)
        for index in make_batches(scan.positions_xy, size, options.batches, run.seed, sweep.epoch):
            index = kept(state, index, sweep.epoch, max(run.searches, 1))
            if sweep.absent is not None:
                index = index[~torch.isin(index, sweep.absent)]
            if not len(index):
                continue
            exit = run.rule.step(scan, state, index, sweep.strength, sweep.probing)
            sweep.wrong += float(misfit(scan.of(exit.index), exit.intensity, scan.good).sum())
            visited[exit.index.cpu()] = True
            if sweep.epoch < run.searches and sweep.resting is None:
                search_batch(
                    scan, state, index, options.position_search_px, sweep.epoch, run.searches, sweep.rng
                )
            if state.intensity is not None:
                intensity_step(scan, state, exit, sweep.strength)
            if state.background is not None:
                background += background_ratio(scan, exit)
        run.rule.end_epoch(scan, state, sweep.strength, sweep.probing)
        sweep.wrong = total(scan, sweep.wrong)[0]
        if state.intensity is not None:
            state.intensity = hand_round(scan, state.intensity, visited)
        add_up(scan, background)
        if state.background is not None:
            state.background *= (background / scan.size).clamp(0.5, 2.0)


class Momentum(Phase):
    """Each sweep begins with a part of the last one's move: what all sweeps agree on goes faster.

    Y. Nesterov, Soviet Math. Dokl. 27, 372 (1983), up to a bound; it rests for a sweep after R rose
    (B. O'Donoghue, E. Candes, Found. Comput. Math. 15, 715 (2015)).
    """

    def due(self, run: Run, sweep: Sweep) -> bool:
        """Where an option asks for it."""
        return run.options.carried > 0

    def work(self, run: Run, sweep: Sweep) -> None:
        """Two passes over object and probe."""
        state = run.state
        # Nesterov's own sequence up to the bound: early moves are large and soon outdated
        share = min(run.options.carried, (sweep.epoch - 1) / (sweep.epoch + 2))
        share *= sweep.strength**0.5
        now, now_probe = state.object, state.probe
        past = [] if state.course is None else state.course[-2:].tolist()
        if len(past) == 2 and past[1] < past[0] and state.earlier_object is not None:
            state.object = now + share * (now - state.earlier_object)
            if state.earlier_probe is not None and sweep.probing:
                state.probe = now_probe + share * (now_probe - state.earlier_probe)
        else:
            state.object = now.clone()
        if state.probe is now_probe:
            state.probe = now_probe.clone()
        state.earlier_object, state.earlier_probe = now, now_probe


class Joint(Phase):
    """Positions, object, probe and strain in one least-squares step, instead of a sweep."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """Where the schedule says so."""
        return sweep.epoch in run.joint

    def work(self, run: Run, sweep: Sweep) -> None:
        """See joint.py."""
        sweep.wrong = joint_sweep(
            run.scan,
            run.state,
            run.joint.index(sweep.epoch),
            len(run.joint),
            longest_px=run.options.position_step_px,
            with_probe=sweep.probing,
            with_strain=run.options.positions == "affine",
        )


class Coarse(Phase):
    """A step on the coarse grid: errors longer than the probe, judged by patterns that have no part in it."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """After the second sweep, and after every fourth while steps are full."""
        return run.schedule.levels(sweep.epoch, run.state.course)

    def work(self, run: Run, sweep: Sweep) -> None:
        """See coarse.py."""
        asked, others = share(run.scan, run.state, run.seed, sweep.epoch)
        if len(others):
            coarse_step(run.scan, run.state, asked, others)


class Prior(Phase):
    """Total variation with the weight that held-out patterns choose."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """On demand."""
        return run.prior == "tv" and (sweep.silent is not None or run.state.variation is not None)

    def work(self, run: Run, sweep: Sweep) -> None:
        """See prior.py."""
        light = prior.relative_light(illumination(run.scan, run.state))
        if sweep.silent is not None and len(sweep.silent):
            prior.choose_weight(run.scan, run.state, light, sweep.strength, sweep.silent)
        else:
            prior.keep_weight(run.state, light, sweep.strength)


class Learned(Phase):
    """Half-way and at the end towards what a network says, as far as held-out patterns agree."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """Where few photons reach a pixel, or on demand."""
        if run.prior != "learned":
            return False
        return sweep.epoch == run.middle and sweep.silent is not None or sweep.epoch == run.epochs - 1

    def work(self, run: Run, sweep: Sweep) -> None:
        """See learned_step.py."""
        light = illumination(run.scan, run.state)
        if run.state.learned is not None:
            learned_step.keep_share(run.state, light)
        elif sweep.silent is not None and len(sweep.silent):
            learned_step.choose_share(run.scan, run.state, light, sweep.silent)


class Decode(Phase):
    """Positions decoded from misfit maps: of the patterns that rested in this sweep."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """In a search, where an option asks for it."""
        return sweep.resting is not None

    def work(self, run: Run, sweep: Sweep) -> None:
        """See decode_sweep.py."""
        assert sweep.resting is not None
        first_px = run.options.position_search_px
        grid = grid_of(first_px, sweep.epoch, run.searches)
        decode_patterns(run.scan, run.state, sweep.resting, grid, first_px, run.options.decoder)


class Lost(Phase):
    """Patterns that are far off: looked for near and far, and marked."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """During a search, and between the joint steps that follow one."""
        return sweep.epoch < run.searches or bool(run.searches) and sweep.epoch in run.joint[1:-2:3]

    def work(self, run: Run, sweep: Sweep) -> None:
        """See search.py."""
        first_px = run.options.position_search_px
        if sweep.epoch < run.searches:
            find_lost(run.scan, run.state, first_px, sweep.epoch, sweep.rng)
        else:
            relocate(run.scan, run.state, first_px, sweep.rng)


class Strain(Phase):
    """The scan's strain, measured while positions are searched and taken out."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """Every other sweep of an affine search, once the object has formed."""
        late = sweep.epoch >= _STRAIN_FROM and sweep.epoch % 2 == 0
        return sweep.epoch < run.searches and run.options.positions == "affine" and late

    def work(self, run: Run, sweep: Sweep) -> None:
        """See strain.py."""
        undo_strain(run.scan, run.state, sweep.epoch)


class Drift(Phase):
    """The common shift of all positions, which no pattern sees, taken out during a search."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """During a search."""
        return sweep.epoch < run.searches

    def work(self, run: Run, sweep: Sweep) -> None:
        """Back to the scan's own mean."""
        drift = (run.state.positions_xy - run.scan.positions_xy).mean(0)
        run.state.positions_xy = held(run.scan, run.state, run.state.positions_xy - drift)


class AfterJoint(Phase):
    """What the noise explains of the moves is taken back after the last joint step; the rule starts anew."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """After a joint step."""
        return sweep.epoch in run.joint

    def work(self, run: Run, sweep: Sweep) -> None:
        """See unknowns.believe_positions."""
        if sweep.epoch in run.joint[-1:]:
            believe_positions(run.scan, run.state, run.options)
        run.rule.start(run.scan, run.state)


class Constraints(Phase):
    """Supports, limits, order of modes; positions on a grid of a millionth of a px."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """Always."""
        return True

    def work(self, run: Run, sweep: Sweep) -> None:
        """See unknowns.constrain."""
        constrain(run.state, run.options, run.light, sweep.probing)
        if run.options.positions != "fixed":
            # the last bits of small linear systems depend on where memory lies; a millionth of a px does not
            run.state.positions_xy = (run.state.positions_xy * _GRID).round().contiguous() / _GRID


def make_phases() -> tuple[Phase, ...]:
    """All phases in the order of their work."""
    return (
        Momentum(),
        Batches(),
        Joint(),
        Coarse(),
        Prior(),
        Learned(),
        Decode(),
        Lost(),
        Strain(),
        Drift(),
        AfterJoint(),
        Constraints(),
    )


def resting_patterns(run: Run, epoch: int) -> Tensor | None:
    """The patterns whose positions are decoded after this sweep; None where none are."""
    if run.options.decoder == "none" or not epoch < run.searches:
        return None
    rests = resting(run.scan.size, epoch, run.searches, run.seed)
    return None if rests is None else rests.to(run.scan.counts.device)


def silent_patterns(run: Run, epoch: int) -> Tensor | None:
    """The patterns that judge the prior in this sweep, and so have no part in it; None where nothing asks."""
    if epoch in run.joint or epoch < run.searches:
        return None
    if run.prior == "none" or run.prior == "tv" and epoch >= _JUDGES_UNTIL * run.epochs:
        return None
    if run.prior == "learned" and (run.state.learned is not None or epoch > run.middle):
        return None
    return judges(run.scan, run.seed)
