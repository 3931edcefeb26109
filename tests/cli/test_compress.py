"""`ptycho compress`: what it prints and refuses, and that commands open what it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.cli.main import main
from ptycho.scan.raw_data import RawData


@pytest.fixture
def scan(make_scan, tmp_path: Path) -> Path:
    """A tiny scan of counts as NPZ."""
    make_scan(n_positions=40, photons=2e4).to_file(tmp_path / "scan.npz")
    return tmp_path / "scan.npz"


def test_bits_ratio_and_loss_are_printed_and_the_file_opens(scan: Path, tmp_path: Path, capsys):
    out = tmp_path / "small.h5"
    assert main(["compress", str(scan), "-o", str(out), "--method", "poisson", "--step", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "bits each, 1/" in said and "of the Poisson noise" in said and "below 0.5 everywhere" in said
    assert main(["validate", str(out)]) == 0
    assert out.stat().st_size < scan.stat().st_size / 2


def test_import_reads_it_and_says_what_it_is(scan: Path, tmp_path: Path, capsys):
    out = tmp_path / "small.h5"
    assert main(["compress", str(scan), "-o", str(out), "--method", "lossless"]) == 0
    assert main(["import", str(out), "-o", str(tmp_path / "again.h5")]) == 0
    assert "compressed scan" in capsys.readouterr().out
    np.testing.assert_array_equal(
        RawData.from_file(tmp_path / "again.h5").diff3d, RawData.from_file(scan).diff3d
    )


@pytest.mark.parametrize(
    "words, said",
    [
        (["--method", "lossless", "--step", "1"], "--step does not go with --method lossless"),
        (["--method", "poisson", "--no-residual"], "--residual does not go with --method poisson"),
        (["--method", "poisson", "--rank", "3"], "--rank does not go with --method poisson"),
        (["--method", "poisson", "--step", "0"], "must lie between 0.01 and 100"),
        (["--method", "lowrank", "--rank", "0"], "rank = 0"),
        (["--method", "lowrank", "--no-residual", "--step", "1"], "leave one of them out"),
        (["--method", "learned", "--weights", "nothing.safetensors"], "nothing.safetensors: no such file"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(scan, tmp_path, capsys, words, said):
    out = tmp_path / "small.h5"
    assert main(["compress", str(scan), "-o", str(out), *words]) == 2
    assert said in capsys.readouterr().err and not out.exists()


def test_nothing_is_written_over_what_is_read_or_unasked(scan: Path, tmp_path: Path, capsys):
    assert main(["compress", str(scan), "-o", str(scan)]) == 2
    out = tmp_path / "small.h5"
    assert main(["compress", str(scan), "-o", str(out), "--method", "poisson"]) == 0
    assert main(["compress", str(scan), "-o", str(out), "--method", "poisson"]) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert main(["compress", str(out), "-o", str(out), "--overwrite", "--method", "poisson"]) == 2


def test_a_scan_without_a_probe_stays_one(make_scan, tmp_path: Path):
    arrays = make_scan(n_positions=40).as_arrays()
    kept = ("xcoords", "ycoords", "diff3d")
    np.savez(tmp_path / "bare.npz", **{name: arrays[name] for name in kept})
    out = tmp_path / "small.h5"
    assert main(["compress", str(tmp_path / "bare.npz"), "-o", str(out), "--method", "poisson"]) == 0
    assert RawData.from_file(out, make_probe=True).probe_made
    with pytest.raises(ValueError, match="has no probe"):
        RawData.from_file(out)
