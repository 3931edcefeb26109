"""Settings that clients pass and that do nothing here, each with the reason.

They are fields of the clients' configurations like all others, so that calls and files with them go on
working; a value other than the default is named in the log, see `config_bridge.settings_without_effect`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ptycho.config.fields import option

_STAGES = "stages are set by `stages` or enable_staged_finetuning"
PENALTIES = ("Total_Variation", "Mean_Deviation")
Class = TypeVar("Class", bound=type)

#: class -> field -> (annotation, field; its help says why it does nothing)
ACCEPTED: dict[str, dict[str, tuple[str, Any]]] = {
    "DataConfig": {
        "normalize": ("str", option("Batch", choices=("Group", "Batch"), help="one scale per training set")),
        "neighbor_function": (
            "str",
            option(
                "Nearest",
                choices=("Nearest", "Min_dist", "4_quadrant"),
                help="groups are anchor and neighbours",
            ),
        ),
        "scan_pattern": (
            "str",
            option("Isotropic", choices=("Isotropic", "Rectangular"), help="any scan is"),
        ),
        "probe_normalize": ("bool", option(True, help="the probe is always normalised")),
        "x_bounds": ("tuple[float, float]", option((0.1, 0.9), help="every position is covered")),
        "y_bounds": ("tuple[float, float]", option((0.1, 0.9), help="every position is covered")),
        "min_neighbor_distance": ("float", option(0.0, ge=0, help="the K nearest are taken at any distance")),
        "max_neighbor_distance": ("float", option(3.0, ge=0, help="the K nearest are taken at any distance")),
        "K_quadrant": ("int", option(30, ge=0, help="no quadrant search")),
        "n_subsample": ("int", option(7, ge=1, help="groups per position follow from n_groups")),
        "data_scaling": ("str", option("Parseval", choices=("Parseval", "Max"), help="always Parseval")),
    },
    "ModelConfig": {
        "C_model": ("int", option(0, ge=0, help="channels are DataConfig.C")),
        "C_forward": ("int", option(0, ge=0, help="channels are DataConfig.C")),
        "decoder_last_amp_channels": ("int", option(0, ge=0, help="channels are DataConfig.C")),
        "intensity_scale": ("float", option(1e4, gt=0, help="measured from the data")),
        "max_position_jitter": ("int", option(10, ge=0, help="the canvas holds any extent")),
        "num_datasets": ("int", option(1, ge=1, help="one scale serves all files")),
        "use_shared_decoder": ("bool", option(False, help="the architecture decides")),
        "cbam_encoder": ("bool", option(False, help="the architecture decides")),
        "cbam_bottleneck": ("bool", option(False, help="the architecture decides")),
        "cbam_decoder": ("bool", option(False, help="the architecture decides")),
        "eca_encoder": ("bool", option(False, help="the architecture decides")),
        "eca_decoder": ("bool", option(False, help="the architecture decides")),
        "spatial_decoder": ("bool", option(False, help="the architecture decides")),
        "decoder_spatial_kernel": ("int", option(7, ge=1, help="the architecture decides")),
        "batch_norm": ("bool", option(False, help="the architecture decides")),
        "edge_pad": ("int", option(10, ge=0, help="the border follows from N and probe_big")),
        "decoder_last_c_outer_fraction": (
            "float",
            option(0.125, ge=0, le=1, help="the architecture decides"),
        ),
        "offset": ("int", option(6, ge=0, help="a grid step of simulated scans, never used here")),
        "amp_loss": ("str | None", option(None, choices=PENALTIES, help="use realspace_weight")),
        "phase_loss": ("str | None", option(None, choices=PENALTIES, help="use realspace_weight")),
        "amp_loss_coeff": ("float", option(1.0, ge=0, help="use realspace_weight")),
        "phase_loss_coeff": ("float", option(1.0, ge=0, help="use realspace_weight")),
        "probe_reference_coeff": ("float", option(0.0, ge=0, help="no penalty on the probe")),
        "amplitude_variance_loss": ("bool", option(False, help="no penalty on the amplitude's variance")),
        "amplitude_variance_coeff": (
            "float",
            option(0.01, ge=0, help="no penalty on the amplitude's variance"),
        ),
    },
    "TrainingConfig": {
        "framework": ("str", option("Lightning", help="always Lightning")),
        "orchestrator": ("str", option("Lightning", help="always Lightning")),
        "training_directories": ("list[Any] | None", option(None, help="folders go to PtychoDataLoader")),
        "experiment_name": ("str", option("", help="Trainer.train takes it")),
        "stage_1_epochs": ("int", option(0, ge=0, help=_STAGES)),
        "stage_2_epochs": ("int", option(0, ge=0, help=_STAGES)),
        "stage_3_epochs": ("int", option(0, ge=0, help=_STAGES)),
        "stage_3_lr_factor": ("float", option(0.1, ge=0, help=_STAGES)),
        "physics_weight_schedule": ("str", option("cosine", help="weights follow `stages`")),
    },
    "InferenceConfig": {
        "experiment_number": ("int", option(0, ge=0, help="one scan at a time")),
        "pad_eval": ("bool", option(True, help="the canvas holds every patch")),
        "window": ("int", option(20, ge=0, help="coverage says where the image is known")),
    },
}


def accepting(name: str) -> Callable[[Class], Class]:
    """Adds the accepted fields of a class to it, after its own; stands below `@dataclass`."""

    def add(cls: Class) -> Class:
        for field, (annotation, value) in ACCEPTED[name].items():
            cls.__annotations__[field] = annotation
            setattr(cls, field, value)
        return cls

    return add


def reasons() -> dict[str, str]:
    """Class.field -> why it does nothing."""
    return {
        f"{name}.{field}": value.metadata["help"]
        for name, fields in ACCEPTED.items()
        for field, (_, value) in fields.items()
    }
