"""Settings of ptychodus under which a network learns a small scan in seconds; the rest stays at its default.

Each entry is (INI group, INI key, name in the Python API, value): batch mode reads the first two, the API the
third.
"""

from __future__ import annotations

from typing import Any

from client_driver import TORCH_PLUGIN
from client_scans import Case

Entry = tuple[str, str, str, Any]
#: by (Lightning plugin, side of a pattern): an image of 0.8 with some to spare
EPOCHS = {(True, 64): 25, (True, 128): 18, (False, 64): 20, (False, 128): 15}


def quick(algorithm: str, case: Case, epochs: int | None = None, grid: int = 1) -> list[Entry]:
    """Small batches, half as many filters; every position reconstructed. `grid`: side of a group."""
    epochs = epochs or EPOCHS[algorithm in TORCH_PLUGIN, case.N]
    if algorithm not in TORCH_PLUGIN:
        return [
            ("PtychoPINNModel", "NumFiltersScale", "model__n_filters_scale", 1),
            ("PtychoPINNTraining", "NumEpochs", "training__nepochs", epochs),
            ("PtychoPINNTraining", "BatchSize", "training__batch_size", 4 if case.N == 64 else 2),
            ("PtychoPINNInference", "NumSamples", "inference__n_samples", case.positions),
        ]
    return [
        ("PtychoPINNTorchData", "model_size", "data__model_size", case.N),
        ("PtychoPINNTorchData", "num_channels", "data__num_channels", grid**2),
        ("PtychoPINNTorchData", "grid_size_x", "data__grid_size_x", grid),
        ("PtychoPINNTorchData", "grid_size_y", "data__grid_size_y", grid),
        ("PtychoPINNTorchModel", "num_filters_scale", "model__num_filters_scale", 1),
        ("PtychoPINNTorchTraining", "epochs", "training__epochs", epochs),
        ("PtychoPINNTorchTraining", "batch_size", "training__batch_size", 8 if case.N == 64 else 4),
        ("PtychoPINNTorchTraining", "learning_rate", "training__learning_rate", 2e-3),
        ("PtychoPINNTorchTraining", "learning_rate_scheduler", "training__learning_rate_scheduler", "Cosine"),
        ("PtychoPINNTorchTraining", "gradient_clip_val", "training__gradient_clip_val", 1.0),
        ("PtychoPINNTorchTraining", "num_dataloader_workers", "training__num_dataloader_workers", 0),
    ]


def for_api(entries: list[Entry]) -> dict[str, Any]:
    """Keywords of `Client.settings`."""
    return {name: value for _, _, name, value in entries}


def for_ini(entries: list[Entry]) -> dict[str, dict[str, Any]]:
    """Groups of settings.ini."""
    groups: dict[str, dict[str, Any]] = {}
    for group, key, _, value in entries:
        groups.setdefault(group, {})[key] = value
    return groups
