"""A trained network's image as the first object of a refinement."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import ConfigError
from ptycho.scan.raw_data import RawData

# windows are larger than the lit area; pixels below this share of the peak are ignored
_SEEN = 0.02


class Start(NamedTuple):
    """A first object (H, W), the object pixel [x, y] of its [0, 0], and the probe (P, N, N) it goes with."""

    object: NDArray[np.complex64]
    origin_xy: tuple[int, int]
    probe: NDArray[np.complex64] | None = None


Model = Callable[[Any], tuple[NDArray[Any], tuple[int, int]]]


def start_from(model: Any, scan: Any, progress: Callable[[int, int], None] | None = None) -> Start:
    """The first object: the image of `scan` by `model`.

    model: a folder or bundle that `ptycho train` wrote, a TrainedModel, or a function scan -> (object,
    origin_xy). A network's image is used with its own probe, because the two share a gauge. ConfigError for
    anything else.
    """
    from ptycho.clients.trained_model import TrainedModel
    from ptycho.workflows.infer import infer

    if isinstance(model, (str, Path, TrainedModel)):
        if not isinstance(scan, RawData):
            raise ConfigError("a network starts from a RawData scan; pass that, or initial_object=")
        made = infer(
            model.module if isinstance(model, TrainedModel) else Path(model), scan, progress=progress
        )
        x, y = made.origin_xy
        return Start(flat_where_unseen(made.object, made.image.coverage), (int(x), int(y)), made.probe)
    if callable(model):
        image, origin_xy = model(scan)
        return Start(np.asarray(image), origin_xy)
    raise ConfigError(
        f"model is a {type(model).__name__}; give a folder of ptycho train, a TrainedModel, or a function"
    )


def flat_where_unseen(image: NDArray[Any], coverage: NDArray[Any]) -> NDArray[np.complex64]:
    """`image` (H, W) over its typical amplitude and mean phase, 1 where `coverage` (H, W) is almost zero.

    The engine's flat object is 1, and its probe carries the photons. An image in the network's own scale and
    phase would leave a step at the border of the covered area.
    """
    seen = coverage > _SEEN * coverage.max()
    size = float(np.median(np.abs(image[seen]))) if seen.any() else 0.0
    if not size > 0:
        return np.ones(image.shape, np.complex64)
    turn = np.exp(1j * np.angle(image[seen].sum(dtype=np.complex128)))
    return np.where(seen, image / (size * turn), 1.0).astype(np.complex64)
