"""A damaged file of any format is refused in one line, or read as if it were whole. `damage.py` does more."""

from __future__ import annotations

from pathlib import Path

import pytest
from damage import attack
from formats import FORMATS, Format

_OPTIONAL = {"model.onnx": pytest.mark.onnx, "last.safetensors": pytest.mark.tf}
_CASES = [
    pytest.param(form, id=form.name, marks=[_OPTIONAL[form.name]] if form.name in _OPTIONAL else [])
    for form in FORMATS
]


@pytest.mark.parametrize("form", _CASES)
def test_refused_or_the_same(form: Format, tmp_path: Path) -> None:
    ends, wrong = attack(form, 40, seed=1, folder=tmp_path)
    assert wrong == [] and sum(ends.values()) == 40
