"""Likeness of patterns: all products at once, as for small scans, or pair by pair, as for large ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ptycho.scan import likeness
from ptycho.scan.inspection import inspect_scan
from ptycho.scan.raw_data import RawData


def test_both_ways_say_the_same(make_scan: Callable[..., RawData], monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_scan(n_positions=49)
    seen = inspect_scan(raw)
    stats, positions = seen.statistics, np.asarray(raw.positions_px)
    together = likeness.likeness(stats, positions, seen.probe_diameter_px)
    monkeypatch.setattr(likeness, "_TOGETHER", 0)
    by_pairs = likeness.likeness(stats, positions, seen.probe_diameter_px)
    assert together is not None and by_pairs is not None
    assert together.order == pytest.approx(by_pairs.order, abs=1e-6) and together.strange == by_pairs.strange
    assert together.shifts == pytest.approx(by_pairs.shifts, abs=1e-6)
