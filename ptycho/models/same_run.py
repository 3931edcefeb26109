"""Whether a bundle is of the run whose settings lie beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptycho.config.fields import describe_fields, shown
from ptycho.config.free import FREE
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.config.yaml_io import load_yaml_config, training_config_from, written_here
from ptycho.errors import BundleError, InputError
from ptycho.models.shipped import with_shipped_model

_CONFIG = "config.yaml"


def check_same_run(bundle: Path, settings: Mapping[str, Any]) -> None:
    """BundleError where a bundle lies beside the config.yaml of another run.

    So it is after a run that was killed in the folder of an older one, where nothing was moved aside.
    settings: the configuration in the bundle. Without a config.yaml that can be read nothing is compared.
    """
    beside = bundle.parent / _CONFIG
    if not written_here(beside):
        return
    try:
        wanted, _ = training_config_from(load_yaml_config(beside, unchanged=False), source=beside)
        made, _ = training_config_from(settings, source=bundle)
        wanted = with_shipped_model(wanted)  # a config.yaml may name it and leave the network at its defaults
    except (InputError, OSError):
        return
    overridden = {info.name for info in describe_fields(PyTorchExecutionConfig)}
    for cls, one, other in ((TrainingConfig, wanted, made), (ModelConfig, wanted.model, made.model)):
        for name in (info.name for info in describe_fields(cls)):
            now, then = getattr(one, name), getattr(other, name)
            if name not in FREE and name not in overridden and now != then:
                raise BundleError(
                    f"{bundle} is of another run than {_CONFIG} beside it: {name} is {shown(then)} in the "
                    f"one and {shown(now)} in the other; train again, or move the bundle to a folder of its "
                    "own"
                )
