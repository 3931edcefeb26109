"""The neutral core of ptychopinn: what a scan, a run and a result are, in NumPy.

Importing it loads nothing else, so that clients may probe for the package cheaply.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # ptychodus 1.2 uses these two as attributes without importing them.
    if name == "probe":
        import ptycho.probe as probe

        return probe
    if name == "tf_helper":
        import ptycho.tf_helper as tf_helper

        return tf_helper
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ptychopinn")
        except PackageNotFoundError:
            return "0.0.0+local"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
