"""Registration of two images of the same object: warps, their score, and positions moved by them. NumPy only.

The fit of a warp to two images is in `ptycho_torch.warp`.
"""

from __future__ import annotations

from ptycho.warp.prepare import Pair, make_pair
from ptycho.warp.score import Score, score_pair
from ptycho.warp.settings import KINDS, PairSettings
from ptycho.warp.warp import Warp, identity

__all__ = ["KINDS", "Pair", "PairSettings", "Score", "Warp", "identity", "make_pair", "score_pair"]
