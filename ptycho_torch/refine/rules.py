"""The update rules by name."""

from __future__ import annotations

from ptycho.errors import ConfigError
from ptycho_torch.refine.adam import Adam
from ptycho_torch.refine.epie import EPIE
from ptycho_torch.refine.lsqml import LSQML
from ptycho_torch.refine.raar import RAAR
from ptycho_torch.refine.rpie import RPIE
from ptycho_torch.refine.rule import Rule

_KNOWN: dict[str, type[Rule]] = {kind.name: kind for kind in (EPIE, RPIE, LSQML, RAAR, Adam)}


def make_rule(rule: str | Rule, **options: object) -> Rule:
    """A rule by name (epie, rpie, lsqml, raar, adam) with its options, or the given one."""
    if isinstance(rule, Rule):
        return rule
    if rule not in _KNOWN:
        raise ConfigError(f"update rule '{rule}' is unknown; use one of {', '.join(_KNOWN)}")
    try:
        return _KNOWN[rule](**options)
    except TypeError as error:
        raise ConfigError(f"update rule '{rule}' does not take these options ({error})") from error
