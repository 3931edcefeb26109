"""The same model in both backends: same weights, same probe, same numbers, same batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.run.preparation import TrainingPlan, plan_training
from ptycho.run.starting_probe import StartingProbe
from ptycho.scan.container import PtychoDataContainer

Arrays = dict[str, NDArray[Any]]


@dataclass
class Pair:
    """A torch module and a Keras model of one configuration, in one precision, and their batches."""

    torch: Any
    keras: Any
    container: PtychoDataContainer
    plan: TrainingPlan
    precision: str

    @classmethod
    def of(
        cls,
        container: PtychoDataContainer,
        config: TrainingConfig,
        probe: StartingProbe,
        precision: str,
        execution: PyTorchExecutionConfig | None = None,
        *,
        nudge: float = 0.0,
    ) -> Pair:
        """Build both from `architectures.initial_weights`; a `nudge` (standard deviation) takes the weights
        away from the flat start, where half of the gradients are zero and would agree even if something
        were wrong."""
        import torch

        from ptycho.tf.layers import load_neutral_weights as load_keras
        from ptycho.tf.model import PtychoPINN_Keras
        from ptycho_torch.layers import load_neutral_weights as load_torch
        from ptycho_torch.layers import neutral_weights
        from ptycho_torch.module import PtychoPINN

        module = PtychoPINN(config, (execution or PyTorchExecutionConfig()).learning_rate)
        model = PtychoPINN_Keras(config, dtype=precision)
        rng = np.random.default_rng(config.seed)
        weights: Arrays = {}
        for name, value in neutral_weights(module.network).items():
            start = value.numpy()
            weights[name] = start + nudge * rng.standard_normal(start.shape).astype(start.dtype)
        load_torch(module.network, {name: torch.from_numpy(value) for name, value in weights.items()})
        load_keras(model.network, weights)
        for one in (module, model):
            one.attach_scan(
                probe.modes,
                x_scale=container.x_scale,
                nphotons=container.nphotons,
                probe_factor=probe.factor,
                bad_pixels=container.bad_pixels,
            )
        if precision == "float64":
            module = module.double()
        return cls(module, model, container, plan_training(container, None, config), precision)

    def batch(self, number: int) -> Arrays:
        """Batch `number` of the run as arrays: x, positions_xy, counted, region, labels where needed."""
        batches = self.plan.epoch(number // self.batches_per_epoch)
        groups, region = batches[number % self.batches_per_epoch]
        members = self.container.nn_indices[groups]
        made: Arrays = {
            "x": self.container.patterns[members].astype(self.precision),
            "positions_xy": self.container.positions_px[members],
            "counted": np.ones(members.shape, bool),
            "region": np.asarray(region),
        }
        if self.plan.label_scales is not None:
            labels = self.container.pattern_labels(members, self.plan.label_scales[0])
            made["labels"] = labels.astype("complex128" if self.precision == "float64" else "complex64")
        return made

    @property
    def batches_per_epoch(self) -> int:
        """Steps of one epoch."""
        return self.plan.n_batches

    def parameters_torch(self) -> Arrays:
        """Everything that trains, by neutral name, as PyTorch has it now."""
        from ptycho_torch.layers import neutral_weights

        found = {name: value.numpy() for name, value in neutral_weights(self.torch.network).items()}
        return found | {"log_scale": self.torch.log_scale.detach().numpy(), "probe": self._probe_torch()}

    def parameters_keras(self) -> Arrays:
        """The same as TensorFlow has it."""
        from ptycho.tf.layers import neutral_weights

        return neutral_weights(self.keras.network) | {
            "log_scale": np.asarray(self.keras.log_scale),
            "probe": np.asarray(self.keras.probe),
        }

    def _probe_torch(self) -> NDArray[Any]:
        return np.asarray(self.torch.probe.detach().numpy())


def torch_batch(batch: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The batch as torch tensors."""
    import torch

    made: dict[str, Any] = {name: torch.from_numpy(np.asarray(value)) for name, value in batch.items()}
    return made | {"region": bool(batch["region"])}


def tf_batch(batch: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The batch as TensorFlow tensors."""
    import tensorflow as tf

    return {name: tf.convert_to_tensor(value) for name, value in batch.items()}
