"""Faults in the trainers of both backends: what steps, what is kept, when a run ends."""

from __future__ import annotations

from fault import Fault, Room

_VALUES, _PARTS = "tests/parity/test_trainer_values.py -k ", "tests/parity/test_trainer_parts.py -k "

TORCH_FIT = Room("torch-fit", ("ptycho_torch/fit",), (_VALUES + "pytorch",))
TORCH_PARTS = Room(
    "torch-parts",
    (
        "ptycho_torch/module.py",
        "ptycho_torch/imaging.py",
        "ptycho_torch/optimizers.py",
        "ptycho_torch/data.py",
    ),
    (_PARTS + "pytorch", _VALUES + "pytorch"),
)
KERAS_FIT = Room("keras-fit", ("ptycho/tf/fit", "ptycho/tf/model.py"), (_VALUES + "tensorflow",))
KERAS_PARTS = Room(
    "keras-parts",
    ("ptycho/tf/optimizers.py", "ptycho/tf/stages.py", "ptycho/tf/data.py", "ptycho/tf/model.py"),
    (_PARTS + "tensorflow", _VALUES + "tensorflow"),
)


def _values(*names: str, case: str = "tensorflow") -> tuple[str, ...]:
    return tuple(f"tests/parity/test_trainer_values.py::test_{name}[{case}]" for name in names)


def _parts(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/parity/test_trainer_parts.py::test_{name}[tensorflow]" for name in names)


# A run in TensorFlow traces its step anew, so a fault of it is judged by the tests of its rule alone.
PLATEAU = _values("a_plateau_lowers_the_rate_down_to_its_floor")
PATIENCE = _values("patience_counts_the_epochs_that_are_no_better_and_the_best_weights_stay")
_GOES_ON, _BEST = (
    "a_run_that_goes_on_is_the_run_that_never_stopped",
    "the_best_epochs_are_kept_by_the_metric_and_the_direction_asked_for",
)
RESUMED = (
    *_values(_GOES_ON, case="tensorflow-plateau"),
    *_values(_GOES_ON, case="tensorflow-average"),
)
BEST = ("tests/parity/test_trainer_values.py -k tensorflow-asked",)
DIVERGED = _values("a_loss_that_is_no_number_ends_the_run")
STAGED = _values("stages_move_their_parts_at_their_rates_and_end_after_their_last_step")
RESTED = _values("a_part_that_rested_has_made_no_steps")
AVERAGE = _values("the_moving_average_of_the_weights_is_judged_and_kept")
ACCUMULATED = _values("accumulated_batches_make_one_step_and_what_is_left_makes_the_last")
VALIDATED = _values("the_validation_loss_weighs_a_batch_by_its_held_out_patterns")
MEANS = _values("the_loss_of_an_epoch_is_the_mean_over_patterns_also_of_a_smaller_batch")
COURSE = (
    "tests/parity/test_trainer_values.py::test_the_rate_follows_its_course_over_the_steps_of_all_epochs",
)
CLIPPED = ("tests/parity/test_trainer_values.py::test_gradients_are_clipped",)
WITHIN = ("tests/torch/test_within_epoch.py",)
SHARED = ("tests/torch/test_training_processes.py -k whoever",)
TERM_MEANS = (
    "tests/parity/test_trainer_parts.py::test_keras_means_of_a_term_are_over_the_batches_that_had_it",
)
FORMULAS = ("tests/parity/test_trainer_parts.py::test_optimisers_follow_their_formulas",)
RATES = _parts("every_part_has_its_rate_at_every_step")
BATCHES = _parts("batches_hold_their_groups_with_labels_and_who_counts")
ORDER = _parts("training_order_and_validation_are_the_plans")

TABLE: dict[Room, tuple[Fault, ...]] = {
    TORCH_FIT: (
        Fault("plateau_min_lr not passed", "make_callbacks", "min_lr=config.plateau_min_lr,", ""),
        Fault("plateau_factor not passed", "make_callbacks", "factor=config.plateau_factor,", ""),
        Fault("plateau_patience not passed", "make_callbacks", "patience=config.plateau_patience,", ""),
        Fault("plateau steps twice", "Plateau.on_train_epoch_end", "self._scheduler.step(float(", "self._scheduler.step(float(trainer.callback_metrics[self._monitor]))\n        self._scheduler.step(float("),
        Fault("plateau forgets on resume", "Plateau.on_train_start", "if self._known is not None:", "if self._known is None:"),
        Fault("patience one epoch late", "make_callbacks", "patience=execution.early_stop_patience,", "patience=execution.early_stop_patience + 1,"),
        Fault("patience in the other direction", "make_callbacks", "mode=execution.checkpoint_mode,\n            patience", 'mode="max",\n            patience'),
        Fault("best of validation whatever is asked", "make_callbacks", "monitor=None if staged else execution.checkpoint_monitor_metric", 'monitor=None if staged else "val_loss"'),
        Fault("best checkpoint is the worst", "make_callbacks", "mode=execution.checkpoint_mode,\n                save_top_k", 'mode="max",\n                save_top_k'),
        Fault("one checkpoint kept", "make_callbacks", "1 if staged else execution.checkpoint_save_top_k", "1"),
        Fault("stages keep no last checkpoint", "make_callbacks", 'filename="last" if staged', 'filename="stage" if staged'),
        Fault("no average", "make_callbacks", "callbacks.append(ExponentialAverage(config.ema_decay))", "pass"),
        Fault("average one update late", "ExponentialAverage.__init__", "(1 + n) / (10 + n)", "(2 + n) / (10 + n)"),
        Fault("average at its full decay at once", "ExponentialAverage.__init__", "torch.clamp((1 + n) / (10 + n), max=decay)", "torch.full_like(n, decay)"),
        Fault("average not kept", "ExponentialAverage.on_fit_end", "self._copy_average_to_current(pl_module)", "pass", equivalent="the best checkpoint is put back after it, and without checkpoints Lightning has copied the average at the end of training"),
        Fault("last checkpoint only beside a best", "BestAndLast.on_train_epoch_end", "self._save_last_checkpoint(trainer", "str(trainer"),
        Fault("best weights not put back", "fit_from", "restore_best(module, trainer)", "pass"),
        Fault("clipping of the execution ignored", "make_trainer", "execution.gradient_clip_val or config.gradient_clip_val", "config.gradient_clip_val", equivalent="`with_execution` has put the execution's value into the configuration already"),
        Fault("no clipping", "make_trainer", "gradient_clip_val=execution.gradient_clip_val or config.gradient_clip_val,", ""),
        Fault("clipping by norm only", "make_trainer", "gradient_clip_algorithm=config.gradient_clip_algorithm,", ""),
        Fault("losses before a break forgotten", "WithinEpoch.on_train_batch_end", "value += self._known[name].to(value)", "pass", tests=WITHIN),
        Fault("no accumulation", "make_trainer", "accumulate_grad_batches=accumulation(execution),", ""),
        Fault("diverged and goes on", "Health.on_train_batch_end", "not bool(torch.isfinite(loss))", "bool(torch.isinf(loss))"),
        Fault("stages end a step late", "Stages.on_train_batch_end", ">= self.steps", "> self.steps"),
        Fault("all parts move in every stage", "Freezer.only", "requires_grad_(part in moving)", "requires_grad_(True)"),
        Fault("parts stay frozen", "Freezer.restore", "parameter.requires_grad_(True)", "pass"),
        Fault("stages do not count accumulated steps", "make_stages", "math.ceil(batches_per_epoch / accumulate)", "batches_per_epoch"),
        Fault("validation counts training patterns", "loaders_of", "held_out=plan.held_out, ", ""),
        Fault("client's stage one epoch longer", "Finetuning._is_over", ">= stage.epochs", "> stage.epochs"),
        Fault("client's stage without patience", "Finetuning._is_over", "return epoch - self._begun >= stage.epochs or too_long", "return epoch - self._begun >= stage.epochs"),
        Fault("client's stages keep the run's rate", "Finetuning._set_rates", 'module.learning_rate * factors.get(group["name"], 0.0)', "module.learning_rate"),
        Fault("no word to the caller", "Observing._observers_of", "job.progress is not None", "job.progress is None"),
        Fault("rates of parts not told", "row_of", "if len(groups) > 1:", "if len(groups) > 99:"),
    ),
    TORCH_PARTS: (
        Fault("weight decay of Adam ignored", "configure_optimizers", "optimizer = torch.optim.Adam(trained, lr=rate, betas=(0.9, 0.99), weight_decay=config.weight_decay)", "optimizer = torch.optim.Adam(trained, lr=rate, betas=(0.9, 0.99))"),
        Fault("betas of AdamW are torch's", "configure_optimizers", "torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.99), ", "torch.optim.AdamW(trained, lr=rate, "),
        Fault("betas of Adam are torch's", "configure_optimizers", "torch.optim.Adam(trained, lr=rate, betas=(0.9, 0.99), ", "torch.optim.Adam(trained, lr=rate, "),
        Fault("momentum ignored", "configure_optimizers", "momentum=config.momentum, ", ""),
        Fault("frozen probe is trained", "Imaging.attach_scans", "requires_grad=self.config.probe_trainable", "requires_grad=True"),
        Fault("scale trains in any case", "Imaging.assemble", "requires_grad=config.intensity_scale_trainable and not self._supervised", "requires_grad=not self._supervised"),
        Fault("scheduler steps by epoch", "configure_optimizers", '{"scheduler": stepped, "interval": "step"}', '{"scheduler": stepped, "interval": "epoch"}'),
        Fault("schedule over one epoch", "configure_optimizers", "step, per_epoch, total)", "step, per_epoch, per_epoch)"),
        Fault("steps of an epoch forgotten", "configure_optimizers", "per_epoch = max(1, total // max(1, config.nepochs))", "per_epoch = 1"),
        Fault("stage of the step before", "StagedRates.factors", "span_at(self._spans, step)", "span_at(self._spans, max(step - 1, 0))"),
        Fault("rates of parts not relative", "StagedRates.factors", "return rate / base", "return rate"),
        Fault("parts in another order", "parameter_groups", "for part in PARTS if", "for part in PARTS[::-1] if"),
        Fault("frozen parameters in the groups", "parameter_groups", "if parameter.requires_grad:", "if True:"),
        Fault("seed 0 is seed 1", "Imaging.assemble", "config.seed)", "config.seed or 1)"),
        Fault("starting correction forgotten", "Imaging.attach_scans", "scan.log_scale for scan in scans", "0.0 for scan in scans"),
        Fault("gauge in another order", "Imaging.attach_scans", "(scan.x_scale, scan.nphotons, scan.probe_factor)", "(scan.nphotons, scan.x_scale, scan.probe_factor)"),
        Fault("every scan is the first", "Imaging.of_scan", "values[scan]", "values[0]"),
        Fault("bad pixels are the good", "Imaging.counted_of", "return ~self", "return self"),
        Fault("bad pixels reach the network", "Imaging.forward", "self.network(x * counted.to(x.dtype),", "self.network(x,"),
        Fault("scale of the first scan", "Imaging.intensity_scale_of", "self.of_scan(self.gauge, scan)[1]", "self.of_scan(self.gauge)[1]"),
        Fault("phase of half", "Imaging.forward", "modulus * torch.sin(phase))", "modulus * torch.sin(phase / 2))"),
        Fault("scan ignored in prediction", "Imaging.forward", "self.counted_of(scan)", "self.counted_of(0)"),
        Fault("no regions", "PtychoPINN.views", 'batch["region"] and len(patches) > 1', 'batch["region"] and len(patches) > 99'),
        Fault("mean of batch means", "PtychoPINN.training_step", 'self.loss_name, len(batch["x"]))', "self.loss_name, 1)"),
        Fault("validation weighs groups", "PtychoPINN.validation_step", 'int(batch["counted"].sum())', 'len(batch["x"])'),
        Fault("labels of the first scan's scale", "GroupDataset.__getitem__", "self.label_scales[number]", "self.label_scales[0]"),
        Fault("scan by its place", "GroupDataset.__getitem__", '"scan": number', '"scan": place'),
        Fault("held-out groups are the others", "GroupDataset.__getitem__", "counted &= self.held_out[groups]", "counted &= ~self.held_out[groups]"),
        Fault("held-out of the scan's own numbers", "GroupDataset.__getitem__", "self.held_out[groups]", "self.held_out[local]"),
        Fault("epochs all the first", "GroupBatches.set_epoch", "self.epoch = epoch", "self.epoch = 0"),
        Fault("last batch dropped", "GroupBatches.__iter__", "_share(self.plan.epoch(self.epoch))", "_share(self.plan.epoch(self.epoch)[:-1])"),
        Fault("batches before a break trained again", "GroupBatches.__iter__", "[batches if self.epoch == begun else 0 :]", "", tests=WITHIN),
        Fault("weights of processes cut", "PtychoPINN._log_terms", "size *= self.trainer.world_size if self._trainer is not None else 1", "pass", tests=SHARED),
    ),
    KERAS_FIT: (
        Fault("Keras: plateau_min_lr ignored", "Plateau.on_epoch_end", "max(rate * config.plateau_factor, config.plateau_min_lr)", "rate * config.plateau_factor", tests=PLATEAU),
        Fault("Keras: plateau one epoch early", "Plateau.on_epoch_end", "self._waited <= config.plateau_patience", "self._waited < config.plateau_patience", tests=PLATEAU),
        Fault("Keras: plateau waits on after a step", "Plateau.on_epoch_end", "            return\n        self._waited = 0\n", "            return\n", tests=PLATEAU),
        Fault("Keras: plateau forgets on resume", "Plateau.restore", 'known["best"], known["waited"]', "math.inf, 0", tests=RESUMED),
        Fault("Keras: patience one epoch late", "EarlyStopping.over", "self._waited >= self._patience", "self._waited > self._patience", tests=PATIENCE),
        Fault("Keras: equal is better", "EarlyStopping.on_epoch_end", "better = value < self._best", "better = value <= self._best", tests=PATIENCE),
        Fault("Keras: patience forgets on resume", "EarlyStopping.restore", 'known["best"], known["waited"]', "math.inf, 0", tests=RESUMED),
        Fault("Keras: validation loss no number goes on", "EarlyStopping.on_epoch_end", "not math.isfinite(value)", "math.isinf(value)", tests=DIVERGED),
        Fault("Keras: stages end a step late", "EndOfStages.on_train_batch_end", ">= self._steps", "> self._steps", tests=STAGED),
        Fault("Keras: best replaced by a worse epoch", "Checkpoints.on_epoch_end", "wanted = self._keep != 0 and (beats if full else True)", "wanted = self._keep != 0", tests=PATIENCE),
        Fault("Keras: the best is dropped", "Checkpoints.on_epoch_end", "worst = max(self.kept", "worst = min(self.kept", tests=BEST),
        Fault("Keras: direction ignored", "Checkpoints.__init__", '1.0 if mode == "min" else -1.0', "1.0", tests=BEST),
        Fault("Keras: the best is the worst", "Checkpoints.best", "name = min(self.kept", "name = max(self.kept", tests=BEST),
        Fault("Keras: kept checkpoints forgotten on resume", "Checkpoints.restore", '(self._folder / name).is_file()', "False", tests=RESUMED),
        Fault("Keras: average one update late", "ExponentialAverage._update", "(1 + n) / (10 + n)", "(2 + n) / (10 + n)", tests=AVERAGE),
        Fault("Keras: first update does not copy", "ExponentialAverage._update", "steps > 1", "steps > 0", tests=AVERAGE),
        Fault("Keras: average not validated", "ExponentialAverage.on_test_begin", "self.swap()", "pass", tests=AVERAGE),
        Fault("Keras: average not in the checkpoint", "ExponentialAverage.on_epoch_end", "self.swap()", "pass", tests=AVERAGE),
        Fault("Keras: weights of a resume are the average", "ExponentialAverage.on_train_begin", "if self._swapped:", "if not self._swapped and self._steps is None:", tests=RESUMED),
        Fault("Keras: best weights not put back", "_restore_best", "load_model_arrays(model, ", "str(", tests=PATIENCE),
        Fault("Keras: optimiser forgotten on resume", "_resume", "model.steps.load_state(optimizer)", "pass", tests=RESUMED),
        Fault("Keras: resume repeats an epoch", "_resume", 'int(known["epoch"])', 'int(known["epoch"]) - 1', tests=RESUMED),
        Fault("Keras: no accumulation", "_optimizer", '"accumulate": execution.accum_steps', '"accumulate": 1', tests=ACCUMULATED),
        Fault("Keras: validation counts training patterns", "_validation_set", "training_scans.counting(plan.held_out)", "training_scans", tests=VALIDATED),
        Fault("Keras: schedule over one epoch", "Observing._set_course", "total = per_epoch * config.nepochs", "total = per_epoch", tests=COURSE),
        Fault("Keras: mean of batch means", "PtychoPINN_Keras._train", 'tf.shape(batch["x"])[0]', "1", tests=MEANS),
        Fault("Keras: validation weighs groups", "PtychoPINN_Keras._judge", 'tf.reduce_sum(tf.cast(batch["counted"], tf.float64))', 'tf.shape(batch["x"])[0]', tests=VALIDATED),
        Fault("Keras: term means over all batches", "TermMeans.update_state", "float(name in values)", "1.0", tests=TERM_MEANS),
        Fault("Keras: diverged and goes on", "PtychoPINN_Keras._train", 'tf.math.is_finite(terms["loss"])', "True", tests=DIVERGED),
        Fault("Keras: another monitor's last weights", "make_callbacks", "monitor=monitor,", 'monitor="val_loss",', tests=BEST),
    ),
    KERAS_PARTS: (
        Fault("Keras: norm of each gradient", "clip_by_norm", "tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients])", "tf.reduce_sum(tf.square(gradients[0]))", tests=CLIPPED),
        Fault("Keras: clipping by norm only", "Optimizer._step", 'clip_by_norm if self.config.gradient_clip_algorithm == "norm" else clip_by_value', "clip_by_norm", tests=CLIPPED),
        Fault("Keras: no clipping", "Optimizer._step", "gradients = clip(gradients, self.config.gradient_clip_val)", "pass", tests=CLIPPED),
        Fault("Keras: accumulated sum", "Optimizer.take", "total.assign_add(gradient / self.accumulate)", "total.assign_add(gradient)", tests=ACCUMULATED),
        Fault("Keras: the rest of an epoch makes no step", "Optimizer.take", "tf.logical_or(batches % self.accumulate == 0, batches == self.batches_per_epoch)", "batches % self.accumulate == 0", tests=ACCUMULATED),
        Fault("Keras: sums kept after the step", "Optimizer._step_with_sums", "total.assign(tf.zeros_like(total))", "pass", tests=ACCUMULATED),
        Fault("Keras: decay of AdamW as of Adam", "Optimizer._adam", 'decay and self.config.optimizer == "adamw"', "False", tests=FORMULAS),
        Fault("Keras: decay ignored", "Optimizer._adam", "gradient = gradient + decay * variable", "pass", tests=FORMULAS),
        Fault("Keras: bias of the square", "Optimizer._adam", "root = tf.sqrt(1 - BETAS[1] ** step)", "root = tf.sqrt(1 - BETAS[0] ** step)", tests=FORMULAS),
        Fault("Keras: epsilon inside the correction", "Optimizer._adam", "tf.cast(EPSILON * root, dtype)", "tf.cast(EPSILON * 1e4 * root, dtype)", tests=FORMULAS),
        Fault("Keras: momentum ignored", "Optimizer._sgd", "tf.constant(self.config.momentum, dtype)", "tf.constant(0.0, dtype)", tests=FORMULAS),
        Fault("Keras: decay of descent ignored", "Optimizer._sgd", "gradient = gradient + self.config.weight_decay * variable", "pass", tests=FORMULAS),
        Fault("Keras: rate one step late", "Optimizer._step", "self.iterations - self._first, 0,", "self.iterations - self._first - 1, 0,", tests=COURSE),
        Fault("Keras: steps of a resting part count", "StagedOptimizer._step", "int(g in groups)", "1", tests=RESTED),
        Fault("Keras: rate of the first part for all", "StagedOptimizer._step", "row[group])", "row[0])", tests=STAGED),
        Fault("Keras: stage of the step before", "StagedOptimizer.rates", "span = span_at(self.spans, step)", "span = span_at(self.spans, max(step - 1, 0))", tests=RATES),
        Fault("Keras: all parts move in every stage", "StagedOptimizer.chosen", "if stage.trains(self._names[group])", "if stage", tests=STAGED),
        Fault("Keras: stage is switched a step late", "_switch", ">= ends", "> ends", tests=STAGED),
        Fault("Keras: held-out groups are the others", "ScanTensors.counting", "if held_out is None else held_out", "if held_out is None else ~held_out", tests=BATCHES),
        Fault("Keras: parts of the scans mixed", "ScanSetTensors.counting", "np.split(held_out, self.first[1:-1])", "np.split(held_out[::-1], self.first[1:-1])", tests=("tests/tf/test_data.py",)),
        Fault("Keras: labels by the place of a scan", "ScanSetTensors.of", "label_scales[number]", "label_scales[0]", tests=BATCHES),
        Fault("Keras: scan by its place", "ScanSetTensors.batch", "tf.gather(numbers, place)", "tf.cast(place, tf.int32)", tests=BATCHES),
        Fault("Keras: last batch cut", "as_table", "row[: len(groups)] = groups", "row[: len(groups) - 1] = groups[:-1]", tests=ORDER),
        Fault("Keras: epochs all the first", "training_dataset", "plan.epoch(int(epoch))", "plan.epoch(first)", tests=ORDER),
        Fault("Keras: region flag of the first batch", "as_table", "[region for _, region in batches]", "[batches[0][1] for _ in batches]", tests=ORDER),
        Fault("Keras: seed 0 is seed 1", "PtychoPINN_Keras.__init__", "config.seed,", "config.seed or 1,"),
        Fault("Keras: starting correction forgotten", "PtychoPINN_Keras.attach_scans", "[scan.log_scale for scan in scans]", "[0.0 for scan in scans]"),
        Fault("Keras: every scan is the first", "PtychoPINN_Keras.of_scan", "made[scan]", "made[0]"),
        Fault("Keras: bad pixels are the good", "PtychoPINN_Keras.counted_of", "return ~self", "return self"),
        Fault("Keras: bad pixels reach the network", "PtychoPINN_Keras.call", "self.network(x * tf.cast(counted, x.dtype),", "self.network(x,"),
        Fault("Keras: scan ignored in prediction", "PtychoPINN_Keras.call", "self.counted_of(scan)", "self.counted_of(0)"),
        Fault("Keras: no regions", "PtychoPINN_Keras.views", "tf.shape(patches)[0] > 1", "tf.shape(patches)[0] > 99"),
        Fault("Keras: probe moves in the supervised objective", "PtychoPINN_Keras.trained", "if not (self.supervised and v is self.probe)", "if v is not None", tests=("tests/tf/test_steps_against_torch.py",)),
    ),
}  # fmt: skip
