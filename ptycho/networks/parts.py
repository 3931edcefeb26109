"""Which part of a network a weight belongs to, so that stages can train one part and leave the others.

Parts, from input to output: `encoder_bottom` (next to the patterns), `encoder_top` (the deepest layers),
`decoder`, `amplitude_head` and `phase_head` (the last layers of each output). Two parts are outside the
network: `probe` and `scale`.
"""

from __future__ import annotations

import re

from ptycho.errors import ConfigError
from ptycho.networks.graphs import Graph

PARTS = ("encoder_bottom", "encoder_top", "decoder", "amplitude_head", "phase_head", "probe", "scale")

#: network -> (pattern of the node's name, part); the first that matches decides
_RULES: dict[str, tuple[tuple[str, str], ...]] = {
    "cnn": (
        (r"encoder\.", "encoder_bottom"),
        (r"amplitude\.(centre|border)\b", "amplitude_head"),
        (r"phase\.(centre|border)\b", "phase_head"),
        (r"(amplitude|phase)\.\d", "decoder"),
    ),
    "swift": (
        (r"(stem|fine\.0)\b", "encoder_bottom"),
        (r"(down|coarse\.\d+)\b", "encoder_top"),
        (r"(up|fine\.1|gain)\b", "decoder"),
        (r"amplitude\b", "amplitude_head"),
        (r"phase\b", "phase_head"),
    ),
}


def part_of(parameter: str, graph: Graph) -> str:
    """The part that a weight (`<node>.weight` or `<node>.bias`, neutral name) of this graph belongs to.

    In the network 'cnn' the top of the encoder is its last level. Raises ConfigError for a network without
    declared parts (`declare_parts`), and for a weight that no rule matches.
    """
    rules = _RULES.get(graph.name)
    if rules is None:
        raise ConfigError(
            f"architecture {graph.name!r}: its parts are not declared, so it cannot be trained part by part "
            "- call ptycho.networks.parts.declare_parts"
        )
    if graph.name == "cnn" and re.match(rf"encoder\.{_deepest(graph)}\.", parameter):
        return "encoder_top"
    for pattern, part in rules:
        if re.match(pattern, parameter):
            return part
    raise ConfigError(f"architecture {graph.name!r}: weight {parameter!r} belongs to no declared part")


def declare_parts(architecture: str, rules: tuple[tuple[str, str], ...]) -> None:
    """Say where the weights of an own network belong: (regular expression of the name, part), in order."""
    for pattern, part in rules:
        if part not in PARTS:
            raise ConfigError(f"part {part!r} of {pattern!r}: must be one of {', '.join(PARTS)}")
    _RULES[architecture] = tuple(rules)


def _deepest(graph: Graph) -> int:
    return max(int(node.name.split(".")[1]) for node in graph.nodes if node.name.startswith("encoder."))
