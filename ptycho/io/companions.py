"""What stands beside a scan in its file and is no part of it: the truth of a simulation, how it was made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ptycho.io.compressed.file import is_compressed, read_beside
from ptycho.io.npz import COMPANION_KEYS, open_npz, read_array


def read_companions(path: str | os.PathLike[str]) -> dict[str, Any]:
    """object_true (H, W) and probe_true (P, N, N) complex, roi (4,) int, scenario (text, JSON).

    As far as an NPZ or a compressed scan holds them; none of another file. DataError for damaged contents.
    """
    source = Path(path)
    if source.suffix.lower() == ".npz":
        with open_npz(source) as archive:
            return {key: read_array(archive, key, source) for key in COMPANION_KEYS if key in archive.files}
    return read_beside(source) if is_compressed(source) else {}
