"""The decoder of the learned method in NumPy: latents and the mean frame to frames on the stabilised axis.

Three by three convolutions, each but the last followed by a ReLU; three of them double the side by moving
channels into pixels. `ptycho_torch.codec.network` trains the same decoder; the weights that ship stand
beside this file as float16.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.checksums import digest_of
from ptycho.io.tensors import read_tensors

SHIPPED = Path(__file__).with_name("learned.safetensors")
#: pixels along each axis that one latent covers
STRIDE = 8
#: layers of the decoder whose channels become pixels
_GROWING = (1, 2, 3)
_LAYERS = 6
_FRAMES_AT_ONCE = 8

Weights = Mapping[str, NDArray[Any]]


@lru_cache(maxsize=1)
def shipped_weights() -> dict[str, NDArray[np.float32]]:
    """The built-in weights, by name, float32. DataError if the file is missing or damaged."""
    try:
        found, _ = read_tensors(SHIPPED)
    except OSError as error:
        raise DataError(f"{SHIPPED}: cannot be read ({error}); install ptychopinn again") from None
    return {name: np.asarray(value, np.float32) for name, value in found.items()}


def weights_digest(weights: Weights) -> str:
    """SHA-256 of the decoder weights, which identifies the decoder in a compressed scan."""
    return digest_of({name: np.asarray(weights[name], np.float32) for name in decoder_names()})


def decoder_names() -> tuple[str, ...]:
    """Names of the decoder's weights, in the order of its layers."""
    return tuple(f"decoder.{layer}.{part}" for layer in range(_LAYERS) for part in ("weight", "bias"))


def check_decoder(weights: Weights) -> int:
    """Number of latent channels of a decoder; DataError if the weights are not a decoder."""
    width = -1
    for layer in range(_LAYERS):
        kernel, bias = (weights.get(f"decoder.{layer}.{part}") for part in ("weight", "bias"))
        if kernel is None or bias is None or kernel.ndim != 4 or kernel.shape[2:] != (3, 3):
            raise DataError(f"the weights have no usable layer {layer} of the decoder")
        light = layer == _LAYERS - 2
        expected = kernel.shape[1] if width < 0 else width + light
        growing = 4 if layer in _GROWING else 1
        if kernel.shape[1] != expected or bias.shape != kernel.shape[:1] or kernel.shape[0] % growing:
            raise DataError(f"layer {layer} of the decoder does not fit the one before")
        width = kernel.shape[0] // growing
    if width != 1:
        raise DataError("the decoder does not end in one channel")
    return int(weights["decoder.0.weight"].shape[1])


def latent_side(N: int) -> int:
    """Side of the latents of frames of N px: N / 8, rounded up."""
    return -(-N // STRIDE)


def decoded_frames(
    latents: NDArray[Any], light: NDArray[np.float64], scale: float = 1.0, weights: Weights | None = None
) -> NDArray[np.float64]:
    """Frames (B, N, N) on the stabilised axis from latents (B, C, n, n) and the mean frame (N, N) there.

    scale: one unit of the network's output on the stabilised axis. weights: None for the built-in ones. Time
    about 4 ms a frame at N = 64, 19 ms at 128; memory: eight frames with their channels. Raises DataError.
    """
    known = shipped_weights() if weights is None else weights
    N = light.shape[-1]
    n = latent_side(N)
    if latents.shape[1:] != (check_decoder(known), n, n):
        raise DataError(f"latents of shape {latents.shape[1:]} do not fit the network and frames of {N} px")
    # without light the network gets zeros
    seen = (light / max(float(light.max()), 1e-9)).astype(np.float32)
    whole = np.pad(seen, (0, n * STRIDE - N), mode="edge")
    made = np.empty((len(latents), N, N))
    for begin in range(0, len(latents), _FRAMES_AT_ONCE):
        part = latents[begin : begin + _FRAMES_AT_ONCE].astype(np.float32)
        made[begin : begin + len(part)] = _decode(part, whole, known)[:, :N, :N]
    return made * scale + light


def _decode(x: NDArray[np.float32], light: NDArray[np.float32], weights: Weights) -> NDArray[np.float32]:
    for layer in range(_LAYERS):
        if layer == _LAYERS - 2:
            x = np.concatenate([x, np.broadcast_to(light, (len(x), 1, *light.shape))], axis=1)
        x = _convolved(x, weights[f"decoder.{layer}.weight"], weights[f"decoder.{layer}.bias"])
        if layer in _GROWING:
            x = _grown(x)
        if layer < _LAYERS - 1:
            x = np.maximum(x, 0)
    return x[:, 0]


def _convolved(x: NDArray[np.float32], kernel: NDArray[Any], bias: NDArray[Any]) -> NDArray[np.float32]:
    """A 3 x 3 convolution with zeros around, (B, C, H, W) to (B, O, H, W)."""
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3)
    )
    made = np.tensordot(windows, kernel.astype(np.float32), axes=((1, 4, 5), (1, 2, 3)))
    return np.asarray(np.moveaxis(made, -1, 1) + bias.astype(np.float32)[:, None, None], np.float32)


def _grown(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Four channels as 2 x 2 pixels of one: (B, 4 C, H, W) to (B, C, 2 H, 2 W)."""
    B, C, H, W = x.shape
    return x.reshape(B, C // 4, 2, 2, H, W).transpose(0, 1, 4, 2, 5, 3).reshape(B, C // 4, 2 * H, 2 * W)
