"""The TensorFlow path under the names that clients import; see `ptycho.clients.workflow`.

It imports without TensorFlow, because clients import it to open bundles, which either backend does; what
needs TensorFlow says how to install it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ptycho.clients import workflow as client
from ptycho.clients.workflow import reassemble_cdi_image as reassemble_cdi_image
from ptycho.report.outputs import save_outputs as save_outputs
from ptycho.run.preparation import ensure_container as create_ptycho_data_container
from ptycho.workflows.trained import save_trained as save_trained

__all__ = [
    "create_ptycho_data_container",
    "infer_scan",
    "load_inference_bundle",
    "reassemble_cdi_image",
    "run_cdi_example",
    "save_outputs",
    "save_trained",
    "train_cdi_model",
]

BACKEND = "tensorflow"


#: `ptycho.clients.workflow.train_cdi_model` with TensorFlow, whatever `config.backend` is
train_cdi_model = partial(client.train_cdi_model, BACKEND)
#: `ptycho.clients.workflow.run_cdi_example`, the same
run_cdi_example = partial(client.run_cdi_example, BACKEND)
#: `ptycho.clients.workflow.infer_scan`, the same
infer_scan = partial(client.infer_scan, backend=BACKEND)


def load_inference_bundle(directory: Path, *, backend: str | None = None) -> tuple[Any, dict[str, Any]]:
    """(model with `.predict`, configuration under legacy names) of a bundle that either backend wrote.

    It is opened by the backend asked for, or else by the one that wrote it, see
    `ptycho.clients.workflow.backend_of_bundle`. Raises BundleError; MissingDependencyError where TensorFlow
    was asked for and is not there.
    """
    return client.load_inference_bundle(directory, client.backend_of_bundle(directory, backend))
