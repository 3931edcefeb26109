"""Settings that a run may change and still give the same weights."""

from __future__ import annotations

#: what may differ from config.yaml when a run is resumed: where and how it runs, and what is shown; `devices`
#: as long as a step takes as many batches
FREE = frozenset(
    ("nepochs", "max_time_s", "debug", "output_dir", "train_data_file", "more_train_data_files",
     "test_data_file", "accelerator", "devices", "num_workers", "pin_memory", "persistent_workers",
     "prefetch_factor", "patterns", "enable_progress_bar", "checkpoint_every_s",
     "inference_batch_size", "logger_backend", "mlflow_uri", "run_name", "log_throughput",
     "recon_log_every_n_epochs", "recon_log_num_patches", "recon_log_stitch")
)  # fmt: skip
