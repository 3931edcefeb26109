"""Every command goes through a scan that its memory could not hold; one that must hold it says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from limited import run_limited, scan_file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's"),
]
#: 131 MB as they are in the file, 262 MB as counts or network input, under a limit of 200 MiB (210 MB)
COUNT, SIDE, MEGABYTES = 4000, 128, 200
ONE_SWEEP = ("--sweeps", "1", "--start", "flat", "--levels", "1", "--prior", "none", "--overwrite")


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> tuple[Path, Path]:
    """A small scan and a large one."""
    folder = tmp_path_factory.mktemp("scans")
    return scan_file(folder / "small.h5", 60, SIDE), scan_file(folder / "large.h5", COUNT, SIDE)


def test_commands_hold_a_part_of_the_patterns(scans, tmp_path):
    """Nothing is said of where the patterns are: what the limit leaves decides."""
    made = "made"
    commands = [
        ["validate", "{scan}"],
        ["reconstruct", "{scan}", "-o", made, "--probe_modes", "2", "--background", *ONE_SWEEP],
        ["report", made, "--overwrite"],
    ]
    done = run_limited(*scans, MEGABYTES, commands, tmp_path)
    assert done.returncode == 0, done.stderr
    codes = json.loads(done.stdout.splitlines()[-1])
    assert codes[str(scans[1])] == [0] * len(commands), done.stderr
    assert (tmp_path / made / "reconstruction.npz").is_file()


def test_positions_are_corrected_beside_a_part_of_the_patterns(tmp_path):
    """72 MB of counts under 62 MiB (65 MB): search, joint step, what noise explains, second look, page."""
    scans = scan_file(tmp_path / "small.h5", 60, SIDE), scan_file(tmp_path / "large.h5", 1100, SIDE)
    words = ["reconstruct", "{scan}", "-o", "made", "--positions", "free", "--position_error", "1"]
    done = run_limited(*scans, 62, [[*words, "--sweeps", "4", *ONE_SWEEP[2:]]], tmp_path, timeout=900)
    assert json.loads(done.stdout.splitlines()[-1])[str(scans[1])] == [0], done.stderr
    assert (tmp_path / "made" / "positions.png").is_file()


def test_patterns_that_must_be_held_are_refused_in_a_line(scans, tmp_path):
    words = ["reconstruct", "{scan}", "-o", "made", "--patterns", "memory", *ONE_SWEEP]
    done = run_limited(*scans, MEGABYTES, [words], tmp_path)
    assert json.loads(done.stdout.splitlines()[-1])[str(scans[1])] in ([1], [2]), done.stderr
    assert "memory" in done.stderr and "Traceback" not in done.stderr
