"""One word for one thing in what runs leave, and older words that are still read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptycho.report.convergence import history_charts
from ptycho.report.drawing_history import draw_history
from ptycho.report.runs import numbers_in


@pytest.mark.parametrize("word", ["r_factor", "r_loss"])
def test_r_of_every_sweep_is_r_factor(tmp_path: Path, word: str) -> None:
    (tmp_path / "history.json").write_text(json.dumps({word: [0.4, 0.2], "strength": [1.0, 0.5]}))
    assert numbers_in(tmp_path / "history.json") == {"r_factor": [0.4, 0.2], "strength": [1.0, 0.5]}


def test_sweeps_are_drawn_as_sweeps() -> None:
    history = {"strength": [1.0, 0.5], "r_factor": [0.4, 0.2]}
    (axis,) = draw_history(history).axes
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_yscale()) == ("sweep", "R", "log")
    assert history_charts(history)[0].title == "R"
