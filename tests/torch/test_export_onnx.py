"""An exported model, run by onnxruntime, answers what the bundle it was made from answers in torch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ptycho.config.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho.errors import BundleError, ConfigError
from ptycho.networks import graphs as architectures
from ptycho.scan.normalization import normalize_probe, x_scale
from ptycho.scan.raw_data import RawData
from ptycho_torch.config_bridge import from_training_config
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.workflows.trained import infer_scan, save_trained

pytestmark = pytest.mark.onnx
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from ptycho.clients.results import reconstruction_outputs  # noqa: E402
from ptycho.models.onnx_export import OPSET, export_onnx  # noqa: E402
from ptycho.models.onnx_model import open_onnx  # noqa: E402
from ptycho.workflows.infer import infer  # noqa: E402

NPHOTONS, PROBE_FACTOR = 2e4, 0.8
#: spread of weights that gives outputs the contrast of a trained network, neither flat nor saturated
GAIN = {"swift": 0.5, "cnn": 1.0, "plain": 1.0}

Make = Callable[..., tuple[PtychoPINN_Lightning, np.ndarray]]


@pytest.fixture
def make(make_scan: Callable[..., RawData]) -> Make:
    """Builds a module as training leaves it (no weight at its start, a probe, bad pixels) and counts
    (batch, C, N, N) of a simulated scan; keywords are `batch`, `modes`, `gain` and fields of ModelConfig.
    """

    def build(
        batch: int = 2, modes: int = 1, gain: float | None = None, **model: Any
    ) -> tuple[PtychoPINN_Lightning, np.ndarray]:
        config = TrainingConfig(model=ModelConfig(**{"N": 32, "n_filters_scale": 1, **model}))
        N, C, name = config.model.N, config.model.gridsize**2, config.model.architecture
        raw = make_scan(n_positions=batch * C, N=N)
        data, network, training, inference = from_training_config(config)
        module = PtychoPINN_Lightning(network, data, training, inference)
        rng = np.random.default_rng(0)
        with torch.no_grad():
            for weight in module.network.parameters():
                noise = torch.from_numpy(rng.standard_normal(weight.shape).astype(np.float32))
                fan_in = weight[0].numel()
                weight.copy_(
                    (gain or GAIN[name]) / fan_in**0.5 * noise if fan_in > 1 else weight + noise / 10
                )
        tilts = np.exp(2j * np.pi / N * np.arange(modes)[:, None, None] * np.arange(N))
        probe = raw.probe_modes * tilts / np.arange(1, modes + 1)[:, None, None]
        module.attach_scan(
            normalize_probe(probe, config.model.probe_scale)[0],
            x_scale=x_scale(raw.amplitude()),
            nphotons=NPHOTONS,
            probe_factor=PROBE_FACTOR,
            bad_pixels=rng.random((N, N)) < 0.01,
        )
        return module.eval(), raw.diff3d.reshape(batch, C, N, N)

    return build


def by_torch(module: PtychoPINN_Lightning, counts: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return module(
            torch.from_numpy(np.sqrt(counts.astype(np.float32)) * np.float32(module.x_scale))
        ).numpy()


def exported(module: PtychoPINN_Lightning, folder: Path) -> Path:
    return export_onnx(save_trained(module, folder), folder / "model.onnx")


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("architecture", ["swift", "cnn"])
@pytest.mark.parametrize("gridsize", [1, 2])
@pytest.mark.parametrize("N", [64, 96])
def test_agrees_with_torch(tmp_path: Path, make: Make, architecture: str, gridsize: int, N: int) -> None:
    module, counts = make(3, architecture=architecture, gridsize=gridsize, N=N)
    wanted = by_torch(module, counts)
    assert wanted.real.std() > 0.02 and wanted.imag.std() > 0.02
    found = open_onnx(exported(module, tmp_path)).predict(counts)
    assert found.dtype == np.complex64
    assert distance(found, wanted) < 1e-5


@pytest.mark.parametrize("architecture", ["swift", "cnn"])
def test_rounds_no_worse_than_torch(tmp_path: Path, make: Make, architecture: str) -> None:
    module, counts = make(3, architecture=architecture, N=64, gain=1.4)
    exact = copy.deepcopy(module).double()
    with torch.inference_mode():
        x = torch.from_numpy(np.sqrt(counts.astype(np.float64)) * module.x_scale)
        modulus, phase = exact.network(x * ~exact.bad_pixels, exact.complex_probe)
        wanted = torch.polar(modulus, phase).numpy()
    found = open_onnx(exported(module, tmp_path)).predict(counts)
    assert distance(found, wanted) < 2 * distance(by_torch(module, counts), wanted)


@pytest.mark.parametrize(
    "model",
    [
        {"modes": 3},
        {"gridsize": 2, "object_big": False},
        {"probe_big": False},
        {"probe_big": False, "architecture": "cnn"},
        {"pad_object": False, "architecture": "cnn"},
        {"N": 60},
        {"N": 60, "architecture": "cnn"},
        {"amp_activation": "swish"},
        {"amp_activation": "softplus"},
        {"amp_activation": "relu", "architecture": "cnn"},
    ],
    ids=str,
)
def test_every_option_of_a_network(tmp_path: Path, make: Make, model: dict[str, Any]) -> None:
    module, counts = make(**model)
    assert distance(open_onnx(exported(module, tmp_path)).predict(counts), by_torch(module, counts)) < 1e-5


def test_any_batch_size(tmp_path: Path, make: Make) -> None:
    module, counts = make(7)
    model = open_onnx(exported(module, tmp_path))
    whole = model.predict(counts)
    one_by_one = np.concatenate([model.predict(counts[i : i + 1]) for i in range(7)])
    np.testing.assert_allclose(one_by_one, whole, atol=2e-6)
    assert model.predict(counts[:0]).shape == (0, 1, 32, 32)


def test_what_a_detector_writes_in_dead_pixels_does_not_matter(tmp_path: Path, make: Make) -> None:
    module, counts = make()
    model = open_onnx(exported(module, tmp_path))
    wanted = model.predict(counts)
    dead = module.bad_pixels.numpy()
    for value in (np.nan, np.inf, -1, 2.0**32 - 1):
        np.testing.assert_array_equal(model.predict(np.where(dead, value, counts.astype(np.float64))), wanted)


def test_fewer_than_no_photons_are_none(tmp_path: Path, make: Make) -> None:
    module, counts = make()
    model = open_onnx(exported(module, tmp_path))
    empty = np.where(counts == 0, -0.4, counts)
    assert (empty < 0).any()
    np.testing.assert_array_equal(model.predict(empty), model.predict(counts))


def test_counts_of_any_dtype(tmp_path: Path, make: Make) -> None:
    module, counts = make()
    model = open_onnx(exported(module, tmp_path))
    assert counts.dtype == np.uint16
    for dtype in (np.int32, np.float32, np.float64):
        np.testing.assert_array_equal(model.predict(counts.astype(dtype)), model.predict(counts))


def test_input_and_outputs_are_what_the_page_says(tmp_path: Path, make: Make) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(exported(make(gridsize=2)[0], tmp_path))
    (given,) = session.get_inputs()
    assert (given.name, given.type, given.shape) == ("counts", "tensor(float)", ["batch", 4, 32, 32])
    made = [(out.name, out.type, out.shape) for out in session.get_outputs()]
    assert made == [(name, "tensor(float)", ["batch", 4, 32, 32]) for name in ("amplitude", "phase")]


def test_metadata_say_where_a_model_comes_from(tmp_path: Path, make: Make) -> None:
    module, _ = make(modes=2)
    path = exported(module, tmp_path)
    made = onnx.load(path)
    onnx.checker.check_model(made, full_check=True)
    assert [(entry.domain, entry.version) for entry in made.opset_import] == [("", OPSET)]
    noted = {entry.key: entry.value for entry in made.metadata_props}
    assert noted["format"] == "ptychopinn-onnx" and noted["format_version"] == "1"
    assert (noted["N"], noted["gridsize"], noted["opset"]) == ("32", "1", str(OPSET))
    assert noted["ptychopinn_version"] and noted["architecture"] == "swift"
    model = open_onnx(path)
    assert (model.x_scale, model.nphotons, model.probe_factor) == (module.x_scale, NPHOTONS, PROBE_FACTOR)
    np.testing.assert_array_equal(model.probe, module.complex_probe.detach().numpy())
    assert model.config.model == module.config.model


def test_equal_bundles_give_equal_bytes(tmp_path: Path, make: Make) -> None:
    one, two = (exported(make()[0], tmp_path / name) for name in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_a_graph_of_ones_own_is_exported(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "_REGISTRY", dict(architectures._REGISTRY))

    @architectures.register("plain")
    def plain(spec: architectures.NetworkSpec) -> architectures.Graph:
        b = architectures.GraphBuilder()
        h = b.conv("diffraction", "first", 8, kernel=5, activation="softplus")
        outputs = [
            b.add("activation", b.conv(h, name, spec.out_channels), kind=kind)
            for name, kind in (("amplitude", spec.amp_activation), ("phase", "pi_tanh"))
        ]
        return architectures.Graph("plain", tuple(b.nodes), *outputs)

    module, counts = make(architecture="plain")
    assert distance(open_onnx(exported(module, tmp_path)).predict(counts), by_torch(module, counts)) < 1e-5


def test_a_torch_module_of_ones_own_is_refused_by_name(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architectures, "_REGISTRY", dict(architectures._REGISTRY))
    bundle = save_trained(make()[0], tmp_path)
    architectures._REGISTRY["swift"] = lambda spec: torch.nn.Identity()
    with pytest.raises(ConfigError, match="'swift'.*Identity.*only a Graph"):
        export_onnx(bundle, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path, make: Make) -> None:
    from ptycho.models.bundle import load_bundle, save_bundle

    bundle = load_bundle(save_trained(make()[0], tmp_path))
    weights = {**bundle.weights, "stem.weight": bundle.weights["stem.weight"][:, :1]}
    save_bundle(
        tmp_path, weights=weights, config=bundle.config, state=bundle.state, backend=bundle.backend,
        extra_arrays=bundle.extra_arrays,
    )  # fmt: skip
    with pytest.raises(BundleError, match=r"stem.weight.*\(24, 1, 4, 4\).*\(24, 3, 4, 4\)"):
        export_onnx(tmp_path, tmp_path / "model.onnx")


@pytest.mark.parametrize("gridsize, object_big", [(1, True), (2, True), (2, False)])
def test_the_image_of_a_scan_is_the_bundles(
    tmp_path: Path, make: Make, make_scan: Any, gridsize: int, object_big: bool
) -> None:
    raw = make_scan(n_positions=40)
    module, _ = make(40, gridsize=gridsize, object_big=object_big)
    config = InferenceConfig(n_subsample=30, subsample_seed=3)
    path = exported(module, tmp_path)
    _, _, wanted = infer_scan(tmp_path, raw, config=config)
    amplitude, phase, found = reconstruction_outputs(infer(open_onnx(path), raw, config))
    assert distance(found["object"], wanted["object"]) < 1e-5
    assert found["r_factor"] == pytest.approx(wanted["r_factor"], rel=1e-5)
    np.testing.assert_allclose(found["coverage"], wanted["coverage"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["probe"], wanted["probe"])
    assert found["origin_xy"] == wanted["origin_xy"]
    assert set(found) == set(wanted)
    np.testing.assert_array_equal(amplitude, np.abs(found["object"]))
    np.testing.assert_array_equal(phase, np.angle(found["object"]))


class TestFilesThatAreNoModel:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="no.onnx does not exist"):
            open_onnx(tmp_path / "no.onnx")

    @pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 0.999])
    def test_truncated(self, tmp_path: Path, make: Make, share: float) -> None:
        path = exported(make()[0], tmp_path)
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(BundleError, match=r"model.onnx .*(truncated|empty)") as error:
            open_onnx(path)
        assert "\n" not in str(error.value)

    def test_text(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        path.write_text("not a model\n" * 20)
        with pytest.raises(BundleError, match="truncated, or no ONNX model"):
            open_onnx(path)

    def test_a_model_of_somebody_else(self, tmp_path: Path, make: Make) -> None:
        path = exported(make()[0], tmp_path)
        made = onnx.load(path)
        del made.metadata_props[:]
        onnx.save(made, path)
        with pytest.raises(BundleError, match="ONNX model, but not one of ptycho export"):
            open_onnx(path)

    @pytest.mark.parametrize(
        "key, value, message",
        [
            ("format_version", "2", "has format 2.*upgrade ptychopinn"),
            ("x_scale", "nan", "x_scale"),
            ("x_scale", None, "x_scale"),
            ("probe", "AAAA", "probe"),
            ("model_config", "{", "model_config"),
            ("model_config", '{"N": 32, "gridsize": 2}', "tensor amplitude is"),
        ],
    )
    def test_metadata_that_do_not_fit(
        self, tmp_path: Path, make: Make, key: str, value: str | None, message: str
    ) -> None:
        path = exported(make()[0], tmp_path)
        made = onnx.load(path)
        for i, entry in enumerate(made.metadata_props):
            if entry.key == key and value is not None:
                entry.value = value
            elif entry.key == key:
                del made.metadata_props[i]
                break
        onnx.save(made, path)
        with pytest.raises(BundleError, match=message) as error:
            open_onnx(path)
        assert "\n" not in str(error.value)

    def test_weights_in_another_file_are_not_followed(self, tmp_path: Path, make: Make) -> None:
        path = exported(make()[0], tmp_path)
        onnx.save(
            onnx.load(path), path, save_as_external_data=True, location="elsewhere.bin", size_threshold=0
        )
        with pytest.raises(BundleError, match="model.onnx"):
            open_onnx(path)
