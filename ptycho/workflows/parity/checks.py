"""What is compared, one function a section; each gives rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho import physics as oracle
from ptycho.backends import predictor_of
from ptycho.config.settings import TrainingConfig
from ptycho.forward.diffraction import diffract, rate
from ptycho.forward.merging import extract_group, merge, merge_and_extract
from ptycho.forward.region import region_views
from ptycho.run.preparation import ensure_container
from ptycho.scan.raw_data import RawData
from ptycho.workflows.infer import infer
from ptycho.workflows.parity.pair import Pair, tf_batch, torch_batch
from ptycho.workflows.parity.rows import Row, row
from ptycho.workflows.trained import open_bundle, save_trained

#: after how many optimiser steps the weights are compared
STEPS = (1, 10, 100)


def preparation(raw: RawData, config: TrainingConfig) -> list[Row]:
    """Grouping and normalisation, which both backends take from one function: twice, equal to the bit."""
    ours, theirs = ensure_container(raw, config), ensure_container(raw, config)
    quantities: tuple[tuple[str, str, Callable[[Any], Any]], ...] = (
        ("grouping", "nn_indices", lambda c: c.nn_indices),
        ("grouping", "global_offsets", lambda c: c.global_offsets),
        ("grouping", "local_offsets", lambda c: c.local_offsets),
        ("normalisation", "x", lambda c: c.patterns),
        ("normalisation", "x_scale", lambda c: c.x_scale),
        ("normalisation", "nphotons", lambda c: c.nphotons),
        ("normalisation", "probe", lambda c: c.probe),
    )
    return [row(s, name, "float32", "exact", of(ours), of(theirs)) for s, name, of in quantities]


def operators(pair: Pair) -> list[Row]:
    """Merge, extract, region canvas, illuminate, diffract, rate: against each other and the NumPy oracle."""
    import tensorflow as tf
    import torch

    N, precision = pair.container.N, pair.precision
    rng = np.random.default_rng(1)
    wide = "complex128" if precision == "float64" else "complex64"
    B, C = 3, 4
    patches = (rng.uniform(0.3, 1, (B, C, N, N)) * np.exp(1j * rng.uniform(-2, 2, (B, C, N, N)))).astype(wide)
    places = rng.uniform(20, 30, (B, 1, 2)) + rng.uniform(-6, 6, (B, C, 2))
    relative = places - places.mean(1, keepdims=True)
    window = oracle.central_window(N).astype(precision)
    probe = pair.torch.complex_probe.detach().numpy().astype(wide)
    lit = (np.abs(probe) ** 2).sum(0).astype(precision)
    arrays = {
        "patches": patches, "places": places, "relative": relative, "window": window, "probe": probe,
        "lit": lit,
    }  # fmt: skip
    t = {name: torch.from_numpy(value) for name, value in arrays.items()}
    f = {name: tf.convert_to_tensor(value) for name, value in arrays.items()}

    def compare(name: str, ours: Any, theirs: Any, truth: Any = None) -> Row:
        return row("operators", name, precision, "operator", ours.numpy(), theirs.numpy(), truth)

    merged = merge(t["patches"], t["relative"], t["window"])
    side = merged.shape[-1]
    views = merge_and_extract(t["patches"], t["relative"], t["window"])
    intensity = diffract(views, t["probe"])
    expected = rate(intensity, 30.0)
    f_merged = merge(f["patches"], f["relative"], f["window"])
    f_views = merge_and_extract(f["patches"], f["relative"], f["window"])
    f_intensity = diffract(f_views, f["probe"])
    groups = list(zip(patches, relative, strict=True))
    # the oracle's canvas is as large as its one group needs, a backend's as its batch needs
    truth_merged = np.stack([oracle.pad_centre(oracle.merge(p, r, window), side) for p, r in groups])
    truth_views = np.stack(
        [oracle.extract_group(m, r, N) for m, r in zip(truth_merged, relative, strict=True)]
    )
    truth_intensity = oracle.diffract(truth_views, probe)
    t_region, f_region = (region_views(a["patches"], a["places"], a["places"], a["lit"]) for a in (t, f))
    return [
        compare("merge", merged, f_merged, truth_merged),
        compare(
            "extract",
            extract_group(merged, t["relative"], N),
            extract_group(f_merged, f["relative"], N),
            truth_views,
        ),
        compare("merge and extract", views, f_views, truth_views),
        compare("illuminate", t["patches"] * t["probe"][:1], f["patches"] * f["probe"][:1]),
        compare("diffract", intensity, f_intensity, truth_intensity),
        compare("rate", expected, rate(f_intensity, 30.0), oracle.rate(truth_intensity, 30.0)),
        compare("region canvas", t_region, f_region),
    ]


def network(pair: Pair) -> list[Row]:
    """Forward pass, objective and every gradient on one batch of each context that the run has."""
    import tensorflow as tf

    batch = pair.batch(0)
    ours, theirs = torch_batch(batch), tf_batch(batch)
    rows = [
        row(
            "network", "forward", pair.precision, "forward",
            pair.torch(ours["x"]).detach().numpy(), pair.keras(theirs["x"]).numpy(),
        )
    ]  # fmt: skip
    for region in (False, True):
        context = "region" if region else "group"
        if region and pair.plan.region_ratio == 0:
            continue
        pair.torch.zero_grad()
        terms = pair.torch.terms(ours | {"region": region})
        terms["loss"].backward()
        variables = _watched(pair)
        with tf.GradientTape() as tape:
            found = pair.keras.terms(theirs | {"region": tf.constant(region)})
        gradients = tape.gradient(found["loss"], list(variables.values()), unconnected_gradients="zero")
        for name, value in terms.items():
            rows.append(
                row(
                    "objective", f"{name}, {context}", pair.precision, "loss",
                    value.detach().numpy(), found[name].numpy(),
                )
            )  # fmt: skip
        by_name = dict(zip(variables, gradients, strict=True))
        for name, gradient in _torch_gradients(pair).items():
            other = _as_neutral(name, by_name[name].numpy())
            rows.append(row("gradient", f"{name}, {context}", pair.precision, "gradient", gradient, other))
    return rows


def _watched(pair: Pair) -> dict[str, Any]:
    """Keras variables that train, by neutral name."""
    model = pair.keras
    made = dict(model.network.neutral)
    extra = {"log_scale": model.log_scale, "probe": model.probe}
    made |= {name: v for name, v in extra.items() if v.trainable}
    return {name: getattr(variable, "value", variable) for name, variable in made.items()}


def _torch_gradients(pair: Pair) -> dict[str, NDArray[Any]]:
    from ptycho_torch.layers import neutral_name

    found: dict[str, NDArray[Any]] = {}
    for name, parameter in pair.torch.named_parameters():
        if parameter.requires_grad:
            own = neutral_name(name.removeprefix("network.")) if name.startswith("network.") else name
            gradient = parameter.grad
            found[own] = np.zeros(parameter.shape) if gradient is None else gradient.numpy()
    return found


def _as_neutral(name: str, value: NDArray[Any]) -> NDArray[Any]:
    """Keras keeps kernels as (row, column, in, out), the neutral names mean (out, in, row, column)."""
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 and name.endswith(".weight") else value


def training(
    pair: Pair, steps: tuple[int, ...] = STEPS, progress: Callable[[int, int], None] | None = None
) -> Iterator[Row]:
    """The loss and every weight after 1, 10 and 100 optimiser steps on the same batches."""
    import tensorflow as tf

    from ptycho.tf.optimizers import Optimizer
    from ptycho_torch.optimizers import configure_optimizers

    optimizer = configure_optimizers(pair.torch)
    theirs = Optimizer(pair.keras.trained(), pair.keras.config, pair.torch.learning_rate)
    variables = [variable.value for variable in pair.keras.trained()]

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(batch: dict[str, Any]) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            loss = pair.keras.terms(batch)["loss"]
        theirs.take(tape.gradient(loss, variables, unconnected_gradients="zero"))
        return loss

    for done in range(1, max(steps) + 1):
        batch = pair.batch(done - 1)
        optimizer.zero_grad()
        loss = pair.torch.terms(torch_batch(batch))["loss"]
        loss.backward()
        optimizer.step()
        other = step(tf_batch(batch))
        if progress is not None:
            progress(done, max(steps))
        if done in steps:
            word = "step" if done == 1 else "steps"
            yield row(
                "training", f"loss at {done} {word}", pair.precision, "trained_loss",
                loss.detach().numpy(), other.numpy(),
            )  # fmt: skip
            mine, theirs_now = pair.parameters_torch(), pair.parameters_keras()
            # weights that start at zero have no size of their own yet: the network's largest judges all
            largest = max(float(np.abs(value).max()) for name, value in mine.items() if name != "probe")
            for name, value in mine.items():
                scale = float(np.abs(value).max()) if name == "probe" else largest
                yield row(
                    "training", f"{name} after {done} {word}", pair.precision, "trained_weight",
                    value, theirs_now[name], scale=scale,
                )  # fmt: skip


def inference(pair: Pair, raw: RawData) -> tuple[list[Row], NDArray[Any], NDArray[Any]]:
    """One bundle opened by both: every patch and the stitched image; rows and the two images."""
    with tempfile.TemporaryDirectory() as folder:
        save_trained(pair.torch.float(), Path(folder))
        both = [open_bundle(Path(folder), backend) for backend in ("pytorch", "tensorflow")]
        x = pair.container.patterns[pair.container.nn_indices]
        seen = [predictor_of(model) for model in both]
        patches = [np.asarray(one.predict(x)) for one in seen]
        objects = [infer(model, raw).object for model in both]
    rows = [
        row("inference", "patches", "float32", "image", *patches),
        row("inference", "stitched image", "float32", "image", *objects),
    ]
    return rows, objects[0], objects[1]
