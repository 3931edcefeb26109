"""A run from patterns on disk equals one from memory to the bit, in both backends."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from both_backends import settings, silent

from ptycho.errors import ConfigError
from ptycho.io.lazy import LazyPatterns
from ptycho.run.preparation import ensure_container
from ptycho.scan.pattern_store import keep_patterns
from ptycho.scan.raw_data import RawData
from ptycho.workflows import backend_selector

NUMBERS = ("object", "coverage", "r_per_pattern", "probe")


@pytest.fixture
def scan_file(scan_arrays, tmp_path) -> Path:
    """A scan of counts as ptychodus exports it, compressed."""
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as archive:
        archive.create_dataset("patterns", data=scan_arrays["diff3d"], chunks=(4, 32, 32), compression="lzf")
        archive["probe_position_x_px"] = scan_arrays["xcoords"]
        archive["probe_position_y_px"] = scan_arrays["ycoords"]
        archive["probe"], archive["object"] = scan_arrays["probeGuess"], scan_arrays["objectGuess"]
        archive["bad_pixels"] = np.zeros((32, 32), bool)
    return path


def whole_run(side, path: Path, mode: str, test: Path | None = None, **changes) -> dict:
    """Train with validation, stitch with patches kept, infer, judge: from one file in one mode."""
    execution = silent(patterns=mode)
    raw = RawData.from_file(path, patterns=mode)
    judged = None if test is None else RawData.from_file(test, patterns=mode)
    config = settings(raw, backend=side.name, nepochs=2, seed=3, **changes)
    _, _, results = backend_selector.run_cdi_example_with_backend(
        raw, judged, config, do_stitching=True, execution_config=execution
    )
    model = results["models"]["autoencoder"]
    _, _, inferred = backend_selector.infer_scan_with_backend(model, raw, execution_config=execution)
    on_disk = isinstance(results["train_container"].patterns, np.memmap)
    assert on_disk == (mode == "disk") == isinstance(raw.diff3d, LazyPatterns)
    assert isinstance(results["obj_tensor_full"], np.memmap) == on_disk
    return {**results, "inferred": inferred}


def assert_same_bits(one: dict, other: dict) -> None:
    assert one["history"].keys() == other["history"].keys()
    for name in one["history"]:
        np.testing.assert_array_equal(one["history"][name], other["history"][name], err_msg=name)
    assert len(one["history"]["val_loss"]) == 2
    for name in ("object", "coverage", "obj_tensor_full"):
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    for name in NUMBERS:
        np.testing.assert_array_equal(one["inferred"][name], other["inferred"][name], err_msg=name)
    assert one["inferred"]["r_factor"] == other["inferred"]["r_factor"]


@pytest.mark.parametrize("gridsize", [1, 2])
def test_a_whole_run_from_disk_equals_one_from_memory(side, scan_file, gridsize):
    """Held-out groups of the training scan validate; the probe is refined first at gridsize 1."""
    changes = {"gridsize": gridsize, "region_ratio": 0.5}
    if gridsize == 1:
        changes |= {"probe_from": "refine", "probe_refine_sweeps": 2}
    made = [whole_run(side, scan_file, mode, **changes) for mode in ("memory", "disk")]
    assert_same_bits(*made)


def test_validation_on_a_second_scan_and_labels(side, scan_file):
    made = [
        whole_run(side, scan_file, mode, test=scan_file, model_type="supervised", n_subsample=20)
        for mode in ("memory", "disk")
    ]
    assert_same_bits(*made)
    assert all(isinstance(made[1][f"{name}_container"].patterns, np.memmap) for name in ("train", "test"))


def test_several_loading_workers_read_the_same_patterns(side, scan_file):
    """Workers are processes in PyTorch, which inherit the map, and threads in TensorFlow."""
    raw = RawData.from_file(scan_file)
    losses = []
    for workers in (0, 2):
        execution = silent(patterns="disk", num_workers=workers)
        config = settings(raw, backend=side.name, nepochs=1)
        made = backend_selector.train_cdi_model_with_backend(raw, None, config, execution_config=execution)
        losses.append(made["history"]["val_loss"])
    assert losses[0] == losses[1]


def test_the_scratch_file_is_in_the_output_folder_and_has_no_name(scan_file, tmp_path):
    raw = RawData.from_file(scan_file)
    folder = tmp_path / "out"
    folder.mkdir()
    container = ensure_container(keep_patterns(raw, silent(patterns="disk"), folder), settings(raw))
    maps = Path("/proc/self/maps")
    if maps.exists():
        named = [line for line in maps.read_text().splitlines() if str(folder) in line]
        assert len(named) == 1 and named[0].endswith("(deleted)")
    assert list(folder.iterdir()) == [] and container.patterns.shape == (30, 32, 32)


def test_the_iterative_engine_reads_rows_too(scan_file):
    from ptycho_torch.refine import reconstruct

    made = [reconstruct(RawData.from_file(scan_file, patterns=p), epochs=2) for p in ("memory", "disk")]
    for name in ("object", "probe", "r_map"):
        np.testing.assert_array_equal(getattr(made[0], name), getattr(made[1], name), err_msg=name)


def test_processes_that_cannot_inherit_the_map_are_refused():
    with pytest.raises(ConfigError, match=r"strategy = 'ddp_spawn'.*patterns = 'disk'"):
        silent(patterns="disk", strategy="ddp_spawn")
    with pytest.raises(ConfigError, match="patterns = 'tape'"):
        silent(patterns="tape")
