"""Bits a frame against the image: every method of `ptycho compress`, a table and a plot.

    OMP_NUM_THREADS=1 python benchmarks/codec.py [--photons 1e3 1e5 1e7] [--positions 225] [--star]
        [--only WORD] [--out FOLDER] [--seed 77]

The scan is two photographs under a zone plate with a wrong probe guess, N = 64, an object that the learned
codec was not trained on. Each file is opened and reconstructed by the default engine; R is that of the
image against the ORIGINAL frames, cNRMSE against the truth. Files that decode to the same counts share one
reconstruction. --star: the measured star of ../shared instead, R only. --only: rows whose name has this word.
Rows are added to those that OUT/codec.json has, and the plot shows all of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import describe
from benchmarks.scans import siemens_star
from ptycho.evaluation import evaluate
from ptycho.evaluation.rfactor import r_factor
from ptycho.io.compressed.file import read_header
from ptycho.scan.raw_data import RawData
from ptycho.simulation import Scenario, Simulated, simulate
from ptycho.workflows.compress import compress_scan
from ptycho_torch.refine import reconstruct

#: name of a row: method and what it is told
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "lossless": ("lossless", {}),
    "poisson, step 0.5": ("poisson", {"step": 0.5}),
    "poisson, step 1": ("poisson", {"step": 1.0}),
    "poisson, step 1.5": ("poisson", {"step": 1.5}),
    "poisson, step 2": ("poisson", {"step": 2.0}),
    "poisson, step 4": ("poisson", {"step": 4.0}),
    "object + residual, step 1": ("object", {"step": 1.0}),
    "object + residual, step 1.5": ("object", {"step": 1.5}),
    "object + residual, step 2": ("object", {"step": 2.0}),
    "low rank 32 + residual, step 1": ("lowrank", {"step": 1.0}),
    "learned + residual, step 1": ("learned", {"step": 1.0}),
    "low rank 32 alone": ("lowrank", {"residual": False}),
    "learned alone": ("learned", {"residual": False}),
    "object alone": ("object", {"residual": False}),
}
FEWER = (
    "lossless", "poisson, step 1", "object + residual, step 1", "learned + residual, step 1",
    "low rank 32 alone", "learned alone", "object alone",
)  # fmt: skip
_HEAD = (
    "| method | bits a frame | ratio | lost, sigma rms | R | cNRMSE | CPU s to write | to read |\n"
    "|---|---|---|---|---|---|---|---|"
)


@dataclass
class Row:
    """One line of a table."""

    name: str
    bits: float
    ratio: float
    lost: float
    r: float
    nrmse: float | None
    write_s: float
    read_s: float

    def line(self) -> str:
        """The line in Markdown."""
        nrmse = "" if self.nrmse is None else f"{self.nrmse:.4f}"
        return (
            f"| {self.name} | {self.bits:,.0f} | {self.ratio:.1f} | {self.lost:.3f} | {self.r:.4f} | "
            f"{nrmse} | {self.write_s:.2f} | {self.read_s:.2f} |"
        )


class Judge:
    """Reconstructs decoded scans, each set of counts once, and judges the image by the original scan."""

    def __init__(self, raw: RawData, truth: Simulated | None, seed: int) -> None:
        self.raw, self.truth, self.seed = raw, truth, seed
        self._known: dict[str, tuple[float, float | None]] = {}

    def __call__(self, decoded: RawData) -> tuple[float, float | None]:
        """(R, cNRMSE) of the image of these frames."""
        amplitude = decoded.amplitude_by_rows()[:]
        key = hashlib.sha256(np.ascontiguousarray(amplitude).tobytes()).hexdigest()
        if key not in self._known:
            made = reconstruct(decoded, seed=self.seed)
            r = r_factor(
                made.object, made.probe, self.raw.xcoords, self.raw.ycoords, self.raw.diff3d, made.origin_xy,
                self.raw.bad_pixels, unit=self.raw.diffraction_unit,
            ).whole  # fmt: skip
            nrmse = None
            if self.truth is not None:
                nrmse = evaluate(
                    made.object, self.truth.object_true, self.truth.roi, origin_xy=made.origin_xy,
                    coverage=made.coverage,
                ).nrmse  # fmt: skip
            self._known[key] = (r, nrmse)
        return self._known[key]


def imported_bits(raw: RawData) -> float:
    """Bits of a frame as `ptycho import` writes it: Bitshuffle and LZ4, frame by frame."""
    import h5py
    import hdf5plugin

    with tempfile.TemporaryDirectory() as folder, h5py.File(Path(folder) / "a.h5", "w") as archive:
        made = archive.create_dataset(
            "data",
            data=np.asarray(raw.diff3d),
            chunks=(1, raw.N, raw.N),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        archive.flush()
        return 8 * made.id.get_storage_size() / raw.n_positions


def rows(raw: RawData, names: tuple[str, ...], judge: Judge, seed: int) -> list[Row]:
    """A table, printed as it grows."""
    made = []
    print(f"as `ptycho import` writes it (Bitshuffle, LZ4): {imported_bits(raw):,.0f} bits a frame\n")
    print(_HEAD, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            method, options = ROWS[name]
            path = Path(folder) / "scan.h5"
            begun = time.process_time()
            compress_scan(raw, path, method, seed=seed, **options)
            written = time.process_time()
            decoded = RawData.from_file(path, patterns="memory")
            read = time.process_time()
            header = read_header(path)
            r, nrmse = judge(decoded)
            made.append(
                Row(
                    name, header.bits_per_frame, header.ratio, header.error_rms, r, nrmse, written - begun,
                    read - written,
                )
            )  # fmt: skip
            print(made[-1].line(), flush=True)
    return made


def plot(tables: dict[str, list[Row]], path: Path) -> None:
    """Bits a frame against cNRMSE and R, one panel a dose."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    from ptycho.report.style import COLOURS, new_figure, plain, save

    families = ("lossless", "poisson", "object + residual", "low rank 32", "learned", "object alone")
    marks = dict(zip(families, "so^vDP", strict=True))
    figure = new_figure(10.5, 6.2)
    axes = figure.subplots(2, len(tables), squeeze=False)
    for column, (title, table) in enumerate(tables.items()):
        for axis, value, label in zip(axes[:, column], ("nrmse", "r"), ("cNRMSE", "R"), strict=True):
            plain(axis, "bits a frame", label if column == 0 else "")
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda bits, _: f"{bits:,.0f}"))
            axis.xaxis.set_minor_formatter(NullFormatter())
            for family, colour in zip(families, COLOURS, strict=True):
                found = [row for row in table if row.name.startswith(family)]
                for filled in (True, False):
                    some = [row for row in found if row.name.endswith("alone") is not filled]
                    line = "-" if family in ("poisson", "object + residual") else ""
                    named = family if filled == (family != "object alone") else None
                    axis.plot(
                        [row.bits for row in some], [getattr(row, value) for row in some],
                        marks[family] + line, color=colour, mfc=colour if filled else "white", ms=6, lw=1.0,
                        label=named,
                    )  # fmt: skip
            if axis is axes[0, column]:
                axis.set_title(title.split(",")[0], fontsize=10, loc="left")
    axes[0, 0].legend(frameon=False, fontsize=8, title="open: no counts are kept", title_fontsize=8)
    save(figure, path)


def main() -> None:
    """Print the tables, draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photons", type=float, nargs="+", default=[1e3, 1e5, 1e7])
    parser.add_argument("--positions", type=int, default=225)
    parser.add_argument("--star", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--out", type=Path, default=Path("benchmark_out"))
    parser.add_argument("--seed", type=int, default=77)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(describe(options.seed))
    if options.star:
        raw = siemens_star()
        print(f"\nmeasured star, {raw.n_positions} patterns of {raw.N} x {raw.N}\n")
        rows(raw, tuple(name for name in FEWER if options.only in name), Judge(raw, None, 0), 0)
        return
    for photons in options.photons:
        made = simulate(Scenario(n_positions=options.positions, photons=photons, seed=options.seed))
        title = f"{photons:.0e} photons a frame, {options.positions} patterns of 64 x 64"
        print(f"\n{title}\n")
        found = rows(
            made.raw, tuple(name for name in ROWS if options.only in name), Judge(made.raw, made, 0), 0
        )
        tables = kept(options.out / "codec.json", title, found)
        plot(tables, options.out / "codec.png")


def kept(path: Path, title: str, found: list[Row]) -> dict[str, list[Row]]:
    """Every table so far, these rows among them, also on disk; in the order of ROWS."""
    text = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    tables = {name: {row["name"]: Row(**row) for row in rows} for name, rows in text.items()}
    tables.setdefault(title, {}).update({row.name: row for row in found})
    ordered = {
        name: [table[one] for one in ROWS if one in table]
        for name, table in sorted(tables.items(), key=lambda item: float(item[0].split()[0]))
    }
    plain = {name: [asdict(row) for row in table] for name, table in ordered.items()}
    path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    return ordered


if __name__ == "__main__":
    main()
