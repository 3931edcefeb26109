"""What triage finds, how fast, on a measured scan without faults, and what leaving bad frames out is worth.

    OMP_NUM_THREADS=1 python benchmarks/triage.py speed
    OMP_NUM_THREADS=1 python benchmarks/triage.py faults [--scans 40] [--first 50000] [--model FILE]
    OMP_NUM_THREADS=1 python benchmarks/triage.py alarms [--scans 60] [--first 90000] [--model FILE]
    OMP_NUM_THREADS=1 python benchmarks/triage.py picture --picture FILE.png
    OMP_NUM_THREADS=1 python benchmarks/triage.py star SCAN.npz [--sweeps 15] [--picture FILE.png]

`faults`: average precision on simulated scans that no training drew, for each dose, beside what single
numbers give (how far the total, the centre of mass and so on lie from the neighbours'). `alarms`: clean ones.
`star`: triage of the scan as it is; then 5 % of its frames are damaged in five ways, and R of the image, on
the frames that were not damaged, is printed for the clean scan, the damaged one, and it without its bad
frames.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import describe
from ptycho.evaluation.rfactor import r_factor
from ptycho.scan.raw_data import RawData
from ptycho.triage.batches import Frames, SimulatedScan, draw_frames, draw_scans
from ptycho.triage.decision import thresholds_in_scan
from ptycho.triage.features import NUMBERS, look, measure
from ptycho.triage.labels import FAULTS, LABELS
from ptycho.triage.precision import average_precision, judge
from ptycho.triage.sampling import damage
from ptycho.triage.scans import Ranges, draw_scan
from ptycho.workflows.triage import triage, without_bad
from ptycho_torch.triage.running import load_network, load_triage, probabilities, two_looks
from ptycho_torch.triage.task import logits_of

DOSES = (1e4, 1e2, 1e3, 1e6)
FIVE_WAYS = ("dim", "saturated", "shifted", "module", "ring")
#: one number of `NUMBERS` for each fault, and its sign: what a physicist would try first
SINGLE = {
    "empty": ("log total over that of the scan", -1), "dim": ("total against neighbours, in spreads", -1),
    "saturated": ("log pixels at the maximum", 1), "shifted": ("centre of mass moved, blocks", 1),
    "module": ("misfit to neighbours over the scan's", 1), "ring": ("misfit to the scan over the scan's", 1),
    "duplicated": ("repeats an earlier frame", 1),
}  # fmt: skip


def speed(seed: int) -> None:
    """Frames a CPU second, everything from counts in memory to probabilities, best of three."""
    rng = np.random.default_rng(seed)
    network, _ = load_network()
    for N in (32, 64, 128, 256):
        M = 2000 if N < 256 else 500
        rows, columns = np.indices((N, N)) - N // 2
        light = np.exp(-(rows**2 + columns**2) / (N * N / 20.0))
        counts = rng.poisson(1e4 * light / light.sum(), (M, N, N)).astype(np.uint16)
        places = np.stack([np.arange(M) % 45, np.arange(M) // 45], axis=1) * 5.0
        best = [np.inf] * 3
        for _ in range(4):
            marks = [time.process_time()]
            measured = measure(counts)
            marks.append(time.process_time())
            seen = look(measured, places)
            marks.append(time.process_time())
            probabilities(network, seen)
            marks.append(time.process_time())
            best = [min(b, t) for b, t in zip(best, np.diff(marks), strict=True)]
        parts = ", ".join(
            f"{word} {1e6 * t / M:.0f} us"
            for word, t in zip(("measured", "compared", "network"), best, strict=True)
        )
        print(f"N = {N:3d}: {M / sum(best):7.0f} frames/s   ({parts})")


def faults(scans: int, first: int, model: Path | None) -> None:
    """AP of each label at each dose, of the network and of single numbers."""
    network, thresholds, usual = load_triage(model)
    print(
        f"{'photons':>8} {'frames':>7} {'by':<8}" + "".join(f"{name:>11}" for name in LABELS) + f"{'mAP':>8}"
    )
    for dose in DOSES:
        frames = _drawn(scans, first, dose, (0.1, 0.2))
        once = torch.sigmoid(logits_of(network, frames)).numpy()
        each = [
            two_looks(network, s.measured, s.positions_px) for s in _scans(scans, first, dose, (0.1, 0.2))
        ]
        limits = [np.tile(thresholds_in_scan(one, thresholds, usual), (len(one), 1)) for one in each]
        for word, probability in (("one look", once), ("network", np.concatenate(each))):
            judged = judge(probability, frames.labels, np.concatenate(limits))
            told = "".join(f"{judged.average_precision[name]:>11.3f}" for name in LABELS)
            print(f"{dose:>8.0e} {len(frames.labels):>7} {word:<8}{told}{judged.mean:>8.4f}", flush=True)
        single = np.stack([s * frames.numbers[:, NUMBERS.index(n)] for n, s in SINGLE.values()], axis=1)
        alone = [
            average_precision(single[:, FAULTS.index(n)], frames.labels[:, FAULTS.index(n)]) for n in SINGLE
        ]
        named = dict(zip(SINGLE, alone, strict=True))
        told = "".join(f"{named[name]:>11.3f}" for name in FAULTS)
        print(f"{'':>8} {'':>7} {'single':<8}{'':>11}{told}{np.mean(alone):>8.4f}")
        counts = "".join(f"{n:>11d}" for n in frames.labels.sum(axis=0))
        print(f"{'':>8} {'':>7} {'frames':<8}{int((~frames.labels.any(axis=1)).sum()):>11d}{counts}")
        for word, values in (("precis.", judged.precision), ("recall", judged.recall)):
            print(f"{'':>8} {'':>7} {word:<8}" + "".join(f"{values[name]:>11.3f}" for name in LABELS))


def alarms(scans: int, first: int, model: Path | None) -> None:
    """Frames of clean scans that are called bad."""
    network, thresholds, usual = load_triage(model)
    for dose in DOSES:
        seen = [two_looks(network, s.measured, s.positions_px) for s in _scans(scans, first, dose, (0.0,))]
        each = [one >= thresholds_in_scan(one, thresholds, usual) for one in seen]
        called = np.concatenate(each)
        bad = called.any(axis=1)
        kinds = {name: int(n) for name, n in zip(FAULTS, called.sum(axis=0), strict=True) if n}
        n_scans = sum(bool(one.any()) for one in each)
        print(f"{dose:8.0e}: {int(bad.sum())} of {len(bad)} frames, in {n_scans} of {scans} scans {kinds}")


def _drawn(scans: int, first: int, dose: float, bad_shares: tuple[float, ...]) -> Frames:
    return draw_frames(_seeds(scans, first, dose), Ranges(photons=(dose, dose)), bad_shares, gains=False)


def _scans(scans: int, first: int, dose: float, bad_shares: tuple[float, ...]) -> Iterator[SimulatedScan]:
    return draw_scans(_seeds(scans, first, dose), Ranges(photons=(dose, dose)), bad_shares, gains=False)


def _seeds(scans: int, first: int, dose: float) -> list[tuple[int, int, int]]:
    return [(first, k, round(10 * np.log10(dose))) for k in range(scans)]


def star(path: Path, sweeps: int, picture: Path | None, seed: int) -> None:
    """Alarms on the scan; R on the frames that are not damaged, of three images."""
    raw = RawData.from_file(path, patterns="memory")
    print(f"{path.name}, as it is: {triage(raw).line()}")
    rng = np.random.default_rng(seed)
    counts = np.rint(raw.amplitude().astype(np.float64) ** 2).astype(np.int64)
    asked = [()] * len(counts)
    chosen = rng.choice(len(counts), round(0.05 * len(counts)), replace=False)
    for number, frame in enumerate(chosen):
        asked[int(frame)] = (FIVE_WAYS[number % len(FIVE_WAYS)],)
    made = damage(counts, asked, rng)
    bad = made.labels.any(axis=1)
    kinds = ", ".join(f"{n} {name}" for name, n in zip(FAULTS, made.labels.sum(axis=0), strict=True) if n)
    print(f"damaged: {int(bad.sum())} of {len(bad)} frames ({kinds})")
    arrays = {**raw.as_arrays(), "diff3d": made.counts.astype(np.int32), "diffraction_unit": "counts"}
    damaged = RawData(**arrays)
    kept, found = without_bad(damaged, path.name)
    print(f"triage: {found.line()}; {int((found.bad & bad).sum())} of {int(bad.sum())} found,"
          f" {int((found.bad & ~bad).sum())} good ones called bad")  # fmt: skip
    wrong = (found.called != made.labels).sum(axis=0)
    print("frames whose call of a fault differs from the truth: "
          + ", ".join(f"{name} {n}" for name, n in zip(FAULTS, wrong, strict=True) if n))  # fmt: skip
    images = {}
    for word, scan in (("clean", raw), ("damaged", damaged), ("--skip_bad", kept)):
        images[word], r = _r_of(scan, raw, ~bad, sweeps, seed)
        print(f"{word:<12} R {r:.4f} on the {int((~bad).sum())} frames that were not damaged")
    if picture is not None:
        _draw(images, picture)


def _r_of(
    scan: RawData, judge_by: RawData, good: np.ndarray, sweeps: int, seed: int
) -> tuple[np.ndarray, float]:
    """The image of a scan after some sweeps, and R of it on the good frames of the undamaged scan."""
    from ptycho_torch.refine import reconstruct

    result = reconstruct(scan, epochs=sweeps, seed=seed, start="flat", levels=1, prior="none")
    x, y = judge_by.xcoords[good], judge_by.ycoords[good]
    amplitude = judge_by.amplitude()[good]
    return result.object, r_factor(result.object, result.probe, x, y, amplitude, result.origin_xy).whole


def _draw(images: dict[str, np.ndarray], path: Path) -> None:
    from ptycho.report.style import PHASE_MAP, dress, new_figure, save

    figure = new_figure(10.0, 3.8, "The star: clean, with 5 % of its frames damaged, and these left out")
    low, high = np.percentile(np.angle(images["clean"]), [2, 98])
    for k, (word, image) in enumerate(images.items()):
        axis = figure.add_subplot(1, 3, k + 1)
        turned = image * np.exp(-1j * np.angle((image * images["clean"].conj()).sum()))
        axis.imshow(np.angle(turned), cmap=PHASE_MAP, vmin=low, vmax=high)
        dress(axis, f"{word}, phase", "x, px", "y, px" if k == 0 else "")
    save(figure, path)


def show_faults(path: Path, seed: int) -> None:
    """One frame of each fault below the frame as it was, counts as brightness of their logarithm."""
    from ptycho.report.style import COUNT_MAP, dress, new_figure, save

    rng = np.random.default_rng(seed)
    clean = draw_scan(Ranges((1e5, 1e5), (64,), (1.0,), (64, 64), 0.0), rng)
    asked: list[tuple[str, ...]] = [()] * 64
    places = {name: 20 + 3 * k for k, name in enumerate(FAULTS)}
    for name, frame in places.items():
        asked[frame] = (name,)
    made = damage(clean.counts, asked, rng, light=clean.light)
    figure = new_figure(11.0, 3.7, "Faults that are put into simulated scans: frames before, and after")
    top = np.log1p(float(clean.counts.max()))
    for k, (name, frame) in enumerate(places.items()):
        for row, counts in enumerate((clean.counts, made.counts)):
            axis = figure.add_subplot(2, len(FAULTS), row * len(FAULTS) + k + 1)
            axis.imshow(np.log1p(counts[frame]), cmap=COUNT_MAP, vmin=0.0, vmax=top)
            dress(axis, name if row else "as it was", "", "")
            axis.set_xticks([])
            axis.set_yticks([])
    save(figure, path)


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("speed", "faults", "alarms", "picture", "star"))
    parser.add_argument("scan", type=Path, nargs="?")
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--first", type=int, default=50_000)
    parser.add_argument("--sweeps", type=int, default=15)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(describe(arguments.seed))
    begun = time.process_time()
    if arguments.what == "speed":
        speed(arguments.seed)
    elif arguments.what == "picture":
        show_faults(arguments.picture, arguments.seed)
    elif arguments.what == "star":
        star(arguments.scan, arguments.sweeps, arguments.picture, arguments.seed)
    else:
        table = faults if arguments.what == "faults" else alarms
        table(arguments.scans, arguments.first, arguments.model)
    print(f"{time.process_time() - begun:.0f} CPU s")


if __name__ == "__main__":
    main()
