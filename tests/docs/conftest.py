"""Examples may register networks and fill the legacy dictionary: both are put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ptycho.clients import params
from ptycho.networks import graphs as architectures


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, and global registries that forget what an example adds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(architectures, "_REGISTRY", dict(architectures._REGISTRY))
    kept = dict(params.cfg)
    yield tmp_path
    params.cfg.clear()
    params.cfg.update(kept)
