"""Trained models of PyTorch under the names that clients and scripts import."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptycho.clients import workflow as client
from ptycho.clients.trained_model import TrainedModel as TrainedModel
from ptycho.clients.workflow import infer_scan as infer_scan
from ptycho.workflows.trained import save_trained as save_trained


def load_inference_bundle_torch(directory: Path) -> tuple[TrainedModel, dict[str, Any]]:
    """(model with `.predict`, configuration under legacy names) of a bundle; params.cfg follows it."""
    return client.load_inference_bundle(directory, "pytorch")
