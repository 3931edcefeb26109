"""The result of training without a backend: all that either backend needs for inference or for more
training.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import BundleError, ConfigError, DataError
from ptycho.io.geometry import Geometry
from ptycho.models.bundle import load_bundle, save_bundle
from ptycho.models.same_run import check_same_run
from ptycho.models.values import check_finite, check_network_fits, check_scan, check_weights
from ptycho.networks import graphs
from ptycho.objectives.manifest import resolve
from ptycho.scan.normalization import intensity_scale
from ptycho.scan.scan_set import KnownScan, Scan, acquisition_of, most_alike, stacked

log = logging.getLogger(__name__)

_NUMBERS = ("x_scale", "nphotons", "probe_factor", "log_scale")


@dataclass(frozen=True)
class TrainedState:
    """A trained network as arrays: `weights` by neutral name, and what it stores of every training scan."""

    config: TrainingConfig
    weights: dict[str, NDArray[Any]]
    scans: tuple[KnownScan, ...]

    @property
    def intensity_scale(self) -> float:
        """s = 2 sqrt(nphotons) / N of scan 0: s * x has nphotons counts a pattern."""
        return intensity_scale(self.scans[0].nphotons, self.config.model.N)

    def for_scan(self, number: int) -> TrainedState:
        """The network with the data of one training scan. Raises ConfigError for a number that does not
        exist.
        """
        if not 0 <= number < len(self.scans):
            raise ConfigError(
                f"trained_scan = {number}: the model was trained on {len(self.scans)} "
                f"scan{'s, 0 to' if len(self.scans) > 1 else ', number'} {len(self.scans) - 1}"
            )
        return dataclasses.replace(self, scans=(self.scans[number],))

    def for_data(self, data: Scan, wanted: int | None = None) -> TrainedState:
        """The network with the probe and scale that fit a scan: of training scan `wanted`, or of the most
        similar one.

        See `ptycho.scan.scan_set.most_alike`. Time O(M N^2) where there is a choice.
        """
        if wanted is not None or len(self.scans) == 1:
            return self.for_scan(wanted or 0)
        number = most_alike(*acquisition_of(data), [(scan.guess, scan.x_scale) for scan in self.scans])
        log.info("seen with the probe and scale of training scan %d of %d", number, len(self.scans))
        return self.for_scan(number)

    def save(self, directory: Path, backend: str) -> Path:
        """Write `wts.h5.zip` into a folder, atomically; `backend` says who trained it."""
        model, manifest = self.config.model, resolve(self.config)
        numbers = [_numbers(scan) for scan in self.scans]
        several = {"scans": numbers} if len(numbers) > 1 else {}
        return save_bundle(
            directory,
            weights=self.weights,
            config=dataclasses.asdict(_without_places(self.config)),
            state={
                **numbers[0],
                **several,
                "intensity_scale": self.intensity_scale,
                "N": model.N,
                "gridsize": model.gridsize,
                "manifest": manifest.as_dict(),
                "objectives_checksum": manifest.checksum,
            },
            backend=backend,
            extra_arrays=self._arrays(),
        )

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays of a bundle beside the weights: those of scan 0, and those of all if there are several."""
        first: dict[str, NDArray[Any]] = {
            "probe": self.scans[0].probe,
            "bad_pixels": self.scans[0].bad_pixels,
        }
        if len(self.scans) == 1:
            return first
        return first | {
            "scan_probes": np.stack([scan.probe for scan in self.scans]),
            "scan_guesses": stacked([scan.guess for scan in self.scans]),
            "scan_bad_pixels": np.stack([scan.bad_pixels for scan in self.scans]),
        }


def _numbers(scan: KnownScan) -> dict[str, Any]:
    known = scan.geometry.as_dict() if scan.geometry != Geometry() else None
    numbers: dict[str, Any] = {name: float(getattr(scan, name)) for name in _NUMBERS}
    return numbers if known is None else numbers | {"geometry": known}


def _geometry_in(numbers: Mapping[str, Any]) -> Geometry:
    """What a bundle says of a scan's metres; an older bundle says nothing. DataError for other contents."""
    return Geometry.of_dict(numbers.get("geometry") or {})


def _scans_in(state: Mapping[str, Any], arrays: Mapping[str, Any], N: int) -> tuple[KnownScan, ...]:
    """What a bundle's state and arrays say of each scan; KeyError for what is missing."""
    if "scans" not in state:
        numbers = {name: float(state[name]) for name in _NUMBERS}
        bad = arrays.get("bad_pixels", np.zeros((N, N), bool))
        geometry = _geometry_in(state)
        return (
            KnownScan(arrays["probe"], bad_pixels=bad, guess=arrays["probe"], geometry=geometry, **numbers),
        )
    named = (arrays[name] for name in ("scan_probes", "scan_guesses", "scan_bad_pixels"))
    return tuple(
        KnownScan(
            probe=probe,
            bad_pixels=bad,
            guess=guess,
            geometry=_geometry_in(numbers),
            **{name: float(numbers[name]) for name in _NUMBERS},
        )  # fmt: skip
        for numbers, probe, guess, bad in zip(state["scans"], *named, strict=True)
    )


def load_trained_state(path: Path) -> tuple[TrainedState, PyTorchExecutionConfig]:
    """The state in a bundle (zip, its folder, or the unpacked contents), whichever backend wrote it.

    Raises BundleError naming what is missing or does not fit.
    """
    from ptycho.config.yaml_io import training_config_from

    bundle = load_bundle(Path(path))
    check_same_run(bundle.path, bundle.config)
    try:
        config, execution = training_config_from(bundle.config, source=str(path))
        scans = _scans_in(bundle.state, bundle.extra_arrays, config.model.N)
        made = TrainedState(config, dict(bundle.weights), scans)
        _check(made, str(path))
    except BundleError:
        raise
    except KeyError as error:
        raise BundleError(
            f"{path}: the bundle lacks {error.args[0]!r}; was it written by this package?"
        ) from None
    except (ConfigError, DataError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(f"{path}: {error}") from None
    return made, execution


def _check(made: TrainedState, source: str) -> None:
    """BundleError for values that no training leaves, before anything is built of them."""
    model = made.config.model
    check_network_fits(model, copies=1)
    spec = graphs.spec_from_config(model)
    graph = graphs.describe(model.architecture, spec)
    if isinstance(graph, graphs.Graph):
        check_weights(graph, spec, made.weights, source)
    else:
        check_finite(made.weights, source)
    for scan in made.scans:
        check_scan(scan, model.N, source)


def _without_places(config: TrainingConfig) -> TrainingConfig:
    """The settings without folders of this machine: files by their names alone.

    A model then tells nobody where it was made, and the same run gives the same bytes in every folder.
    """
    more = config.more_train_data_files
    return dataclasses.replace(
        config,
        train_data_file=_name(config.train_data_file),
        test_data_file=_name(config.test_data_file),
        more_train_data_files=None if more is None else [Path(path).name for path in more],
        output_dir=TrainingConfig().output_dir,
    )


def _name(path: Path | None) -> Path | None:
    return None if path is None else Path(Path(path).name)
