"""The Keras model: network, probe and scale, and the objective that ties them to the measured counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.config.settings import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.forward.merging import group_views
from ptycho.forward.region import block_views
from ptycho.forward.seen import Seen, check_reference, illumination
from ptycho.forward.terms import evaluate, logged_names
from ptycho.networks.graphs import spec_from_config
from ptycho.objectives.manifest import resolve
from ptycho.objectives.stages import Stage
from ptycho.scan.normalization import intensity_scale
from ptycho.scan.scan_set import KnownScan, stacked
from ptycho.tf.diagnostics import Watch
from ptycho.tf.layers import build_network
from ptycho.tf.optimizers import Optimizer
from ptycho.tf.stages import StagedOptimizer

__all__ = ["PtychoPINN_Keras", "TermMeans"]

Tensor = Any
Batch = Mapping[str, Any]


class TermMeans(keras.metrics.Metric):  # type: ignore[misc]
    """Means of the objective's terms over an epoch, each over the batches in which it was computed, weighted
    by what a batch counts; one update a step.

    `result()` is a dict by name, float64, NaN where nothing was seen; the names are those given, in order.
    """

    def __init__(self, names: tuple[str, ...], **options: Any) -> None:
        super().__init__(**options)
        self.names = names
        shape = (len(names),)
        self._sums = self.add_weight(shape=shape, initializer="zeros", dtype="float64", name="sums")
        self._weights = self.add_weight(shape=shape, initializer="zeros", dtype="float64", name="weights")

    def update_state(self, values: Mapping[str, Tensor], weight: Tensor) -> None:
        """Add one batch: scalars by name, and what the batch counts."""
        weight = tf.cast(weight, tf.float64)
        nothing = tf.zeros((), tf.float64)
        seen = [tf.cast(values[name], tf.float64) if name in values else nothing for name in self.names]
        self._sums.assign_add(weight * tf.stack(seen))
        present = [float(name in values) for name in self.names]
        self._weights.assign_add(weight * tf.constant(present, tf.float64))

    def result(self) -> dict[str, Tensor]:
        """The means so far."""
        means = tf.convert_to_tensor(self._sums) / tf.convert_to_tensor(self._weights)
        return dict(zip(self.names, tf.unstack(means), strict=True))


class PtychoPINN_Keras(keras.Model):  # type: ignore[misc]
    """Physics-informed network for one kind of scan, trained on diffraction alone (or on labels: supervised).

    Takes the canonical training configuration. `attach_scan` gives it the measured probe and the
    normalisation, once, before it is called. `dtype` is 'float32' or 'float64'.

    call: x (B, C, N, N) in the gauge of `ptycho.scan.normalization` -> complex (B, C_out, N, N).
    """

    #: the backend that it runs in, see `ptycho.backends`
    backend = "tensorflow"
    #: keys under which the objective is logged, for clients that follow a run by callback
    loss_name = "train_loss"
    val_loss_name = "val_loss"

    probe: Any
    log_scale: Any
    #: set when training starts
    steps: Optimizer

    def __init__(self, config: TrainingConfig, *, dtype: str = "float32", precision: str = "32-true") -> None:
        super().__init__(dtype=dtype, name="ptychopinn")
        self.config = config
        model = config.model
        compute = "bfloat16" if precision == "bf16-mixed" else dtype
        self.network = build_network(
            model.architecture, spec_from_config(model), config.seed, dtype=dtype, compute_dtype=compute
        )
        #: what the model knew of every scan when it was attached
        self.scans: tuple[KnownScan, ...] = ()
        self.manifest = resolve(config)
        self.watching = Watch(self.manifest.diagnostics)
        self.watching_validation = Watch(self.manifest.diagnostics)
        names = self.term_names
        self.train_means = TermMeans((self.loss_name, *(f"loss/{name}" for name in names)), name="train")
        # Keras writes val_ before every name of a test step
        self.val_means = TermMeans(("loss", *(f"loss/{name}" for name in names)), name="validation")
        sides = (model.gridsize**2, model.N, model.N)
        traced = [tf.TensorSpec((None, *sides), dtype), tf.TensorSpec((), tf.int32)]
        if model.reference != "flat":
            wide = "complex128" if dtype == "float64" else "complex64"
            traced.append(tf.TensorSpec((None, *sides), wide))
        #: the call in graph mode, traced once whatever the batch: x (B, C, N, N), scan, and the reference
        #: (B, C, N, N) where the network starts from one -> (B, C_out, N, N)
        self.patches = tf.function(
            lambda x, scan, *near: self(x, scan=scan, reference=near[0] if near else None),
            input_signature=traced,
            autograph=False,
        )
        self.last_loss = tf.Variable(0.0, trainable=False, dtype=tf.float64, name="last_loss")
        self.built = True

    # --------------------------------------------------------------------------------------------- the scan

    def attach_scan(
        self,
        probe: NDArray[np.complexfloating[Any, Any]],
        *,
        x_scale: float,
        nphotons: float,
        probe_factor: float,
        bad_pixels: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take the normalised probe (P, N, N) and the numbers of `ptycho.scan.normalization`; once.

        Raises ConfigError the second time: a traced step holds the numbers of the first.
        """
        N = self.config.model.N
        bad = np.zeros((N, N), bool) if bad_pixels is None else np.asarray(bad_pixels, bool)
        self.attach_scans([KnownScan(probe, x_scale, nphotons, probe_factor, bad, guess=probe)])

    def attach_scans(self, scans: Sequence[KnownScan]) -> None:
        """Take what is known of every scan that the model is trained on, in their order; once.

        Raises ConfigError the second time.
        """
        if self.scans:
            raise ConfigError("a scan is attached to this model already: build another model")
        self.scans = tuple(scans)
        several = len(scans) > 1
        # a probe wider than complex64 keeps its digits where there is one
        probes = stacked([scan.probe for scan in scans]) if several else np.asarray(scans[0].probe)
        values = np.stack([probes.real, probes.imag], -1).astype(self.variable_dtype)
        self.starting_probe = np.array(probes)
        corrections = np.array([scan.log_scale for scan in scans])
        self.log_scale = self.add_weight(
            shape=(len(scans),) if several else (),
            initializer=lambda shape, dtype: tf.convert_to_tensor(
                corrections if several else corrections[0], dtype
            ),
            trainable=self.config.intensity_scale_trainable and not self.supervised,
            name="log_scale",
        )
        self.probe = self.add_weight(
            shape=values.shape,
            initializer=lambda shape, dtype: tf.convert_to_tensor(values, dtype),
            trainable=self.config.probe_trainable,
            name="probe",
        )

    @property
    def n_scans(self) -> int:
        """Scans that the model knows."""
        return len(self.scans)

    def of_scan(self, values: Any, scan: Tensor | int = 0) -> Tensor:
        """The part of a tensor over the scans, such as `probe` or `log_scale`, that belongs to one."""
        made = tf.convert_to_tensor(values)
        return made if self.n_scans == 1 else made[scan]

    def probe_of(self, scan: Tensor | int = 0) -> Tensor:
        """The probe (P, N, N) complex of a scan as it stands now."""
        if not self.scans:
            raise ConfigError("the model has no probe yet: call attach_scan first")
        pair = self.of_scan(self.probe, scan)
        return tf.complex(pair[..., 0], pair[..., 1])

    def intensity_scale_of(self, scan: Tensor | int = 0) -> Any:
        """s = 2 sqrt(nphotons) / N: s * x has nphotons counts a pattern; a number where there is one scan."""
        N = self.config.model.N
        if self.n_scans == 1:
            return intensity_scale(self.nphotons, N)
        every = [intensity_scale(known.nphotons, N) for known in self.scans]
        return self.of_scan(tf.constant(every, self.variable_dtype), scan)

    def counted_of(self, scan: Tensor | int = 0) -> Tensor:
        """(N, N) bool, False where the detector of a scan is bad."""
        bad = [known.bad_pixels for known in self.scans]
        return ~self.of_scan(tf.constant(np.stack(bad) if self.n_scans > 1 else bad[0]), scan)

    def known_scans(self) -> list[KnownScan]:
        """What the model knows of every scan now."""
        probes, corrections = self.probe.numpy(), np.atleast_1d(self.log_scale.numpy())
        pairs = probes if self.n_scans > 1 else probes[None]
        return [
            replace(
                known,
                probe=(pair[..., 0] + 1j * pair[..., 1]).astype(np.complex64),
                log_scale=float(correction),
            )
            for known, pair, correction in zip(self.scans, pairs, corrections, strict=True)
        ]

    @property
    def x_scale(self) -> float:
        """Factor from measured amplitude to x, of the first scan."""
        return float(self.scans[0].x_scale) if self.scans else 1.0

    @property
    def nphotons(self) -> float:
        """Counts in the mean pattern of the first scan."""
        return float(self.scans[0].nphotons) if self.scans else 1.0

    @property
    def probe_factor(self) -> float:
        """What took the first scan's absolute probe into the network's gauge."""
        return float(self.scans[0].probe_factor) if self.scans else 1.0

    @property
    def bad_pixels(self) -> NDArray[np.bool_]:
        """(N, N) of the first scan, True = left out."""
        N = self.config.model.N
        return self.scans[0].bad_pixels if self.scans else np.zeros((N, N), bool)

    @property
    def intensity_scale(self) -> float:
        """s = 2 sqrt(nphotons) / N of the first scan."""
        return intensity_scale(self.nphotons, self.config.model.N)

    @property
    def complex_probe(self) -> Tensor:
        """`probe_of` the first scan."""
        return self.probe_of()

    @property
    def supervised(self) -> bool:
        """Whether the model learns from labels instead of diffraction."""
        return self.config.model.model_type == "supervised"

    # ------------------------------------------------------------------------------------------ the network

    def call(self, x: Tensor, scan: Tensor | int = 0, reference: Tensor | None = None) -> Tensor:
        counted, probe = self.counted_of(scan), tf.stop_gradient(self.probe_of(scan))
        if self.config.model.reference == "flat":
            modulus, phase = self.network(x * tf.cast(counted, x.dtype), probe)
        else:
            check_reference(reference)
            modulus, phase = self.network(tf.where(counted, x, -tf.ones_like(x)), probe, reference)
        # back from half precision; the probe has the precision of the whole model
        modulus, phase = tf.cast(modulus, self.variable_dtype), tf.cast(phase, self.variable_dtype)
        return tf.complex(modulus * tf.cos(phase), modulus * tf.sin(phase))

    def views(self, patches: Tensor, batch: Batch) -> Tensor:
        """O'_k: what each pattern sees after the patches of its group, or of its region, were merged."""
        positions = _sealed(batch["positions_xy"])
        lit = _sealed(illumination(self.probe_of(batch.get("scan", 0))))
        kind = self.config.model.merge_window
        together = tf.logical_and(batch["region"], tf.shape(patches)[0] > 1)
        reference = batch.get("reference")
        changed = patches if reference is None else patches - reference
        made = tf.cond(
            together,
            lambda: block_views(changed, positions(), lit()),
            lambda: group_views(changed, positions(), kind, lit()),
        )
        return made if reference is None else made + reference

    # ---------------------------------------------------------------------------------------- the objective

    @property
    def term_names(self) -> tuple[str, ...]:
        """Names under which the terms of the run are logged, in the manifest's order."""
        return logged_names(self.manifest.objectives)

    def terms(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Every term that counts in a stage on one batch, and their weighted sum under `loss`."""
        return self._terms(Seen(self, batch), stage)

    def _terms(self, seen: Seen, stage: Stage | None) -> dict[str, Tensor]:
        return evaluate(seen, self.manifest.active(stage))

    def trained(self) -> list[Any]:
        """The variables that this run moves: those of the network, and scale and probe where they train.

        In the supervised objective the probe only weighs, so nothing of it is moved.
        """
        return [v for v in self.trainable_variables if not (self.supervised and v is self.probe)]

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of either context: gradients, optimiser, means of the epoch so far."""
        staged = self._staged
        if staged is None:
            self._train(batch, None)
        else:
            staged.in_stage(lambda stage: self._train(batch, stage))
        return self.train_means.result()

    @property
    def _staged(self) -> StagedOptimizer | None:
        """The optimiser where the run has stages."""
        steps = getattr(self, "steps", None)
        return steps if isinstance(steps, StagedOptimizer) else None

    def _train(self, batch: Batch, stage: Stage | None) -> None:
        steps, staged = self.steps, self._staged
        steps.before_step = self.watching.see_gradient
        variables = steps.variables
        chosen = staged.chosen(stage) if staged is not None and stage is not None else []
        if staged is not None:
            variables = [steps.variables[i] for i in chosen]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            seen = Seen(self, batch)
            terms = self._terms(seen, stage)
        gradients = tape.gradient(terms["loss"], variables, unconnected_gradients="zero")
        self.last_loss.assign(tf.cast(terms["loss"], tf.float64))
        if staged is None:
            steps.take(gradients)
        else:
            staged.take_some(gradients, chosen)
        tf.debugging.Assert(tf.math.is_finite(terms["loss"]), ["the loss is not finite"])
        self.train_means.update_state(_logged(terms, self.loss_name), tf.shape(batch["x"])[0])
        self.watching.see(seen)

    def test_step(self, batch: Batch) -> dict[str, Tensor]:
        """The same objective on held-out patterns."""
        staged = self._staged
        if staged is None:
            self._judge(batch, None)
        else:
            staged.after_stage(lambda stage: self._judge(batch, stage))
        return self.val_means.result()

    def _judge(self, batch: Batch, stage: Stage | None) -> None:
        seen = Seen(self, batch)
        weight = tf.reduce_sum(tf.cast(batch["counted"], tf.float64))
        self.val_means.update_state(_logged(self._terms(seen, stage), "loss"), weight)
        self.watching_validation.see(seen)


def _logged(terms: dict[str, Tensor], total: str) -> dict[str, Tensor]:
    """Terms by the names of the means: the sum under a name of its own."""
    return {total if name == "loss" else f"loss/{name}": value for name, value in terms.items()}


def _sealed(x: Tensor) -> Callable[[], Tensor]:
    """A real tensor for the branches of a `tf.cond`, carried as integers.

    A branch computes a gradient for every real number that reaches it from outside, wanted or not.
    """
    bits = tf.bitcast(tf.convert_to_tensor(x), tf.int64 if x.dtype == tf.float64 else tf.int32)
    return lambda: tf.bitcast(bits, x.dtype)
