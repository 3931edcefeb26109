"""Ptychography in six words: open, simulate, reconstruct, train, infer, report.

    import ptychopinn as pp

    scan = pp.open("scan.npz")       # a file of any known format
    image = pp.reconstruct(scan)     # the best image of one scan
    model = pp.train(scan, epochs=60)
    again = pp.infer(scan, model)    # the network's image, of this scan or the next one

What they give shows itself in a notebook and has `.plot()`. Importing this loads nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptychopinn.calls import infer, open, reconstruct, report, simulate, train
    from ptychopinn.shown import Image, Model, Scan

__all__ = ["Image", "Model", "Scan", "infer", "open", "reconstruct", "report", "simulate", "train"]


def __getattr__(name: str) -> Any:
    if name in ("infer", "open", "reconstruct", "report", "simulate", "train"):
        from ptychopinn import calls

        return getattr(calls, name)
    if name in ("Image", "Model", "Scan"):
        from ptychopinn import shown

        return getattr(shown, name)
    if name == "__version__":
        import ptycho

        return ptycho.__version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
