"""A run from patterns on disk equals one from memory to the bit, in both backends."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from both_backends import settings, silent

from ptycho.errors import ConfigError
from ptycho.io.lazy import LazyPatterns
from ptycho.run.preparation import ensure_container, plan_training
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.pattern_store import keep_patterns
from ptycho.scan.raw_data import RawData
from ptycho.workflows import backend_selector


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


def containers(path: Path, **changes) -> list[PtychoDataContainer]:
    """The container of one file from memory and from disk."""
    made = []
    for mode in ("memory", "disk"):
        raw = RawData.from_file(path, patterns=mode)
        made.append(ensure_container(raw, settings(raw, seed=3, **changes)))
        assert (
            isinstance(raw.diff3d, LazyPatterns)
            == (mode == "disk")
            == isinstance(made[-1].patterns, np.memmap)
        )
    return made


def arrays_of(side, batch) -> list[np.ndarray]:
    """Every array of a batch, by the order of its names."""
    values = batch.values() if isinstance(batch, dict) else batch
    return [np.asarray(value) for value in values if value is not None and not isinstance(value, bool)]


@pytest.mark.parametrize("changes", [{}, {"gridsize": 2}, {"model_type": "supervised", "n_subsample": 20}])
def test_a_batch_from_disk_has_the_bits_of_one_from_memory(side, scan_file, changes):
    """Patterns, places, masks, labels, of training and validation: the rest of a run sees only batches."""
    in_memory, on_disk = containers(scan_file, **changes)
    assert (in_memory.x_scale, in_memory.nphotons) == (on_disk.x_scale, on_disk.nphotons)
    config = settings(RawData.from_file(scan_file), seed=3, region_ratio=0.5, **changes)
    plans = [plan_training(one, None, config) for one in (in_memory, on_disk)]
    assert plans[0].label_scales == plans[1].label_scales
    scale = None if plans[0].label_scales is None else plans[0].label_scales[0]
    batches = [[*plan.epoch(0), *plan.validation] for plan in plans]
    for (groups, region), (same, also) in zip(*batches, strict=True):
        assert (groups == same).all()
        assert region == also
        pair = [arrays_of(side, side.batch(one, groups, region, scale)) for one in (in_memory, on_disk)]
        assert len(pair[0]) == len(pair[1]) >= 3
        for ours, theirs in zip(*pair, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def whole_run(side, path: Path, mode: str) -> dict:
    """Train with validation for an epoch, stitch with patches kept, judge: from one file in one mode."""
    raw = RawData.from_file(path, patterns=mode)
    config = settings(raw, backend=side.name, seed=3, gridsize=2, region_ratio=0.5)
    _, _, results = backend_selector.run_cdi_example_with_backend(
        raw, None, config, do_stitching=True, execution_config=silent(patterns=mode)
    )
    on_disk = isinstance(results["train_container"].patterns, np.memmap)
    assert on_disk == (mode == "disk") == isinstance(results["obj_tensor_full"], np.memmap)
    return results


def test_a_whole_run_from_disk_equals_one_from_memory(side, scan_file):
    one, other = (whole_run(side, scan_file, mode) for mode in ("memory", "disk"))
    assert one["history"] == other["history"]
    assert len(one["history"]["val_loss"]) == 1
    for name in ("object", "coverage", "obj_tensor_full", "probe"):
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_the_probe_is_refined_from_rows_as_from_memory(scan_file):
    from ptycho_torch.refine.starting import refined_modes

    made = []
    for one in containers(scan_file):
        config = settings(RawData.from_file(scan_file), probe_refine_sweeps=2, seed=3)
        made.append(refined_modes(one, one.probe, 1, config, None))
    np.testing.assert_array_equal(*made)


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
