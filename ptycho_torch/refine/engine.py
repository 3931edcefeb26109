"""The loop: sweeps of batches under one rule, one state out after each, and the calls that wrap it.

`iterate` is a generator, so a caller's own loop can print, plot, save or stop. `reconstruct` and
`refine_probe` run it to the end, keep the best state on Ctrl-C and measure the result.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptycho.errors import ConfigError, RunError
from ptycho.io.lazy import Patterns
from ptycho_torch.refine.batches import make_batches
from ptycho_torch.refine.joint import joint_sweep
from ptycho_torch.refine.network import start_from
from ptycho_torch.refine.noise import misfit
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.result import IterationState, RefineResult, make_result
from ptycho_torch.refine.rule import Rule, make_rule
from ptycho_torch.refine.scan import RefineScan, make_scan, scan_from_raw, total_counts, with_probe
from ptycho_torch.refine.search import find_lost, held, kept, relocate, search_batch
from ptycho_torch.refine.state import RefineState, load_state, save_state, start_state
from ptycho_torch.refine.strain import undo_strain
from ptycho_torch.refine.unknowns import (
    background_ratio,
    believe_positions,
    constrain,
    illumination,
    intensity_step,
)

log = logging.getLogger(__name__)
_EPOCHS = 40
_STRAIN_FROM = 10
_GRID = 2.0**20


def iterate(  # noqa: C901
    scan: RefineScan,
    state: RefineState,
    *,
    epochs: int = _EPOCHS,
    seed: int = 0,
    options: RefineOptions | None = None,
    rule: Rule | None = None,
) -> Iterator[IterationState]:
    """Sweep `state` in place from `state.epoch` to `epochs`, yielding after each sweep.

    The order of patterns depends on (seed, sweep) only, so a resumed run repeats an uninterrupted one to
    the byte. Time: about 4 FFTs of N x N a pattern, mode and sweep. Memory: the scan, the canvas and one
    batch (RAAR: all exit waves).
    """
    options = (options or RefineOptions()).check()
    if rule is None:
        rule = make_rule(options.rule, **options.rule_options)
        rule.start(scan, state)
    # a small scan still needs a few dozen steps a sweep
    size = options.batch_size or max(4, min(rule.batch_size, scan.size // 32))
    total = total_counts(scan.counts)
    begun = time.perf_counter()
    light = illumination(scan, state) if options.smoothness else state.object.real
    searches, joint = options.search_epochs(epochs), options.joint_epochs(epochs)
    for epoch in range(state.epoch, epochs):
        strength = options.strength(epoch, epochs)
        probing = options.probe_from is not None and epoch >= options.probe_from
        searching = epoch < searches
        rng = np.random.default_rng([seed, epoch, 1])
        background = torch.zeros_like(scan.counts[0])
        wrong = 0.0
        batches = make_batches(scan.positions_xy, size, options.batches, seed, epoch)
        for index in batches if epoch not in joint else []:
            index = kept(state, index, epoch, max(searches, 1))
            if not len(index):
                continue
            exit = rule.step(scan, state, index, strength, probing)
            wrong += float(misfit(scan.counts[index], exit.intensity, scan.good).sum())
            if searching:
                search_batch(scan, state, index, options.position_search_px, epoch, searches, rng)
            if state.intensity is not None:
                intensity_step(scan, state, exit, strength)
            if state.background is not None:
                background += background_ratio(scan, exit)
        if epoch in joint:
            wrong = joint_sweep(
                scan,
                state,
                joint.index(epoch),
                len(joint),
                longest_px=options.position_step_px,
                with_probe=probing,
                with_strain=options.positions == "affine",
            )
        else:
            rule.end_epoch(scan, state, strength, probing)
            if state.background is not None:
                state.background *= (background / scan.size).clamp(0.5, 2.0)
        if searching:
            find_lost(scan, state, options.position_search_px, epoch, rng)
        elif searches and epoch in joint[1:-2:3]:
            relocate(scan, state, options.position_search_px, rng)
        if searching and options.positions == "affine" and epoch >= _STRAIN_FROM and epoch % 2 == 0:
            undo_strain(scan, state, epoch)
        if searching:
            drift = (state.positions_xy - scan.positions_xy).mean(0)
            state.positions_xy = held(scan, state, state.positions_xy - drift)
        if epoch in joint[-1:]:
            believe_positions(scan, state, options)
        if epoch in joint:
            rule.start(scan, state)
        constrain(state, options, light, probing)
        if options.positions != "fixed":
            # the last bits of small linear systems depend on where memory lies; a millionth of a px does not
            state.positions_xy = (state.positions_xy * _GRID).round().contiguous() / _GRID
        state.epoch = epoch + 1
        r = (wrong / total) ** 0.5
        if not np.isfinite(r):
            raise RunError(
                f"refinement diverged in sweep {epoch + 1}; check positions and probe, or lower the step"
            )
        yield IterationState(state, epoch + 1, epochs, r, strength, time.perf_counter() - begun, rule)


def run(
    scan: RefineScan,
    state: RefineState,
    *,
    epochs: int,
    seed: int,
    options: RefineOptions,
    progress: Callable[[int, int], None] | None = None,
    callbacks: tuple[Callable[[IterationState], object], ...] = (),
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> RefineResult:
    """`iterate` to the end. A callback that returns True stops it; Ctrl-C keeps the best state so far."""
    rule = make_rule(options.rule, **options.rule_options)
    settings = fingerprint(scan, rule, options, epochs, seed)
    history: list[dict[str, float]] = []
    if resume and checkpoint is not None and Path(checkpoint).exists():
        state, extra, saved = load_state(checkpoint, scan.counts.device)
        history = saved.pop("history", [])  # type: ignore[assignment]
        if other := [name for name in settings if saved.get(name) != settings[name]]:
            raise ConfigError(
                f"{checkpoint} was made with {other[0]} = {saved.get(other[0])}, not {settings[other[0]]}; "
                "use the same, or start afresh"
            )
        rule.start(scan, state)
        rule.restore(extra)
    else:
        rule.start(scan, state)
    best, best_r, stopped = state.clone(), float("inf"), "epochs"
    try:
        for now in iterate(scan, state, epochs=epochs, seed=seed, options=options, rule=rule):
            history.append(dict(epoch=now.epoch, r=now.r, strength=now.strength, seconds=now.seconds))
            if now.r <= best_r:
                best, best_r = state.clone(), now.r
            if checkpoint is not None:
                save_state(checkpoint, state, rule.tensors(), settings | {"history": history})
            if progress is not None:
                progress(now.epoch, epochs)
            if any([callback(now) is True for callback in callbacks]):
                stopped = "callback"
                break
            if options.patience and len(history) > options.patience:
                before = history[-1 - options.patience]["r"]
                if before - now.r < options.tolerance * before:
                    stopped = "tolerance"
                    break
    except KeyboardInterrupt:
        log.warning(
            "refinement interrupted after %d of %d sweeps; the best state is kept", best.epoch, epochs
        )
        stopped, state = "interrupted", best
    return make_result(scan, state, history, stopped)


def fingerprint(
    scan: RefineScan, rule: Rule, options: RefineOptions, epochs: int, seed: int
) -> dict[str, object]:
    """What a checkpoint and the run that goes on from it must agree in."""
    return {
        "epochs": epochs,
        "seed": seed,
        "rule": rule.name,
        "rule_options": json.dumps(options.rule_options, sort_keys=True, default=_named),
        "positions": options.positions,
        "position_search_px": options.position_search_px,
        "modes": options.modes,
        "background": options.background,
        "intensity": options.intensity,
        "scan": f"{scan.size} patterns of {scan.n} px with {scan.mean_counts:.6g} counts",
    }


def _named(value: object) -> str:
    """A function of the user's, by name."""
    return str(getattr(value, "__qualname__", type(value).__name__))


def reconstruct(
    scan: Any,
    model: Any = None,
    *,
    rule: str | Rule = "rpie",
    epochs: int = _EPOCHS,
    seed: int = 0,
    options: RefineOptions | None = None,
    initial_object: np.ndarray | None = None,
    initial_origin_xy: tuple[int, int] | None = None,
    initial_probe: np.ndarray | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] | None = None,
    callbacks: tuple[Callable[[IterationState], object], ...] = (),
    checkpoint: str | Path | None = None,
    resume: bool = False,
    **changes: Any,
) -> RefineResult:
    """One scan to object, probe, positions, history, coverage and R map.

    scan: RawData (counts or amplitude, xcoords, ycoords, probeGuess) or a RefineScan. model: a folder or
    bundle that `ptycho train` wrote or a TrainedModel (its probe is taken too), or a function from the scan
    to a first object and the object pixel [x, y] of its [0, 0]; else `initial_object`, else flat.
    initial_probe (N, N) or (P, N, N), any scale: instead of the scan's guess. `changes` are fields of
    RefineOptions. Time: linear in positions, sweeps and modes. Memory: the scan twice over at most. Errors:
    DataError, ConfigError before any work; RunError when the run diverges.
    """
    names = {entry.name for entry in fields(RefineOptions)}
    if unknown := sorted(set(changes) - names):
        raise ConfigError(f"unknown refinement option {unknown[0]}; known are {', '.join(sorted(names))}")
    options = replace(options or RefineOptions(), rule=rule, **changes).check()
    make_rule(options.rule, **options.rule_options)
    if model is not None and not (resume and checkpoint is not None and Path(checkpoint).exists()):
        initial_object, initial_origin_xy, own_probe = start_from(model, scan)
        initial_probe = own_probe if initial_probe is None else initial_probe
    data = scan if isinstance(scan, RefineScan) else scan_from_raw(scan, device=device)
    if initial_probe is not None:
        data = with_probe(data, initial_probe)
    state = start_state(
        data,
        modes=options.modes,
        margin_px=1 if options.positions == "fixed" else 10 + round(2 * options.position_search_px),
        initial_object=initial_object,
        initial_origin_xy=initial_origin_xy,
        intensity=options.intensity,
        background=options.background,
    )
    return run(
        data,
        state,
        epochs=epochs,
        seed=seed,
        options=options,
        progress=progress,
        callbacks=callbacks,
        checkpoint=checkpoint,
        resume=resume,
    )


def refine_probe(
    patterns: Patterns,
    positions_xy: np.ndarray,
    probe: np.ndarray,
    *,
    unit: str = "auto",
    epochs: int = 25,
    seed: int = 0,
    bad_pixels: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
    device: str | torch.device = "cpu",
    scratch_folder: Path | None = None,
    **changes: Any,
) -> RefineResult:
    """Object and probe of a scan from a flat object and a poor probe guess: rPIE with the default options.

    patterns (M, N, N) amplitude (float) or counts (integer; or say `unit`), zero frequency at [N//2, N//2];
    positions_xy (M, 2) float64 [x, y] px of patch pixel (N//2, N//2); probe (N, N) or (P, N, N), any scale.
    Returns a RefineResult whose probe explains counts: |FFT_ortho(probe * object window)|^2.
    """
    data = make_scan(
        patterns,
        positions_xy,
        probe,
        unit=unit,
        bad_pixels=bad_pixels,
        device=device,
        scratch_folder=scratch_folder,
    )
    return reconstruct(data, epochs=epochs, seed=seed, progress=progress, **changes)
