"""An exported model, opened and run by onnxruntime: counts in, complex patches out, no backend loaded."""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.config.yaml_io import training_config_from
from ptycho.errors import BundleError, ConfigError, DataError, MissingDependencyError, PtychoError
from ptycho.io.inputs import check_input
from ptycho.io.reading import check_memory
from ptycho.models.onnx_around import REFERENCE
from ptycho.models.onnx_export import (
    FORMAT,
    FORMAT_VERSION,
    INPUT,
    OUTPUTS,
    WITH_REFERENCE,
    signature,
)
from ptycho.models.onnx_seal import check_seal
from ptycho.networks.graphs import spec_from_config
from ptycho.scan.normalization import intensity_scale

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class OnnxModel:
    """A model of `ptycho export`.

    config: the network is its `model`, all other fields are defaults. probe: (P, N, N) complex64 in the
    network's gauge. The numbers are those of `ptycho.scan.normalization`.
    """

    path: Path
    session: Any
    config: TrainingConfig
    probe: NDArray[np.complex64]
    x_scale: float
    nphotons: float
    probe_factor: float
    log_scale: float
    version: str

    @property
    def state(self) -> dict[str, Any]:
        """The numbers under the names that a bundle's `state` has."""
        model = self.config.model
        return {
            "x_scale": self.x_scale,
            "nphotons": self.nphotons,
            "probe_factor": self.probe_factor,
            "intensity_scale": intensity_scale(self.nphotons, model.N),
            "log_scale": self.log_scale,
            "N": model.N,
            "gridsize": model.gridsize,
        }

    def predict(
        self, counts: NDArray[Any], reference: NDArray[np.complex64] | None = None
    ) -> NDArray[np.complex64]:
        """Complex patches (B, C_out, N, N) complex64 from counts (B, C, N, N), of any real dtype.

        reference (B, C, N, N) complex: the image around each pattern, where the model starts from one, see
        `ptycho.run.reference`. Raises DataError for another shape. Memory: what the batch needs inside the
        network.
        """
        model = self.config.model
        wanted = (model.gridsize**2, model.N, model.N)
        if counts.ndim != 4 or counts.shape[1:] != wanted:
            raise DataError(f"{self.path}: counts have shape {counts.shape}; this model takes (B, {wanted})")
        if not len(counts):
            return np.empty((0, spec_from_config(model).out_channels, model.N, model.N), np.complex64)
        given = {INPUT: np.ascontiguousarray(counts, np.float32)}
        if model.reference != "flat":
            if reference is None or reference.shape != counts.shape:
                shape = None if reference is None else reference.shape
                raise DataError(
                    f"{self.path}: reference has shape {shape}; this model takes one like counts, "
                    f"{counts.shape} - ptycho infer makes it"
                )
            given[REFERENCE] = np.concatenate([reference.real, reference.imag], 1, dtype=np.float32)
        amplitude, phase = self.session.run(OUTPUTS, given)
        patches = np.empty(amplitude.shape, np.complex64)
        patches.real, patches.imag = amplitude * np.cos(phase), amplitude * np.sin(phase)
        return patches


def open_onnx(path: Path, execution: PyTorchExecutionConfig | None = None) -> OnnxModel:
    """Open a file of `ptycho export`; nothing in it is run, weights in other files are not followed.

    `execution.accelerator`: auto takes CUDA where onnxruntime has it. Threads: what OMP_NUM_THREADS says,
    else one a core. Raises MissingDependencyError without onnxruntime, BundleError for a file that is
    missing, truncated, foreign or too new, ConfigError for a device that onnxruntime does not have.
    """
    path = check_input(path)
    try:
        check_memory(2 * path.stat().st_size, str(path))
        data = path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{path} does not exist; give a file that ptycho export wrote") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); give a file of ptycho export") from None
    if not data:
        raise BundleError(f"{path} is empty; copy it again or export again")
    session = _session(path, data, (execution or PyTorchExecutionConfig()).accelerator)
    noted = dict(session.get_modelmeta().custom_metadata_map)
    if noted.get("format") != FORMAT:
        raise BundleError(
            f"{path} is an ONNX model, but not one of ptycho export (or it was truncated): export it again"
        )
    version = noted.get("format_version", "")
    if version not in (str(FORMAT_VERSION), str(WITH_REFERENCE)):
        raise BundleError(
            f"{path} has format {version}, this ptychopinn reads {FORMAT_VERSION} and {WITH_REFERENCE}; "
            "upgrade ptychopinn"
        )
    model = _described(path, session, noted)
    own = FORMAT_VERSION if model.config.model.reference == "flat" else WITH_REFERENCE
    if version != str(own):
        raise BundleError(
            f"{path} has format {version}, but its network is of format {own}; "
            "export it again, or upgrade ptychopinn"
        )
    _check_tensors(model)
    check_seal(data, path)  # last, because the others say more
    return model


def _session(path: Path, data: bytes, accelerator: str) -> Any:
    """The session of onnxruntime. It does not get the path, so that it cannot open other files beside it."""
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError(
            f"{path}: running ONNX needs the package onnxruntime: pip install 'ptychopinn[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdigit() else 0
    providers = _providers(accelerator, onnxruntime.get_available_providers())
    try:
        again = int(len(providers) > 1)  # on the CPU alone a second try would only print the first one's end
        return onnxruntime.InferenceSession(data, options, providers=providers, enable_fallback=again)
    # onnxruntime's exceptions have no common base of their own
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise BundleError(f"{path} is truncated, or no ONNX model that can run here ({reason})") from None


def _providers(accelerator: str, available: list[str]) -> list[str]:
    if accelerator in ("gpu", "cuda") and _CUDA not in available:
        raise ConfigError(
            f"accelerator = {accelerator!r}: onnxruntime has no CUDA here; use cpu, or onnxruntime-gpu"
        )
    if accelerator == "mps":
        raise ConfigError("accelerator = 'mps': an ONNX model runs in onnxruntime on cpu or cuda; use cpu")
    return [_CPU] if accelerator == "cpu" or _CUDA not in available else [_CUDA, _CPU]


def _described(path: Path, session: Any, noted: Mapping[str, str]) -> OnnxModel:
    """The metadata as values; BundleError names the entry that is missing or makes no sense."""
    key = ""
    try:
        key = "model_config"
        config, _ = training_config_from({"model": json.loads(noted[key])}, source=f"{path}: {key}")
        numbers = {}
        for key in ("x_scale", "nphotons", "probe_factor", "log_scale"):
            numbers[key] = float(noted[key])
            if not math.isfinite(numbers[key]):
                raise ValueError("not finite")
        for key in ("x_scale", "nphotons", "probe_factor"):
            if not numbers[key] > 0:
                raise ValueError("not positive")
        key = "probe"
        raw = np.frombuffer(base64.b64decode(noted[key], validate=True), "<c8")
        probe = raw.reshape(-1, config.model.N, config.model.N).astype(np.complex64)
        if not (probe.size and np.isfinite(probe).all() and probe.any()):
            raise ValueError("empty, zero or not finite")
    except KeyError:
        raise BundleError(f"{path}: its metadata lack {key!r}; export it again") from None
    except (ValueError, TypeError, AttributeError, ZeroDivisionError, binascii.Error, PtychoError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"{path}: {key!r} in its metadata is damaged ({reason}); export it again") from None
    return OnnxModel(path, session, config, probe, version=noted.get("ptychopinn_version", ""), **numbers)


def _check_tensors(model: OnnxModel) -> None:
    """Inputs and outputs are those that the metadata promise; BundleError."""
    wanted = signature(spec_from_config(model.config.model))
    session = model.session
    found = {tensor.name: tensor.shape for tensor in [*session.get_inputs(), *session.get_outputs()]}
    for name in sorted(wanted.keys() | found.keys()):
        expected, there = (shapes.get(name, [None])[1:] for shapes in (wanted, found))
        if expected != there:
            raise BundleError(
                f"{model.path}: tensor {name} is {there or 'missing'} a sample, its metadata promise "
                f"{expected or 'none'}; export it again"
            )
