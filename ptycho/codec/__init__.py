"""Compression of frames for a later reconstruction; writes the files of `ptycho.io.compressed`."""

from __future__ import annotations

from ptycho.codec.compress import Prediction as Prediction
from ptycho.codec.compress import compress as compress
from ptycho.codec.counts import Counts as Counts
from ptycho.codec.predictions import lowrank_prediction as lowrank_prediction
from ptycho.codec.predictions import object_prediction as object_prediction
