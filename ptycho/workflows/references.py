"""What training starts from where the network corrects an image: weights, and the image under every scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ptycho.backends import predictor_of
from ptycho.config.settings import TrainingConfig
from ptycho.models.shipped import shipped_weights, with_shipped_model
from ptycho.models.trained_state import TrainedState
from ptycho.run.preparation import Grouped
from ptycho.run.reconstruction import image_of
from ptycho.run.reference import coarse_reference
from ptycho.run.starting_probe import StartingProbe, Starts
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.reference import Reference
from ptycho.scan.scan_set import ScanSet
from ptycho.workflows.trained import restored

Weights = Mapping[str, NDArray[Any]]


def with_start(config: TrainingConfig) -> tuple[TrainingConfig, Weights | None]:
    """The configuration with the network that it starts from, and that network's weights; None: new ones.

    ConfigError where `start_from` is shipped and a setting of the network is another than the shipped one's.
    """
    if config.start_from == "scratch":
        return config, None
    return with_shipped_model(config), shipped_weights()


def with_references(
    train: Grouped,
    test: Grouped | None,
    starts: Starts,
    config: TrainingConfig,
    weights: Weights | None = None,
) -> tuple[Grouped, Grouped | None]:
    """The scans with the image that training corrects: the coarse object, or what `weights` make of it.

    Nothing changes where the network starts from a flat object. Time: one pass over the patterns, and one
    inference where there are weights.
    """
    if config.model.reference == "flat":
        return train, test

    def one(container: PtychoDataContainer, start: StartingProbe) -> PtychoDataContainer:
        image = _image(container, start, config, weights)
        return dataclasses.replace(container, reference=image)

    def every(scans: Grouped) -> Grouped:
        if isinstance(scans, PtychoDataContainer):
            return one(scans, starts[0])
        made = [one(c, starts[number]) for c, number in zip(scans.containers, scans.numbers, strict=True)]
        return ScanSet(tuple(made), scans.numbers)

    return every(train), None if test is None else every(test)


def _image(
    container: PtychoDataContainer, start: StartingProbe, config: TrainingConfig, weights: Weights | None
) -> Reference:
    if weights is None:
        return coarse_reference(container.patterns, container.positions_px, start.modes, container.bad_pixels)
    state = TrainedState(config, dict(weights), (start.known(container),))
    return image_of(predictor_of(restored(state, config.backend)), container)
