"""How many sweeps, and how far each may step.

A given number of sweeps: full steps for a few, then a straight line down to `final_strength`. "auto": full
steps while each sweep still lowers R by 1 %, at most 20, then a line of 18 sweeps. The small steps average
the noise of the patterns visited last; more of them give no further improvement.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ptycho_torch.refine.options import RefineOptions

_LINE = 18
_SHORT_LINE = 8  # with the learned prior, which removes the noise itself
_LEAST_FULL, _MOST_FULL = 2, 20
_STILL_FALLING = 0.01
#: sweeps of a schedule without automatic end: for positions, and for rules without a step size
FIXED = 40


@dataclass(frozen=True)
class Schedule:
    """The sweeps of one run. epochs: as asked, None for "auto"; short: the line of the learned prior."""

    options: RefineOptions
    epochs: int | None = None
    short: bool = False

    @property
    def line(self) -> int:
        """Sweeps of the line after those at full step."""
        return _SHORT_LINE if self.short else _LINE

    @property
    def fixed(self) -> int | None:
        """The number of sweeps if it does not depend on R."""
        if self.epochs is not None:
            return self.epochs
        if self.options.position_search_px:
            return 2 * FIXED
        ends_alone = self.options.positions == "fixed" and self.options.rule_name in ("rpie", "epie", "lsqml")
        return None if ends_alone else FIXED

    def full_sweeps(self, course: Tensor | None) -> int:
        """Sweeps at full step, by R of the finished sweeps (`course`)."""
        values = [] if course is None else course.tolist()
        for done in range(_LEAST_FULL, min(len(values), _MOST_FULL) + 1):
            if values[done - 1] > (1 - _STILL_FALLING) * values[done - 2]:
                return done
        return min(max(len(values) + 1, _LEAST_FULL), _MOST_FULL)

    def length(self, course: Tensor | None) -> int:
        """Total number of sweeps, by the present estimate: it grows while R still falls."""
        fixed = self.fixed
        return self.full_sweeps(course) + self.line if fixed is None else fixed

    def middle(self, course: Tensor | None) -> int:
        """The sweep (0-based) in the middle of the line; for a given number of sweeps, the middle sweep."""
        fixed = self.fixed
        if fixed is not None:
            return max(self.searches(), (fixed - 1) // 2)
        return self.full_sweeps(course) + self.line // 2 - 1

    def strength(self, epoch: int, course: Tensor | None) -> float:
        """Step factor of sweep `epoch` (0-based)."""
        fixed = self.fixed
        if fixed is not None:
            return self.options.strength(epoch, fixed)
        full, length = self.full_sweeps(course), self.length(course)
        if epoch < full:
            return 1.0
        return max(self.options.final_strength, min(1.0, (length - 1 - epoch) / (length - 1 - full)))

    def searches(self) -> int:
        """Sweeps of the position search."""
        return 0 if self.fixed is None else self.options.search_epochs(self.fixed)

    def joint(self) -> tuple[int, ...]:
        """Sweeps that solve for positions together with object and probe."""
        return () if self.fixed is None else self.options.joint_epochs(self.fixed)

    def levels(self, epoch: int, course: Tensor | None) -> bool:
        """Whether a coarse step follows sweep `epoch`: the second, then every fourth at full step."""
        if (
            self.options.levels < 2
            or epoch < self.searches()
            or self.joint()[:1]
            and epoch >= self.joint()[0]
        ):
            return False
        full = self.full_sweeps(course) if self.fixed is None else 2
        return epoch == 1 or (epoch < full and epoch % 4 == 1)
