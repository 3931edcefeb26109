"""The fast tier covers every room, names files that exist, and trains no network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
#: names kept for clients, files of settings, and the trainer, which nothing but a training tests
SHELLS = {
    "ptycho_torch.api",
    "ptycho_torch.callbacks",
    "ptycho_torch.fit",
    "ptycho_torch.workflows",
    "ptycho.conf",
}


@pytest.fixture
def tier(request: pytest.FixtureRequest) -> dict[str, str]:
    """Name -> text of every file of the fast tier."""
    module = request.config.pluginmanager.get_plugin(str(TESTS / "conftest.py"))
    names = [path.relative_to(TESTS).as_posix() for path in sorted(TESTS.rglob("test_*.py"))]
    for form in (*module.FAST, *module.NOT_FAST):
        assert list(TESTS.glob(form)), f"{form} is not there: correct FAST in tests/conftest.py"
    return {name: (TESTS / name).read_text(encoding="utf-8") for name in names if module.is_fast(name)}


def test_every_room_is_used_by_a_fast_test(tier: dict[str, str]) -> None:
    text = "\n".join(tier.values())
    rooms = [
        path.parent
        for package in ("ptycho", "ptycho_torch")
        for path in (ROOT / package).glob("*/__init__.py")
    ]
    for room in rooms:
        name = ".".join(room.relative_to(ROOT).parts)
        thin = name in SHELLS
        used = (
            re.search(rf"\b{re.escape(name)}\b", text)
            or f"from {room.parent.name} import {room.name}" in text
        )
        assert thin or used, f"no test of the fast tier imports {name}"


def test_no_network_is_trained_in_it(tier: dict[str, str]) -> None:
    forbidden = re.compile(
        r"train_cdi_model|run_cdi_example\w*\(|train_with_\w+\(|\.fit\(|\"train\", [^)]*\"-o\""
    )
    for name, text in tier.items():
        found = forbidden.search(text)
        if name not in ("faults/test_fast_tier.py", "core/test_old_client.py"):
            assert not found, f"{name}: {found[0]}"
