"""Many scans, one command each: a queue over processes of this machine, or an array job of SLURM.

Every job is a separate program with its own folder, lock, log and exit code. So a scan that fails does not
stop the others.
"""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from ptycho.errors import InputError, MissingFileError, PtychoError

LOG = "batch.log"
#: what `ptycho reconstruct` goes on from
STATE = "refine.safetensors"
#: exit codes that a second try cannot mend: a refused input, and a stop that was asked for
_FINAL = (0, 2, 130, 143)
_SHELL_INTERRUPT = 130


@dataclass(frozen=True)
class Job:
    """One scan: its file, its folder, the words of its command, patterns and side in px."""

    scan: Path
    folder: Path
    words: tuple[str, ...]
    n_patterns: int = 0
    N: int = 0

    @property
    def size(self) -> float:
        """What its time goes by: pattern pixels."""
        return float(self.n_patterns * self.N**2)


@dataclass(frozen=True)
class Ended:
    """How a job ended: its last exit code, seconds of the last try, tries, and the last line it said."""

    job: Job
    code: int
    seconds: float
    tries: int
    said: str

    @property
    def state(self) -> str:
        """In a word."""
        known = {0: "done", 2: "refused", 130: "interrupted", 143: "interrupted"}
        return known.get(self.code, "failed")


@dataclass(frozen=True)
class Estimate:
    """Seconds of each job (start-up, and a rate), from one that was run: the smallest."""

    start_s: float
    s_per_size: float
    measured: Job

    def seconds(self, job: Job) -> float:
        """What a job will take, linear in its pattern pixels."""
        return self.start_s + self.s_per_size * job.size


@dataclass
class Queue:
    """Jobs on this machine, `workers` at a time. `stop` ends what runs; what waits is not begun."""

    workers: int = 1
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    _stopped: threading.Event = field(default_factory=threading.Event)
    _running: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def run(self, jobs: Sequence[Job], told: Callable[[int, Ended], object] | None = None) -> list[Ended]:
        """Every job, a failed one twice; `told` after each with the number of ended ones."""
        done: list[Ended] = []
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            waiting = [pool.submit(self._one, job) for job in jobs]
            try:
                for future in waiting:
                    done.append(future.result())
                    if told is not None:
                        told(len(done), done[-1])
            except BaseException:
                self.stop()
                raise
        return done

    def stop(self) -> None:
        """SIGTERM to what runs, so that it ends in order."""
        self._stopped.set()
        for process in list(self._running):
            process.terminate()

    def _one(self, job: Job) -> Ended:
        ended = Ended(job, _SHELL_INTERRUPT, 0.0, 0, "not begun")
        for tries in (1, 2):
            if self._stopped.is_set():
                return ended
            ended = self._try(job, tries)
            if ended.code in _FINAL:
                break
        return ended

    def _try(self, job: Job, tries: int) -> Ended:
        log = job.folder.parent / f"{job.folder.name}.{LOG}"
        begun = time.perf_counter()
        with log.open("ab" if tries > 1 else "wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "ptycho", *words_of(job, tries)],
                env=dict(self.environment), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
            self._running.add(process)
            code = process.wait()
            self._running.discard(process)
            if code < 0:
                name = signal.Signals(-code).name
                out.write(f"\nit was ended by {name} from outside; too little memory, perhaps\n".encode())
        return Ended(job, code, time.perf_counter() - begun, tries, last_line(log))


def words_of(job: Job, tries: int = 1) -> tuple[str, ...]:
    """The words of a job; a reconstruction that was broken off goes on from the state that it left.

    --overwrite asks for a fresh start, which a second try is not.
    """
    begun = job.words[0] == "reconstruct" and (job.folder / STATE).is_file() and not _ended(job.folder)
    if not begun or (tries == 1 and "--overwrite" in job.words):
        return job.words
    return (*(word for word in job.words if word not in ("--overwrite", "--resume")), "--resume")


def _ended(folder: Path) -> bool:
    """Whether the record of a folder says that its run came to its end."""
    from ptycho.run.provenance import read

    try:
        return (read(folder) or {}).get("state") == "done"
    except (PtychoError, OSError):
        return True


def last_line(log: Path) -> str:
    """What a program said last, at most 200 characters."""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4096))
        lines = [line for line in stream.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else ""


def scans_of(patterns: Sequence[str]) -> list[Path]:
    """The files that names and patterns (`data/*.npz`) stand for, in order, each once; MissingFileError."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        here = [Path(pattern)] if Path(pattern).exists() else [Path(p) for p in sorted(glob.glob(pattern))]
        if not here:
            raise MissingFileError(f"{pattern}: no such file; put a pattern such as 'data/*.npz' in quotes")
        found |= dict.fromkeys(here)
    return list(found)


def folders_of(scans: Sequence[Path], output: Path) -> list[Path]:
    """A folder for each scan, named like it; scans of one name get their parents' names before it."""
    names = [path.stem for path in scans]
    twice = {name for name in names if names.count(name) > 1}
    full = [f"{p.resolve().parent.name}-{p.stem}" if p.stem in twice else p.stem for p in scans]
    if len(set(full)) < len(full):
        again = next(name for name in full if full.count(name) > 1)
        raise InputError(f"two scans would write into {output / again}; run them in two batches")
    return [output / name for name in full]


def measure(job: Job) -> Estimate:
    """Run a job once into a folder that is thrown away, and see what it takes.

    Its start-up is what it takes before its record says that the work began. RunError's text is the job's own
    last line.
    """
    from ptycho.errors import RunError
    from ptycho.run.provenance import read

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "made"
        words = tuple(str(folder) if word == str(job.folder) else word for word in job.words)
        ended = Queue().run([replace(job, folder=folder, words=words)])[0]
        if ended.code:
            raise RunError(f"{job.scan}: {ended.said}")
        worked = float((read(folder) or {}).get("seconds") or ended.seconds)
    return Estimate(max(0.0, ended.seconds - worked), worked / max(job.size, 1.0), job)


def slurm_array(
    jobs: Sequence[Job], folder: Path, *, workers: int, options: Mapping[str, object], cluster: str = "slurm"
) -> list[str]:
    """Hand the jobs to SLURM as one array job through submitit, and return the jobs' numbers.

    options: submitit's own names, such as slurm_partition, timeout_min, mem_gb, cpus_per_task. cluster:
    "slurm", or "local" for processes of this machine. `folder` gets submitit's own files.
    """
    from ptycho.errors import MissingDependencyError

    try:
        import submitit
    except ImportError as error:
        raise MissingDependencyError(
            "--slurm needs submitit, which is not installed: pip install 'ptychopinn[slurm]'"
        ) from error
    executor = submitit.AutoExecutor(folder=str(folder), cluster=cluster)
    executor.update_parameters(slurm_array_parallelism=workers, name="ptycho", **options)
    with executor.batch():
        handed = [
            executor.submit(submitit.helpers.CommandFunction([sys.executable, "-m", "ptycho", *job.words]))
            for job in jobs
        ]
    return [str(one.job_id) for one in handed]
