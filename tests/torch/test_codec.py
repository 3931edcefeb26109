"""The learned codec: one decoder in NumPy and PyTorch, batches that repeat, files that commands open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ptycho.codec.counts import Counts
from ptycho.codec.settings import CodecData, CodecSettings
from ptycho.config.learned import settings_from
from ptycho.errors import ConfigError, DataError
from ptycho.io.compressed.file import read_header
from ptycho.io.compressed.levels import stabilised
from ptycho.io.compressed.network import check_decoder, decoded_frames, shipped_weights
from ptycho.io.registry import read_scan
from ptycho.io.tensors import read_tensors, write_tensors
from ptycho.scan.raw_data import RawData
from ptycho.simulation import Scenario, simulate
from ptycho.workflows.compress import compress_scan
from ptycho_torch.codec.latents import learned_prediction, network_of
from ptycho_torch.codec.network import made_from_seed
from ptycho_torch.codec.task import WEIGHTS, CodecTask
from ptycho_torch.learned import fit

SMALL = dict(
    epochs=2, steps_per_epoch=3, batch_size=8, latent_channels=3, width=12, figures_every=0, logger="none",
    accelerator="cpu", data=CodecData(N=32, frames_per_scan=4),
)  # fmt: skip


def weights_of(network: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("N", [32, 50])
def test_numpy_decodes_as_torch_does(N: int):
    network = made_from_seed(5, 24, seed=3)
    rng = np.random.default_rng(0)
    side = -(-N // 8)
    latents = rng.integers(-4, 5, (11, 5, side, side)).astype(np.float32)
    light = stabilised(rng.poisson(40.0, (N, N)))
    found = decoded_frames(latents, light, 2.5, weights_of(network))
    seen = np.pad(light / light.max(), (0, 8 * side - N), mode="edge").astype(np.float32)
    with torch.no_grad():
        given = torch.from_numpy(seen)[None, None].expand(11, -1, -1, -1)
        made = network.decode(torch.from_numpy(latents), given).numpy()[:, 0, :N, :N]
    np.testing.assert_allclose(found, 2.5 * made + light, atol=1e-4 * np.abs(made).max(), rtol=1e-5)


def test_the_bits_are_those_of_a_laplace_distribution():
    from scipy.stats import laplace

    network = made_from_seed(3, 12, seed=0)
    with torch.no_grad():
        network.log_scale.copy_(torch.tensor([-1.0, 0.0, 1.5]))
    values = np.random.default_rng(1).normal(0, 3, (2, 3, 4, 4)).astype(np.float32)
    found = network.bits(torch.from_numpy(values)).detach().numpy()
    scale = np.exp([-1.0, 0.0, 1.5])[:, None, None]
    share = laplace.cdf(values + 0.5, scale=scale) - laplace.cdf(values - 0.5, scale=scale)
    np.testing.assert_allclose(found, -np.log2(np.maximum(share, 1e-9)).sum((1, 2, 3)), rtol=2e-3)


def test_a_batch_follows_from_seed_epoch_and_step_alone():
    task, again = CodecTask(CodecSettings(**SMALL)), CodecTask(CodecSettings(**SMALL))
    again.batch(0, 0)
    for name, value in task.batch(1, 2).items():
        assert torch.equal(value, again.batch(1, 2)[name])
        assert name == "light" or not torch.equal(value, task.batch(1, 1)[name])


def test_settings_that_do_not_fit_are_refused():
    for values, match in (
        ({"data": {"N": 36}}, "multiple of 8"), ({"batch_size": 40}, "multiple of data.frames_per_scan"),
        ({"data": {"objects": "cats"}}, "data.objects"), ({"latents": 3}, "nearest known: 'latent_channels'"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=match):
            settings_from(CodecSettings, values, "model=codec")


def test_a_training_leaves_weights_that_compress_and_open_a_scan(make_scan, tmp_path: Path):
    settings = CodecSettings(**SMALL, output_dir=tmp_path / "run")
    made = fit(CodecTask(settings), settings)
    assert {"loss", "psnr", "ssim", "bits", "sigma"} <= set(made.best)
    weights = tmp_path / "run" / WEIGHTS
    raw = make_scan(n_positions=20, N=50)
    header = compress_scan(raw, tmp_path / "a.h5", "learned", weights=weights, step=0.5)
    decoded = RawData.from_file(tmp_path / "a.h5").diff3d
    assert np.abs(stabilised(decoded) - stabilised(raw.diff3d)).max() < 0.5 == header.error_bound
    compress_scan(raw, tmp_path / "b.h5", "learned", weights=weights, residual=False)
    assert read_scan(tmp_path / "b.h5")["diff3d"].dtype == np.float32


def test_the_training_can_be_composed():
    from ptycho.experiments.learned import points

    (_, settings), *rest = points("codec", ["data=faint", "latent_channels=4"], multirun=False)
    assert not rest and (settings.latent_channels, settings.data.photons_high) == (4, 1e4)


def test_what_ships_is_small_and_named_by_its_digest(make_scan, tmp_path: Path):
    assert check_decoder(shipped_weights()) == 8
    raw = make_scan(n_positions=20)
    header = compress_scan(raw, tmp_path / "a.h5", "learned")
    poisson = compress_scan(raw, tmp_path / "p.h5", "poisson")
    np.testing.assert_array_equal(
        read_scan(tmp_path / "a.h5")["diff3d"], read_scan(tmp_path / "p.h5")["diff3d"]
    )
    assert len(header.parameters["network"]) == 64 and header.error_rms == pytest.approx(poisson.error_rms)
    import ptycho.io.compressed.network as module

    assert module.SHIPPED.stat().st_size < 300_000


def test_a_file_of_another_network_is_refused(make_scan, tmp_path: Path, monkeypatch):
    compress_scan(make_scan(n_positions=20), tmp_path / "a.h5", "learned")
    import ptycho.io.compressed.reading as module

    other = weights_of(made_from_seed(8, 48, seed=1))
    monkeypatch.setattr(module, "shipped_weights", lambda: other)
    with pytest.raises(DataError, match=r"a\.h5 was compressed with the network of another version"):
        read_scan(tmp_path / "a.h5")


def test_weights_of_something_else_are_refused(make_scan, tmp_path: Path):
    write_tensors(tmp_path / "w.safetensors", {"a": np.ones(3)}, {})
    weights, _ = read_tensors(tmp_path / "w.safetensors")
    raw = make_scan(n_positions=20)
    with pytest.raises(DataError, match="no usable layer 0"):
        learned_prediction(Counts(raw), Counts(raw).survey(), weights)
    wrong = weights_of(made_from_seed(8, 48, seed=1)) | {"encoder.0.weight": np.ones((2, 2, 3, 3))}
    with pytest.raises(DataError, match="not those of a codec"):
        network_of(wrong)


def test_the_reconstruction_is_a_code(tmp_path: Path):
    """The engine's image as prediction: at a high dose, fewer bits for the same counts."""
    raw = simulate(Scenario(n_positions=81, photons=1e7, probe_error=0.1, seed=4)).raw
    header = compress_scan(raw, tmp_path / "a.h5", "object")
    plain = compress_scan(raw, tmp_path / "p.h5", "poisson")
    np.testing.assert_array_equal(
        read_scan(tmp_path / "a.h5")["diff3d"], read_scan(tmp_path / "p.h5")["diff3d"]
    )
    assert header.bits_per_frame < plain.bits_per_frame
    alone = compress_scan(raw, tmp_path / "o.h5", "object", residual=False)
    assert alone.bits_per_frame < 0.7 * header.bits_per_frame
    assert read_header(tmp_path / "o.h5").parameters["r_factor"] < 0.2
