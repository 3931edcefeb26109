"""The phases of a sweep: small objects with one task each, which the loop calls in order.

`due` tells whether a phase runs in a sweep; `work` changes the state in place. The list is made once for a
run, in the order of the work. All memory between sweeps is in the state, so a resumed run repeats an
uninterrupted one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.refine import learned_step, prior
from ptycho_torch.refine.batches import make_batches
from ptycho_torch.refine.beliefs import Believe, by_formula
from ptycho_torch.refine.coarse import coarse_step, share
from ptycho_torch.refine.decode_sweep import decode_patterns, grid_of, resting
from ptycho_torch.refine.held_out import judges
from ptycho_torch.refine.joint import joint_sweep
from ptycho_torch.refine.noise import misfit
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.rule import Rule
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.schedule import Schedule
from ptycho_torch.refine.search import clip_to_canvas, find_lost, patterns_to_update, relocate, search_batch
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
#: share of the sweeps after which the held-out patterns of the prior take part too
_JUDGES_UNTIL = 0.75


@dataclass
class Run:
    """The data that the phases of one run share.

    light: illumination of the start, if an option needs it; prior: "learned", "tv" or "none"; believe: from
    misfit maps to distributions of positions.
    """

    scan: RefineScan
    state: RefineState
    rule: Rule
    options: RefineOptions
    schedule: Schedule
    seed: int
    light: Tensor
    prior: str
    believe: Believe = by_formula

    @property
    def searches(self) -> int:
        """Sweeps of the position search."""
        return self.schedule.searches()

    @property
    def joint(self) -> tuple[int, ...]:
        """Sweeps that solve for positions and all other unknowns together."""
        return self.schedule.joint()

    @property
    def epochs(self) -> int:
        """Total number of sweeps, by the present estimate."""
        return self.schedule.length(self.state.course)

    @property
    def middle(self) -> int:
        """The sweep after which the learned prior is first applied: no joint step, after half of the line."""
        middle = self.schedule.middle(self.state.course)
        return next((epoch for epoch in range(middle, self.epochs) if epoch not in self.joint), middle)


@dataclass
class Sweep:
    """One sweep. wrong: its summed misfit; rng: its own generator. silent: patterns that judge the prior;
    resting: patterns whose positions are decoded afterwards; neither takes part in the sweep.
    """

    epoch: int
    strength: float
    probing: bool
    rng: np.random.Generator
    wrong: float = 0.0
    silent: Tensor | None = field(default=None)
    resting: Tensor | None = field(default=None)

    @property
    def absent(self) -> Tensor | None:
        """The patterns that take no part in the sweep, None if all take part."""
        return self.silent if self.resting is None else self.resting


class Phase:
    """One task of the loop."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """Whether the phase runs in this sweep."""
        raise NotImplementedError

    def work(self, run: Run, sweep: Sweep) -> None:
        """Change the state in place."""
        raise NotImplementedError


class Batches(Phase):
    """Each pattern once under the update rule, with trials of other positions during a search."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """True in every sweep that is not a joint step."""
        return sweep.epoch not in run.joint

    def work(self, run: Run, sweep: Sweep) -> None:
        """4 FFTs a pattern and mode; the background's own step at the end."""
        scan, state, options = run.scan, run.state, run.options
        # a small scan still needs a few dozen steps a sweep
        size = options.batch_size or max(4, min(run.rule.batch_size, scan.size // 32))
        background = torch.zeros_like(scan.counts[0])
        visited = torch.zeros(scan.size, dtype=torch.bool)
        for index in make_batches(scan.positions_xy, size, options.batches, run.seed, sweep.epoch):
            index = patterns_to_update(state, index, sweep.epoch, max(run.searches, 1))
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
    """Each sweep begins with a part of the last sweep's move, which speeds up changes common to all sweeps.

    Y. Nesterov, Soviet Math. Dokl. 27, 372 (1983), up to a bound; it is left out for a sweep after R has
    risen (B. O'Donoghue, E. Candes, Found. Comput. Math. 15, 715 (2015)).
    """

    def due(self, run: Run, sweep: Sweep) -> bool:
        """Where an option asks for it."""
        return run.options.carried > 0

    def work(self, run: Run, sweep: Sweep) -> None:
        """Two passes over object and probe."""
        state = run.state
        # Nesterov's sequence up to the bound: early moves are large and soon wrong
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
        """If the schedule has a joint step here."""
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
    """A step on the coarse grid for errors longer than the probe, judged by held-out patterns."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """After the second sweep, and after every fourth while steps are full."""
        return run.schedule.levels(sweep.epoch, run.state.course)

    def work(self, run: Run, sweep: Sweep) -> None:
        """See coarse.py."""
        asked, others = share(run.scan, run.state, run.seed, sweep.epoch)
        if len(others):
            coarse_step(run.scan, run.state, asked, others)


class Prior(Phase):
    """Total variation with a weight chosen by held-out patterns."""

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
    """A move towards the network's output, halfway and at the end, by a share chosen by held-out patterns."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """If few photons reach a pixel, or on request."""
        if run.prior != "learned":
            return False
        chooses = sweep.epoch == run.middle and sweep.silent is not None
        return chooses or sweep.epoch == run.epochs - 1

    def work(self, run: Run, sweep: Sweep) -> None:
        """See learned_step.py."""
        light = illumination(run.scan, run.state)
        if run.state.learned is not None:
            learned_step.keep_share(run.state, light)
        elif sweep.silent is not None and len(sweep.silent):
            learned_step.choose_share(run.scan, run.state, light, sweep.silent)


class Decode(Phase):
    """Decodes the positions of the patterns that rested in this sweep from misfit maps."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """In a search, if the option is on."""
        return sweep.resting is not None

    def work(self, run: Run, sweep: Sweep) -> None:
        """See decode_sweep.py."""
        assert sweep.resting is not None
        first_px = run.options.position_search_px
        grid = grid_of(first_px, sweep.epoch, run.searches)
        kind = run.options.decoder
        decode_patterns(run.scan, run.state, sweep.resting, grid, first_px, kind, run.believe)


class Lost(Phase):
    """Finds patterns far from their true position, by a near and a far search, and marks them."""

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
    """Measures the strain of the scan during a search and removes it."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """Every other sweep of an affine search, once the object has formed."""
        late = sweep.epoch >= _STRAIN_FROM and sweep.epoch % 2 == 0
        return sweep.epoch < run.searches and run.options.positions == "affine" and late

    def work(self, run: Run, sweep: Sweep) -> None:
        """See strain.py."""
        undo_strain(run.scan, run.state, sweep.epoch)


class Drift(Phase):
    """Removes the common shift of all positions, which no pattern determines, during a search."""

    def due(self, run: Run, sweep: Sweep) -> bool:
        """During a search."""
        return sweep.epoch < run.searches

    def work(self, run: Run, sweep: Sweep) -> None:
        """Restore the mean position of the scan."""
        drift = (run.state.positions_xy - run.scan.positions_xy).mean(0)
        run.state.positions_xy = clip_to_canvas(run.scan, run.state, run.state.positions_xy - drift)


class AfterJoint(Phase):
    """After the last joint step: takes back moves that noise explains; restarts the rule."""

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
            # the last bits of small linear systems depend on the memory address; a millionth of a px does not
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
    """The patterns whose positions are decoded after this sweep; None without decoding."""
    if run.options.decoder == "none" or not epoch < run.searches:
        return None
    rests = resting(run.scan.size, epoch, run.searches, run.seed)
    return None if rests is None else rests.to(run.scan.counts.device)


def silent_patterns(run: Run, epoch: int) -> Tensor | None:
    """The patterns that judge the prior in this sweep and are left out of it; None without a prior."""
    if epoch in run.joint or epoch < run.searches:
        return None
    if run.prior == "none":
        return None
    if run.prior == "tv" and epoch >= _JUDGES_UNTIL * run.epochs:
        return None
    if run.prior == "learned" and (run.state.learned is not None or epoch > run.middle):
        return None
    return judges(run.scan, run.seed)
