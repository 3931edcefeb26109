"""Staged fine-tuning: which parameters move in which stage, at which learning rate, and when a stage ends."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import lightning.pytorch as L
import lightning_runs
import pytest
import torch

from ptycho.clients import config_bridge
from ptycho.clients.finetuning import stages_of
from ptycho.config.config import PyTorchExecutionConfig
from ptycho.errors import ConfigError
from ptycho.networks import parts as network_parts
from ptycho.networks.graphs import NetworkSpec, describe, parameter_shapes
from ptycho.networks.parts import PARTS, declare_parts, part_of
from ptycho.run.tuning import TuningStage
from ptycho_torch.config_params import TrainingConfig
from ptycho_torch.fit.finetuning import Finetuning
from ptycho_torch.layers import GraphNetwork
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.optimizers import parameter_groups, parts
from ptycho_torch.workflows import components

RATE = 1e-3
NETWORK = {"encoder_bottom", "encoder_top", "decoder", "amplitude_head", "phase_head"}


class Watch(L.Callback):
    """What moved in every epoch, and the learning rate of every part while it did."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []
        self.rates: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer, module):
        self.before = [(part, value.detach().clone()) for part, value in parts(module)]

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.seen = {group["name"]: group["lr"] for group in optimizer.param_groups}

    def on_train_epoch_end(self, trainer, module):
        after = [value for _, value in parts(module)]
        pairs = zip(self.before, after, strict=True)
        self.moved.append({part for (part, old), new in pairs if not torch.equal(old, new)})
        self.rates.append({part: self.seen[part] for part in self.moved[-1]})


@pytest.fixture
def tune(make_scan, small_config):
    """Train with these fine-tuning settings; returns (what was watched, run, results)."""

    def build(nepochs=2, config=None, resume=None, watch=None, **settings):
        raw = make_scan()
        more = {"probe_from": "guess", **(config or {})}
        ours = small_config(raw, nepochs=nepochs, probe_trainable=True, **more)
        execution = PyTorchExecutionConfig(
            accelerator="cpu", logger_backend="none", learning_rate=RATE,
            enable_checkpointing=ours.output_dir != Path(),
        )  # fmt: skip
        data, model, training, inference = config_bridge.from_training_config(ours, execution)
        training = dataclasses.replace(training, **settings)
        module = PtychoPINN_Lightning(model, data, training, inference)
        container = components._ensure_container(raw, ours)
        run = lightning_runs.prepare_lightning_run(container, None, ours, execution, module=module)
        watch = watch or Watch()
        run.trainer.callbacks.append(watch)
        return watch, run, lightning_runs.fit_lightning_run(run, resume=resume)

    return build


STAGED = {
    "enable_staged_finetuning": True,
    "finetune_stage1_epochs": 1,
    "finetune_stage2_epochs": 2,
    "finetune_stage3_epochs": 1,
    "finetune_skip_stage3": False,
    "finetune_early_stop_patience": 50,
}


@pytest.mark.parametrize("architecture, scheduler", [("swift", "WarmupCosine"), ("cnn", "Default")])
def test_each_stage_moves_its_parts_at_its_rates(tune, architecture, scheduler):
    changes = {"architecture": architecture, "scheduler": scheduler}
    watch, run, _ = tune(config=changes, **STAGED)
    assert len(watch.moved) == 2 + 1 + 2 + 1
    assert watch.moved[0] >= NETWORK and "probe" in watch.moved[0] and "scale" in watch.moved[0]
    assert watch.moved[2] == {"decoder", "amplitude_head", "phase_head"}
    assert watch.moved[3] == watch.moved[4] == {"encoder_top", "decoder", "amplitude_head", "phase_head"}
    assert watch.moved[5] == NETWORK | {"probe", "scale"}
    assert watch.rates[2] == pytest.approx(dict.fromkeys(watch.moved[2], 0.1 * RATE))
    wanted = {"encoder_top": 0.01, "decoder": 0.05, "amplitude_head": 0.05, "phase_head": 0.1}
    assert watch.rates[3] == pytest.approx({part: factor * RATE for part, factor in wanted.items()})
    wanted = {
        "encoder_bottom": 0.005, "encoder_top": 0.01, "decoder": 0.02, "amplitude_head": 0.02,
        "phase_head": 0.05, "probe": 0.02, "scale": 0.02,
    }  # fmt: skip
    assert watch.rates[5] == pytest.approx({part: factor * RATE for part, factor in wanted.items()})
    assert all(parameter.requires_grad for parameter in run.module.parameters())


def test_the_schedule_ends_with_the_main_epochs(tune):
    watch, _, _ = tune(nepochs=4, config={"scheduler": "WarmupCosine", "lr_warmup_epochs": 1}, **STAGED)
    assert watch.rates[3]["decoder"] < 0.2 * RATE < watch.rates[1]["decoder"]


def test_stage_three_is_skipped_and_fine_tuning_is_one_stage(tune):
    settings = {**STAGED, "finetune_skip_stage3": True, "finetune_stage2_epochs": 0}
    watch, _, _ = tune(nepochs=1, **settings)
    assert len(watch.moved) == 2
    watch, _, _ = tune(nepochs=1, epochs_fine_tune=2, fine_tune_gamma=0.25)
    assert len(watch.moved) == 3 and watch.moved[2] == NETWORK | {"probe", "scale"}
    assert watch.rates[2] == pytest.approx(dict.fromkeys(watch.moved[2], 0.25 * RATE))


def test_nothing_changes_where_no_stage_is_asked_for(tune, make_scan, small_config, silent):
    raw = make_scan()
    config = small_config(raw, probe_from="guess", probe_trainable=True)
    plain = components._train_with_lightning(components._ensure_container(raw, config), None, config, silent)
    assert len(plain["history"]["train_loss"]) == 2
    assert stages_of(TrainingConfig()) == ()


def test_a_stage_without_progress_ends_early():
    stages = (
        TuningStage("one", 9, {"decoder": 0.1}, patience=2),
        TuningStage("two", 9, {"phase_head": 0.1}, patience=2),
    )
    tuning = Finetuning(stages, main_epochs=1)
    graph = describe("swift", NetworkSpec(N=32, n_filters_scale=1))

    class Module(torch.nn.Module):
        learning_rate = 1.0

        def __init__(self):
            super().__init__()
            self.network = GraphNetwork(graph, NetworkSpec(N=32, n_filters_scale=1), 0)

    class Run:
        should_stop = False
        callback_metrics = {"val_loss": torch.tensor(1.0)}

    module, run = Module(), Run()
    run.optimizers = [torch.optim.SGD(parameter_groups(module), lr=1.0)]
    seen = []
    for epoch in range(30):
        run.current_epoch = epoch
        tuning.on_train_epoch_start(run, module)
        seen.append(tuning.current)
        tuning.on_train_epoch_end(run, module)
        if run.should_stop:
            break
    # the first epoch of a stage is its best, two more without progress end it
    assert seen == [-1, 0, 0, 0, 1, 1, 1]


def test_a_run_resumes_inside_a_stage(tune, tmp_path):
    whole = {"output_dir": tmp_path / "whole"}
    _, _, wanted = tune(nepochs=1, config=whole, **STAGED)

    class Break(Watch):
        def on_train_epoch_start(self, trainer, module):
            super().on_train_epoch_start(trainer, module)
            if trainer.current_epoch == 3:
                raise RuntimeError("killed")

    broken = {"output_dir": tmp_path / "broken"}
    with pytest.raises(RuntimeError, match="killed"):
        tune(nepochs=1, config=broken, watch=Break(), **STAGED)
    last = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    watch, run, found = tune(nepochs=1, config=broken, resume=last, **STAGED)
    assert watch.moved[0] == {"encoder_top", "decoder", "amplitude_head", "phase_head"}
    assert found["history"]["val_loss"] == wanted["history"]["val_loss"]
    state = wanted["models"]["diffraction_to_obj"].state_dict()
    for name, value in found["models"]["diffraction_to_obj"].state_dict().items():
        assert torch.equal(value, state[name]), name


class TestParts:
    @pytest.mark.parametrize("name", ["swift", "cnn"])
    @pytest.mark.parametrize("N", [32, 64, 128, 256])
    @pytest.mark.parametrize("probe_big", [True, False])
    def test_every_weight_has_one_and_every_part_has_weights(self, name, N, probe_big):
        spec = NetworkSpec(N=N, channels=4, n_filters_scale=1, probe_big=probe_big)
        graph = describe(name, spec)
        found = {part_of(weight, graph) for weight in parameter_shapes(graph, spec)}
        assert found == NETWORK < set(PARTS)

    def test_the_top_of_the_encoder_is_its_deepest_entry(self):
        graph = describe("cnn", NetworkSpec(N=128, n_filters_scale=1))
        assert part_of("encoder.3.conv2.weight", graph) == "encoder_top"
        assert part_of("encoder.2.conv1.bias", graph) == "encoder_bottom"
        assert part_of("phase.border.conv1.weight", graph) == "phase_head"
        assert part_of("amplitude.0.conv1.weight", graph) == "decoder"

    def test_an_undeclared_network_is_refused_until_it_is_declared(self, monkeypatch):
        monkeypatch.setattr(network_parts, "_RULES", dict(network_parts._RULES))
        graph = dataclasses.replace(describe("swift", NetworkSpec()), name="own")
        with pytest.raises(ConfigError, match="architecture 'own': its parts are not declared"):
            part_of("stem.weight", graph)
        declare_parts("own", ((r"stem", "encoder_bottom"), (r"", "decoder")))
        assert part_of("stem.weight", graph) == "encoder_bottom"
        with pytest.raises(ConfigError, match="part 'tail'"):
            declare_parts("own", ((r"", "tail"),))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_stage_in_which_nothing_can_move_is_refused(rate):
    with pytest.raises(ConfigError, match="fine-tuning stage 'decoder'"):
        stages_of(TrainingConfig(enable_staged_finetuning=True, finetune_stage1_lr_decoder=rate))
