"""Threads of a command: what the user, SLURM and the machine say, in this order; libraries change nothing."""

from __future__ import annotations

import os
import subprocess
import sys

from programs import ROOT

from ptycho.cli.threads import settle_threads, usable_cores


def test_the_user_wins() -> None:
    environment = {"OMP_NUM_THREADS": "3", "SLURM_CPUS_PER_TASK": "1", "OMP_WAIT_POLICY": "ACTIVE"}
    settle_threads(environment)
    assert environment["OMP_NUM_THREADS"] == "3" and environment["TF_NUM_INTRAOP_THREADS"] == "3"
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE" and "GOMP_SPINCOUNT" not in environment


def test_a_share_of_the_node() -> None:
    environment = {"SLURM_CPUS_PER_TASK": "1"}
    settle_threads(environment)
    assert environment["OMP_NUM_THREADS"] == "1" and environment["OMP_WAIT_POLICY"] == "PASSIVE"
    assert 1 <= usable_cores({}) <= len(os.sched_getaffinity(0))
    assert usable_cores({"SLURM_CPUS_PER_TASK": "4096"}) == usable_cores({})


def test_library_code_changes_nothing() -> None:
    code = (
        "import os; before = dict(os.environ); import ptycho.cli.main, ptycho.workflows.components\n"
        "assert dict(os.environ) == before"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
