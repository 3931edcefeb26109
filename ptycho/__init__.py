"""The neutral core of ptychopinn: what a scan, a run and a result are, in NumPy.

Importing it loads nothing else, so that clients may probe for the package cheaply.
"""

from __future__ import annotations

from typing import Any

# ptychodus 1.2 takes these for granted once it has imported others
_ON_DEMAND = ("probe", "tf_helper")


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        from importlib import import_module

        return import_module(f"ptycho.{name}")
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ptychopinn")
        except PackageNotFoundError:
            return "0.0.0+local"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
