"""Memory that a command freed goes back to the system, where its patterns are on disk and only there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from programs import environment

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"),
    reason="glibc's heap",
)

#: frees a large array, after which glibc takes arrays up to its size from the heap; then leaves a hole there
_HOLES = """
import sys
import numpy as np
from limited import data_bytes
from ptycho.cli import freed_memory as freed

if sys.argv[1] == "back":
    assert freed.give_back_at_once()
del_me = np.ones(30 * 2**20, np.uint8)
del del_me
before = data_bytes()
held = [np.ones(20 * 2**20, np.uint8) for _ in range(4)]
between = np.ones(1000, np.uint8).copy(), [bytes(600) for _ in range(1000)]
del held
if sys.argv[1] == "back":
    freed.give_back_holes()
print(data_bytes() - before)
"""


def left_bytes(way: str) -> int:
    """What a process still has of 84 MB that it freed."""
    words = [sys.executable, "-c", _HOLES, way]
    more = {"PYTHONPATH": os.pathsep.join([environment()["PYTHONPATH"], os.path.dirname(__file__)])}
    done = subprocess.run(
        words, env={**environment(), **more}, capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout)


def test_arrays_of_several_mib_go_back_when_they_are_freed():
    assert left_bytes("as it is") > 60e6
    assert left_bytes("back") < 2e6


def test_importing_the_library_changes_nothing():
    """Only a command whose patterns are on disk asks for it."""
    words = "import sys, ptycho, ptycho_torch.refine; assert 'ptycho.cli.freed_memory' not in sys.modules"
    subprocess.run([sys.executable, "-c", words], env=environment(), check=True, timeout=120)
