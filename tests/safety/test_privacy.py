"""What is passed on tells nothing of the machine: no folder in it, the same bytes wherever it was made."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from programs import SMALL, small_scan

from ptycho.cli.main import main


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same commands in two folders."""
    folders = (tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("another_of_some_length"))
    here = os.getcwd()
    scan = small_scan()
    scan |= {"energy_eV": 8000.0, "distance_m": 2.0, "detector_pixel_size_m": 75e-6}
    try:
        for folder in folders:
            os.chdir(folder)
            np.savez("scan.npz", **scan)
            place = str(folder / "scan.npz")
            for words in (
                ["train", place, "-o", str(folder / "run"), "--nepochs", "1", *SMALL],
                ["infer", "--model", "run", "--data", place, "-o", "image", "--product", "image/out.h5",
                 "--write", "cxi,ptyr,product"],
                ["reconstruct", place, "-o", "made", "--sweeps", "1", "--write", "cxi,ptyr,product"],
                ["import", place, "-o", "imported.h5"],
            ):  # fmt: skip
                assert main([*words, "--quiet"]) == 0, words
    finally:
        os.chdir(here)
    return folders


SAME = (
    "run/wts.h5.zip", "image/reconstruction.npz", "image/reconstruction.cxi", "image/reconstruction.ptyr",
    "image/product.h5", "image/out.h5", "made/reconstruction.npz", "made/reconstruction.cxi",
    "made/product.h5", "imported.h5",
)  # fmt: skip
#: these hold how long things took, and so differ from run to run
TIMED = ("run/checkpoints/last.ckpt", "run/checkpoints/start.npz", "made/refine.safetensors")


@pytest.mark.parametrize("name", SAME)
def test_the_same_bytes_in_two_folders(name: str, two: tuple[Path, Path]) -> None:
    one, other = (folder / name for folder in two)
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", [*SAME, *TIMED])
def test_no_folder_is_named(name: str, two: tuple[Path, Path]) -> None:
    path = two[0] / name
    whole = [path.read_bytes()]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            whole += [archive.read(member) for member in archive.namelist()]
    for data in whole:
        assert os.fsencode(two[0]) not in data and b"/home/" not in data


def test_best_checkpoints_name_no_folder_and_go_on_elsewhere(two: tuple[Path, Path], tmp_path: Path) -> None:
    import shutil

    best = list((two[0] / "run/checkpoints").glob("best-*.ckpt"))
    assert best and all(os.fsencode(two[0]) not in path.read_bytes() for path in best)
    moved = tmp_path / "moved"
    shutil.copytree(two[0] / "run", moved)
    assert main(["train", "--resume", str(moved), "--nepochs", "2", "--quiet"]) == 0
    assert {path.name for path in (moved / "checkpoints").glob("best-*.ckpt")} != set()


@pytest.mark.onnx
def test_onnx(two: tuple[Path, Path]) -> None:
    made = []
    for folder in two:
        target = folder / "model.onnx"
        assert main(["export", str(folder / "run"), "-o", str(target), "--quiet"]) == 0
        made.append(target.read_bytes())
    assert made[0] == made[1] and os.fsencode(two[0]) not in made[0]
