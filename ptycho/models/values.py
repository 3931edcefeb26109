"""What a trained network must be made of, whoever opens it: declared weights, finite, and positive scales."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import ModelConfig
from ptycho.errors import BundleError, ConfigError, DataError
from ptycho.io.reading import check_memory
from ptycho.networks import graphs
from ptycho.networks.graphs import Graph, NetworkSpec
from ptycho.scan.scan_set import KnownScan

#: weights, gradients and the two moments of Adam
_COPIES_IN_TRAINING = 4
#: exp of it is still a float32
_LARGEST_LOG = 80.0
_POSITIVE = ("x_scale", "nphotons", "probe_factor")


def check_network_fits(config: ModelConfig, copies: int = _COPIES_IN_TRAINING) -> None:
    """ConfigError where so many copies of the network's weights are larger than the memory; nothing is built.

    A network that is no `Graph` is not known before it is built, and passes.
    """
    spec = graphs.spec_from_config(config)
    graph = graphs.describe(config.architecture, spec)
    if not isinstance(graph, Graph):
        return
    count = graphs.count_parameters(graph, spec)
    try:
        check_memory(4 * count * copies, f"architecture {config.architecture!r}: {count:.3g} weights")
    except DataError as error:
        raise ConfigError(f"{error}; lower n_filters_scale = {config.n_filters_scale}") from None


def check_weights(graph: Graph, spec: NetworkSpec, found: Mapping[str, NDArray[Any]], source: str) -> None:
    """BundleError naming the first weight that is missing, unknown, not finite or of another form."""
    wanted = graphs.parameter_shapes(graph, spec)
    different = sorted(wanted.keys() ^ found.keys())
    if different:
        raise BundleError(
            f"{source}: weights do not fit {graph.name}: {different[0]} is "
            f"{'missing' if different[0] in wanted else 'unknown'} - wrong architecture?"
        )
    for name, shape in wanted.items():
        value = found[name]
        if value.shape != shape:
            raise BundleError(f"{source}: weight {name} has shape {value.shape}; expected {shape}")
        if value.dtype.kind != "f":
            raise BundleError(f"{source}: weight {name} has dtype {value.dtype}; expected float32")
    check_finite(found, source)


def check_finite(found: Mapping[str, NDArray[Any]], source: str) -> None:
    """BundleError naming the first weight with a value that is not finite."""
    for name, value in found.items():
        if value.dtype.kind in "fc" and not np.isfinite(value).all():
            raise BundleError(f"{source}: weight {name} holds values that are not finite; train again")


def check_scan(scan: KnownScan, N: int, source: str) -> None:
    """BundleError for a scale that is not positive and finite, and for a probe or mask that cannot be one."""
    for name in (*_POSITIVE, "log_scale"):
        number = getattr(scan, name)
        if not math.isfinite(number) or (name in _POSITIVE and not number > 0):
            raise BundleError(
                f"{source}: {name} is {number}; it must be finite, a scale positive; train again"
            )
    if abs(scan.log_scale) > _LARGEST_LOG:
        raise BundleError(f"{source}: log_scale is {scan.log_scale}; no scale is so large; train again")
    for name in ("probe", "guess"):
        value = np.asarray(getattr(scan, name))
        if value.ndim != 3 or value.shape[1:] != (N, N) or not len(value) or value.dtype.kind not in "fc":
            raise BundleError(
                f"{source}: {name} is {value.dtype} of shape {value.shape}; expected complex (P, {N}, {N})"
            )
        if not np.isfinite(value).all() or not value.any():
            raise BundleError(f"{source}: {name} is zero or holds values that are not finite; train again")
    bad = np.asarray(scan.bad_pixels)
    if bad.shape != (N, N) or bad.dtype.kind not in "bu":
        raise BundleError(
            f"{source}: bad_pixels is {bad.dtype} of shape {bad.shape}; expected bool ({N}, {N})"
        )
