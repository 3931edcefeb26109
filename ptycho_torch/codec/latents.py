"""The latents of a scan, which the learned method stores for each frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ptycho.codec.compress import Prediction
from ptycho.codec.counts import Counts, Survey
from ptycho.codec.training_frames import prepared
from ptycho.errors import DataError
from ptycho.io.compressed.network import (
    STRIDE,
    check_decoder,
    decoder_names,
    latent_side,
    shipped_weights,
    weights_digest,
)
from ptycho.io.compressed.prediction import MEAN_STEP, whole_steps
from ptycho_torch.codec.network import CodecNetwork

_BLOCK = 64
_LARGEST = np.iinfo(np.int16).max


def learned_prediction(
    counts: Counts,
    survey: Survey,
    weights: Mapping[str, NDArray[Any]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prediction:
    """The rounded latents of every frame, with mean frame and spread of the scan.

    weights: of a network trained by `ptycho sweep model=codec`; its decoder is then stored in the file. None:
    the built-in network, which the file identifies by its digest. If the side of the frames is not a multiple
    of 8, they are padded with their edge values. Time: about 3 ms a frame at N = 64; memory: one block and
    the latents. DataError for weights that do not fit.
    """
    known = shipped_weights() if weights is None else weights
    network = network_of(known)
    M, N, _ = counts.shape
    side = latent_side(N)
    whole = whole_steps(survey.mean, MEAN_STEP)
    mean = MEAN_STEP * whole.astype(np.float64)
    latents = np.empty((M, check_decoder(known), side, side), np.int16)
    margin = (0, STRIDE * side - N, 0, STRIDE * side - N)
    for begin, part in counts.blocks(_BLOCK):
        inputs, light = prepared(part, mean, survey.spread)
        with torch.no_grad():
            x = functional.pad(torch.from_numpy(inputs), margin, mode="replicate")
            seen = functional.pad(torch.from_numpy(light)[None], margin, mode="replicate")
            found = network.encode(x, seen.expand(len(x), -1, -1, -1)).round().clamp(-_LARGEST, _LARGEST)
        latents[begin : begin + len(part)] = found.numpy()
        if progress is not None:
            progress(begin + len(part), M)
    small = bool(np.abs(latents).max(initial=0) <= np.iinfo(np.int8).max)
    arrays: dict[str, NDArray[Any]] = {
        "latents": latents.astype(np.int8) if small else latents,
        "mean": whole,
        "scale": np.array([max(survey.spread, 1e-6)]),
    }
    if weights is not None:
        arrays.update({name: np.asarray(known[name], np.float16) for name in decoder_names()})
    return Prediction(arrays, {"network": weights_digest(known), "latents": int(latents[0].size)})


def network_of(weights: Mapping[str, NDArray[Any]]) -> CodecNetwork:
    """The network of these weights. DataError if they belong to another network."""
    channels = check_decoder(weights)
    made = CodecNetwork(channels, int(weights["decoder.0.weight"].shape[0]))
    try:
        made.load_state_dict(
            {name: torch.from_numpy(np.array(value, np.float32)) for name, value in weights.items()}
        )
    except RuntimeError as error:
        raise DataError(f"the weights are not those of a codec ({' '.join(str(error).split())})") from None
    return made.eval()
