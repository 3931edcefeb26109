"""Stages of a run in torch: what moves, how fast, by which objective, and a resume inside any of them."""

from __future__ import annotations

import math
from pathlib import Path

import lightning.pytorch as L
import lightning_runs
import pytest
import torch

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.errors import ConfigError
from ptycho_torch.optimizers import parts
from ptycho_torch.workflows import components

RATE = 2e-3
HEADS = {"decoder", "amplitude_head", "phase_head"}
NETWORK = HEADS | {"encoder_bottom", "encoder_top"}


class Watch(L.Callback):
    """What moved in every optimiser step, the rates and the moments while it did, and which stage it was."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []
        self.rates: list[dict[str, float]] = []
        self.stages: list[str] = []
        self.moments: list[set[str]] = []

    def _moments(self, optimizer):
        state = optimizer.state
        return {
            group["name"]: [state[p]["exp_avg"].clone() for p in group["params"] if state[p]]
            for group in optimizer.param_groups
        }

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.before = [(part, value.detach().clone()) for part, value in parts(module)]
        self.before_moments = self._moments(optimizer)
        self.rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        self.stages.append(module.stage.name)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == len(self.moved):
            return  # still gathering
        pairs = zip(self.before, (value for _, value in parts(module)), strict=True)
        self.moved.append({part for (part, old), new in pairs if not torch.equal(old, new)})
        now = self._moments(trainer.optimizers[0])
        self.moments.append(
            {
                part
                for part, old in self.before_moments.items()
                if len(old) != len(now[part])
                or not all(torch.equal(a, b) for a, b in zip(old, now[part], strict=True))
            }
        )


@pytest.fixture
def stage(make_scan, small_config):
    """Train in these stages on 27 training groups, four batches an epoch; (watch, module, results)."""

    def build(stages, *, accum=1, resume=None, watch=None, learning_rate=RATE, devices=1, **settings):
        raw = make_scan()
        ours = small_config(
            raw, **{"probe_from": "guess", "probe_trainable": True, "stages": stages, **settings}
        )
        execution = PyTorchExecutionConfig(
            accelerator="cpu", logger_backend="none", learning_rate=learning_rate, accum_steps=accum,
            enable_checkpointing=ours.output_dir != Path(), devices=devices,
        )  # fmt: skip
        container = components._ensure_container(raw, ours)
        run = lightning_runs.prepare_lightning_run(container, None, ours, execution)
        watch = watch or Watch()
        run.trainer.callbacks.append(watch)
        results = lightning_runs.fit_lightning_run(run, resume=resume)
        return watch, run.module, results

    return build


def test_each_stage_moves_its_parts_at_its_rates_and_leaves_the_moments_of_others(stage):
    watch, module, _ = stage(
        [
            {"name": "first", "steps": 3, "trainable": ["decoder"], "learning_rate": 1e-4},
            {"name": "second", "steps": 2, "trainable": "probe"},
            {"name": "third", "epochs": 1, "learning_rate": {"encoder": 1e-5, "probe": 3e-4}},
        ]
    )
    assert watch.stages == ["first"] * 3 + ["second"] * 2 + ["third"] * 4
    # the heads begin at zero, so that nothing before them has a gradient in the first step
    assert watch.moved[0] < HEADS and watch.moved[1] == watch.moved[2] == HEADS
    assert all(moved == {"probe"} for moved in watch.moved[3:5])
    assert all(moved == NETWORK | {"probe", "scale"} for moved in watch.moved[5:])
    assert watch.moments == [HEADS, *watch.moved[1:]]
    assert [watch.rates[0][part] for part in HEADS] == pytest.approx([1e-4] * 3)
    assert watch.rates[0]["probe"] == 0 and watch.rates[3]["probe"] == pytest.approx(RATE)
    third = {"encoder_bottom": 1e-5, "encoder_top": 1e-5, "probe": 3e-4, "scale": RATE}
    third |= dict.fromkeys(HEADS, RATE)
    assert watch.rates[5] == pytest.approx(third)
    assert module.stage is None and all(p.requires_grad for p in module.parameters())


def test_the_schedule_begins_anew_in_every_stage(stage):
    stages = [{"name": "one", "epochs": 2}, {"name": "other", "steps": 10, "learning_rate": 1e-4}]
    watch, _, results = stage(stages, scheduler="WarmupCosine", lr_warmup_epochs=1, nepochs=77)
    rates = [row["decoder"] for row in watch.rates]
    assert len(rates) == 18 and len(results["history"]["train_loss"]) == 5  # the last epoch ends early
    # two of eight and two of ten steps warm up: a quarter at most
    one = [RATE / 2, RATE, *(RATE * (0.05 + 0.475 * (1 + math.cos(math.pi * i / 6))) for i in range(6))]
    other = [5e-5, 1e-4, *(1e-4 * (0.05 + 0.475 * (1 + math.cos(math.pi * i / 8))) for i in range(8))]
    assert rates == pytest.approx([*one, *other], rel=1e-6)


def test_a_stage_may_end_within_accumulated_batches_epoch_only_at_steps(stage):
    stages = [{"name": "one", "steps": 1, "trainable": "decoder"}, {"name": "other", "steps": 2}]
    watch, _, results = stage(stages, accum=2)
    assert watch.stages == ["one", "other", "other"]
    assert watch.moved[0] <= HEADS and watch.moved[2] >= NETWORK
    assert len(results["history"]["val_loss"]) == 2


def test_each_stage_minimises_and_logs_its_own_terms(stage):
    stages = [
        {"name": "warm_up", "epochs": 2, "objectives": ["amplitude_mae"]},
        {"name": "fit", "epochs": 2},
    ]
    objectives = [{"name": "amplitude_mae"}, {"name": "poisson_nll", "stages": ["fit"]}]
    history = stage(stages, objectives=objectives)[2]["history"]
    assert history["train_loss"][:2] == history["loss/amplitude_mae"][:2]
    assert [math.isnan(v) for v in history["loss/poisson_deviance"]] == [True, True, False, False]
    assert [math.isnan(v) for v in history["val/loss/poisson_deviance"]] == [True, True, False, False]
    both = history["loss/amplitude_mae"][3] + history["loss/poisson_deviance"][3]
    assert history["train_loss"][3] == pytest.approx(both, rel=1e-5)


def test_a_term_that_ends_with_its_stage_is_logged_no_more(stage):
    stages = [{"name": "one", "epochs": 1}, {"name": "two", "epochs": 2, "objectives": "poisson_nll"}]
    history = stage(stages, objectives=[{"name": "poisson_nll"}, {"name": "amplitude_mae"}])[2]["history"]
    assert len(history["loss/amplitude_mae"]) == len(history["val/loss/amplitude_mae"]) == 1
    assert len(history["loss/poisson_nll"]) == 3


STAGES = [
    {"name": "one", "epochs": 1, "trainable": "decoder"},
    {"name": "two", "epochs": 3, "objectives": "poisson_nll"},
    {"name": "three", "steps": 3},
]
OBJECTIVES = [{"name": "poisson_nll"}, {"name": "amplitude_mae", "weight": 0.5}]


def test_the_last_weights_are_kept_not_those_of_the_smallest_loss(stage, tmp_path):
    _, module, results = stage(STAGES, output_dir=tmp_path, objectives=OBJECTIVES, learning_rate=0.05)
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.ckpt"))
    assert names == ["last.ckpt"]
    stored = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, stored[name]) for name, value in module.state_dict().items())


def test_several_devices_are_refused(stage):
    with pytest.raises(ConfigError, match="devices = 2: training in stages runs on one device"):
        stage([{"name": "one", "epochs": 1}], devices=2)


def test_a_network_of_ones_own_is_refused(make_scan, small_config, silent):
    from ptycho.networks import graphs as architectures

    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x, probe):
            return self.conv(x).sigmoid(), self.conv(x)

    architectures.register("staged_own")(lambda spec: Own())
    try:
        raw = make_scan()
        config = small_config(
            raw, architecture="staged_own", stages=[{"name": "a", "epochs": 1}], probe_from="guess"
        )
        with pytest.raises(ConfigError, match="needs a network whose parts are known"):
            components.train_cdi_model_torch(raw, None, config, silent)
    finally:
        architectures._REGISTRY.pop("staged_own", None)
