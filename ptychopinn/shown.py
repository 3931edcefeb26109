"""What the six calls give: a scan, an image, a model; each says what it is, and draws itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.scan.raw_data import RawData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ptycho.workflows.train import TrainingResult


@dataclass(frozen=True, repr=False)
class Scan:
    """One measurement. raw: patterns, positions, probe, geometry; truth: the object (H, W), if it is known.

    path: the file it came from.
    """

    raw: RawData
    truth: NDArray[np.complex64] | None = None
    path: Path | None = None

    def plot(self) -> Figure:
        """Counts at their places, mean pattern and probe guess as a matplotlib Figure."""
        from ptycho.report.showing import draw_scan

        return draw_scan(self.raw)

    def save(self, path: str | Path) -> Path:
        """Write the scan as NPZ for the command line; an existing file is refused (InputError)."""
        from ptycho.io.npz import write_npz
        from ptycho.io.targets import check_target

        target = check_target(Path(path), inputs=(), overwrite=False)
        raw = self.raw
        arrays: dict[str, Any] = {
            "diff3d": np.asarray(raw.diff3d),
            "xcoords": raw.xcoords,
            "ycoords": raw.ycoords,
            "probeGuess": raw.probeGuess,
            "bad_pixels": raw.bad_pixels,
            "object_true": self.truth,
        }
        write_npz(target, {name: value for name, value in arrays.items() if value is not None})
        return target

    def __repr__(self) -> str:
        raw, size = self.raw, self.raw.object_pixel_size_m
        metres = "pixel size unknown" if size is None else f"object pixel {size * 1e9:.3g} nm"
        return f"<Scan of {raw.n_positions} patterns of {raw.N} x {raw.N}, {metres}>"

    def _repr_html_(self) -> str:
        from ptycho.report.showing import scan_html

        return scan_html(self.raw)


@dataclass(frozen=True, repr=False)
class Image:
    """A reconstruction. object (H, W) complex64, its [0, 0] at object pixel origin_xy [x, y]; coverage
    (H, W); probe (P, N, N) complex64; positions_px (M, 2); r_factor: misfit of the image to the patterns;
    pixel_size_m: side of an object pixel, None where it is not known. result: all that the workflow gave.
    """

    object: NDArray[np.complex64]
    coverage: NDArray[np.float32]
    origin_xy: tuple[float, float]
    probe: NDArray[np.complex64]
    positions_px: NDArray[np.float64]
    r_factor: float | None
    pixel_size_m: float | None
    result: Any

    def plot(self) -> Figure:
        """Amplitude, phase and both as one colour as a matplotlib Figure."""
        from ptycho.report.drawing import draw_reconstruction

        return draw_reconstruction(self.object, coverage=self.coverage, pixel_size_m=self.pixel_size_m)

    def save(self, folder: str | Path) -> Path:
        """Write `reconstruction.npz`, pictures and `metrics.json` into a folder, and return it."""
        from ptycho.report.outputs import save_outputs

        named = {
            "object": self.object, "coverage": self.coverage, "origin_xy": np.asarray(self.origin_xy),
            "probe": self.probe, "positions_px": self.positions_px, "r_factor": self.r_factor,
            "object_pixel_size_m": self.pixel_size_m,
        }  # fmt: skip
        save_outputs(np.abs(self.object), np.angle(self.object), named, folder)
        return Path(folder)

    def _numbers(self) -> dict[str, str]:
        return {} if self.r_factor is None else {"R": f"{self.r_factor:.4f}"}

    def __repr__(self) -> str:
        height, width = self.object.shape
        size = self.pixel_size_m
        metres = "" if size is None else f", {width * size * 1e6:.3g} x {height * size * 1e6:.3g} um"
        numbers = "".join(f", {name} {value}" for name, value in self._numbers().items())
        return f"<Image of {width} x {height} px{metres}{numbers}>"

    def _repr_html_(self) -> str:
        from ptycho.report.showing import image_html

        return image_html(
            self.object, self.coverage, pixel_size_m=self.pixel_size_m, numbers=self._numbers(), name="Image"
        )


@dataclass(frozen=True, repr=False)
class Model:
    """A trained network. result: model, history and settings, see `ptycho.workflows.train`."""

    result: TrainingResult

    @property
    def history(self) -> dict[str, list[float]]:
        """Losses and other numbers of every epoch, by name."""
        return self.result.history

    def plot(self) -> Figure:
        """The losses as a matplotlib Figure."""
        return self.result.plot()

    def save(self, folder: str | Path) -> Path:
        """Write `wts.h5.zip` into a folder; `ptycho infer --model FOLDER` and `infer` read it."""
        from ptycho.workflows.trained import save_trained

        Path(folder).mkdir(parents=True, exist_ok=True)
        return save_trained(self.result.model, Path(folder))

    def __repr__(self) -> str:
        config, losses = (
            self.result.config,
            self.history.get("val_loss") or self.history.get("train_loss", []),
        )
        last = f", loss {losses[-1]:.4g} after {len(losses)} epochs" if losses else ""
        return f"<Model {config.model.architecture} of {config.model.N} x {config.model.N} patterns{last}>"

    def _repr_html_(self) -> str:
        return self.result._repr_html_()
