"""Both backends behind one small door, NumPy in and NumPy out, so that a law is written once.

A test takes the fixture `side`; what it asks of a backend stands here in two twins, method for method.
"""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from array_kinds import TensorFlowArrays, TorchArrays

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.run.preparation import ensure_container
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.normalization import normalize_probe
from ptycho.scan.raw_data import RawData

Arrays = dict[str, np.ndarray]
ROOMS = ("layers",)


def rooms_of(package: str) -> SimpleNamespace:
    return SimpleNamespace(**{name: importlib.import_module(f"{package}.{name}") for name in ROOMS})


def settings(raw: RawData, **changes: Any) -> TrainingConfig:
    """A small run, nothing written, the file's probe; keywords replace fields, also of the model."""
    of_model = {f.name for f in dataclasses.fields(ModelConfig)}
    model = {key: changes.pop(key) for key in list(changes) if key in of_model}
    given = {"nepochs": 1, "output_dir": Path(), "batch_size": 8, "probe_from": "guess", **changes}
    return TrainingConfig(model=ModelConfig(**{"N": raw.N, "n_filters_scale": 1, **model}), **given)


def silent(**changes: Any) -> PyTorchExecutionConfig:
    """Nothing written, nothing shown, on the CPU."""
    quiet = {"logger_backend": "none", "enable_checkpointing": False, "accelerator": "cpu"}
    return PyTorchExecutionConfig(**{**quiet, **changes})


def gauges(raw: RawData, config: TrainingConfig) -> tuple[PtychoDataContainer, Any, dict[str, Any]]:
    """Container, normalised probe, and the numbers that `attach_scan` takes."""
    container = ensure_container(raw, config)
    modes, factor = normalize_probe(container.probe, config.model.probe_scale)
    numbers = {"x_scale": container.x_scale, "nphotons": container.nphotons, "probe_factor": factor}
    return container, modes, {**numbers, "bad_pixels": container.bad_pixels}


class PyTorch(TorchArrays):
    """The PyTorch backend."""

    def __init__(self) -> None:
        self.rooms = rooms_of("ptycho_torch")
        self.data = importlib.import_module("ptycho_torch.data")
        self.workflow = importlib.import_module("ptycho_torch.workflows.components")
        self.trained = importlib.import_module("ptycho_torch.workflows.trained")

    def model(self, raw: RawData, config: TrainingConfig) -> tuple[Any, PtychoDataContainer]:
        """The model as training builds it, with the scan attached, and the container."""
        from ptycho_torch.config_bridge import from_training_config
        from ptycho_torch.model import PtychoPINN_Lightning

        container, modes, numbers = gauges(raw, config)
        data, model, run, inference = from_training_config(config, silent())
        module = PtychoPINN_Lightning(model, data, run, inference)
        module.attach_scan(modes, **numbers)
        return module, container

    def answer(self, model: Any, patches: np.ndarray) -> None:
        """Put a network in that answers anything with these patches (B or 1, C_out, N, N)."""
        from torch import nn

        class Given(nn.Module):
            def forward(self, diffraction: Any, probe: Any) -> tuple[Any, Any]:
                given = self.given.expand(len(diffraction), *self.given.shape[1:])
                return given.abs(), given.angle()

        network = Given()
        network.given = self.asarray(patches.astype(np.complex64))
        model.network = network

    def batch(
        self, container: Any, groups: np.ndarray, region: bool, label_scale: float | None = None
    ) -> Any:
        """A batch as training sees it."""
        scales = None if label_scale is None else [label_scale]
        return self.data.GroupDataset(container, label_scales=scales)[(groups, region)]

    def validation(self, container: Any, plan: Any, config: TrainingConfig) -> list[Any]:
        """The validation batches of a run."""
        return list(self.workflow._build_lightning_dataloaders(container, None, config)[1])

    def some_batch(self, scans: Any, groups: Any, region: bool, held_out: Any, label_scales: Any) -> Any:
        """A batch of a set of scans."""
        made = self.data.GroupDataset(scans, held_out=held_out, label_scales=label_scales)
        return made[(groups, region)]

    def order(self, scans: Any, plan: Any, first: int, last: int) -> list[Any]:
        """The training batches of some epochs."""
        sampler = self.data.GroupBatches(plan)
        loader, found = self.data.make_loader(self.data.GroupDataset(scans), sampler), []
        for epoch in range(first, last):
            sampler.set_epoch(epoch)
            found += list(loader)
        return found

    def judged(self, scans: Any, plan: Any) -> list[Any]:
        """The validation batches."""
        made = self.data.GroupDataset(scans, held_out=plan.held_out)
        return list(self.data.make_loader(made, self.data.FixedBatches(plan.validation)))

    def optimise(self, model: Any, gradients: list[np.ndarray], rate: float) -> None:
        """Steps of the configured optimiser with these gradients of the probe."""
        from ptycho_torch.optimizers import configure_optimizers

        model.learning_rate = rate
        optimizer = configure_optimizers(model)
        for gradient in gradients:
            model.probe.grad = self.asarray(gradient.astype(np.float32))
            optimizer.step()

    def rates(self, model: Any, spans: Any, rate: float, steps: int) -> dict[str, list[float]]:
        """The learning rate of every part at every step of a run in stages of two steps an epoch."""
        from ptycho_torch.optimizers import StagedRates, configure_optimizers

        model.learning_rate, model.rates = rate, StagedRates(spans, 2)
        made = configure_optimizers(model)
        scheduler, found = made["lr_scheduler"]["scheduler"], []
        for _ in range(steps):
            found.append(scheduler.get_last_lr())
            made["optimizer"].step()
            scheduler.step()
        names = [group["name"] for group in made["optimizer"].param_groups]
        return {name: [rates[i] for rates in found] for i, name in enumerate(names)}

    def parts(self, model: Any) -> Any:
        """The part of everything that trains; ConfigError where they are not known."""
        from ptycho_torch.optimizers import parts

        return list(parts(model))

    def terms(self, model: Any, batch: Any) -> dict[str, float]:
        return {name: value.item() for name, value in model.terms(batch).items()}

    def patches(self, model: Any, x: np.ndarray) -> np.ndarray:
        return self.numpy(model(self.asarray(x)))

    def network(self, model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Amplitude and phase of the network alone."""
        return tuple(self.numpy(v) for v in model.network(self.asarray(x), model.complex_probe.detach()))

    def weights(self, model: Any) -> Arrays:
        found = self.rooms.layers.neutral_weights(model.network)
        return {name: value.numpy().copy() for name, value in found.items()}

    def load(self, model: Any, weights: Arrays) -> None:
        given = {name: self.asarray(value) for name, value in weights.items()}
        self.rooms.layers.load_neutral_weights(model.network, given)

    def probe_and_scale(self, model: Any) -> tuple[np.ndarray, float]:
        return self.numpy(model.complex_probe), model.log_scale.item()

    def train(self, raw: RawData, config: TrainingConfig, execution: Any = None, **options: Any) -> Any:
        config = dataclasses.replace(config, backend="pytorch")
        return self.workflow.train_cdi_model_torch(raw, None, config, execution or silent(), **options)

    def infer(self, model: Any, raw: RawData, **options: Any) -> dict[str, Any]:
        return self.trained.infer_scan(model, raw, **options)[2]

    def open(self, folder: Path) -> Any:
        """The model of a bundle, as a client holds it."""
        return self.trained.load_inference_bundle_torch(folder)[0]


class TensorFlow(TensorFlowArrays):
    """The TensorFlow backend."""

    def __init__(self) -> None:
        self.rooms = rooms_of("ptycho.tf")
        self.data = importlib.import_module("ptycho.tf.data")
        self.workflow = importlib.import_module("ptycho.workflows.components")
        self.trained = importlib.import_module("ptycho.workflows.components")

    def model(self, raw: RawData, config: TrainingConfig) -> tuple[Any, PtychoDataContainer]:
        """The model as training builds it, with the scan attached, and the container."""
        from ptycho.tf.model import PtychoPINN_Keras

        container, modes, numbers = gauges(raw, config)
        model = PtychoPINN_Keras(config)
        model.attach_scan(modes, **numbers)
        return model, container

    def answer(self, model: Any, patches: np.ndarray) -> None:
        """Put a network in that answers anything with these patches (B or 1, C_out, N, N)."""
        import tensorflow as tf

        given = self.asarray(patches.astype(np.complex64))

        def network(diffraction: Any, probe: Any) -> tuple[Any, Any]:
            shape = [tf.shape(diffraction)[0], *given.shape[1:]]
            made = tf.broadcast_to(given, shape)
            return tf.abs(made), tf.math.angle(made)

        model.network = network

    def batch(
        self, container: Any, groups: np.ndarray, region: bool, label_scale: float | None = None
    ) -> Any:
        """A batch as training sees it."""
        held = self.data.ScanSetTensors.of(
            container, label_scales=None if label_scale is None else [label_scale]
        )
        return held.batch(self.asarray(groups), self.asarray(np.asarray(region)))

    def validation(self, container: Any, plan: Any, config: TrainingConfig) -> list[Any]:
        """The validation batches of a run."""
        held = self.data.ScanSetTensors.of(container, held_out=plan.held_out)
        return list(self.data.validation_dataset(held, plan))

    def some_batch(self, scans: Any, groups: Any, region: bool, held_out: Any, label_scales: Any) -> Any:
        """A batch of a set of scans."""
        held = self.data.ScanSetTensors.of(scans, held_out=held_out, label_scales=label_scales)
        return held.batch(self.asarray(groups), self.asarray(np.asarray(region)))

    def order(self, scans: Any, plan: Any, first: int, last: int) -> list[Any]:
        """The training batches of some epochs."""
        return list(self.data.training_dataset(self.data.ScanSetTensors.of(scans), plan, first, last))

    def judged(self, scans: Any, plan: Any) -> list[Any]:
        """The validation batches."""
        return list(
            self.data.validation_dataset(self.data.ScanSetTensors.of(scans, held_out=plan.held_out), plan)
        )

    def optimise(self, model: Any, gradients: list[np.ndarray], rate: float) -> None:
        """Steps of the configured optimiser with these gradients of the probe."""
        from ptycho.tf.optimizers import Optimizer

        steps = Optimizer([model.probe], model.config, rate)
        for gradient in gradients:
            steps.take([self.asarray(gradient.astype(np.float32))])

    def rates(self, model: Any, spans: Any, rate: float, steps: int) -> dict[str, list[float]]:
        """The learning rate of every part at every step of a run in stages of two steps an epoch."""
        from ptycho.tf.stages import StagedOptimizer, parts_of

        made = StagedOptimizer(
            model.trained(), parts_of(model), spans, model.config, rate, batches_per_epoch=2
        )
        found = []
        for step in range(steps):
            made.iterations.assign(step)
            found.append(made.named_rates())
        return {name: [rates[name] for rates in found] for name in found[0]}

    def parts(self, model: Any) -> Any:
        """The part of everything that trains; ConfigError where they are not known."""
        from ptycho.tf.stages import parts_of

        return parts_of(model)

    def terms(self, model: Any, batch: Any) -> dict[str, float]:
        return {name: float(value) for name, value in model.terms(batch).items()}

    def patches(self, model: Any, x: np.ndarray) -> np.ndarray:
        return self.numpy(model(self.asarray(x)))

    def network(self, model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Amplitude and phase of the network alone."""
        return tuple(self.numpy(v) for v in model.network(self.asarray(x), model.complex_probe))

    def weights(self, model: Any) -> Arrays:
        return dict(self.rooms.layers.neutral_weights(model.network))

    def load(self, model: Any, weights: Arrays) -> None:
        self.rooms.layers.load_neutral_weights(model.network, weights)

    def probe_and_scale(self, model: Any) -> tuple[np.ndarray, float]:
        return model.complex_probe.numpy(), float(model.log_scale.numpy())

    def train(self, raw: RawData, config: TrainingConfig, execution: Any = None, **options: Any) -> Any:
        return self.workflow.train_cdi_model(raw, None, config, execution or silent(), **options)

    def infer(self, model: Any, raw: RawData, **options: Any) -> dict[str, Any]:
        return self.trained.infer_scan(model, raw, **options)[2]

    def open(self, folder: Path) -> Any:
        """The model of a bundle, as a client holds it."""
        return self.trained.load_inference_bundle(folder, backend="tensorflow")[0]


SIDES: dict[str, type[PyTorch] | type[TensorFlow]] = {"pytorch": PyTorch, "tensorflow": TensorFlow}
