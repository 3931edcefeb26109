"""Seeded damage: every format, bits flipped and files cut, and how reading them ended.

    python tests/safety/damage.py [--count 300] [--seed 0] [--only NAME]

A file that was damaged must be refused in one line, or read as if it were not. Ends with 1 where one was not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from formats import FORMATS, Format, digest

from ptycho.errors import PtychoError


def damaged(data: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """What was done, and the bytes: three flips to one cut."""
    if rng.random() < 0.25:
        end = int(rng.integers(len(data)))
        return f"cut at {end}", data[:end]
    place, bit = int(rng.integers(len(data))), int(rng.integers(8))
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return f"bit {bit} of byte {place}", bytes(changed)


def attack(form: Format, count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """How often a damaged file was `refused`, read the `same`, `silent`ly different, or a `raw` exception.

    And the cases that must not be, in words."""
    home = folder / form.name.replace(".", "_")
    home.mkdir()
    path = home / form.name
    form.make(path)
    data, good = path.read_bytes(), digest(form.read(path))
    rng = np.random.default_rng([seed, len(form.name)])
    ends: Counter[str] = Counter()
    wrong = []
    for _ in range(count):
        what, changed = damaged(data, rng)
        path.write_bytes(changed)
        try:
            end = "same" if digest(form.read(path)) == good else "silent" if form.sealed else "other"
        except PtychoError as error:
            end = "refused" if "\n" not in str(error) else "raw"
        except Exception:
            end = "raw"
            wrong.append(f"{form.name}, {what}: {traceback.format_exc().splitlines()[-1]}")
        if end == "silent":
            wrong.append(f"{form.name}, {what}: read as something else")
        ends[end] += 1
    return ends, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only")
    asked = parser.parse_args()
    bad = []
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMATS:
            if asked.only in (None, form.name):
                ends, wrong = attack(form, asked.count, asked.seed, Path(folder))
                bad += wrong
                print(f"{form.name:<20}", "  ".join(f"{end} {ends[end]}" for end in sorted(ends)), flush=True)
    print(*bad, sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
