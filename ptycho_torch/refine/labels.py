"""Labels for supervised training from a refined object, and a distilled network checked against them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptycho.errors import DataError
from ptycho.scan.raw_data import RawData
from ptycho_torch.refine.result import RefineResult

if TYPE_CHECKING:
    from ptycho.clients.trained_model import TrainedModel
    from ptycho.evaluation import Evaluation


def label_scan(raw: RawData, result: RefineResult) -> RawData:
    """The scan with the result of a refinement as its truth, for supervised training.

    objectGuess (H, W) is the refined object, xcoords and ycoords (M,) px the refined positions in its pixels,
    probeGuess (N, N) or (P, N, N) the refined probe; patterns, unit and bad pixels are the scan's. The
    nominal positions move along. Memory: the patterns are shared, not copied. DataError if the result is not
    of this scan.
    """
    if len(result.positions_xy) != raw.n_positions or result.probe.shape[-1] != raw.N:
        raise DataError(
            f"the refinement has {len(result.positions_xy)} positions of {result.probe.shape[-1]} px, the "
            f"scan {raw.n_positions} of {raw.N}: refine this scan, then label it"
        )
    x, y = result.origin_xy
    probe = result.probe[0] if len(result.probe) == 1 else result.probe
    arrays = raw.as_arrays() | {
        "xcoords": result.positions_xy[:, 0] - x,
        "ycoords": result.positions_xy[:, 1] - y,
        "xcoords_start": raw.xcoords_start - x,
        "ycoords_start": raw.ycoords_start - y,
        "probeGuess": probe,
        "objectGuess": result.object,
        "Y": None,
    }
    return RawData(**arrays)


def check_distilled(model: TrainedModel | str | Path, raw: RawData, result: RefineResult) -> Evaluation:
    """Compare a network's image of a scan with the refined object by `evaluate`.

    raw: any scan of the refined object with the refined probe, positions in the object pixels of `result`.
    """
    from ptycho.clients.trained_model import TrainedModel
    from ptycho.evaluation import evaluate
    from ptycho.workflows.infer import infer

    made = infer(model.module if isinstance(model, TrainedModel) else Path(model), raw)
    corner = np.subtract(made.origin_xy, result.origin_xy)
    return evaluate(
        made.object,
        result.object,
        origin_xy=(float(corner[0]), float(corner[1])),
        coverage=made.image.coverage,
    )
