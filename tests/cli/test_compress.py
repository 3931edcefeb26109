"""`ptycho compress`: what it prints and refuses, and that commands open what it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.cli.main import main
from ptycho.io.companions import read_companions
from ptycho.report.products import find_truth, open_product
from ptycho.scan.raw_data import RawData
from ptycho.simulation.scenario import Scenario, read_truth, simulate


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


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated scan with its truth, two frames marked as bad, labels and a key that nothing reads."""
    made = simulate(Scenario(N=32, n_positions=49, step_px=3.0))
    path = tmp_path_factory.mktemp("marked") / "scan.npz"
    made.to_npz(path)
    marks = np.zeros(49, bool)
    marks[[4, 30]] = True
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays, bad_frames=marks, Y=np.ones((49, 32, 32), np.complex64), colour=np.arange(3))
    return path


def test_truth_and_marks_are_kept_and_the_rest_is_named(marked: Path, tmp_path: Path, capsys):
    out = tmp_path / "small.h5"
    assert main(["compress", str(marked), "-o", str(out), "--method", "lossless"]) == 0
    assert "not kept: Y (the labels), colour" in capsys.readouterr().err
    made, before = RawData.from_file(out), RawData.from_file(marked)
    assert np.flatnonzero(made.bad_frames).tolist() == [4, 30]
    np.testing.assert_array_equal(made.objectGuess, before.objectGuess)
    kept, known = read_companions(out), read_companions(marked)
    for name in ("object_true", "probe_true", "roi", "scenario"):
        np.testing.assert_array_equal(kept[name], known[name])
    for a, b in zip(read_truth(out), read_truth(marked), strict=True):
        np.testing.assert_array_equal(a, b)
    truth, of_npz = find_truth(out), find_truth(marked)
    assert truth is not None and of_npz is not None and truth.roi == of_npz.roi
    np.testing.assert_array_equal(truth.object, of_npz.object)
    assert open_product(out).key == "object_true"


def test_a_compressed_scan_is_judged_against_its_truth(marked: Path, tmp_path: Path, capsys):
    out = tmp_path / "small.h5"
    assert main(["compress", str(marked), "-o", str(out), "--method", "poisson"]) == 0
    capsys.readouterr()
    assert main(["reconstruct", str(out), "-o", str(tmp_path / "image"), "--sweeps", "3"]) == 0
    assert "cNRMSE" in capsys.readouterr().out
    assert main(["compress", str(out), "-o", str(tmp_path / "again.h5"), "--method", "lossless"]) == 0
    assert read_companions(tmp_path / "again.h5").keys() == read_companions(out).keys()


def test_marks_pass_through_every_command_that_writes_a_scan(marked: Path, tmp_path: Path, capsys):
    assert main(["import", str(marked), "-o", str(tmp_path / "a.h5")]) == 0
    assert "2 of 49 frames are marked as bad in the source" in capsys.readouterr().out
    assert (
        main(["compress", str(tmp_path / "a.h5"), "-o", str(tmp_path / "b.h5"), "--method", "lossless"]) == 0
    )
    assert main(["import", str(tmp_path / "b.h5"), "-o", str(tmp_path / "c.h5")]) == 0
    capsys.readouterr()
    for name in "abc":
        marks = RawData.from_file(tmp_path / f"{name}.h5", make_probe=True).bad_frames
        assert np.flatnonzero(marks).tolist() == [4, 30], name
    assert main(["validate", str(tmp_path / "c.h5")]) == 0
    assert "2 of 49 frames are marked as bad in the file" in " ".join(capsys.readouterr().out.split())
