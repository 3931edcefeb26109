"""The training of the learned codec: distortion of frames and bits of latents, on simulated scans."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ptycho.codec.settings import CodecSettings
from ptycho.codec.training_frames import Frames, draw_frames
from ptycho.config.learned import loss_weights
from ptycho.evaluation.metrics import psnr, ssim
from ptycho.io.compressed.network import check_decoder, weights_digest
from ptycho.io.tensors import write_tensors
from ptycho.report.style import COUNT_MAP, SIGNED_MAP, colour_bar, dress, new_figure
from ptycho_torch.codec.network import CodecNetwork, made_from_seed
from ptycho_torch.learned import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WEIGHTS = "learned.safetensors"
#: the preprocessing of a frame, as text for the file of weights
_PREPARED = {
    "inputs": "(2 sqrt(n + 3/8) - mean over the scan) / rms about that mean",
    "light": "mean over the scan / its maximum",
    "latents": "rounded to whole numbers",
    "stride_px": 8,
}
#: doses of the evaluated scans, photons per frame, and their random stream
_JUDGED, _UNSEEN, _TRAINED = (1e3, 1e4, 1e5, 1e6), 1, 0


class CodecTask(Task[CodecSettings]):
    """An autoencoder of frames whose latents are rounded and coded."""

    name = "codec"
    terms: Mapping[str, float] = {"distortion": 1.0, "bits_per_pixel": 0.02}
    bar = ("train_loss", "val/psnr", "val/ssim")

    def build(self) -> nn.Module:
        settings = self.settings
        return made_from_seed(settings.latent_channels, settings.width, settings.seed)

    def batch(self, epoch: int, step: int) -> dict[str, Tensor]:
        """Frames of enough scans to fill a batch, and the noise that replaces rounding."""
        settings = self.settings
        key = [settings.seed, _TRAINED, epoch, step]
        frames = draw_frames(settings.data, settings.batch_size // settings.data.frames_per_scan, key)
        side = settings.data.N // 8
        shape = (len(frames.inputs), settings.latent_channels, side, side)
        noise = np.random.default_rng([*key, 999_983]).uniform(-0.5, 0.5, shape).astype(np.float32)
        return {**_tensors(frames), "noise": torch.from_numpy(noise)}

    def losses(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """distortion: mean square error over the spread of the scan; bits_per_pixel: of the latents."""
        assert isinstance(network, CodecNetwork)
        latents = network.encode(batch["inputs"], batch["light"]) + batch["noise"]
        wrong = network.decode(latents, batch["light"]) - batch["inputs"]
        pixels = batch["inputs"].shape[-1] ** 2
        return {"distortion": wrong.square().mean(), "bits_per_pixel": network.bits(latents).mean() / pixels}

    @cached_property
    def _unseen(self) -> Frames:
        return draw_frames(self.settings.data, len(_JUDGED), [self.settings.seed, _UNSEEN], [*_JUDGED])

    def _decoded(self, network: nn.Module, frames: Frames) -> tuple[Tensor, Tensor]:
        """(decoded, bits of each frame), latents rounded."""
        assert isinstance(network, CodecNetwork)
        given = _tensors(frames)
        with torch.no_grad():
            latents = network.encode(given["inputs"], given["light"]).round()
            return network.decode(latents, given["light"]), network.bits(latents)

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """On four scans of 1e3 to 1e6 photons a frame: loss, PSNR and SSIM on the stabilised axis, bits a
        frame by the learned distribution, and the error in units of the Poisson standard deviation."""
        frames = self._unseen
        made, bits = self._decoded(network, frames)
        decoded = made.numpy()[:, 0]
        true, scale = frames.inputs[:, 0], frames.scale
        weights = loss_weights(self.settings, self.terms)
        distortion = float(np.mean((decoded - true) ** 2))
        per_pixel = float(bits.mean()) / true[0].size
        every = max(1, self.settings.data.frames_per_scan // 4)
        pairs = list(zip(decoded[::every], true[::every], strict=True))
        sigma = (decoded - true) * scale[:, None, None]
        return {
            "loss": weights["distortion"] * distortion + weights["bits_per_pixel"] * per_pixel,
            "psnr": float(np.mean([psnr(a, b) for a, b in pairs])),
            "ssim": float(np.mean([ssim(a, b) for a, b in pairs])),
            "bits": float(bits.mean()),
            "sigma": float(np.sqrt(np.mean(sigma**2))),
        }

    def shown(self, network: nn.Module) -> dict[str, Figure]:
        """Original, decoded and difference of a frame at each dose, on the stabilised axis about the mean."""
        count = self.settings.data.frames_per_scan
        rows = np.arange(len(_JUDGED)) * count + count // 2
        frames = Frames(*(values[rows] for values in self._unseen))
        made, _ = self._decoded(network, frames)
        figure = new_figure(7.2, 2.4 * len(rows))
        axes = figure.subplots(len(rows), 3, squeeze=False)
        for number, (row, photons) in enumerate(zip(axes, _JUDGED, strict=True)):
            given, decoded = frames.inputs[number, 0], made[number, 0].numpy()
            far = float(np.percentile(np.abs(given), 99.5)) or 1.0
            for axis, (title, image, colours) in zip(
                row,
                (
                    (f"original, {photons:.0e} photons", given, COUNT_MAP),
                    ("decoded", decoded, COUNT_MAP),
                    ("decoded - original", decoded - given, SIGNED_MAP),
                ),
                strict=True,
            ):
                picture = axis.imshow(image, cmap=colours, vmin=-far, vmax=far)
                dress(axis, title, "", "")
                axis.set_xticks([])
                axis.set_yticks([])
                colour_bar(figure, axis, picture)
        return {"frames": figure}

    def export(self, network: nn.Module, folder: Path) -> list[Path]:
        """learned.safetensors: the weights, float16, with the preprocessing of a frame."""
        arrays = {
            name: value.detach().cpu().numpy().astype(np.float16)
            for name, value in network.state_dict().items()
        }
        check_decoder(arrays)
        texts = {"preprocessing": json.dumps(_PREPARED, sort_keys=True), "decoder": weights_digest(arrays)}
        path = folder / WEIGHTS
        write_tensors(path, arrays, texts)
        return [path]


def _tensors(frames: Frames) -> dict[str, Tensor]:
    return {"inputs": torch.from_numpy(frames.inputs), "light": torch.from_numpy(frames.light.copy())}
