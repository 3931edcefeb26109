"""A container from a client's grouped data, the dictionary of `generate_grouped_data`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.scan import normalization
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.probe import as_modes

_TEST_FRACTION = 0.1


def load(
    cb: Callable[[], Mapping[str, Any]],
    probeGuess: NDArray[Any],
    which: str | None = None,
    create_split: bool = False,
) -> PtychoDataContainer:
    """A container from the dictionary of `RawData.generate_grouped_data`, which `cb` returns.

    Only the patterns that some group uses are kept, so `nn_indices` is renumbered and `source_rows` tells the
    scan row of each. With `create_split`, `which` 'train' or 'test' selects nine tenths of the groups or the
    rest.
    The dictionary does not carry counts as such: the photon number is read off its amplitudes.
    """
    data = dict(cb())
    missing = [key for key in ("X_full", "diffraction", "nn_indices", "coords_nn") if data.get(key) is None]
    if missing:
        raise DataError(
            f"the grouped data lack {missing[0]!r}: pass the result of generate_grouped_data unchanged"
        )
    groups = np.asarray(data["nn_indices"], dtype=np.int64)
    rows, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    group, member = np.divmod(first, groups.shape[1])

    def once(key: str) -> NDArray[Any]:
        return np.asarray(data[key])[group, ..., member]

    amplitude, patterns = once("diffraction"), once("X_full")
    positions = once("coords_nn")[:, 0].astype(np.float64)
    has_start = data.get("coords_start_nn") is not None
    container = PtychoDataContainer(
        patterns=np.ascontiguousarray(patterns, dtype=np.float32),
        positions_px=positions,
        nn_indices=inverse.reshape(groups.shape).astype(np.int64),
        probe=as_modes(probeGuess),
        x_scale=_ratio(patterns, amplitude),
        nphotons=normalization.photons_from_amplitude(amplitude, "amplitude"),
        source_rows=rows,
        true_positions_px=once("coords_start_nn")[:, 0].astype(np.float64) if has_start else positions,
        objectGuess=data.get("objectGuess"),
        pattern_Y=once("Y") if data.get("Y") is not None else None,
    )
    return _half(container, which) if create_split else container


def _ratio(patterns: NDArray[Any], amplitude: NDArray[Any]) -> float:
    """The x_scale that took amplitude to patterns; rounding of single pixels averages out."""
    total = float(np.sum(amplitude, dtype=np.float64))
    if not total > 0:
        raise DataError("every diffraction pattern in the chosen groups is zero: ask for more groups")
    return float(np.sum(patterns, dtype=np.float64)) / total


def _half(container: PtychoDataContainer, which: str | None) -> PtychoDataContainer:
    if which not in ("train", "test"):
        raise DataError(f"which is {which!r}; with create_split it must be 'train' or 'test'")
    train, test = container.split(_TEST_FRACTION)
    return container.select(train if which == "train" else test)
