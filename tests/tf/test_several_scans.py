"""Several scans in TensorFlow: the numbers of PyTorch on the same batches, files that both open, resume."""

from __future__ import annotations

import numpy as np
import pytest
from steps_of_both import keras_steps, largest_difference, torch_steps, twins, weights_of

from ptycho.models.trained_state import load_trained_state
from ptycho.workflows import components

tf = pytest.importorskip("tensorflow")


@pytest.mark.parametrize("kind", [{}, {"gridsize": 2, "region_ratio": 0.5}, {"model_type": "supervised"}])
def test_three_epochs_of_both_backends(pair, small_config, kind):
    config = small_config(pair[0], probe_trainable=True, **kind)
    theirs, ours, loader, dataset = twins(pair, config, "float64", 2e-5)
    count = 3 * len(loader)
    for batch, same in zip(loader, dataset, strict=False):
        assert batch["scan"] == int(same["scan"]) and bool(batch["region"]) == bool(same["region"])
        np.testing.assert_array_equal(batch["positions_xy"], same["positions_xy"])
        if "labels" in batch:
            np.testing.assert_array_equal(batch["labels"], same["labels"])
    np.testing.assert_allclose(
        keras_steps(ours, dataset, count), torch_steps(theirs, loader, count, "float64"), rtol=1e-9
    )
    assert largest_difference(weights_of(theirs, ours)) < 1e-6
    assert ours.probe.shape == (2, 1, 32, 32, 2) and ours.log_scale.shape == (2,)


def test_either_backend_opens_it_and_finds_each_scan(pair, make_scan, second, small_config, silent, tmp_path):
    from ptycho.workflows.components import infer_scan
    from ptycho_torch.workflows.trained import infer_scan as infer_torch

    held = make_scan(**second | {"n_positions": 16, "seed": 8})
    config = small_config(pair[0], probe_trainable=True, output_dir=tmp_path)
    _, _, results = components.run_cdi_example(pair, held, config, do_stitching=True, execution_config=silent)
    assert results["test_container"].numbers == (1,) and np.isfinite(results["history"]["val_loss"]).all()
    module = results["models"]["diffraction_to_obj"]
    np.testing.assert_array_equal(results["probe"], module.probe_of(1).numpy())
    state, _ = load_trained_state(tmp_path)
    assert [round(known.nphotons) for known in state.scans] == [
        round(one.nphotons) for one in results["train_container"].containers
    ]
    assert state.scans[0].log_scale != state.scans[1].log_scale and state.scans[1].bad_pixels.sum() == 5
    for number, scan in enumerate(pair):
        ours, theirs = (infer(tmp_path, scan)[2] for infer in (infer_scan, infer_torch))
        np.testing.assert_array_equal(ours["probe"], state.scans[number].probe)
        scale = np.abs(theirs["object"]).max()
        np.testing.assert_allclose(ours["object"], theirs["object"], atol=1e-5 * scale)
        again = infer_scan(results["models"]["autoencoder"], scan)[2]["object"]
        np.testing.assert_array_equal(again, ours["object"])
    assert np.load(tmp_path / "coverage.npz")["scan"].tolist() == [0] * 40 + [1] * 24


def test_panels_show_every_scan(pair, small_config, execute, tmp_path):
    config = small_config(pair[0], nepochs=1, output_dir=tmp_path)
    drawing = execute(recon_log_every_n_epochs=1, recon_log_stitch=True)
    components.train_cdi_model(pair, None, config, drawing)
    drawn = {path.name for path in (tmp_path / "figures").iterdir()} - {"sampler_coverage.png"}
    assert drawn == {f"{what}_scan{n}_0001.png" for what in ("patterns", "image") for n in (0, 1)}


def test_a_run_on_two_scans_goes_on_to_the_same_weights(pair, small_config, execute, tmp_path):
    def run(folder, epochs, **options):
        config = small_config(
            pair[0], nepochs=epochs, probe_trainable=True, probe_from="refine", probe_refine_sweeps=2,
            output_dir=tmp_path / folder,
        )  # fmt: skip
        given = execute(enable_checkpointing=True)
        return components.train_cdi_model(pair, None, config, given, **options)

    whole = run("whole", 4)
    run("cut", 2)
    on = run("cut", 4, resume=tmp_path / "cut" / "checkpoints" / "last.safetensors")
    from ptycho.tf.fit.checkpoints import model_arrays

    ours, theirs = (model_arrays(r["models"]["diffraction_to_obj"]) for r in (whole, on))
    for name, value in ours.items():
        np.testing.assert_allclose(theirs[name], value, rtol=1e-6, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(on["history"]["train_loss"], whole["history"]["train_loss"], rtol=1e-6)
