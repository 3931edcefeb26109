"""A whole job: train, keep the model, and make the image of a scan if asked; the same for both backends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.ops.team import rank
from ptycho.run.preparation import Scan, Scans, first_scan
from ptycho.run.reconstruction import Reconstruction
from ptycho.workflows.infer import Placing, reassemble
from ptycho.workflows.train import Options, TrainingResult, train
from ptycho.workflows.trained import save_trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RunResult:
    """trained: what training left. bundle: the path of `wts.h5.zip`, None where nothing is written. image:
    None where none was asked for."""

    trained: TrainingResult
    bundle: Path | None = None
    image: Reconstruction | None = None

    def plot(self, pixel_size_m: float | None = None) -> Figure:
        """The image as a matplotlib Figure; where none was made, the losses.

        pixel_size_m: side of an object pixel, None: what the scan says.
        """
        if self.image is None:
            return self.trained.plot()
        from ptycho.report.showing import draw_reconstruction

        size = self.image.object_pixel_size_m if pixel_size_m is None else pixel_size_m
        return draw_reconstruction(self.image.object, coverage=self.image.image.coverage, pixel_size_m=size)

    def _repr_html_(self) -> str:
        told = self.trained._repr_html_()
        if self.image is None:
            return told
        from ptycho.report.showing import image_html

        size = self.image.object_pixel_size_m
        return image_html(self.image.object, self.image.image.coverage, pixel_size_m=size) + told


def run(
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    execution: PyTorchExecutionConfig | None = None,
    *,
    stitch: Placing | None = None,
    **options: Unpack[Options],
) -> RunResult:
    """Train, save the bundle where an output directory is set, and stitch where a `stitch` is given.

    Without `test_data` the (first) training scan is stitched. An `output_dir` of Path() writes nothing. Time
    and memory of `train` and `reassemble`.
    """
    trained = train(train_data, test_data, config, execution, **options)
    return finish(trained, train_data, test_data, config, stitch=stitch)


def finish(
    trained: TrainingResult,
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    *,
    stitch: Placing | None = None,
) -> RunResult:
    """Save and stitch what training left, as `run` does; of several processes the first one alone."""
    bundle = image = None
    leads = rank() == 0  # of several processes one writes
    if leads and config.output_dir not in (Path(), None):
        bundle = save_trained(trained.model, config.output_dir)
        if trained.recorder is not None:
            trained.recorder.add_bundle(bundle)
    if leads and stitch is not None:
        data = test_data if test_data is not None else first_scan(train_data)
        image = reassemble(trained.model, data, config, trained.execution, stitch)
    return RunResult(trained, bundle, image)
