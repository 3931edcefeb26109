"""What ptychodus demands of its parent process: configurations without a backend, and never a GPU context.

Written from the behaviour of ptychodus 1.7.0, whose distribution does not hold its own tests of these names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

BACKENDS = ("torch", "tensorflow", "keras", "lightning", "ptycho", "ptycho_torch")


def in_a_fresh_python(code: str, **environment: str) -> dict:
    """The JSON that a program prints last, run in an interpreter that has imported nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_starting_ptychodus_imports_none_of_us() -> None:
    """`test_no_gpu_context`: the packages are found, not imported, and both plugins are there."""
    found = in_a_fresh_python(f"""
        import json, sys
        from ptychodus.model.core import ModelCore
        with ModelCore(None) as core:
            offered = list(core.workflow_api.available_reconstructors())
        print(json.dumps({{"offered": offered, "loaded": [n for n in {BACKENDS} if n in sys.modules]}}))
    """)
    assert found["loaded"] == []
    assert sum(name.startswith("ptychopinn") for name in found["offered"]) == 4


def test_tensorflow_configurations_need_no_tensorflow() -> None:
    """`test_parent_config_builders`: every choice of the settings, no TensorFlow, no torch, in pickles."""
    found = in_a_fresh_python("""
        import itertools, json, pickle, sys
        from ptychodus.model.core import ModelCore
        from ptychodus.model.ptychopinn import reconstructor as r
        core = ModelCore(None)
        library = core.ptychopinn_reconstructor_library
        model, training = library.model_settings, library.training_settings
        names = []
        for activation in library.enumerators.get_amp_activations():
            for gridsize, name, mask in itertools.product((1, 2, 5), ("PINN", "Supervised"), (True, False)):
                model.amp_activation.set_value(activation)
                model.gridsize.set_value(gridsize)
                model.probe_mask.set_value(mask)
                given = [
                    r._build_training_config(model, training, name),
                    r._build_inference_config(model, name, 128, is_developer_mode_enabled=False),
                ]
                for config in given:
                    again = pickle.loads(pickle.dumps(config))
                    assert again == config
                    assert again.model.amp_activation == activation and again.model.gridsize == gridsize
                    assert again.model.model_type == name.lower() and again.model.probe_mask is mask
                assert given[0].model.N == 0 and given[1].model.N == 128
                given[0].model.N = 64
                assert given[0].nphotons == 1e6 and given[0].batch_size == 16 and given[0].nepochs == 50
                names.append(activation)
        loaded = [n for n in ("torch", "tensorflow", "keras", "ptycho_torch") if n in sys.modules]
        print(json.dumps({"made": len(names), "loaded": loaded}))
    """)
    assert found["made"] >= 4 * 12 and found["loaded"] == []


def test_torch_configurations_touch_no_device() -> None:
    """`test_parent_config_builders`: the five configurations of every choice, in pickles, no CUDA context."""
    found = in_a_fresh_python("""
        import itertools, json, logging, pickle, sys, warnings
        from ptychodus.model.core import ModelCore
        from ptychodus.model.ptychopinn_torch import reconstructor as r
        core = ModelCore(None)
        library = core.ptychopinn_torch_reconstructor_library
        settings = library.data_settings, library.model_settings, library.training_settings
        data, model, training = settings
        e = library.enumerators
        choices = (
            (data.data_normalization_mode, e.get_data_normalization_modes()),
            (data.neighbor_lookup_method, e.get_neighbor_lookup_methods()),
            (data.scan_pattern, e.get_scan_patterns()),
            (data.data_scaling_method, e.get_data_scaling_methods()),
            (model.loss_function, e.get_loss_functions()),
            (model.amplitude_activation_function, e.get_amplitude_activation_functions()),
            (model.auxiliary_amplitude_loss, e.get_auxiliary_loss_functions()),
            (model.auxiliary_phase_loss, e.get_auxiliary_loss_functions()),
            (training.learning_rate_scheduler, e.get_learning_rate_schedulers()),
            (library.inference_settings.patch_weighting_method, e.get_patch_weighting_methods()),
        )
        import torch
        choices = [(parameter, tuple(values)) for parameter, values in choices]
        made = 0
        warnings.simplefilter("error")
        for mode in ("Unsupervised", "Supervised"):
            for parameter, values in choices:
                for value in values:
                    before = parameter.get_value()
                    parameter.set_value(value)
                    five = r._build_configs(mode, *settings, library.inference_settings)
                    assert pickle.loads(pickle.dumps(five)) == five
                    assert five[1].mode == mode and five[0].N == 128
                    made += 1
                    parameter.set_value(before)
        loaded = [n for n in ("tensorflow", "keras", "lightning") if n in sys.modules]
        print(json.dumps({"made": made, "loaded": loaded, "context": torch.cuda.is_initialized()}))
    """)
    assert found["made"] == 2 * 24 and found["loaded"] == [] and not found["context"]


def test_configurations_survive_a_spawned_process() -> None:
    """The child unpickles before it does anything: a plain module-level class, no TensorFlow."""
    found = in_a_fresh_python("""
        import base64, json, pickle, subprocess, sys
        from pathlib import Path
        from ptycho.config.config import ModelConfig, TrainingConfig
        unused = dict(train_data_file=Path(), test_data_file=None, output_dir=Path())
        config = TrainingConfig(ModelConfig(N=0), **unused)
        text = base64.b64encode(pickle.dumps(config)).decode()
        code = (
            "import base64, pickle, sys; c = pickle.loads(base64.b64decode(sys.argv[1])); c.model.N = 64; "
            "print(c.model.N, *(n for n in ('torch', 'tensorflow') if n in sys.modules))"
        )
        print(json.dumps(subprocess.check_output([sys.executable, "-c", code, text], text=True).split()))
    """)
    assert found == ["64"]
