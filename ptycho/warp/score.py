"""The agreement of two images after a warp, without a truth; and the failures that make a warp unusable."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptycho.evaluation.metrics import pearson, ssim
from ptycho.forward.label_losses import sobel
from ptycho.warp.prepare import Pair, warp_image
from ptycho.warp.warp import Warp

Floats = NDArray[np.float64]

#: hard failures, and the sentence that names each
FAILURES = {
    "folds": "the warp folds the image",
    "out of the field": "the warp takes more than half of the image out of the field",
    "no overlap": "less than a tenth of the grid is covered by both images",
    "no structure": "the two images have no structure in common",
}
_OUT, _SHARED = 0.5, 0.1
#: correlation of detail below which two images have nothing in common
_ALIKE = 0.1
_DETAIL_PX, _LINE_PX = 8.0, 1.5


@dataclass(frozen=True)
class Score:
    """All from 0 to 1, 1 is best: edges, lines: correlation of their strength; gradients: mean cosine between
    directions; ssim; mae: 1 less the mean absolute difference of the details over that of unlike images.
    failures: names out of `FAILURES`. total: their mean, 0 with a failure.
    """

    edges: float
    lines: float
    gradients: float
    ssim: float
    mae: float
    failures: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """One number: the mean, 0 if the warp failed."""
        parts = (self.edges, self.lines, self.gradients, self.ssim, self.mae)
        return 0.0 if self.failures else float(np.clip(parts, 0.0, 1.0).mean())

    def as_dict(self) -> dict[str, Any]:
        """Every number and the total, ready for JSON."""
        return {**asdict(self), "failures": list(self.failures), "total": self.total}


def score_pair(pair: Pair, warp: Warp) -> Score:
    """The score of a pair under a warp. Time O(H W).

    It compares details of amplitude and phase below 8 px, so the ptychographic gauge has no effect.
    """
    flat = Pair(**{**vars(pair), "corner_xy": (0, 0)})
    moved = warp_image(pair.moving, flat, warp)
    seen = (np.minimum(pair.fixed_weight, warp_image(pair.moving_weight, flat, warp, order=1)) > 0.1) * 1.0
    failures = hard_failures(pair, warp, seen)
    inside = ndimage.binary_erosion(seen > 0, iterations=4)
    if inside.sum() < 100:
        return Score(0.0, 0.0, 0.0, 0.0, 0.0, (*failures, *({"no overlap"} - set(failures))))
    ours, theirs = _details(moved, pair, seen), _details(pair.fixed, pair, seen)
    signs = [1.0 if pearson(a[inside], b[inside]) >= 0 or pair.part == "complex" else -1.0
             for a, b in zip(ours, theirs, strict=True)]  # fmt: skip
    ours = [sign * a for sign, a in zip(signs, ours, strict=True)]
    alike = max(pearson(a[inside], b[inside]) for a, b in zip(ours, theirs, strict=True))
    if alike < max(_ALIKE, 6 / np.sqrt(inside.sum() / 12)):
        failures = (*failures, "no structure")
    shares = np.array([b[inside].std() for b in theirs])
    shares = shares / max(shares.sum(), 1e-30)
    rows = np.array([_compared(a, b, inside) for a, b in zip(ours, theirs, strict=True)])
    edges, lines, gradients, alike_ssim, mae = (float(v) for v in shares @ rows)
    return Score(edges, lines, gradients, alike_ssim, mae, failures)


def hard_failures(pair: Pair, warp: Warp, seen: Floats | None = None) -> tuple[str, ...]:
    """Names of failures of the warp, from `FAILURES` except "no structure", which needs the images."""
    field = warp.field()
    x, y = (field[..., axis] + np.indices(pair.shape)[1 - axis] for axis in (0, 1))
    height, width = pair.shape
    out = (x < 0) | (y < 0) | (x > width - 1) | (y > height - 1)
    found = []
    if not float(warp.determinant().min()) > 0:
        found.append("folds")
    if out.mean() > _OUT:
        found.append("out of the field")
    both = np.minimum(pair.fixed_weight, pair.moving_weight) > 0 if seen is None else seen > 0
    if both.mean() < _SHARED:
        found.append("no overlap")
    return tuple(found)


def _details(image: NDArray[Any], pair: Pair, seen: Floats) -> list[Floats]:
    """Details of amplitude and phase below 8 px, relative to the mean amplitude."""

    def smooth(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(ndimage.gaussian_filter(values, _DETAIL_PX))

    share = np.maximum(smooth(seen), 1e-3)
    if pair.part != "complex":
        return [np.asarray((image.real - smooth(image.real * seen) / share) * seen)]
    slow = (smooth(image.real * seen) + 1j * smooth(image.imag * seen)) / share
    floor = 0.2 * np.abs(image[seen > 0]).mean()
    relative = image * slow.conj() / np.maximum(np.abs(slow), floor) ** 2 - 1
    return [np.asarray(relative.real * seen), np.asarray(relative.imag * seen)]


def _compared(ours: Floats, theirs: Floats, inside: NDArray[np.bool_]) -> list[float]:
    """Edges, lines, gradients, SSIM and MAE of two real images of details."""
    slopes, others = sobel(ours), sobel(theirs)
    strength, other = np.hypot(*slopes), np.hypot(*others)
    dot = slopes[0] * others[0] + slopes[1] * others[1]
    gradients = float(dot[inside].sum() / max(float((strength * other)[inside].sum()), 1e-30))
    spread = max(float(theirs[inside].std()), 1e-30)
    gain = float((ours * theirs)[inside].sum() / max(float((ours**2)[inside].sum()), 1e-30))
    unlike = float(np.abs(theirs[inside] - theirs[inside].mean()).mean())
    mae = 1 - float(np.abs(gain * ours - theirs)[inside].mean()) / max(unlike, 1e-30)
    return [
        pearson(strength[inside], other[inside]),
        pearson(_lines(ours)[inside], _lines(theirs)[inside]),
        gradients,
        ssim(gain * ours * inside, theirs * inside, data_range=6 * spread),
        mae,
    ]


def _lines(image: Floats) -> Floats:
    """Strength of ridges and valleys: the larger eigenvalue of the Hessian at 1.5 px, by size."""
    yy, xx, xy = (ndimage.gaussian_filter(image, _LINE_PX, order=order) for order in ((2, 0), (0, 2), (1, 1)))
    middle, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    return np.asarray(np.maximum(np.abs(middle + half), np.abs(middle - half)))
