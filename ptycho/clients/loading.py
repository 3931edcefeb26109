"""A container from a client's arrays: from grouped data, or built by hand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.clients import params
from ptycho.errors import DataError
from ptycho.scan import container, normalization
from ptycho.scan.probe import as_modes

logger = logging.getLogger(__name__)

_TEST_FRACTION = 0.1


class PtychoDataContainer(container.PtychoDataContainer):
    """The container of `ptycho.scan.container`, which can be built by hand from what clients see of it.

    By hand: X (B,N,N,C) network input; Y_I, Y_phi (B,N,N,C) amplitude and phase rad of the labels;
    nn_indices (B,C), the scan row of every pattern (None: all are different); global_offsets (B,1,2,1) and
    local_offsets or coords_nominal, coords_true (B,1,2,C) px [x, y] (None: zero); probeGuess as the probe of
    a scan (None: the one of `set_probe_guess`, else a flat one, with a warning). norm_Y_I and YY_full are
    accepted and not used. Raises DataError for shapes that do not fit.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        by_hand = bool(arguments) or "X" in named
        super().__init__(**(_fields_by_hand(*arguments, **named) if by_hand else named))


def load(
    cb: Callable[[], Mapping[str, Any]],
    probeGuess: NDArray[Any],
    which: str | None = None,
    create_split: bool = False,
) -> container.PtychoDataContainer:
    """A container from the dictionary of `RawData.generate_grouped_data`, which `cb` returns.

    Only the patterns that some group uses are kept, so `nn_indices` is renumbered and `source_rows` tells the
    scan row of each. With `create_split`, `which` 'train' or 'test' selects nine tenths of the groups or the
    rest.
    The dictionary does not carry counts as such: the photon number is read off its amplitudes.

    >>> from ptycho.clients.grouped_data import RawData
    >>> x = np.arange(4.0) * 8
    >>> raw = RawData.from_coords_without_pc(x, x, np.ones((4, 32, 32), np.uint16), np.ones((32, 32)))
    >>> container = load(lambda: raw.generate_grouped_data(32, nsamples=4, gridsize=1), raw.probeGuess)
    >>> container.X.shape, container.global_offsets.shape
    ((4, 32, 32, 1), (4, 1, 2, 1))
    """
    data = dict(cb())
    missing = [key for key in ("X_full", "diffraction", "nn_indices", "coords_nn") if data.get(key) is None]
    if missing:
        raise DataError(
            f"the grouped data lack {missing[0]!r}: pass the result of generate_grouped_data unchanged"
        )
    made = PtychoDataContainer(**_fields_of(data, probeGuess))
    return _half(made, which) if create_split else made


def _fields_of(data: Mapping[str, Any], probe: NDArray[Any]) -> dict[str, Any]:
    """The fields of a container from grouped data, each pattern kept once."""
    groups = np.asarray(data["nn_indices"], dtype=np.int64)
    rows, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    group, member = np.divmod(first, groups.shape[1])

    def once(key: str) -> NDArray[Any]:
        return np.asarray(data[key])[group, ..., member]

    amplitude, patterns = once("diffraction"), once("X_full")
    positions = once("coords_nn")[:, 0].astype(np.float64)
    has_start = data.get("coords_start_nn") is not None
    return {
        "patterns": np.ascontiguousarray(patterns, dtype=np.float32),
        "positions_px": positions,
        "nn_indices": inverse.reshape(groups.shape).astype(np.int32),
        "probe": as_modes(probe),
        "x_scale": _ratio(patterns, amplitude),
        "nphotons": normalization.photons_from_amplitude(amplitude, "amplitude"),
        "source_rows": rows,
        "true_positions_px": once("coords_start_nn")[:, 0].astype(np.float64) if has_start else positions,
        "objectGuess": data.get("objectGuess"),
        "pattern_Y": once("Y") if data.get("Y") is not None else None,
    }


def _fields_by_hand(
    X: ArrayLike,
    Y_I: ArrayLike | None = None,
    Y_phi: ArrayLike | None = None,
    norm_Y_I: object = None,
    YY_full: object = None,
    coords_nominal: ArrayLike | None = None,
    coords_true: ArrayLike | None = None,
    nn_indices: ArrayLike | None = None,
    global_offsets: ArrayLike | None = None,
    local_offsets: ArrayLike | None = None,
    probeGuess: ArrayLike | None = None,
) -> dict[str, Any]:
    """The fields of a container from the arrays that it lays out."""
    x = np.asarray(X, np.float32)
    if x.ndim != 4 or x.shape[1] != x.shape[2] or 0 in x.shape:
        raise DataError(f"X has shape {x.shape}; expected (B,N,N,C): the patterns of a group come last")
    B, N, _, C = x.shape

    def fitting(name: str, values: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[Any]:
        array = np.zeros(shape) if values is None else np.asarray(values)
        if array.shape != shape:
            raise DataError(f"{name} has shape {array.shape}; expected {shape} beside X of {x.shape}")
        return array

    local = local_offsets if local_offsets is not None else coords_nominal
    centres = fitting("global_offsets", global_offsets, (B, 1, 2, 1))
    true = coords_true if coords_true is not None else local
    rows = np.arange(B * C).reshape(B, C) if nn_indices is None else nn_indices
    labels = None
    if Y_I is not None:
        phase = fitting("Y_phi", Y_phi, x.shape)
        labels = fitting("Y_I", Y_I, x.shape) * np.exp(1j * phase)
    data = {
        "X_full": x,
        "diffraction": x,
        "nn_indices": fitting("nn_indices", rows, (B, C)),
        "coords_nn": centres - fitting("local_offsets", local, (B, 1, 2, C)),
        "coords_start_nn": centres - fitting("coords_true", true, (B, 1, 2, C)),
        "Y": labels,
    }
    probe = params.get("probe", None) if probeGuess is None else probeGuess
    if probe is None:
        logger.warning("a container without probeGuess: a flat probe stands in for it")
        probe = np.ones((N, N))
    modes = as_modes(np.asarray(probe))
    if modes.shape[-1] != N:
        raise DataError(f"probeGuess has shape {np.shape(probe)}; expected (N,N) with N = {N}, as X")
    return _fields_of(data, modes)


def _ratio(patterns: NDArray[Any], amplitude: NDArray[Any]) -> float:
    """The x_scale that took amplitude to patterns; rounding of single pixels averages out."""
    total = float(np.sum(amplitude, dtype=np.float64))
    if not total > 0:
        raise DataError("every diffraction pattern in the chosen groups is zero: ask for more groups")
    return float(np.sum(patterns, dtype=np.float64)) / total


def _half(whole: container.PtychoDataContainer, which: str | None) -> container.PtychoDataContainer:
    if which not in ("train", "test"):
        raise DataError(f"which is {which!r}; with create_split it must be 'train' or 'test'")
    train, test = whole.split(_TEST_FRACTION)
    return whole.select(train if which == "train" else test)
