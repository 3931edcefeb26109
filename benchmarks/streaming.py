"""Peak memory of training and inference on a scan whose patterns stay on disk, beside the same in memory.

    OMP_NUM_THREADS=1 python benchmarks/streaming.py [--patterns 24000] [--N 128] [--groups 512]
        [--sweeps 0] [--backends pytorch tensorflow] [--places disk memory] [--seed 0]

The scan is simulated and written in chunks as HDF5 (uint16, compressed). Each run is a process of its own:
one epoch on `groups` groups with validation, inference of as many, R of every pattern. Allocated: the peak of
what the process holds for itself (anonymous pages), sampled every 10 ms, less what it held when its libraries
were loaded. Resident also counts pages of the mapped file, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

_CHUNK = 256


def write_scan(path: Path, count: int, N: int, seed: int) -> None:
    """A raster over a smooth random object, 1e5 photons a pattern; memory: one chunk."""
    import h5py

    from ptycho.evaluation.rfactor import predicted_amplitudes

    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    raster = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[:count] * 4.0
    x, y = (raster + rng.uniform(-1, 1, raster.shape) + N // 2 + 2).T
    size = int(np.ceil(max(x.max(), y.max()))) + N
    blur = np.exp(-0.5 * (np.hypot(*np.meshgrid(*[np.fft.fftfreq(size)] * 2)) * 20) ** 2)
    images = [np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * blur).real for _ in range(2)]
    phase, amplitude = (image / np.abs(image).max() for image in images)
    obj = ((0.85 + 0.15 * amplitude) * np.exp(1j * phase)).astype(np.complex64)
    radius = np.hypot(*np.meshgrid(np.arange(N) - N // 2, np.arange(N) - N // 2))
    probe = np.exp(-0.5 * (radius / (N / 10)) ** 2 + 0.01j * radius**2)
    probe = (probe * np.sqrt(1e5 / np.sum(np.abs(probe) ** 2))).astype(np.complex64)
    with h5py.File(path, "w") as archive:
        shape = (count, N, N)
        patterns = archive.create_dataset("patterns", shape, "uint16", chunks=(16, N, N), compression="lzf")
        for begin in range(0, count, _CHUNK):
            part = slice(begin, begin + _CHUNK)
            patterns[part] = rng.poisson(np.square(predicted_amplitudes(obj, probe, x[part], y[part])))
        # ptychodus names the place half a pixel less for an even side
        archive["probe_position_x_px"], archive["probe_position_y_px"] = x - 0.5, y - 0.5
        archive["probe"], archive["object"] = probe, obj
        archive["bad_pixels"] = np.zeros((N, N), bool)


def memory(*names: str) -> dict[str, int]:
    """Fields of /proc/self/status, bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) * 1024 for name in names}


class Peak(threading.Thread):
    """The most anonymous memory that the process held."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.done = 0, threading.Event()

    def run(self) -> None:
        """Sample until told to stop."""
        while not self.done.wait(0.01):
            self.most = max(self.most, memory("RssAnon")["RssAnon"])


def work(path: Path, backend: str, place: str, groups: int, sweeps: int, seed: int) -> dict[str, float]:
    """One run in this process."""
    from ptycho.config.config import InferenceConfig, ModelConfig, PyTorchExecutionConfig, TrainingConfig
    from ptycho.scan.raw_data import RawData
    from ptycho.workflows import backend_selector

    if backend == "tensorflow":
        import tensorflow  # noqa: F401

        import ptycho.tf.fit.run  # noqa: F401
    import ptycho_torch.workflows.components  # noqa: F401

    begun, start = time.perf_counter(), memory("RssAnon", "VmRSS")
    peak = Peak()
    peak.start()
    raw = RawData.from_file(path, patterns=place, scratch_folder=path.parent)
    refined = {"probe_from": "refine", "probe_refine_sweeps": sweeps} if sweeps else {"probe_from": "guess"}
    config = TrainingConfig(
        model=ModelConfig(N=raw.N),
        backend=backend,
        nepochs=1,
        n_groups=groups,
        seed=seed,
        output_dir=Path(),
        **refined,
    )
    execution = PyTorchExecutionConfig(
        patterns=place, logger_backend="none", enable_checkpointing=False, accelerator="cpu"
    )
    results = backend_selector.train_cdi_model_with_backend(raw, None, config, execution_config=execution)
    model = results["models"]["autoencoder"]
    _, _, found = backend_selector.infer_scan_with_backend(
        model, raw, config=InferenceConfig(n_groups=groups), execution_config=execution
    )
    peak.done.set()
    peak.join()
    return {
        "allocated": peak.most - start["RssAnon"],
        "resident": memory("VmHWM")["VmHWM"] - start["VmRSS"],
        "seconds": time.perf_counter() - begun,
        "val_loss": results["history"]["val_loss"][-1],
        "r": found["r_factor"],
    }


def main() -> None:
    """Write the scan, run every backend and place in a fresh process, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--patterns", type=int, default=24000)
    parser.add_argument("--N", type=int, default=128)
    parser.add_argument("--groups", type=int, default=512)
    parser.add_argument("--sweeps", type=int, default=0)
    parser.add_argument("--backends", nargs="+", default=["pytorch", "tensorflow"])
    parser.add_argument("--places", nargs="+", default=["disk", "memory"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the scan and scratch files; default: the system's")
    parser.add_argument("--child", nargs=3, metavar=("FILE", "BACKEND", "PLACE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        path, backend, place = given.child
        print(json.dumps(work(Path(path), backend, place, given.groups, given.sweeps, given.seed)))
        return
    from benchmarks.machine import describe

    print(describe(given.seed))
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "scan.h5"
        begun = time.perf_counter()
        write_scan(path, given.patterns, given.N, given.seed)
        size = given.patterns * given.N**2 / 1e9
        print(
            f"{given.patterns} patterns of {given.N} x {given.N}: "
            f"{path.stat().st_size / 1e9:.2f} GB as a file, "
            f"{2 * size:.2f} GB as counts, {4 * size:.2f} GB as network input; "
            f"written in {time.perf_counter() - begun:.0f} s"
        )
        print(f"{'backend':<12}{'patterns':<10}{'allocated':>10}{'resident':>10}{'s':>7}   val_loss, R")
        for backend in given.backends:
            for place in given.places:
                options = [f"--{name}={getattr(given, name)}" for name in ("groups", "sweeps", "seed")]
                words = [sys.executable, __file__, "--child", str(path), backend, place, *options]
                done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
                if done.returncode:
                    print(f"{backend:<12}{place:<10} failed: {done.stderr.strip().splitlines()[-1]}")
                    continue
                found = json.loads(done.stdout.strip().splitlines()[-1])
                held = "".join(f"{found[name] / 1e9:>7.2f} GB" for name in ("allocated", "resident"))
                print(
                    f"{backend:<12}{place:<10}{held}"
                    f"{found['seconds']:>7.0f}   {found['val_loss']!r}, {found['r']!r}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
