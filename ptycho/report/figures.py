"""Figures as PNG files: each of the drawings, written whole or not at all; the path is returned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec

from matplotlib.figure import Figure

from ptycho.report import drawing, drawing_history, drawing_methods, drawing_scan
from ptycho.report.style import PathLike, save

Arguments = ParamSpec("Arguments")


def written(draw: Callable[Arguments, Figure]) -> Callable[Concatenate[PathLike, Arguments], Path]:
    """The drawing as a function that takes a path first, writes the PNG there and returns the path."""

    def write(path: PathLike, /, *given: Arguments.args, **named: Arguments.kwargs) -> Path:
        return save(draw(*given, **named), path)

    write.__doc__ = draw.__doc__
    return write


reconstruction_figure = written(drawing.draw_reconstruction)
probe_figure = written(drawing.draw_probe)
frc_figure = written(drawing.draw_frc)
history_figure = written(drawing_history.draw_history)
r_map_figure = written(drawing_scan.draw_r_map)
patterns_figure = written(drawing_scan.draw_patterns)
moved_figure = written(drawing_scan.draw_moved)
methods_figure = written(drawing_methods.draw_methods)
