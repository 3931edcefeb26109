"""The efficient network: physics in the stem, residual blocks at 1/4 and 1/8 of the resolution."""

from __future__ import annotations

import math

from ptycho.errors import ConfigError
from ptycho.networks.building import HALF_AMPLITUDE, Graph, GraphBuilder, NetworkSpec

_SWIFT_PATCH = 4
_SWIFT_WIDTH = 24
#: narrower around a reference, which costs two Fourier transforms a pattern
_AROUND_WIDTH = 16


def swift(spec: NetworkSpec) -> Graph:
    """The efficient default: physics in the stem, residual blocks at 1/4 and 1/8 of the resolution.

    The stem back-projects the measured amplitude with the phase of a flat object under the known probe
    (one step of Fienup's error reduction, Appl. Opt. 21, 2758 (1982)), so that the network starts in real
    space and learns the local correction; heads start at zero, so that the untrained answer is the flat
    object of amplitude one half that explains the mean pattern. Residual blocks: pre-normalised, He et al.,
    arXiv 1603.05027. With `reference` coarse: `_swift_around`.
    """
    if spec.reference != "flat":
        return _swift_around(spec)
    b = GraphBuilder()
    x = _swift_trunk(b, b.add("backproject", "diffraction", "probe"), spec, _SWIFT_WIDTH)

    def head(branch: str, activation: str, bias: float) -> str:
        h = _swift_head(b, x, branch, spec, bias, activation)
        return b.add("mask_centre", h) if spec.pad_object and not spec.probe_big else h

    amplitude = head("amplitude", spec.amp_activation, HALF_AMPLITUDE[spec.amp_activation])
    phase = head("phase", "pi_tanh", 0.0)
    return Graph("swift", tuple(b.nodes), amplitude, phase)


def _swift_around(spec: NetworkSpec) -> Graph:
    """`swift` around an image: the stem says what each pattern changes in it, the answer is what is changed.

    The answer is reference * exp(g r + h): r the stem's change of log amplitude and phase at every pixel, g
    and h from the trunk. Heads start at zero, so that the untrained answer is the reference. `amp_activation`
    has no meaning here.
    """
    if not spec.object_big:
        raise ConfigError(
            "object_big = False: with reference = 'coarse' every pattern has a patch of its own"
        )
    b, C = GraphBuilder(), spec.channels
    stem = b.add("backproject_around", "diffraction", "probe", "reference")
    x = _swift_trunk(b, stem, spec, _AROUND_WIDTH)
    gain = _swift_head(b, x, "gain", spec)

    def head(branch: str, first: int, around: str) -> str:
        seen = b.add("slice_channels", stem, start=first, stop=first + C)
        h = b.add("add", b.add("multiply", seen, gain), _swift_head(b, x, branch, spec))
        h = b.add(around, b.add("activation", h, kind="pi_tanh"), "reference")
        return b.add("mask_centre", h) if spec.pad_object and not spec.probe_big else h

    amplitude = head("amplitude", 0, "around_amplitude")
    phase = head("phase", C, "around_phase")
    return Graph("swift", tuple(b.nodes), amplitude, phase)


def _swift_side(spec: NetworkSpec) -> int:
    """The side that patches of four pixels and one halving divide."""
    multiple = 2 * _SWIFT_PATCH
    return math.ceil(spec.N / multiple) * multiple


def _swift_trunk(b: GraphBuilder, stem: str, spec: NetworkSpec, filters: int) -> str:
    """From the stem's channels to features at a quarter of the resolution."""
    width, side = filters * spec.n_filters_scale, _swift_side(spec)

    def block(x: str, name: str) -> str:
        h = b.add("norm", x, name=f"{name}.norm")
        h = b.conv(h, f"{name}.conv1", width, activation="swish")
        h = b.conv(h, f"{name}.conv2", width, init="zeros")
        return b.add("add", x, h)

    x = stem if side == spec.N else b.add("resize_canvas", stem, side=side)
    x = b.conv(x, "stem", width, kernel=_SWIFT_PATCH, stride=_SWIFT_PATCH)
    x = block(x, "fine.0")
    low = b.conv(x, "down", width, kernel=2, stride=2)
    for i in range(2):
        low = block(low, f"coarse.{i}")
    low = b.conv(low, "up", 4 * width, kernel=1)
    x = b.add("add", x, b.add("pixel_shuffle", low, factor=2))
    return block(x, "fine.1")


def _swift_head(
    b: GraphBuilder, x: str, branch: str, spec: NetworkSpec, bias: float = 0.0, kind: str | None = None
) -> str:
    """From the trunk's features to one channel a patch at full resolution; starts at the bias."""
    h = b.conv(x, branch, spec.out_channels * _SWIFT_PATCH**2, kernel=1, init="zeros", bias=bias)
    h = b.add("pixel_shuffle", h, factor=_SWIFT_PATCH)
    if kind is not None:
        h = b.add("activation", h, kind=kind)
    return h if _swift_side(spec) == spec.N else b.add("resize_canvas", h, side=spec.N)
