"""Every format that this package reads or writes: a small file of it, and what is read out of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from programs import small_scan

from ptycho.io.checksums import digest_of


class Format(NamedTuple):
    """How to make a file, and how to read everything that counts of it, as named arrays and texts.

    sealed: a flipped bit must not change what is read; else it must only not crash.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], Mapping[str, Any]]
    sealed: bool = True


def state() -> Any:
    """A small trained network of random weights."""
    from ptycho.config.config import ModelConfig, TrainingConfig
    from ptycho.models.trained_state import TrainedState
    from ptycho.networks import graphs
    from ptycho.scan.scan_set import KnownScan

    rng = np.random.default_rng(0)
    config = TrainingConfig(model=ModelConfig(N=32, n_filters_scale=1))
    spec = graphs.spec_from_config(config.model)
    shapes = graphs.parameter_shapes(graphs.describe(config.model.architecture, spec), spec)
    weights = {name: 0.05 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    probe = rng.standard_normal((1, 32, 32)).astype(np.complex64)
    numbers = {"x_scale": 0.5, "nphotons": 1e4, "probe_factor": 1.0}
    scan = KnownScan(probe=probe, guess=probe, bad_pixels=np.zeros((32, 32), bool), **numbers)
    return TrainedState(config, weights, (scan,))


def _scan(path: Path) -> None:
    from ptycho.io.npz import write_npz

    write_npz(path, small_scan())


def _read_scan(path: Path) -> dict[str, Any]:
    from ptycho.io.registry import read_scan

    return read_scan(path)


def _read_scan_by_rows(path: Path) -> dict[str, Any]:
    from ptycho.io.registry import read_scan

    arrays = read_scan(path, patterns="disk")
    return {name: np.asarray(value) if name == "diff3d" else value for name, value in arrays.items()}


def _product(path: Path) -> None:
    from ptycho.io.ptychodus_frame import ObjectFrame
    from ptycho.io.ptychodus_product import Metadata, Product, write_product

    rng = np.random.default_rng(0)

    def field(*shape: int) -> Any:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)

    places = rng.standard_normal((2, 9))
    frame, about = ObjectFrame((20, 20), (1e-8, 1e-8)), Metadata("small", "for tests", 1.0, 8000.0)
    write_product(path, Product(field(1, 20, 20), frame, field(1, 1, 16, 16), np.arange(9), *places, about))


def _read_product(path: Path) -> dict[str, Any]:
    from ptycho.io.ptychodus_product import read_product

    made = read_product(path)
    found = {
        name: getattr(made, name) for name in ("object", "probe", "indexes", "x_m", "y_m", "loss_values")
    }
    return {**found, "frame": repr(made.frame), "metadata": repr(made.metadata)}


def _imported(path: Path) -> None:
    from ptycho.io.cxi import write_scan_cxi
    from ptycho.io.formats.registry import find
    from ptycho.io.importing import ImportOptions, prepare

    arrays = small_scan() | {"energy_eV": 8000.0, "distance_m": 2.0, "detector_pixel_size_m": 75e-6}
    np.savez(path.with_suffix(".npz"), **arrays, bad_pixels=np.eye(32, dtype=bool))
    write_scan_cxi(path, prepare(find(path.with_suffix(".npz")), ImportOptions()))


def _read_imported(path: Path) -> dict[str, Any]:
    arrays = _read_scan(path)
    return {**arrays, "geometry": repr(arrays["geometry"])}


def _compressed(path: Path, method: str) -> None:
    from ptycho.codec import Counts, compress, lowrank_prediction
    from ptycho.scan.raw_data import RawData

    raw = RawData(
        **{"xcoords_start": None, "ycoords_start": None, **small_scan()}, bad_pixels=np.eye(32, dtype=bool)
    )
    counts = Counts(raw)
    shapes = lowrank_prediction(counts, counts.survey(), 3) if method == "lowrank" else None
    compress(raw, path, method, prediction=shapes)


def _compressed_rounded(path: Path) -> None:
    _compressed(path, "poisson")


def _compressed_lowrank(path: Path) -> None:
    _compressed(path, "lowrank")


def _diffraction(path: Path) -> None:
    from ptycho.io.ptychodus_diffraction import Diffraction, write_diffraction

    patterns, bad = small_scan()["diff3d"], np.eye(32, dtype=bool)
    write_diffraction(path, Diffraction(patterns, np.arange(16), bad, (75e-6, 75e-6), np.full(16, 1e4)))


def _read_diffraction(path: Path) -> dict[str, Any]:
    from ptycho.io.ptychodus_diffraction import read_diffraction

    found = read_diffraction(path)
    return {name: np.asarray(value) for name, value in vars(found).items() if value is not None}


def _picture() -> Any:
    from ptycho.io.images import Image

    rng = np.random.default_rng(0)
    obj = (rng.standard_normal((20, 20)) + 1j * rng.standard_normal((20, 20))).astype(np.complex64)
    places = 20 * rng.random((9, 2))
    return Image(obj, obj[None, :16, :16], (3.0, 4.0), places, np.abs(obj), 1e-8)


def _cxi(path: Path) -> None:
    from ptycho.io.cxi import write_image_cxi
    from ptycho.io.geometry import Geometry

    one = _picture()
    about = Geometry.of_settings({"energy_eV": 8000.0, "distance_m": 2.0, "detector_pixel_size_m": 75e-6})
    where = {"origin_xy": one.origin_xy, "positions_px": one.positions_px}
    write_image_cxi(path, one.object, one.probe, about, one.coverage, **where)


def _ptyr(path: Path) -> None:
    from ptycho.io.images import write_image_ptyr

    write_image_ptyr(path, _picture(), 8000.0)


def _read_image(path: Path) -> dict[str, Any]:
    from ptycho.io.images import read_image

    return {name: value for name, value in vars(read_image(path)).items() if value is not None}


def _starts(path: Path) -> None:
    from ptycho.run.starting_probe import StartingProbe
    from ptycho.run.state import keep_starts

    modes = np.random.default_rng(0).standard_normal((2, 32, 32)).astype(np.complex64)
    keep_starts(path.parent, (StartingProbe(modes, 2.0),))


def _read_starts(path: Path) -> dict[str, Any]:
    from ptycho.run.state import kept_starts

    found = kept_starts(path)
    assert found is not None
    return {"modes": found[0].modes, "factor": np.asarray(found[0].factor)}


def _bundle(path: Path) -> None:
    state().save(path, "pytorch")


def _read_bundle(path: Path) -> dict[str, Any]:
    from ptycho.models.trained_state import load_trained_state

    made, _ = load_trained_state(path)
    scan = dataclasses.asdict(made.scans[0])
    geometry = repr(scan.pop("geometry"))
    return {
        **made.weights,
        "geometry": geometry,
        **{f"scan.{name}": np.asarray(v) for name, v in scan.items()},
        "config": repr(made.config),
    }


def _onnx(path: Path) -> None:
    from ptycho.models.onnx_export import write_onnx

    write_onnx(state(), path)


def _read_onnx(path: Path) -> dict[str, Any]:
    from ptycho.models.onnx_model import open_onnx

    model = open_onnx(path)
    counts = np.random.default_rng(1).poisson(20, (2, 1, 32, 32)).astype(np.float32)
    return {"patches": model.predict(counts), "state": repr(model.state), "probe": model.probe}


def _tensorflow(path: Path) -> None:
    from ptycho.io.tensors import write_tensors
    from ptycho.tf.fit import checkpoints as checkpoint

    arrays = {f"model.network.{name}": value for name, value in state().weights.items()}
    arrays["optimizer.iterations"] = np.array(7)
    write_tensors(
        path, arrays, {"format": checkpoint._FORMAT, "knowledge": json.dumps({"epoch": 3, "best": 0.25})}
    )


def _read_tensorflow(path: Path) -> dict[str, Any]:
    from ptycho.tf.fit.checkpoints import read_checkpoint

    model, optimizer, known = read_checkpoint(path)
    return {
        **model,
        **{f"o.{name}": value for name, value in optimizer.items()},
        "known": repr(sorted(known.items())),
    }


def _lightning(path: Path) -> None:
    import torch

    from ptycho_torch.fit.checkpoints import AtomicCheckpoints

    weights = {name: torch.from_numpy(value) for name, value in state().weights.items()}
    AtomicCheckpoints().save_checkpoint(
        {"state_dict": weights, "epoch": 3, "pytorch-lightning_version": "2"}, path
    )


def _read_lightning(path: Path) -> dict[str, Any]:
    from ptycho_torch.fit.checkpoints import AtomicCheckpoints

    found = AtomicCheckpoints().load_checkpoint(path, weights_only=True)
    return {**{n: v.numpy() for n, v in found["state_dict"].items()}, "epoch": np.asarray(found["epoch"])}


def _refinement(path: Path) -> None:
    import torch

    from ptycho_torch.refine import RefineState, save_state
    from ptycho_torch.refine.operators import Canvas

    torch_state = RefineState(
        Canvas((40, 40), (3, 4)),
        torch.full((40, 40), 0.5 + 0.25j, dtype=torch.complex64),
        torch.full((1, 32, 32), 1 + 2j, dtype=torch.complex64),
        torch.arange(18, dtype=torch.float64).reshape(9, 2),
        epoch=2,
    )
    save_state(path, torch_state, {"momentum": torch.ones(5)}, {"epochs": 5})


def _read_refinement(path: Path) -> dict[str, Any]:
    from ptycho_torch.refine import load_state

    made, extra, settings = load_state(path)
    tensors = {**made.tensors(), **extra}
    rest = repr((made.epoch, made.canvas.shape, made.canvas.origin_xy, sorted(settings.items())))
    return {**{name: value.numpy() for name, value in tensors.items()}, "rest": rest}


def _settings(path: Path) -> None:
    from ptycho.config.config import PyTorchExecutionConfig, TrainingConfig
    from ptycho.config.yaml_io import dump_yaml

    dump_yaml(TrainingConfig(nepochs=7, train_data_file=Path("scan.npz")), PyTorchExecutionConfig(), path)


def _read_settings(path: Path) -> dict[str, Any]:
    from ptycho.config.yaml_io import load_yaml_config, training_config_from

    return {"run": repr(training_config_from(load_yaml_config(path)))}


def _folder_of_run(path: Path) -> None:
    """`path` is a history.json; the folder around it is a run."""
    path.write_text(
        json.dumps({"train_loss": [3.0, 2.0, 1.5], "val_loss": [3.5, 2.5, 2.0], "epoch": [0, 1, 2]})
    )


def _read_report(path: Path) -> dict[str, Any]:
    from ptycho.report.html import build_report

    return {"page": build_report([path.parent])}


FORMATS = (
    Format("scan.npz", _scan, _read_scan),
    Format("scan_by_rows.npz", _scan, _read_scan_by_rows),
    Format("product.h5", _product, _read_product),
    Format("product.npz", _product, _read_product),
    Format("imported.h5", _imported, _read_imported),
    Format("rounded.h5", _compressed_rounded, _read_scan),
    Format("lowrank.h5", _compressed_lowrank, _read_scan_by_rows),
    Format("diffraction.h5", _diffraction, _read_diffraction),
    Format("image.cxi", _cxi, _read_image),
    Format("image.ptyr", _ptyr, _read_image),
    Format("start.npz", _starts, _read_starts),
    Format("wts.h5.zip", _bundle, _read_bundle),
    Format("model.onnx", _onnx, _read_onnx),
    Format("last.safetensors", _tensorflow, _read_tensorflow),
    Format("last.ckpt", _lightning, _read_lightning),
    Format("refine.safetensors", _refinement, _read_refinement),
    Format("config.yaml", _settings, _read_settings),
    Format("history.json", _folder_of_run, _read_report, sealed=False),
)


def digest(values: Mapping[str, Any]) -> str:
    """One line that is equal for equal contents."""
    return digest_of({name: value for name, value in values.items() if value is not None})
