"""`ptycho compare`: two images of any kind, free parts removed, numbers and a figure or a clear refusal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ptycho.cli.main import main
from ptycho.evaluation.judge import evaluate
from ptycho.image.registration import apply_shift_fourier

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def truth() -> np.ndarray:
    """A smooth complex object, (96, 110)."""
    rng = np.random.default_rng(5)
    k = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(110)[None, :])
    images = [
        np.fft.ifft2(np.fft.fft2(rng.standard_normal((96, 110))) * np.exp(-((k * 9) ** 2))).real for _ in "ab"
    ]
    amplitude, phase = (image / np.abs(image).max() for image in images)
    return np.asarray((0.8 + 0.2 * amplitude) * np.exp(1j * phase))


def save(path: Path, obj: np.ndarray, origin: tuple[float, float] | None = None, key: str = "object") -> Path:
    arrays = {key: obj.astype(np.complex64)}
    if origin is not None:
        arrays |= {"origin_xy": np.array(origin), "coverage": np.ones(obj.shape, np.float32)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def save_h5(path: Path, obj: np.ndarray, centre_px: tuple[float, float], pixel_m: float = 1e-8) -> Path:
    """A product as ptychodus writes it, its centre given in pixels of a common frame."""
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_dataset("object", data=obj[None].astype(np.complex64))
        data.attrs.update(pixel_width_m=pixel_m, pixel_height_m=pixel_m)
        data.attrs.update(center_x_m=centre_px[0] * pixel_m, center_y_m=centre_px[1] * pixel_m)
        file.create_dataset("probe", data=np.ones((1, 1, 16, 16), np.complex64))
        for name, value in {"detector_object_distance_m": 1.0, "photon_energy_eV": 8e3}.items():
            file.attrs[name] = value
        for axis in "xy":
            file.create_dataset(f"probe_position_{axis}_m", data=np.zeros(1))
        file.create_dataset("probe_position_indexes", data=np.zeros(1, np.int64))
    return path


def numbers(*words: object, folder: Path) -> dict[str, float]:
    out = folder / "numbers.json"
    assert main(["compare", *map(str, words), "--json", str(out)]) == 0
    return dict(json.loads(out.read_text()))


def test_gauge_shape_and_origin_do_not_count(tmp_path: Path, truth: np.ndarray, capsys: Capture) -> None:
    y, x = np.mgrid[:80, :90]
    other = 3j * truth[6:86, 10:100] * np.exp(2j * np.pi * (0.01 * x - 0.02 * y))
    a, b = save(tmp_path / "a.npz", other, (10, 6)), save(tmp_path / "b.npz", truth, (0, 0))
    judged = numbers(a, b, folder=tmp_path)
    # A hundredth: the judge's alignment looks past the edge of the smaller image.
    assert judged["nrmse"] < 0.015 and judged["frc50"] == 1.0 and judged["phase_ssim"] > 0.97
    shown = capsys.readouterr()
    for word in (
        "cNRMSE",
        "FRC50",
        "amp PSNR",
        "amp SSIM",
        "amp MS-SSIM",
        "ph. MS-SSIM",
        "removed",
        "judged",
    ):
        assert word in shown.out
    assert shown.err == ""


def test_the_numbers_are_the_judge_s(tmp_path: Path, truth: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    noisy = truth + 0.05 * (rng.standard_normal(truth.shape) + 1j * rng.standard_normal(truth.shape))
    a, b = save(tmp_path / "a.npz", noisy), save(tmp_path / "b.npz", truth)
    judged = numbers(a, b, folder=tmp_path)
    want = evaluate(noisy.astype(np.complex64), truth.astype(np.complex64)).as_dict()
    for name in ("nrmse", "amplitude_psnr", "phase_ms_ssim", "frc50", "frc_half_bit"):
        assert judged[name] == pytest.approx(want[name], rel=1e-6), name


def test_run_folder_scan_and_product_in_any_pair(tmp_path: Path, truth: np.ndarray) -> None:
    save(tmp_path / "run" / "reconstruction.npz", truth, (3, 4))
    scan = save(tmp_path / "scan.npz", np.pad(truth, ((4, 8), (3, 9)), mode="edge"), key="objectGuess")
    product = save_h5(tmp_path / "product.h5", truth, (54.5, 47.5))
    things = (tmp_path / "run", scan, product)
    for first in things:
        for second in things:
            assert numbers(first, second, folder=tmp_path)["nrmse"] < 0.02, (first, second)


def test_hdf5_products_are_laid_by_their_centres(tmp_path: Path, truth: np.ndarray, capsys: Capture) -> None:
    # The cut's centre in the frame of the whole: pixel i of W lies at i - (W - 1) / 2 from the centre.
    whole = save_h5(tmp_path / "whole.h5", truth, (0.0, 0.0))
    cut = save_h5(tmp_path / "cut.h5", truth[30:90, 40:110], (40 + 34.5 - 54.5, 30 + 29.5 - 47.5))
    judged = numbers(cut, whole, folder=tmp_path)
    assert judged["nrmse"] < 0.015 and judged["shift_px"] == pytest.approx([0, 0], abs=0.02)
    assert judged["frc50_m"] == pytest.approx(1e-8)
    assert capsys.readouterr().err == ""


def test_a_shift_is_found_and_told(tmp_path: Path, truth: np.ndarray, capsys: Capture) -> None:
    moved = apply_shift_fourier(np.tile(truth, (1, 1)), (1.25, -2.5))
    a, b = save(tmp_path / "a.npz", moved, (0, 0)), save(tmp_path / "b.npz", truth, (0, 0))
    assert main(["compare", str(a), str(b)]) == 0
    assert "shift x -2.50 y +1.25 px" in capsys.readouterr().out


def test_what_neither_covers_is_not_judged(tmp_path: Path, truth: np.ndarray) -> None:
    half = truth.copy()
    half[:, :30] = np.nan
    seen = np.isfinite(half).astype(np.float32)
    for name, obj, coverage in (("a", half, seen), ("b", truth, np.ones_like(seen))):
        np.savez(tmp_path / f"{name}.npz", object=obj, coverage=coverage, origin_xy=np.zeros(2))
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    for first, second in ((a, b), (b, a)):
        judged = numbers(first, second, folder=tmp_path)
        assert judged["nrmse"] < 1e-3 and judged["roi"][2] >= 30  # type: ignore[index]


def test_an_unknown_place_is_told(tmp_path: Path, truth: np.ndarray, capsys: Capture) -> None:
    a, b = save(tmp_path / "a.npz", truth[8:-8, 8:-8]), save(tmp_path / "b.npz", truth, (0, 0))
    assert main(["compare", str(a), str(b)]) == 0
    assert "laid centre on centre" in capsys.readouterr().err


def test_the_figure_is_drawn(tmp_path: Path, truth: np.ndarray) -> None:
    from PIL import Image

    a, b = save(tmp_path / "a$x$.npz", truth * 2), save(tmp_path / "b.npz", truth)
    out = tmp_path / "deep" / "difference.png"
    assert main(["compare", str(a), str(b), "-o", str(out)]) == 0
    picture = np.asarray(Image.open(out).convert("L"), np.float64)
    assert min(picture.shape) > 600 and picture.std() > 20


@pytest.mark.parametrize(
    "words, message",
    [
        (("a.npz", "nowhere.npz"), "nowhere.npz does not exist"),
        (("a.npz", "empty"), "empty holds no reconstruction.npz"),
        (("a.npz", "notes.txt"), "holds no image that is known"),
        (("a.npz", "scan.npz"), "none of object, object_true, objectGuess"),
        (("a.npz", "text.h5"), "not an HDF5 file"),
        (("a.npz", "none.h5"), "is no product of ptychodus"),
        (("fine.h5", "coarse.h5"), "resample one of them"),
        (("a.npz", "stack.h5"), "has 3 layers"),
        (("a.npz", "far.npz"), "does not overlap"),
        (("a.npz", "b.npz", "-o", "picture.jpg"), "must end in .png"),
        (("a.npz", "b.npz", "--pixel_size_m", "-1"), "must be a number > 0"),
    ],
)
def test_refusals_are_one_line(
    tmp_path: Path, truth: np.ndarray, capsys: Capture, monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...], message: str,
) -> None:  # fmt: skip
    import h5py

    monkeypatch.chdir(tmp_path)
    for name, origin in (("a", (0, 0)), ("b", (0, 0)), ("far", (5000, 0))):
        save(tmp_path / f"{name}.npz", truth, origin)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "text.h5").write_text("x")
    np.savez(tmp_path / "scan.npz", xcoords=np.zeros(3))
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["other"] = 1
    save_h5(tmp_path / "fine.h5", truth, (0, 0))
    save_h5(tmp_path / "coarse.h5", truth, (0, 0), pixel_m=1.2e-8)
    save_h5(tmp_path / "stack.h5", truth, (0, 0))
    with h5py.File(tmp_path / "stack.h5", "a") as file:
        attributes = dict(file["object"].attrs)
        del file["object"]
        file.create_dataset("object", data=np.stack([truth] * 3)).attrs.update(attributes)
        file["object_layer_spacing_m"] = np.ones(2)
    assert main(["compare", *words]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.strip().count("\n") == 0
