"""The network's warp for a pair of images of any size: the start of a fit, or a fast estimate."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ptycho.errors import BundleError
from ptycho.io.tensors import read_tensors
from ptycho.models.shipped import WEIGHTS
from ptycho.warp.network_shape import POINTS, SIDE
from ptycho.warp.prepare import Pair
from ptycho.warp.splines import spline_basis
from ptycho.warp.warp import Warp
from ptycho_torch.warp.network import WarpNetwork, details

#: the built-in weights; for their training see docs/model_card_warp.md
SHIPPED = WEIGHTS.with_name("warp.safetensors")


@lru_cache(maxsize=4)
def load_network(path: Path = SHIPPED) -> WarpNetwork:
    """The network of a file of `ptycho sweep model=warp`; the weights determine its width.

    Raises MissingFileError, DataError for a damaged file, BundleError for weights of another network.
    """
    arrays, _ = read_tensors(path)
    try:
        network = WarpNetwork(int(arrays["flow.weight"].shape[1]))
        held = {name: torch.from_numpy(value.astype(np.float32)) for name, value in arrays.items()}
        network.load_state_dict(held, strict=True)
    except (KeyError, IndexError, RuntimeError):
        raise BundleError(
            f"{path} holds no weights of the warp network; train one by sweep model=warp"
        ) from None
    return network.eval()


def predict_warp(pair: Pair, network: WarpNetwork | None = None) -> Warp:
    """The network's warp of a pair (H, W), scaled to 128 px on the longer side, without a fit. One pass.

    The numbers of a warp are in unit radii, so they are valid at every size; the flow is resampled to control
    points of the pair's grid.
    """
    net = network or load_network()
    height, width = pair.shape
    longer = max(pair.shape)
    images = []
    for image, weight in ((pair.fixed, pair.fixed_weight), (pair.moving, pair.moving_weight)):
        parts = torch.from_numpy(np.stack([image.real, image.imag, weight]).astype(np.float32))
        small = _framed(parts, longer)
        images.append(
            details(torch.complex(small[0], small[1])[None], small[2][None], pair.part != "complex")
        )
    with torch.no_grad():
        values, points = (found[0].double().numpy() for found in net(torch.cat(images, 1)))
    radius = max(longer - 1, 1) / 2
    rows, columns = (
        np.linspace(-1, 1, 4 * POINTS) * (side - 1) / max(longer - 1, 1) for side in (height, width)
    )
    there = [spline_basis(line + 1, POINTS, 2.0) for line in (rows, columns)]
    own = [spline_basis(np.linspace(0, 1, 4 * POINTS), POINTS, 1.0)] * 2
    field = there[0] @ points @ there[1].T * radius
    fitted = np.linalg.pinv(own[0]) @ field @ np.linalg.pinv(own[1]).T
    return Warp(pair.shape, values, fitted)


def _framed(parts: Tensor, longer: int) -> Tensor:
    """(3, H, W) scaled so that the longer side has 128 px, in the middle of 128 x 128; zero weight around."""
    size = [max(2, round(side * SIDE / longer)) for side in parts.shape[1:]]
    resized = F.interpolate(parts[None], size=size, mode="bilinear", align_corners=True, antialias=False)[0]
    top, left = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    return F.pad(resized, [left, SIDE - size[1] - left, top, SIDE - size[0] - top])
