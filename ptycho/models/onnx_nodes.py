"""Nodes and constants of an ONNX graph as they are written: what every exporter here begins with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ptycho.errors import MissingDependencyError


def import_onnx() -> Any:
    """The package onnx; MissingDependencyError with the command that installs it."""
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:
        raise MissingDependencyError(
            "writing ONNX needs the package onnx: pip install 'ptychopinn[onnx]'"
        ) from None
    return onnx


class Nodes:
    """Nodes and constants of an ONNX graph, in the order of computation."""

    def __init__(self) -> None:
        self._onnx = import_onnx()
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def constant(self, name: str, values: ArrayLike, dtype: Any = np.float32) -> str:
        """An array of the file; the same name is stored once."""
        if name not in self.constants:
            array = np.ascontiguousarray(values, dtype)
            self.constants[name] = self._onnx.numpy_helper.from_array(array, name)
        return name

    def integers(self, *values: int) -> str:
        """A small vector of int64, stored once."""
        return self.constant("int64:" + ",".join(str(v) for v in values), values, np.int64)

    def add(self, op: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Append one operation with one output; unnamed ones are numbered."""
        label = name or f"{op}:{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(op, inputs, [label], name=label, **attributes))
        return label
