"""Names under which the files of an earlier run are kept."""

from __future__ import annotations

import re
from pathlib import Path


def earlier_name(path: Path) -> Path:
    """The name under which `path` (a file or a folder) is set aside: `log.txt` becomes `log.3.txt` where 2 is
    the largest number that is there. A gap in the numbers is not filled, so nothing is overwritten.
    """
    form = re.compile(rf"{re.escape(path.stem)}\.(\d+){re.escape(path.suffix)}")
    names = (found.name for found in path.parent.iterdir()) if path.parent.is_dir() else ()
    taken = [int(match[1]) for name in names if (match := form.fullmatch(name))]
    return path.with_name(f"{path.stem}.{max(taken, default=0) + 1}{path.suffix}")
