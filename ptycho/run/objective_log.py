"""What a run will minimise, written to the log before its first step; the same for both backends."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.objectives.manifest import Manifest

log = logging.getLogger(__name__)


def log_run(manifest: Manifest, config: TrainingConfig, execution: PyTorchExecutionConfig) -> None:
    """Log the resolved lists, their checksum, the configuration's path, the run's name and its seeds."""
    folder = config.output_dir
    written = folder / "config.yaml"
    name = execution.run_name or folder.name or "unnamed"
    path = written if folder != Path() and written.is_file() else "in memory"
    seed = config.seed if config.subsample_seed is None else config.subsample_seed
    log.info("run %s: configuration %s, seed %d, seed of the groups %d", name, path, config.seed, seed)
    for kind, modules in manifest.as_dict().items():
        log.info("%s: %s", kind, json.dumps(modules))
    log.info("checksum of the objectives: %s", manifest.checksum)
    for stage in config.stages or ():
        log.info("stage: %s", json.dumps(stage))
