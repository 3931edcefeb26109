"""How the shipped network learns: neighbours dealt into rounds, each seen on the image of those before."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptycho.image.canvas import auto_window_side, scan_order, window_weights
from ptycho.ops.torch import gather, splat
from ptycho.run.reference import KEPT
from ptycho_torch.shipped.scans import Drawn

_LEAST_ERROR = 1e-4


class Block:
    """Some patterns of a scan on one canvas, and the true object there.

    members (B,): rows of the scan, in the order in which they are dealt into rounds.
    """

    def __init__(self, scan: Drawn, members: NDArray[np.int64]) -> None:
        N = scan.probe.shape[-1]
        places = scan.positions_xy[members]
        low = np.floor(places.min(0)).astype(int) - N // 2
        high = np.ceil(places.max(0)).astype(int) - N // 2 + N + 1
        start = scan.start
        first = low - np.array(start.origin_xy)
        span = high - low
        rows = np.clip(np.arange(span[1]) + first[1], 0, start.image.shape[0] - 1)
        columns = np.clip(np.arange(span[0]) + first[0], 0, start.image.shape[1] - 1)
        self.image = torch.from_numpy(start.image[np.ix_(rows, columns)])
        self.truth = torch.from_numpy(scan.truth[low[1] : high[1], low[0] : high[0]])
        self.x = torch.from_numpy(scan.x[members])
        self.probe = torch.from_numpy(scan.probe)
        self.corners = torch.from_numpy(places - N // 2 - low)
        M = auto_window_side(scan.probe)
        self.weights = torch.zeros(N, N)
        edge = N // 2 - M // 2
        self.weights[edge : edge + M, edge : edge + M] = torch.from_numpy(window_weights(scan.probe, M))
        light = self._laid(torch.ones(len(members), N, N), self.corners).real
        # judged where the block has its usual light, the rim less
        self.judged = (light / light[light > 0.05 * light.max()].median()).clamp(max=1.0)

    def round(self, network: nn.Module, rows: slice) -> Tensor:
        """The image after the patterns `rows` were seen on it (H, W), with its gradient."""
        corners = self.corners[rows]
        N, count = self.weights.shape[0], len(corners)
        one = torch.zeros(count, dtype=torch.int64)
        references = gather(self.image[None], corners, one, N)
        amplitude, phase = network(self.x[rows, None], self.probe, references[:, None])
        patches = torch.complex(amplitude * torch.cos(phase), amplitude * torch.sin(phase))[:, 0]
        change = self._laid(patches - references, corners)
        light = self._laid(torch.ones_like(patches.real), corners)
        reached = light > 1e-3 * light.max()
        coverage = torch.where(reached, light, 0) / light[reached].median()
        change = torch.where(reached, change / torch.where(reached, light, 1), 0)
        made: Tensor = self.image + coverage / (coverage + KEPT) * change
        return made

    def error(self, image: Tensor) -> Tensor:
        """Relative error under the light, complex scale removed: 0 to 1."""
        weight = self.judged
        cross = (weight * image * self.truth.conj()).sum()
        power = (weight * image.abs().square()).sum() * (weight * self.truth.abs().square()).sum()
        return torch.sqrt((1 - cross.abs().square() / power).clamp(min=0) + _LEAST_ERROR)

    def _laid(self, patches: Tensor, corners: Tensor) -> Tensor:
        one = torch.zeros(len(corners), dtype=torch.int64)
        height, width = self.image.shape
        return splat(patches * self.weights, corners, one, 1, (height, width))[0]


def neighbours(scan: Drawn, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The `count` patterns around a random one, strip by strip."""
    places = scan.positions_xy
    centre = places[rng.integers(len(places))]
    near = np.argsort(np.hypot(*(places - centre).T))[:count]
    return np.asarray(near[scan_order(places[near], 8)])


def learn(network: nn.Module, block: Block, rounds: int) -> list[float]:
    """Add the gradient of the logarithm of the error after every round; the errors, the start's first."""
    errors = [float(block.error(block.image))]
    for part in range(rounds):
        image = block.round(network, slice(part, None, rounds))
        error = block.error(image)
        (torch.log(error) / rounds).backward()
        block.image = image.detach()
        errors.append(float(error.detach()))
    return errors


@torch.inference_mode()
def judge(network: nn.Module, scan: Drawn, rounds: int) -> list[float]:
    """The error of a whole scan before and after every round."""
    block = Block(scan, scan_order(scan.positions_xy, 64))
    errors = [float(block.error(block.image))]
    for part in range(rounds):
        block.image = block.round(network, slice(part, None, rounds))
        errors.append(float(block.error(block.image)))
    return errors
