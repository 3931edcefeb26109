"""The six calls. Each takes a path where it takes a scan, and shows bars on a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.errors import InputError
from ptycho.scan.raw_data import RawData
from ptychopinn.shown import Image, Model, Scan

if TYPE_CHECKING:
    from os import PathLike

    Source = Scan | RawData | str | PathLike[str]


def open(path: str | PathLike[str], **options: Any) -> Scan:
    """The scan in a file or folder of any format of `ptycho info --formats`.

    options: `positions`, `settings`, `format`, `patterns`, see `ptycho.scan.opening.open_scan`. Raises
    MissingFileError, InputError and DataError in one line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = simulate(N=32, n_positions=25, step_px=3.0).save(f"{folder}/scan.npz")
    ...     open(written)
    <Scan of 25 patterns of 32 x 32, pixel size unknown>
    """
    from ptycho.scan.opening import open_scan

    return Scan(open_scan(path, **options), path=Path(path))


def simulate(**scenario: Any) -> Scan:
    """A scan whose answer is known; scenario: fields of `ptycho.simulation.Scenario`, such as N, photons.

    >>> simulate(N=32, n_positions=25, step_px=3.0)
    <Scan of 25 patterns of 32 x 32, pixel size unknown>
    """
    from ptycho.simulation import Scenario
    from ptycho.simulation import simulate as make

    made = make(Scenario(**scenario))
    return Scan(made.raw, truth=made.object_true)


def reconstruct(
    scan: Source, *, sweeps: int | None = None, accelerator: str = "auto", **options: Any
) -> Image:
    """The best image of one scan, by iterative refinement.

    sweeps: None for as many as bring something. accelerator: 'auto' (a GPU where there is one), 'cpu', 'gpu'.
    options: those of `ptycho_torch.refine.reconstruct`, such as positions='free', modes=2, intensity=True.

    >>> reconstruct(simulate(N=32, n_positions=25, step_px=3.0), sweeps=2).object.dtype
    dtype('complex64')
    """
    from ptycho_torch.refine import reconstruct as refine
    from ptycho_torch.refine.device import device_for

    raw = _raw(scan)
    device, _ = device_for(accelerator)
    with _bar("reconstructing") as progress:
        made = refine(raw, sweeps=sweeps, device=device, progress=progress, **options)
    return Image(
        object=made.object,
        coverage=made.coverage,
        origin_xy=made.origin_xy,
        probe=made.probe,
        positions_px=made.positions_px,
        r_factor=made.r_factor,
        pixel_size_m=made.object_pixel_size_m,
        result=made,
    )


def train(
    scan: Source, *, epochs: int | None = None, output_dir: str | Path | None = None, **settings: Any
) -> Model:
    """Train a network on one scan from its diffraction alone.

    epochs: None for 60. output_dir: where checkpoints and the model go; None: nowhere. settings: fields of
    TrainingConfig, ModelConfig and PyTorchExecutionConfig by name; an unknown one is refused (ConfigError).
    The defaults are those of `ptycho train`.

    >>> model = train(simulate(N=32, n_positions=25, step_px=3.0), epochs=1, probe_from="guess")
    >>> len(model.history["train_loss"])
    1
    """
    from ptycho.config.defaults import TRAINS_WELL
    from ptycho.config.yaml_io import training_config_from
    from ptycho.workflows.run import run

    raw = _raw(scan)
    given = {**TRAINS_WELL, **({} if epochs is None else {"nepochs": epochs}), **settings}
    given = {"N": raw.N, "output_dir": Path(output_dir or ""), **given}
    if output_dir is None:
        given = {"logger_backend": "none", "enable_checkpointing": False, **given}
    config, execution = training_config_from({}, given, source="ptychopinn.train")
    with _bar("training") as progress:
        made = run(raw, None, config, execution, progress=progress)
    return Model(made.trained)


def infer(
    scan: Source, model: Model | str | PathLike[str] | None = None, *, accelerator: str = "auto"
) -> Image:
    """A trained network's image of a scan: every pattern at its own place, stitched.

    model: what `train` gave, or a bundle or the folder that holds it; None: the network that ships, which
    needs no training (patterns of 64 x 64 or 128 x 128).

    >>> scan = simulate(N=32, n_positions=25, step_px=3.0)
    >>> infer(scan, train(scan, epochs=1, probe_from="guess")).probe.shape
    (1, 32, 32)
    """
    from ptycho.config.settings import PyTorchExecutionConfig
    from ptycho.workflows.infer import infer as predict

    raw = _raw(scan)
    known = model.result.model if isinstance(model, Model) else None if model is None else Path(model)
    execution = PyTorchExecutionConfig(accelerator=accelerator)
    with _bar("inferring") as progress:
        made = predict(known, raw, execution=execution, progress=progress)
    return Image(
        object=made.object,
        coverage=made.image.coverage,
        origin_xy=made.origin_xy,
        probe=made.probe,
        positions_px=made.positions_px,
        r_factor=None if made.agreement is None else float(made.agreement.whole),
        pixel_size_m=made.object_pixel_size_m,
        result=made,
    )


def report(*folders: str | PathLike[str], output: str | PathLike[str] = "report.html") -> Path:
    """One page of one run folder or several: did it work, and why; returns the page's path.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = reconstruct(simulate(N=32, n_positions=25, step_px=3.0), sweeps=1).save(f"{folder}/image")
    ...     report(saved, output=f"{folder}/report.html").name
    'report.html'
    """
    from ptycho.report.html import write_report

    if not folders:
        raise InputError("no run to report on; give the output folder of a run")
    return write_report(Path(output), [Path(folder) for folder in folders])


def _raw(scan: Source) -> RawData:
    if isinstance(scan, Scan):
        return scan.raw
    return scan if isinstance(scan, RawData) else open(scan).raw


@contextmanager
def _bar(title: str) -> Iterator[Callable[..., None]]:
    """A bar on a terminal or in a notebook for the time of a `with`; elsewhere nothing."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield lambda done, total, metrics=None: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total, metrics=None: bar.update(task, completed=done, total=total)
