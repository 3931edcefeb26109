"""The parts that a network is written with: what it must know of a run, nodes, graphs, and their builder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, int, int]  # channels, rows, columns

#: pre-activation at which each amplitude activation gives one half, which explains the mean pattern
HALF_AMPLITUDE = {
    "sigmoid": 0.0,
    "softplus": math.log(math.expm1(0.5)),
    "relu": 0.5,
    "swish": 0.7388350311,
}


@dataclass(frozen=True)
class NetworkSpec:
    """What a network must know of a run: sides, channels and the shape of the answer."""

    N: int = 64
    channels: int = 1
    n_filters_scale: int = 2
    amp_activation: str = "sigmoid"
    object_big: bool = True
    probe_big: bool = True
    pad_object: bool = True
    reference: str = "flat"

    @property
    def out_channels(self) -> int:
        """Complex patches a group: one a pattern, or a single shared one."""
        return self.channels if self.object_big else 1


@dataclass(frozen=True)
class Node:
    """One step of a graph: `name` = `op`(inputs; options)."""

    name: str
    op: str
    inputs: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """A network: nodes in order, plus the two nodes that are its outputs."""

    name: str
    nodes: tuple[Node, ...]
    amplitude: str
    phase: str


# --------------------------------------------------------------------------------------------------- building


class GraphBuilder:
    """Appends nodes and returns their names, so that the code of a network reads like its table."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, op: str, *inputs: str, name: str | None = None, **options: Any) -> str:
        """Append one node; nodes without weights are numbered, nodes with weights must be named."""
        label = name or f"{op}_{len(self.nodes)}"
        self.nodes.append(Node(label, op, inputs, options))
        return label

    def conv(
        self,
        x: str,
        name: str,
        filters: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        activation: str | None = None,
        init: str = "glorot",
        bias: float = 0.0,
    ) -> str:
        """Convolution with bias; 'same' for stride 1, patch by patch where the stride equals the kernel."""
        y = self.add(
            "conv", x, name=name, filters=filters, kernel=kernel, stride=stride, init=init, bias=bias
        )
        return self.add("activation", y, kind=activation) if activation else y
