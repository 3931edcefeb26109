"""Runs the neutral graphs of `ptycho.networks.graphs` in torch: one small function an operation.

Weights keep the graph's names, so that a bundle written by either backend loads into the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptycho.errors import ConfigError
from ptycho.networks import graphs as architectures
from ptycho.networks.graphs import Graph, NetworkSpec, Node

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "swish": F.silu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "pi_tanh": lambda x: math.pi * torch.tanh(x),
}

#: share of the brightest probe pixel below which back-projection is damped (rPIE, Maiden 2017)
BACKPROJECT_DAMPING = 0.05
#: power of a dark reference, below which its change is no longer a part of it
REFERENCE_FLOOR = 0.0025


def resize_canvas(x: Tensor, side: int) -> Tensor:
    """Zero-pad or crop the last two axes to side x side, centre pixel on centre pixel."""
    before = side // 2 - x.shape[-1] // 2
    after = side - x.shape[-1] - before
    return F.pad(x, (before, after, before, after))


def border_mask(x: Tensor) -> Tensor:
    """(N, N) mask: one outside the central N/2 x N/2."""
    N = x.shape[-1]
    mask = torch.ones(N, N, dtype=x.dtype, device=x.device)
    mask[N // 4 : N // 4 + N // 2, N // 4 : N // 4 + N // 2] = 0
    return mask


def backproject(diffraction: Tensor, probe: Tensor) -> Tensor:
    """Real-space residual of a flat object: what the pattern says before anything is learned.

    psi_p = a FFT(P_p) is the flat object's wave, with a = N / (2 |P|) so that it explains the mean pattern;
    its modulus is replaced by the measured one, and conj(P) (psi' - psi) / (|P|^2 + damping) / a is the first
    object update (Fienup 1982; damping as in Maiden, Johnson and Li, Optica 4, 736 (2017)).
    Shapes: diffraction (B, C, N, N), probe (P, N, N) complex; returns (B, 2C+1, N, N): real and imaginary
    parts of each pattern, then how well the probe lights each pixel.
    """
    B, C, N, _ = diffraction.shape
    power = probe.real.square() + probe.imag.square()
    flat = N / (2 * torch.sqrt(power.sum()))
    # in double: single precision is lost where the wave is weak and the division below brings it back
    wave = torch.fft.fft2(probe.to(torch.complex128), norm="ortho").to(probe.dtype)
    wave = torch.fft.fftshift(wave, dim=(-2, -1)) * flat
    modulus = torch.sqrt((wave.real.square() + wave.imag.square()).sum(0) + 1e-6)
    excess = (diffraction / modulus - 1).unsqueeze(2) * wave
    residual = torch.fft.ifft2(torch.fft.ifftshift(excess, dim=(-2, -1)), norm="ortho")
    lit = power.sum(0)
    damped = lit + BACKPROJECT_DAMPING * lit.max()
    update = (residual * probe.conj()).sum(2) / (damped * flat)
    window = (lit / damped).expand(B, 1, N, N)
    parts = torch.view_as_real(update).movedim(-1, 2).reshape(B, 2 * C, N, N)
    return torch.cat([parts, window], 1).to(diffraction.dtype)


def backproject_around(diffraction: Tensor, probe: Tensor, reference: Tensor) -> Tensor:
    """What each pattern changes in the image it is seen on: one step of error reduction around a reference.

    psi_p = FFT(P_p O) for the reference O; its modulus is replaced by the measured one, and the change
    conj(P) (psi' - psi) / (|P|^2 + damping) is divided by O where O is not dark: log amplitude and phase.
    Shapes: diffraction (B, C, N, N), negative = not measured; probe (P, N, N) and reference (B, C, N, N)
    complex; returns (B, 4C+1, N, N): C changes of log amplitude, C of phase, real and imaginary part of the
    references, turned and scaled to 1 in the light's mean, and how well the probe lights each pixel.
    """
    B, _, N, _ = diffraction.shape
    lit = probe.real.square() + probe.imag.square()
    lit = lit.sum(0)
    damped = lit + BACKPROJECT_DAMPING * lit.max()
    waves = torch.fft.fft2(reference.unsqueeze(2) * probe, norm="ortho")
    modulus = torch.sqrt((waves.real.square() + waves.imag.square()).sum(2) + 1e-6)
    measured = torch.fft.ifftshift(diffraction, dim=(-2, -1))
    excess = torch.where(measured < 0, 0, measured / modulus - 1).unsqueeze(2) * waves
    change = (torch.fft.ifft2(excess, norm="ortho") * (probe.conj() / damped)).sum(2)
    power = reference.real.square() + reference.imag.square()
    ratio = change * reference.conj() / (power + REFERENCE_FLOOR)
    share = lit / lit.sum()
    mean = (reference * share).sum((-2, -1), keepdim=True)
    turn = mean.conj() / (mean.abs() + 1e-6)
    seen = reference * turn / torch.sqrt((power * share).sum((-2, -1), keepdim=True) + 1e-6)
    window = (lit / damped).expand(B, 1, N, N)
    return torch.cat([ratio.real, ratio.imag, seen.real, seen.imag, window], 1).to(diffraction.dtype)


class _Weights(nn.Module):
    """Weight and bias of one node: shapes as in `architectures.parameter_shapes`."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)


def _key(name: str) -> str:
    """Module names may not hold dots."""
    return name.replace(".", "/")


class GraphNetwork(nn.Module):
    """A graph with its weights: (diffraction (B,C,N,N), probe (P,N,N)) -> amplitude, phase (B,C_out,N,N)."""

    def __init__(self, graph: Graph, spec: NetworkSpec, seed: int) -> None:
        super().__init__()
        self.graph, self.spec = graph, spec
        weights = architectures.initial_weights(graph, spec, seed)
        names = {name.rsplit(".", 1)[0] for name in weights}
        self.weights = nn.ModuleDict()
        for node in graph.nodes:
            if node.name in names:
                pair = (torch.from_numpy(weights[f"{node.name}.{part}"]) for part in ("weight", "bias"))
                self.weights[_key(node.name)] = _Weights(*pair)
        # oneDNN convolutions are two to three times faster with channels last
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, diffraction: Tensor, probe: Tensor, reference: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        values: dict[str, Tensor] = {"diffraction": diffraction, "probe": probe}
        if reference is not None:
            values["reference"] = reference
        for node in self.graph.nodes:
            values[node.name] = self._run(node, [values[name] for name in node.inputs])
        return values[self.graph.amplitude], values[self.graph.phase]

    def _run(self, node: Node, inputs: list[Tensor]) -> Tensor:
        x, option = inputs[0], node.options
        if node.op == "conv":
            own = self._own(node)
            padding = 0 if option["stride"] > 1 else option["kernel"] // 2
            x = x.contiguous(memory_format=torch.channels_last)
            return F.conv2d(x, own.weight, own.bias, stride=option["stride"], padding=padding)
        if node.op == "norm":
            own = self._own(node)
            return F.group_norm(x, 1, own.weight, own.bias)
        return _STATELESS[node.op](inputs, option)

    def _own(self, node: Node) -> _Weights:
        return cast(_Weights, self.weights[_key(node.name)])


_STATELESS: dict[str, Callable[[list[Tensor], Mapping[str, Any]], Tensor]] = {
    "activation": lambda x, o: ACTIVATIONS[o["kind"]](x[0]),
    "add": lambda x, o: x[0] + x[1],
    "max_pool": lambda x, o: F.max_pool2d(x[0], 2),
    "upsample": lambda x, o: F.interpolate(x[0], scale_factor=2, mode="nearest"),
    "pixel_shuffle": lambda x, o: F.pixel_shuffle(x[0], o["factor"]),
    "slice_channels": lambda x, o: x[0][:, o["start"] : o["stop"]],
    "resize_canvas": lambda x, o: resize_canvas(x[0], o["side"]),
    "mask_border": lambda x, o: x[0] * border_mask(x[0]),
    "mask_centre": lambda x, o: x[0] * (1 - border_mask(x[0])),
    "multiply": lambda x, o: x[0] * x[1],
    "backproject": lambda x, o: backproject(x[0], x[1]),
    "backproject_around": lambda x, o: backproject_around(x[0], x[1], x[2]),
    "around_amplitude": lambda x, o: x[1].abs() * torch.exp(x[0]),
    "around_phase": lambda x, o: x[1].angle() + x[0],
}


def build_network(name: str, spec: NetworkSpec, seed: int) -> nn.Module:
    """The registered network as a module; graphs are interpreted, a user's own module is taken as it is."""
    made = architectures.describe(name, spec)
    if isinstance(made, Graph):
        return GraphNetwork(made, spec, seed)
    if isinstance(made, nn.Module):
        return made
    raise ConfigError(
        f"architecture {name!r} returned {type(made).__name__}: the PyTorch backend needs a Graph "
        "or a torch.nn.Module"
    )


def neutral_weights(network: nn.Module) -> dict[str, Tensor]:
    """Weights under their neutral names, detached, on the CPU, contiguous."""
    state = network.state_dict()
    return {neutral_name(name): value.detach().cpu().contiguous() for name, value in state.items()}


def load_neutral_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put weights with neutral names into the network; every name and shape must match."""
    own = {neutral_name(name): name for name in network.state_dict()}
    missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or foreign:
        raise ConfigError(
            f"weights do not fit the network: missing {missing[:3]}, unknown {foreign[:3]} "
            "- wrong architecture?"
        )
    network.load_state_dict({own[name]: value for name, value in weights.items()})


def neutral_name(name: str) -> str:
    """The name of a weight in the graph and in bundles, of its name in a `GraphNetwork`."""
    return name.removeprefix("weights.").replace("/", ".")


def draw_he(network: nn.Module, seed: int, zero: tuple[str, ...] = ()) -> None:
    """Draw every weight from a generator of its own, in place: normal, variance 2 / inputs; biases are 0.

    zero: names that begin so are 0 too. (K. He et al., ICCV 2015, arXiv:1502.01852.)
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim == 1 or name.startswith(zero):
                value.zero_()
            else:
                fan = value[0].numel()
                value.copy_(torch.randn(value.shape, generator=generator) * math.sqrt(2.0 / fan))
