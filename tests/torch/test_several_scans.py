"""One network learns from several scans, each seen with its own probe and scale; files, resume, inference."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ptycho.config.config import InferenceConfig
from ptycho.errors import ConfigError
from ptycho.models.trained_state import load_trained_state
from ptycho.run.preparation import plan_training, train_and_test
from ptycho.run.starting_probe import starting_probes
from ptycho.scan.scan_set import KnownScan
from ptycho.workflows.trained import open_bundle, state_of
from ptycho_torch.config_bridge import from_training_config
from ptycho_torch.data import GroupDataset
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.workflows import components
from ptycho_torch.workflows.trained import TrainedModel, infer_scan


def module_for(config, known: list[KnownScan]) -> PtychoPINN_Lightning:
    data, model, training, inference = from_training_config(config, None)
    module = PtychoPINN_Lightning(model, data, training, inference)
    module.attach_scans(known)
    return module


@pytest.mark.parametrize("kind", [{}, {"gridsize": 2}, {"model_type": "supervised"}])
def test_a_batch_is_judged_as_by_a_model_of_its_scan_alone(pair, small_config, kind):
    """Loss and every gradient, to the bit; the other scan's probe and scale get none."""
    config = small_config(pair[0], probe_from="guess", probe_trainable=True, **kind)
    scans, _ = train_and_test(pair, None, config)
    plan = plan_training(scans, None, config)
    starts = starting_probes(scans, config, lambda *_: pytest.fail("the file's probe is used"))
    known = [start.known(one) for start, one in zip(starts, scans.containers, strict=True)]
    both = module_for(config, known)
    data = GroupDataset(scans, label_scales=plan.label_scales)
    for number, container in enumerate(scans.containers):
        alone = module_for(config, known[number : number + 1])
        scale = None if plan.label_scales is None else [plan.label_scales[number]]
        own = GroupDataset(container, label_scales=scale)[(np.arange(8), True)]
        batch = data[(np.arange(8) + scans.first[number], True)]
        assert batch["scan"] == number and torch.equal(batch["x"], own["x"])
        losses = []
        for model, given in ((both, batch), (alone, own)):
            model.zero_grad()
            losses.append(model.terms(given)["loss"])
            losses[-1].backward()
        assert torch.equal(*losses)
        for (name, ours), theirs in zip(both.named_parameters(), alone.parameters(), strict=True):
            gradient = ours.grad
            if name in ("probe", "log_scale") and gradient is not None:
                assert not gradient[1 - number].any()
                gradient = gradient[number]
            if theirs.grad is not None:
                assert torch.equal(gradient, theirs.grad), name


def test_probe_and_scale_of_each_scan_are_trained_and_kept(pair, small_config, tmp_path):
    config = small_config(pair[0], probe_from="guess", probe_trainable=True, output_dir=tmp_path)
    _, _, results = components.run_cdi_example_torch(pair, None, config, execution_config=None)
    module = results["models"]["diffraction_to_obj"]
    state, _ = load_trained_state(tmp_path)
    assert len(state.scans) == module.n_scans == 2
    for number, known in enumerate(state.scans):
        torch.testing.assert_close(torch.from_numpy(known.probe), module.probe_of(number).detach())
        start = module.starting_probe[number]
        assert not torch.allclose(module.probe_of(number), start, rtol=0, atol=1e-6)
        assert known.log_scale != 0
    assert state.scans[0].log_scale != state.scans[1].log_scale
    assert state.scans[1].bad_pixels.sum() == 5 and not state.scans[0].bad_pixels.any()
    assert state.scans[1].nphotons > 10 * state.scans[0].nphotons
    again = state_of(open_bundle(tmp_path, "pytorch"))
    for ours, theirs in zip(again.scans, state.scans, strict=True):
        for name in ("probe", "guess", "bad_pixels"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert dataclasses.astuple(ours)[1:4] == dataclasses.astuple(theirs)[1:4]
    assert np.load(tmp_path / "coverage.npz")["scan"].tolist() == [0] * 40 + [1] * 24
    with pytest.raises(ConfigError, match="trained_scan = 2: the model was trained on 2 scans, 0 to 1"):
        infer_scan(tmp_path, pair[0], config=InferenceConfig(trained_scan=2))


def test_a_scan_is_seen_as_the_one_it_is_like_or_as_told(pair, small_config, silent, tmp_path):
    config = small_config(pair[0], probe_from="guess", output_dir=tmp_path)
    _, _, results = components.run_cdi_example_torch(pair, None, config, execution_config=silent)
    model = results["models"]["autoencoder"]
    state, _ = load_trained_state(tmp_path)
    for number, scan in enumerate(pair):
        made = infer_scan(tmp_path, scan)[2]
        np.testing.assert_array_equal(made["probe"], state.scans[number].probe)
        in_memory = infer_scan(model, scan)[2]
        np.testing.assert_array_equal(in_memory["object"], made["object"])
        told = infer_scan(tmp_path, scan, config=InferenceConfig(trained_scan=1 - number))[2]
        np.testing.assert_array_equal(told["probe"], state.scans[1 - number].probe)
    assert isinstance(model, TrainedModel) and model.module.n_scans == 2


def test_a_held_out_scan_validates_and_is_stitched(pair, make_scan, second, small_config, silent):
    held = make_scan(**second | {"n_positions": 16, "seed": 8})
    config = small_config(pair[0], probe_from="guess")
    image, _, results = components.run_cdi_example_torch(
        pair, held, config, do_stitching=True, execution_config=silent
    )
    assert results["test_container"].numbers == (1,)
    module = results["models"]["diffraction_to_obj"]
    np.testing.assert_array_equal(results["probe"], module.probe_of(1).detach().numpy())
    assert np.isfinite(results["history"]["val_loss"]).all() and image.ndim == 2


def test_panels_show_every_scan(pair, small_config, silent, tmp_path):
    config = small_config(pair[0], nepochs=1, output_dir=tmp_path)
    drawing = dataclasses.replace(silent, recon_log_every_n_epochs=1, recon_log_stitch=True)
    components.train_cdi_model_torch(pair, None, config, drawing)
    drawn = {path.name for path in (tmp_path / "figures").iterdir()} - {"sampler_coverage.png"}
    assert drawn == {f"{what}_scan{n}_0001.png" for what in ("patterns", "image") for n in (0, 1)}


def test_a_client_checkpoint_holds_every_scan(pair, small_config, tmp_path):
    config = small_config(pair[0], probe_from="guess", output_dir=tmp_path)
    results = components.train_cdi_model_torch(pair, None, config)
    module = results["models"]["diffraction_to_obj"]
    path = next((tmp_path / "checkpoints").glob("best*.ckpt"))
    again = PtychoPINN_Lightning.load_from_checkpoint(path)
    assert again.n_scans == 2 and torch.equal(again.guesses, module.guesses)
    assert torch.equal(again.gauge, module.gauge) and torch.equal(again.bad_pixels, module.bad_pixels)


def test_a_run_on_two_scans_goes_on_to_the_same_bytes(pair, small_config, tmp_path):
    def run(folder, epochs, **options):
        config = small_config(
            pair[0], nepochs=epochs, probe_trainable=True, probe_refine_sweeps=2, output_dir=tmp_path / folder
        )
        return components.train_cdi_model_torch(pair, None, config, **options)

    whole = run("whole", 4)
    run("cut", 2)
    on = run("cut", 4, resume=tmp_path / "cut" / "checkpoints" / "last.ckpt")
    ours, theirs = (r["models"]["diffraction_to_obj"].state_dict() for r in (whole, on))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert whole["history"]["train_loss"] == on["history"]["train_loss"]


def test_two_scans_with_different_probes_need_both(pair, small_config, silent):
    """The reason for all this: with the first scan's probe for both, the second is explained far worse."""
    config = small_config(pair[0], probe_from="guess", nepochs=12)
    execution = dataclasses.replace(silent, learning_rate=2e-3)
    wrong = dataclasses.replace(train_and_test(pair, None, config)[0])
    swapped = tuple(dataclasses.replace(one, probe=wrong.containers[0].probe) for one in wrong.containers)
    ends = [
        components.train_cdi_model_torch(given, None, config, execution)["history"]["val_loss"][-1]
        for given in (pair, dataclasses.replace(wrong, containers=swapped))
    ]
    assert ends[0] < 0.5 * ends[1], ends
