"""The optimisation of a run: terms and their weights, optimisers, schedulers, the Lightning trainer.

Nothing here knows what a probe is; nothing in `model.py` knows what an epoch is.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError, MissingFileError, RunError
from ptycho.run.history import append_row
from ptycho.run.schedules import learning_rate_factor
from ptycho.run.training_log import TrainingLog
from ptycho.tracking import make_recorder
from ptycho_torch import finetuning
from ptycho_torch.callbacks.tracking import Tracking
from ptycho_torch.stages import Stages, stages_of

if TYPE_CHECKING:
    from ptycho_torch.model import PtychoPINN_Lightning

log = logging.getLogger(__name__)

#: called with (epochs done, epochs in all, losses by name)
Progress = Callable[[int, int, dict[str, float]], None]


def configure_optimizers(module: PtychoPINN_Lightning) -> Any:
    """Optimiser over everything that trains, and its scheduler, as Lightning takes them."""
    config = module.config
    stages = stages_of(module.trainer) if config.stages else None
    staged = finetuning.stages_of(module.training_config)
    trained: list[Any]
    if staged or stages is not None:
        trained = finetuning.parameter_groups(module)
    else:
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    rate = module.learning_rate
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adam":
        optimizer = torch.optim.Adam(trained, lr=rate, betas=(0.9, 0.99), weight_decay=config.weight_decay)
    elif config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.99), weight_decay=config.weight_decay)
    else:
        optimizer = torch.optim.SGD(
            trained, lr=rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
    if stages is not None:
        courses = [stages.factors(config, rate, group["name"]) for group in optimizer.param_groups]
        by_part = torch.optim.lr_scheduler.LambdaLR(optimizer, courses)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": by_part, "interval": "step"}}
    if config.scheduler in ("Default", "ReduceLROnPlateau"):  # the plateau is a callback
        return optimizer
    total = int(module.trainer.estimated_stepping_batches)
    if staged:  # the schedule is that of the main epochs; the stages after them have rates of their own
        total = total * config.nepochs // max(1, int(module.trainer.max_epochs or config.nepochs))
    per_epoch = max(1, total // max(1, config.nepochs))
    stepped = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(config, config.scheduler, step, per_epoch, total)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": stepped, "interval": "step"}}


class History(Callback):
    """Every epoch's metrics and learning rate, as plain numbers; in the checkpoint, so a resume goes on.

    `row` is the epoch's, to which callbacks between history and logs add what need not repeat exactly. What
    an epoch did not see is no entry of `row`; of several parts the highest rate is kept.
    """

    def __init__(self) -> None:
        self.epochs: dict[str, list[float]] = {}
        self.row: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.callback_metrics.clear()  # or a term of an earlier stage would be taken down again

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        row = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if not name.startswith("_") and not name.endswith(("_step", "_epoch"))
        }
        row["learning_rate"] = max(float(group["lr"]) for group in trainer.optimizers[0].param_groups)
        row["epoch"] = float(trainer.current_epoch)
        self.row = row
        append_row(self.epochs, row)

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epochs = {name: list(values) for name, values in state_dict["epochs"].items()}


class Health(Callback):
    """Stops a run whose loss is no longer a number, with a message instead of a thousand epochs of NaN."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if loss is not None and not bool(torch.isfinite(loss)):
            raise RunError(
                f"training diverged: the loss is {loss.item()} at epoch {trainer.current_epoch}, step "
                f"{trainer.global_step} - lower --learning_rate or set --gradient_clip_val 1"
            )


class TimeLimit(Callback):
    """Ends training after so many seconds, at the end of an epoch."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if time.monotonic() > self._end:
            trainer.should_stop = True
            log.info("time limit reached after epoch %d", trainer.current_epoch)


def resolve_accelerator(execution: PyTorchExecutionConfig) -> tuple[str, str]:
    """(accelerator, strategy): what was asked for if it is there, else the CPU with a word about it.

    One device always runs in this process, so that callbacks handed in by a client stay alive.
    """
    accelerator = execution.accelerator
    wants_gpu = accelerator in ("gpu", "cuda")
    if wants_gpu and not torch.cuda.is_available():
        log.warning("accelerator %s: no CUDA device here, training on the CPU", accelerator)
        accelerator = "cpu"
    if accelerator == "auto" and not torch.cuda.is_available():
        accelerator = "cpu"
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("accelerator = 'mps': no Apple GPU here - use auto or cpu")
    if execution.devices == 1:
        return accelerator, "auto"
    if execution.strategy in ("ddp_spawn", "ddp_fork", "ddp_notebook"):
        raise ConfigError(
            f"strategy = {execution.strategy!r} with {execution.devices} devices: history and callbacks "
            "would stay in the spawned processes - use ddp"
        )
    return accelerator, execution.strategy


def make_callbacks(
    config: TrainingConfig, execution: PyTorchExecutionConfig, directory: Path | None, history: History
) -> list[Callback]:
    """History, what adds to it, logs, health, time limit, best and last checkpoints, early stopping.

    The logs of an epoch are written before its checkpoint, so a killed run may log one again but skips none.
    `logger_backend` 'none' is no metric logger: the text log and the coverage belong to the run's folder.
    """
    from ptycho_torch.callbacks.coverage import SamplerCoverage
    from ptycho_torch.callbacks.diagnostics import Diagnostics
    from ptycho_torch.callbacks.ema import ExponentialAverage
    from ptycho_torch.callbacks.histograms import Histograms
    from ptycho_torch.callbacks.learning_rate import LearningRates
    from ptycho_torch.callbacks.resume import BestAndLast, Patience, Plateau, RunStart
    from ptycho_torch.callbacks.throughput import Throughput
    from ptycho_torch.callbacks.training_log import TextLog

    monitor = execution.checkpoint_monitor_metric
    if monitor not in ("train_loss", "val_loss") and not monitor.startswith(("loss/", "val/")):
        raise ConfigError(
            f"checkpoint_monitor_metric = {monitor!r}: no such metric; use val_loss, train_loss, or a term "
            "such as val/loss/poisson_deviance"
        )
    made: list[Callback] = [Diagnostics(), history, LearningRates(history), Health()]
    if execution.log_throughput:
        made.append(Throughput(history))
    if config.ema_decay is not None:
        made.append(ExponentialAverage(config.ema_decay))
    if config.scheduler == "ReduceLROnPlateau":
        made.append(
            Plateau(
                "val_loss",
                factor=config.plateau_factor,
                patience=config.plateau_patience,
                min_lr=config.plateau_min_lr,
            )
        )
    if directory is not None:  # the picture stands before the metric logs are closed, so that they show it
        made += [SamplerCoverage(directory), TextLog(TrainingLog.of(config, execution), history)]
    recorder = make_recorder(config, execution)
    if recorder is not None:
        made.append(Tracking(recorder, history))
        if "tensorboard" in execution.logger_backend:
            made.append(Histograms(recorder))
    if config.max_time_s:
        made.append(TimeLimit(config.max_time_s))
    # the objective changes between stages, so that no epoch is the best: the last weights are kept
    staged = config.stages is not None
    if execution.enable_checkpointing and directory is not None:
        made.append(RunStart(directory))
        made.append(
            BestAndLast(
                dirpath=directory / "checkpoints",
                filename="last" if staged else "best-{epoch}",
                monitor=None if staged else execution.checkpoint_monitor_metric,
                mode=execution.checkpoint_mode,
                save_top_k=1 if staged else execution.checkpoint_save_top_k,
                save_last=not staged,
                enable_version_counter=False,
            )
        )
    if staged:
        return made
    made.append(
        Patience(
            monitor=execution.checkpoint_monitor_metric,
            mode=execution.checkpoint_mode,
            patience=execution.early_stop_patience,
        )
    )
    return made


def make_trainer(
    config: TrainingConfig,
    execution: PyTorchExecutionConfig,
    callbacks: list[Callback],
    directory: Path | None,
) -> L.Trainer:
    """A Lightning trainer for this run; no global flag is touched, since the CPU path is deterministic.

    Fine-tuning stages among the callbacks come after the configured epochs; declared stages replace them.
    """
    from ptycho_torch.callbacks.resume import AtomicCheckpoints

    tuning = [made for made in callbacks if isinstance(made, finetuning.Finetuning)]
    declared = [made for made in callbacks if isinstance(made, Stages)]
    if (tuning or declared) and execution.devices > 1:
        raise ConfigError(f"devices = {execution.devices}: training in stages runs on one device")
    if tuning and declared:
        raise ConfigError("stages beside fine-tuning settings: write the fine-tuning into stages as well")
    epochs = declared[0].epochs if declared else config.nepochs
    accelerator, strategy = resolve_accelerator(execution)
    return L.Trainer(
        accelerator=accelerator,
        devices=execution.devices,
        strategy=strategy,
        precision=execution.precision,  # type: ignore[arg-type]
        max_epochs=epochs + sum(made.extra_epochs for made in tuning),
        gradient_clip_val=execution.gradient_clip_val or config.gradient_clip_val,
        gradient_clip_algorithm=config.gradient_clip_algorithm,
        accumulate_grad_batches=execution.accum_steps,
        enable_progress_bar=execution.enable_progress_bar,
        enable_model_summary=False,
        enable_checkpointing=execution.enable_checkpointing and directory is not None,
        logger=False,  # callbacks.tracking logs, the same way for both backends
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        detect_anomaly=config.debug,
        default_root_dir=str(directory) if directory is not None else None,
    )


@contextlib.contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Torch's deterministic kernels for the time of a run on a GPU; the CPU path needs no flag.

    The global flags are put back. Kernels without a deterministic form warn instead of failing.
    """
    if not wanted or not torch.cuda.is_available():
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        torch.backends.cudnn.benchmark = benchmark


def restore_best(module: PtychoPINN_Lightning, trainer: L.Trainer) -> None:
    """Put the weights of the best checkpoint into the module, if checkpoints were kept and one was best."""
    checkpoint = trainer.checkpoint_callback
    best = getattr(checkpoint, "best_model_path", "")
    if best and Path(best).is_file() and getattr(checkpoint, "monitor", None) is not None:
        stored = torch.load(best, map_location="cpu", weights_only=True)
        module.load_state_dict(stored["state_dict"])
        log.info("weights of the best epoch taken from %s", best)


def check_checkpoint(path: Path, module: PtychoPINN_Lightning) -> None:
    """Refuse a checkpoint that cannot go on as this run, before anything starts; reading it runs no code."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises whatever its reader stumbled over
        raise ConfigError(f"{path}: cannot be read as a checkpoint ({type(error).__name__})") from None
    own = {name: value.shape for name, value in module.state_dict().items()}
    if {name: value.shape for name, value in stored.items()} != own:
        raise ConfigError(
            f"{path}: does not belong to this run (another network, N, gridsize or number of probe modes) - "
            "resume with the config.yaml beside it"
        )
