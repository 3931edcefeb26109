"""The verdict on reconstructions whose truth is known: how often a wrong image is called right, a good one
failed.

    python benchmarks/verdict.py [--n 300] [--first 0] [--json FILE]

Each number draws an object that the package does not ship, a probe, a path, a dose and a size, and one of
the kinds below; the image is made by the package's own engine, or spoiled on purpose, and judged as `ptycho
report` judges it, without its truth. Whether it is right is told by the truth and not by the kind. Right: the
better of the correlations of amplitude and phase is 0.8 or more. Wrong: it is 0.5 or less, or the image
agrees with the truth to less than 0.3 of the Nyquist frequency (FRC at 0.5) although there were 1e5 photons a
pattern or more.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptycho.errors import InputError
from ptycho.evaluation.judge import evaluate
from ptycho.evaluation.rfactor import r_factor
from ptycho.io.npz import write_npz
from ptycho.report.evidence import collect_evidence
from ptycho.report.pages import view_of
from ptycho.report.runs import find_runs
from ptycho.scan.orientation import ORIENTATIONS, reorient
from ptycho.scan.raw_data import RawData
from ptycho.simulation.probes import PROBES, get_probe
from ptycho.simulation.scenario import Scenario, diffract_scan, simulate
from ptycho.workflows.second_look import second_look
from ptycho_torch.refine import reconstruct

KINDS = (
    "good", "good", "good modes", "integrating detector", "truth itself", "low dose",
    "blurred", "wrong probe", "wrong axes",
    "wrong axes, 3 modes", "unlinked", "twin", "near field", "noise",
)  # fmt: skip
_PATHS = ("jittered", "fermat", "concentric")
RIGHT, WRONG = 0.8, 0.5
_COARSE, _MANY = 0.3, 1e5


class Case(NamedTuple):
    """One judged image: its kind, the verdict's level and word, the truth's correlation and FRC, R, the
    reason."""

    number: int
    kind: str
    level: str
    word: str
    pearson: float
    frc50: float
    photons: float
    r: float
    reason: str

    @property
    def is_right(self) -> bool | None:
        """None where the truth itself is undecided."""
        if self.frc50 < _COARSE and self.photons >= _MANY:
            return False
        return True if self.pearson >= RIGHT else False if self.pearson <= WRONG else None


def own_object(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.complex64]:
    """Cells, or a quilt, or bars: (H,W) complex64 with amplitude and phase of their own."""
    kind, pictures = int(rng.integers(0, 3)), []
    y, x = np.indices(shape, dtype=np.float64)
    for _ in range(2):
        picture = np.zeros(shape)
        for _ in range(int(shape[0] * shape[1] / 150)):
            cy, cx, size = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(1.5, 7)
            if kind == 0:
                here = 1 / (1 + np.exp(np.clip((np.hypot(y - cy, x - cx) - size) / 0.5, -50, 50)))
            elif kind == 1:
                here = (np.abs(y - cy) < size) * (np.abs(x - cx) < rng.uniform(1.5, 7))
            else:
                angle = rng.uniform(0, np.pi)
                across = (x - cx) * np.sin(angle) - (y - cy) * np.cos(angle)
                along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
                here = (np.abs(across) < 0.3 * size) * (np.abs(along) < 3 * size)
            picture += rng.uniform(-1, 1) * here
        pictures.append(ndimage.gaussian_filter(picture, 0.7))
    amplitude, phase = ((p - p.min()) / np.ptp(p) for p in pictures)
    low, depth = rng.choice([0.5, 0.8, 0.95]), rng.choice([0.3, 1.0, 2.0])
    return ((low + (1 - low) * amplitude) * np.exp(1j * depth * phase)).astype(np.complex64)


def run_case(number: int, folder: Path) -> Case:
    """Draw case `number`, reconstruct or spoil, judge."""
    rng = np.random.default_rng([number, 99])
    kind = KINDS[number % len(KINDS)]
    N = int(rng.choice([32, 48, 64]))
    photons = float(10 ** rng.uniform(2, 4)) if kind in ("low dose", "truth itself") else float(
        10 ** rng.uniform(3.7, 9)
    )  # fmt: skip
    step = N * (0.45 if kind == "unlinked" else rng.uniform(0.05, 0.09))
    n_modes = 3 if kind == "good modes" else 1
    base = Scenario(
        object="flat", probe=str(rng.choice(sorted(PROBES))), scan=str(rng.choice(_PATHS)),
        N=N, n_positions=int(rng.integers(70, 120)), step_px=float(step), jitter_px=0.3 * step,
        photons=photons,
        n_modes=n_modes, seed=number,
    )  # fmt: skip
    made = simulate(base)
    obj = own_object(made.object_true.shape, rng)
    raw, probe = made.raw, made.probe_true
    light = diffract_scan(obj, probe, raw.positions_px)
    if kind == "near field":
        light = _near_field(obj, probe, raw.positions_px, float(rng.choice([3, 6, 12, 20])))
    counts = rng.poisson(light).astype(np.int32)
    if kind == "integrating detector":
        # a gain of some units a photon, and electronic noise
        gain, read = rng.uniform(2, 40), rng.uniform(0, 6)
        counts = np.maximum(np.round(gain * counts + rng.normal(0, read, counts.shape)), 0).astype(np.int64)
    arrays: dict[str, Any] = raw.as_arrays() | {"diff3d": counts, "objectGuess": None}
    swept, modes = 25, None
    if kind.startswith("wrong axes"):
        names = [name for name in ORIENTATIONS if name not in ("as_given", "both_negated")]
        places = reorient(raw.positions_px, str(rng.choice(names)))
        arrays |= {
            "xcoords": places[:, 0],
            "ycoords": places[:, 1],
            "xcoords_start": None,
            "ycoords_start": None,
        }
        modes = 3 if "modes" in kind else None
    elif kind == "wrong probe":
        other = str(rng.choice([name for name in sorted(PROBES) if name != base.probe]))
        arrays["probeGuess"] = get_probe(other)(N, photons, 1.4, -1.5)
    scan = RawData(**arrays)
    image, origin, used, metrics = _image(kind, scan, obj, probe, swept, modes, rng, number)
    r = r_factor(image, used, scan.xcoords, scan.ycoords, scan.amplitude(), origin, scan.bad_pixels)
    metrics["r_factor"] = r.whole
    out = folder / f"{number}"
    out.mkdir()
    write_npz(out.with_suffix(".npz"), scan.as_arrays())
    coverage = np.ones(image.shape, np.float32)
    write_npz(out / "reconstruction.npz", {
        "object": image, "coverage": coverage, "origin_xy": np.array(origin), "probe": used,
        "positions_px": scan.positions_px, "r_per_pattern": r.per_pattern,
    })  # fmt: skip
    (out / "metrics.json").write_text(json.dumps(metrics))
    view = view_of(collect_evidence(find_runs([out], out.with_suffix(".npz"))[0]), "x")
    pearson, frc50 = _against_truth(kind, image, origin, obj, made.roi)
    return Case(
        number,
        kind,
        view.verdict.level,
        view.verdict.word,
        pearson,
        frc50,
        photons,
        r.whole,
        view.verdict.reason,
    )


def _image(
    kind: str, scan: RawData, obj: NDArray[Any], probe: NDArray[Any], sweeps: int, modes: int | None,
    rng: np.random.Generator, seed: int,
) -> tuple[NDArray[Any], tuple[float, float], NDArray[Any], dict[str, float]]:  # fmt: skip
    """Object, its origin, the probe it goes with, and what a second look measured."""
    if kind == "truth itself":
        return obj, (0.0, 0.0), probe, {}
    if kind == "twin":
        raise_twin = obj[::-1, ::-1].conj()
        # the twin lies at mirrored places: the probe is mirrored about its pixel (N//2, N//2)
        mirrored = np.roll(probe[:, ::-1, ::-1].conj(), 1, axis=(1, 2))
        x = obj.shape[1] - 1 - scan.xcoords
        y = obj.shape[0] - 1 - scan.ycoords
        object.__setattr__(scan, "xcoords", x)
        object.__setattr__(scan, "ycoords", y)
        return raise_twin, (0.0, 0.0), mirrored, {}
    if kind == "noise":
        image = np.exp(1j * ndimage.gaussian_filter(rng.standard_normal(obj.shape), 1.5) * 3)
        return image.astype(np.complex64), (0.0, 0.0), probe, {}
    if kind == "blurred":
        width = float(rng.uniform(2.5, 5))
        image = ndimage.gaussian_filter(obj.real, width) + 1j * ndimage.gaussian_filter(obj.imag, width)
        return image.astype(np.complex64), (0.0, 0.0), probe, {}
    changes: dict[str, Any] = {"probe_from": None} if kind == "wrong probe" and seed % 2 else {}
    result = reconstruct(scan, epochs=sweeps, seed=seed, modes=modes, **changes)
    look = second_look(scan, result.probe, seed=seed)
    origin = (float(result.origin_xy[0]), float(result.origin_xy[1]))
    return result.object, origin, result.probe, dict(look.metrics)


def _near_field(
    obj: NDArray[Any], probe: NDArray[Any], places: NDArray[np.float64], distance_px2: float
) -> NDArray[np.float64]:
    """A short way behind the object, at the object's own pixels (angular spectrum); lambda z in px^2."""
    N = probe.shape[-1]
    k = np.fft.fftfreq(N)
    kernel = np.exp(-1j * np.pi * distance_px2 * (k[:, None] ** 2 + k[None, :] ** 2))
    frames = []
    for x, y in np.round(places).astype(int):
        patch = obj[y - N // 2 : y - N // 2 + N, x - N // 2 : x - N // 2 + N]
        waves = np.fft.ifft2(np.fft.fft2(probe * patch) * kernel)
        frames.append((np.abs(waves) ** 2).sum(axis=0))
    return np.stack(frames)


def _against_truth(
    kind: str, image: NDArray[Any], origin: tuple[float, float], obj: NDArray[Any],
    roi: tuple[int, int, int, int],
) -> tuple[float, float]:  # fmt: skip
    """The better correlation with the truth, of amplitude and phase where each has structure, and FRC50."""
    if kind == "twin":
        return 1.0, 1.0
    try:
        judged = evaluate(image, obj, roi, origin_xy=origin)
    except InputError:
        return 0.0, 0.0
    reference = judged.aligned.reference
    contrast = (
        np.std(np.abs(reference)) / np.abs(reference).mean(),
        np.std(np.angle(reference / reference.mean())),
    )
    values = [
        v for v, c in zip((judged.amplitude_pearson, judged.phase_pearson), contrast, strict=True) if c > 0.02
    ]
    # the stronger of the two tells whether the object is there; noise drowns the weaker first
    return float(max(values)) if values else math.nan, judged.frc50


def main() -> None:
    """Judge the cases that the command line asks for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(asked.first, asked.first + asked.n):
            case = run_case(number, Path(folder))
            cases.append(case)
            print(f"{number:4d} {case.kind:20s} pearson {case.pearson:5.2f} frc {case.frc50:.2f}"
                  f" R {case.r:.4f} {case.word}: {case.reason}",
                  flush=True)  # fmt: skip
    if asked.json is not None:
        asked.json.write_text(json.dumps([case._asdict() for case in cases], indent=1))
    table = Counter((case.is_right, case.level) for case in cases)
    names = {True: "right", False: "wrong", None: "between"}
    print(f"{'truth':10s}" + "".join(f"{level:>8s}" for level in ("good", "doubt", "bad", "none")))
    for truth, name in names.items():
        print(
            f"{name:10s}" + "".join(f"{table[truth, level]:8d}" for level in ("good", "doubt", "bad", "none"))
        )


if __name__ == "__main__":
    main()
