"""Inference: from a trained model and a scan to one image; the same way for both backends and for ONNX."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from ptycho import backends
from ptycho.backends import Network, predictor_of
from ptycho.config.settings import InferenceConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.models.onnx_model import OnnxModel
from ptycho.ops import Array
from ptycho.ops.team import ALONE, Team
from ptycho.run.preparation import Scan, ensure_container, inference_container
from ptycho.run.reconstruction import Predictor, Reconstruction, judged_by_data, reconstruct
from ptycho.scan.pattern_store import keep_patterns
from ptycho.scan.raw_data import RawData
from ptycho.workflows.onnx_inference import predictor_of_onnx
from ptycho.workflows.shipped import shipped_state
from ptycho.workflows.trained import for_data, restored

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Placing:
    """How positions become a canvas, for scans whose stage axes differ from the detector's.

    `flip_x`, `flip_y` mirror the positions, `transpose` exchanges x and y (in this order), `coord_scale`
    multiplies them. M: the stitched window's side in px, None: what the probe lights. canvas_shape (H, W):
    None: around the positions.
    """

    flip_x: bool = False
    flip_y: bool = False
    transpose: bool = False
    coord_scale: float = 1.0
    M: int | None = None
    canvas_shape: tuple[int, int] | None = None


def infer(
    model: Network | OnnxModel | Path | None,
    raw: RawData,
    config: InferenceConfig | None = None,
    execution: PyTorchExecutionConfig | None = None,
    *,
    backend: str = "pytorch",
    M: int | None = None,
    canvas_shape: tuple[int, int] | None = None,
    weighting: str = "probe",
    progress: Progress | None = None,
    team: Team = ALONE,
) -> Reconstruction:
    """Reconstruct a scan with a trained model, and judge the image by the patterns (`agreement`).

    `model`: a bundle (path), opened by `backend`; a model; an opened ONNX file; or None, the network that
    ships, which takes probe, scale and dose from the scan (`ptycho.workflows.shipped`). The normalisation is
    the training set's, that of its most similar scan where it has several, or of `config.trained_scan`. An
    object in the scan gives the canvas its shape. `team`: the processes that share the work; each has the
    whole image in the end. Time linear in positions; memory: the scan once as float32, the canvas, one batch.
    Raises DataError where the scan does not fit the model.
    """
    config, execution = config or InferenceConfig(), execution or PyTorchExecutionConfig()
    raw = keep_patterns(raw, execution, config.output_dir)
    placed: AbstractContextManager[object] = nullcontext()
    seen: Predictor[Array]
    if isinstance(model, OnnxModel):
        seen = predictor_of_onnx(model, config)
    else:
        if model is None:
            network = restored(shipped_state(raw), backend, trains=False)
        else:
            network = for_data(model, raw, backend=backend, wanted=config.trained_scan)
        placed = backends.find(network.backend).placed(network, execution)
        seen = predictor_of(network)
    container = inference_container(raw, seen.config, config, x_scale=seen.x_scale, nphotons=seen.nphotons)
    if canvas_shape is None and raw.objectGuess is not None:
        canvas_shape = raw.objectGuess.shape
    with placed:
        made = reconstruct(
            seen,
            container,
            M=M,
            canvas_shape=canvas_shape,
            weighting=weighting,
            batch_size=execution.inference_batch_size,
            progress=progress,
            team=team,
        )
    return judged_by_data(made, container, team)


def reassemble(
    model: Network,
    test_data: Scan,
    config: TrainingConfig,
    execution: PyTorchExecutionConfig | None = None,
    placing: Placing = Placing(),
    *,
    progress: Progress | None = None,
) -> Reconstruction:
    """Predict every group of a scan, as training groups it, and stitch; the patches are kept.

    Time linear in patches; memory: the patches, on disk where the container's patterns are.
    """
    execution = execution or PyTorchExecutionConfig()
    network = for_data(model, test_data)
    once = dataclasses.replace(config, n_groups=None, n_images=None)
    scan = keep_patterns(test_data, execution, config.output_dir)
    container = ensure_container(scan, once, x_scale=network.x_scale, nphotons=network.nphotons)
    with backends.find(network.backend).placed(network, execution):
        return reconstruct(
            predictor_of(network),
            container,
            **dataclasses.asdict(placing),
            batch_size=execution.inference_batch_size,
            keep_patches=True,
            progress=progress,
        )
