"""SIGTERM and SIGKILL at random moments: the run goes on, to the weights of one that was never stopped.

    python tests/safety/kills.py [--count 30] [--seed 0] [--backend pytorch|tensorflow|both]

Each training is stopped at random times after its first checkpoint, at most thrice, and resumed in between.
Ends with 1 where a run did not go on, or went on to other weights.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from programs import SMALL, begin, ptycho, small_scan

from ptycho.models.bundle import load_bundle

_EPOCHS = 12
_LAST = {"pytorch": "last.ckpt", "tensorflow": "last.safetensors"}


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_bundle(run).weights


def interrupted(folder: Path, backend: str, rng: np.random.Generator, kinds: list[int]) -> Path:
    """A training that gets these signals, one after another, and is then let go to its end."""
    run = folder / f"run{int(rng.integers(1 << 30))}"
    first = ("train", folder / "scan.npz", "-o", run, "--nepochs", _EPOCHS, "--backend", backend, *SMALL)
    words: tuple[object, ...] = first
    for kind in kinds:
        process = begin(*words, cwd=folder)
        while process.poll() is None and not (run / "checkpoints" / _LAST[backend]).exists():
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 1.5)))
        if process.poll() is None:
            process.send_signal(kind)
        process.communicate()
        if process.returncode == 0:
            return run
        # -SIGTERM: while Python still starts, before the command listens; a shell calls both 143
        assert process.returncode in ({143, -kind} if kind == signal.SIGTERM else {-kind}), process.returncode
        words = ("train", "--resume", run)
    done = ptycho(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30, help="signals in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=("pytorch", "tensorflow", "both"), default="both")
    asked = parser.parse_args()
    backends = ("pytorch", "tensorflow") if asked.backend == "both" else (asked.backend,)
    rng = np.random.default_rng(asked.seed)
    sent, bad = 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "scan.npz", **small_scan())
        for backend in backends:
            straight = folder / f"straight_{backend}"
            words = ("train", folder / "scan.npz", "-o", straight, "--nepochs", _EPOCHS, "--backend", backend)
            assert ptycho(*words, *SMALL, cwd=folder).returncode == 0
            wanted = weights(straight)
            while sent < asked.count * (backends.index(backend) + 1) / len(backends):
                kinds = [int(rng.choice([signal.SIGTERM, signal.SIGKILL])) for _ in range(3)]
                found = weights(interrupted(folder, backend, rng, kinds))
                same = all(np.array_equal(found[key], value) for key, value in wanted.items())
                sent, bad = sent + len(kinds), bad + (not same)
                names = " ".join(signal.Signals(kind).name for kind in kinds)
                print(f"{backend:<11} {names}: {'the same weights' if same else 'OTHER WEIGHTS'}", flush=True)
    print(f"{sent} signals, {bad} runs with other weights")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
