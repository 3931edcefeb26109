"""Settings of the Lightning plugin beyond the quick ones: groups of 2 x 2, its default, and fine-tuning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from client_driver import Client, export_training_data, reconstruct
from client_scans import Case, check
from client_settings import for_api, quick

from ptycho.simulation import Simulated

ALGORITHM = "ptychopinn-torch_unsupervised"
CASE = Case(64, 1, True)
Write = Callable[..., Path]
Simulate = Callable[[Case], Simulated]
STAGES = ("decoder", "encoder top", "everything")


def trained(client: Client, given: Path, folder: Path, **settings: Any) -> Path:
    """The checkpoint that the client saves after training with these settings."""
    client.settings(ALGORITHM, **settings)
    product = client.load(given)
    export_training_data(client, product, folder / "data", ALGORITHM)
    product.train_reconstructor_local(folder / "data", folder / "run", algorithm=ALGORITHM, block=True)
    client.models.save_model_to_file(folder / "model.ckpt", algorithm=ALGORITHM)
    return folder / "model.ckpt"


def said(client: Client) -> str:
    return "\n".join(record.getMessage() for record in client.records)


def test_groups_of_four(client: Client, scan_folder: Write, simulated: Simulate, tmp_path: Path) -> None:
    given = scan_folder(CASE)
    model = trained(client, given, tmp_path, **for_api(quick(ALGORITHM, CASE, epochs=12, grid=2)))
    check(reconstruct(client, given, ALGORITHM, model, tmp_path / "out"), simulated(CASE))


def test_fine_tuning_in_stages(client: Client, scan_folder: Write, tmp_path: Path) -> None:
    """Decoder, then the top of the encoder, then everything; the model of the last stage reconstructs."""
    given = scan_folder(CASE)
    settings = for_api(quick(ALGORITHM, CASE, epochs=1))
    settings["training__enable_staged_finetuning"] = True
    settings["training__finetune_skip_stage3"] = False
    for stage in (1, 2, 3):
        settings[f"training__finetune_stage{stage}_epochs"] = 1
    model = trained(client, given, tmp_path, **settings)
    text = said(client)
    places = [text.index(f"stage '{name}' from epoch {epoch}") for epoch, name in enumerate(STAGES, 1)]
    assert places == sorted(places)
    # the client asks for 'cuda' unless its user says otherwise
    assert torch.cuda.is_available() or text.count("device = 'cuda': no GPU here") == 1
    image = reconstruct(client, given, ALGORITHM, model, tmp_path / "out")
    assert np.isfinite(image).all() and (image != 0).any()
