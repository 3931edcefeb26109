"""What runs the loop (loop.py) to its end, keeps the best state on Ctrl-C and measures the result."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ptycho.errors import ConfigError
from ptycho.io.lazy import Patterns
from ptycho_torch.processes import Processes
from ptycho_torch.refine.decode_sweep import unsure
from ptycho_torch.refine.first_object import choose_start
from ptycho_torch.refine.initial import start_state
from ptycho_torch.refine.loop import iterate
from ptycho_torch.refine.network import start_from
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.result import IterationState, RefineResult, make_result
from ptycho_torch.refine.rule import Rule
from ptycho_torch.refine.rules import make_rule
from ptycho_torch.refine.scan import RefineScan, make_scan, scan_from_raw, with_probe
from ptycho_torch.refine.shared import any_of
from ptycho_torch.refine.state import RefineState
from ptycho_torch.refine.storage import load_state, save_state

log = logging.getLogger(__name__)

#: settings of a state file that does not name them: one level, from a flat object
ONE_LEVEL: dict[str, object] = {
    "start": "flat", "levels": 1, "prior": "none", "position_decode": "none", "position_belief": "formula",
}  # fmt: skip
#: options that a resume may change: when to stop
_FREE = ("patience", "tolerance")


def _check_same(checkpoint: str | Path, saved: dict[str, object], settings: dict[str, object]) -> None:
    """ConfigError where a state file was made with other settings than the run that goes on with it.

    A file of an earlier version lacks the names that were added since: those are not compared.
    """
    for name, value in settings.items():
        if name in saved and saved[name] != value:
            raise ConfigError(
                f"{checkpoint} was made with {name} = {saved[name]}, not {value}; use the same, or start "
                "afresh"
            )


def run(
    scan: RefineScan,
    state: RefineState,
    *,
    epochs: int | None,
    seed: int,
    options: RefineOptions,
    began: str = "as given",
    watch: Callable[[RefineScan, RefineState, int], object] | None = None,
    progress: Callable[[int, int], None] | None = None,
    callbacks: tuple[Callable[[IterationState], object], ...] = (),
    checkpoint: str | Path | None = None,
    resume: bool = False,
) -> RefineResult:
    """`iterate` to the end. A callback that returns True stops it; Ctrl-C keeps the best state so far.

    began: one word for the first object of `state`, for the report. watch: called with the scan, the live
    state and the number of finished sweeps, before the first sweep (0) and after each.
    """
    rule = make_rule(options.rule, **options.rule_options)
    settings = fingerprint(scan, rule, options, epochs, seed)
    history: list[dict[str, float]] = []
    if resume and checkpoint is not None and Path(checkpoint).exists():
        state, extra, saved = load_state(checkpoint, scan.counts.device)
        history = saved.pop("history", [])  # type: ignore[assignment]
        began = str(saved.pop("began", "as given"))
        _check_same(checkpoint, ONE_LEVEL | saved, settings)
        rule.start(scan, state)
        rule.restore(extra)
    else:
        rule.start(scan, state)
    best, best_r, stopped = state.clone(), float("inf"), "sweeps"
    try:
        if watch is not None:
            watch(scan, state, state.epoch)
        for now in iterate(scan, state, epochs=epochs, seed=seed, options=options, rule=rule):
            history.append(dict(epoch=now.epoch, r=now.r, strength=now.strength, seconds=now.seconds))
            if now.r <= best_r:
                best, best_r = state.clone(), now.r
            if checkpoint is not None:
                _keep(checkpoint, scan, state, rule, settings | {"history": history, "began": began})
            if watch is not None:
                watch(scan, state, now.epoch)
            if progress is not None:
                progress(now.epoch, now.epochs)
            if any_of(scan, any([callback(now) is True for callback in callbacks])):
                stopped = "callback"
                break
            if options.patience and len(history) > options.patience:
                before = history[-1 - options.patience]["r"]
                if before - now.r < options.tolerance * before:
                    stopped = "tolerance"
                    break
    except KeyboardInterrupt:
        log.warning("refinement interrupted after %d sweeps; the best state is kept", best.epoch)
        stopped, state = "interrupted", best
        scan = replace(scan, team=None)  # the other processes may have stopped in another batch
    return _doubted(scan, state, options, make_result(scan, state, history, stopped, began))


def _keep(
    checkpoint: str | Path, scan: RefineScan, state: RefineState, rule: Rule, settings: dict[str, object]
) -> None:
    """Write the state, by the first process; the others give it what they hold of the rule's tensors."""
    extra = rule.tensors()
    if scan.team is None or scan.team.rank == 0:
        save_state(checkpoint, state, extra, settings)


def _doubted(
    scan: RefineScan, state: RefineState, options: RefineOptions, result: RefineResult
) -> RefineResult:
    """The result, with the uncertain positions of a decoding search marked."""
    if options.decoder == "none" or not result.history:
        return result
    return replace(result, unsure=unsure(scan, state, options.position_search_px).cpu().numpy())


def fingerprint(
    scan: RefineScan, rule: Rule, options: RefineOptions, epochs: int | None, seed: int
) -> dict[str, object]:
    """The settings that a checkpoint and the resumed run must share: all but the stopping criteria."""
    known: dict[str, object] = {
        "epochs": epochs,
        "seed": seed,
        "rule": rule.name,
        "rule_options": json.dumps(options.rule_options, sort_keys=True, default=_named),
        "positions": options.positions,
        "position_search_px": options.position_search_px,
        "position_decode": options.decoder,
        "position_belief": options.believer(scan.mean_counts),
        "modes": options.modes,
        "background": options.background,
        "intensity": options.intensity,
        "scan": f"{scan.size} patterns of {scan.n} px with {scan.mean_counts:.6g} counts",
        "rule_values": {name: v for name, v in vars(rule).items() if isinstance(v, (int, float, str))},
    }
    names = (entry.name for entry in fields(RefineOptions))
    more = {name: _plain(getattr(options, name)) for name in names if name not in known and name not in _FREE}
    return known | more


def _plain(value: Any) -> Any:
    """A setting in the form that JSON returns; an array is replaced by its hash."""
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
    return list(value) if isinstance(value, tuple) else value


def _named(value: object) -> str:
    """A function of the user's, by name."""
    return str(getattr(value, "__qualname__", type(value).__name__))


def reconstruct(
    scan: Any,
    model: Any = None,
    *,
    rule: str | Rule = "rpie",
    sweeps: int | None = None,
    seed: int = 0,
    options: RefineOptions | None = None,
    initial_object: np.ndarray | None = None,
    initial_origin_xy: tuple[int, int] | None = None,
    initial_probe: np.ndarray | None = None,
    device: str | torch.device = "cpu",
    watch: Callable[[RefineScan, RefineState, int], object] | None = None,
    progress: Callable[[int, int], None] | None = None,
    callbacks: tuple[Callable[[IterationState], object], ...] = (),
    checkpoint: str | Path | None = None,
    resume: bool = False,
    team: Processes | None = None,
    **changes: Any,
) -> RefineResult:
    """One scan to object, probe, positions, history, coverage and R map.

    scan: RawData (counts or amplitude, xcoords, ycoords, probeGuess) or a RefineScan. model: a folder or
    bundle that `ptycho train` wrote or a TrainedModel (its probe is taken too), or a function from the scan
    to a first object and the object pixel [x, y] of its [0, 0]; else `initial_object`, else what `start`
    says. sweeps: None for sweeps until R no longer improves (`epochs` is its older name).
    initial_probe (N, N) or (P, N, N), any scale: instead of the scan's guess. watch: see `run`. team: the
    processes that share the work; all end with the same result, and the first writes. `changes` are fields
    of RefineOptions. Time: linear in positions, sweeps and modes. Memory: the scan twice over at most.
    Errors: DataError, ConfigError before any work; RunError when the run diverges.
    """
    if "epochs" in changes and sweeps is not None:
        raise ConfigError("sweeps and epochs are two names of one number; give sweeps")
    sweeps = changes.pop("epochs", sweeps)
    names = {entry.name for entry in fields(RefineOptions)}
    if unknown := sorted(set(changes) - names):
        raise ConfigError(f"unknown refinement option {unknown[0]}; known are {', '.join(sorted(names))}")
    options = replace(options or RefineOptions(), rule=rule, **changes).check()
    make_rule(options.rule, **options.rule_options)
    if model is not None and not (resume and checkpoint is not None and Path(checkpoint).exists()):
        initial_object, initial_origin_xy, own_probe = start_from(model, scan)
        initial_probe = own_probe if initial_probe is None else initial_probe
    data = scan if isinstance(scan, RefineScan) else scan_from_raw(scan, device=device)
    data = replace(data, team=team)
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
    began = "as given"
    if initial_object is None and not (resume and checkpoint is not None and Path(checkpoint).exists()):
        state, began = choose_start(data, state, options.start)
    return run(
        data,
        state,
        epochs=sweeps,
        seed=seed,
        options=options,
        began=began,
        watch=watch,
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
    """Object and probe of a scan from nothing and a poor probe guess: rPIE with the default options.

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
    return reconstruct(data, sweeps=epochs, seed=seed, progress=progress, **changes)
