"""The same weights and the same batches on both sides, step by step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ptycho.run.preparation import plan_training, train_and_test
from ptycho.scan.scan_set import ScanSet


def twins(raw, config, dtype, rate=1e-3):
    """The torch module, the Keras model, and their batches, all in one precision; `raw`: a scan or a list."""
    from ptycho.run.starting_probe import starting_probes
    from ptycho.tf.data import ScanSetTensors, training_dataset
    from ptycho.tf.model import PtychoPINN_Keras
    from ptycho.tf.optimizers import Optimizer
    from ptycho_torch.config_bridge import from_training_config
    from ptycho_torch.data import GroupBatches, GroupDataset, make_loader
    from ptycho_torch.model import PtychoPINN_Lightning

    grouped, _ = train_and_test(raw, None, config)
    plan = plan_training(grouped, None, config)
    starts = starting_probes(grouped, config, lambda *_: pytest.fail("the file's probe is used"))
    containers = ScanSet.of(grouped).containers
    data, model, training, inference = from_training_config(
        dataclasses.replace(config, backend="pytorch"), None
    )
    theirs = PtychoPINN_Lightning(model, data, training, inference)
    ours = PtychoPINN_Keras(config, dtype=dtype)
    for one in (theirs, ours):
        one.attach_scans([start.known(own) for start, own in zip(starts, containers, strict=True)])
    theirs = theirs.to(getattr(torch, dtype))
    theirs.learning_rate = rate
    ours.steps = Optimizer(ours.trained(), config, rate, batches_per_epoch=plan.n_batches)
    loader = make_loader(GroupDataset(grouped, label_scales=plan.label_scales), GroupBatches(plan))
    scan = ScanSetTensors.of(grouped, label_scales=plan.label_scales, dtype=dtype)
    return theirs, ours, loader, training_dataset(scan, plan, 0, 1000)


def torch_steps(module, loader, count, dtype):
    """Train as Lightning does; the loss of every step."""
    from ptycho_torch.optimizers import configure_optimizers

    optimizer, losses, epoch = configure_optimizers(module), [], 0
    while len(losses) < count:
        loader.sampler.set_epoch(epoch)
        epoch += 1
        for batch in loader:
            zero = torch.zeros(1, dtype=getattr(torch, dtype))
            batch |= {name: batch[name] + zero for name in ("x", "labels") if name in batch}
            optimizer.zero_grad()
            loss = module.terms(batch)["loss"]
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return np.array(losses[:count])


def keras_steps(model, dataset, count):
    import tensorflow as tf

    step = tf.function(model.train_step, autograph=False, reduce_retracing=True)
    losses = []
    for batch in dataset.take(count):
        step(batch)
        losses.append(float(model.last_loss))
    return np.array(losses)


def weights_of(theirs, ours):
    """(torch, Keras) arrays by neutral name, probe and scale among them."""
    from ptycho.tf.fit.checkpoints import model_arrays
    from ptycho_torch.layers import neutral_weights

    torch_side = {f"network.{n}": v.numpy() for n, v in neutral_weights(theirs.network).items()}
    torch_side["probe"] = theirs.probe.detach().numpy()
    torch_side["log_scale"] = theirs.log_scale.detach().numpy()
    keras_side = model_arrays(ours)
    assert torch_side.keys() == keras_side.keys()
    return {name: (torch_side[name], keras_side[name]) for name in torch_side}


def largest_difference(pairs):
    """Largest difference of any weight, relative to the largest magnitude of its tensor (at least 1e-3)."""
    return max(np.abs(a - b).max() / max(np.abs(a).max(), 1e-3) for a, b in pairs.values())
