"""The header of a compressed scan: method, parameters, decoded frames and error."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ptycho.errors import DataError

#: method: whether decoded counts may differ from the original counts
METHODS = ("lossless", "poisson", "lowrank", "object", "learned")
#: methods that predict frames and may keep the difference
PREDICTING = ("lowrank", "object", "learned")
#: default method of `ptycho compress`; the reason is in the table of docs/workflows/codec.md
DEFAULT_METHOD = "poisson"
FORMAT = 1
_KINDS = "uif"


@dataclass(frozen=True)
class Header:
    """The contents of `about`, JSON in the file.

    Attributes:
        method: one of METHODS.
        shape: (M, N, N) of the decoded frames; dtype: their type; unit: 'counts' or 'amplitude'.
        original_dtype, original_unit: of the frames that were compressed.
        sha256: of the original frames, little-endian, in C order. contents: of everything else in the file,
            see `ptycho.io.checksums`.
        step: width of a level in units of the Poisson standard deviation; None: no levels.
        residual: whether a predicting method keeps the difference between counts and prediction.
        block: frames that are coded together.
        masked: pixels whose values were not kept, because `bad_pixels` has them; 0 for lossless.
        parameters: what the method was told and found, numbers and words.
        geometry: what is known of the scan's metres, by name.
        bits_per_frame: of the coded frames, with the prediction, without positions, probe guess and mask.
        error_rms, error_max: of the decoded counts against the original, in units of the Poisson standard
            deviation; error_bound: what error_max stays below, None where there is none.
    """

    method: str
    shape: tuple[int, int, int]
    dtype: str
    unit: str
    original_dtype: str
    original_unit: str
    sha256: str
    contents: str = ""
    step: float | None = None
    residual: bool = False
    block: int = 1
    masked: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)
    geometry: dict[str, Any] = field(default_factory=dict)
    bits_per_frame: float = 0.0
    error_rms: float = 0.0
    error_max: float = 0.0
    error_bound: float | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        """DataError for a header that this package cannot have written."""
        wrong = self._wrong()
        if wrong:
            raise DataError(f"the header of the compressed scan is not one of ours: {wrong}")

    def _wrong(self) -> str:
        if self.format != FORMAT:
            return f"format {self.format!r} is newer than {FORMAT}; update ptychopinn"
        if self.method not in METHODS:
            return f"method {self.method!r}; known: {', '.join(METHODS)}"
        sides = self.shape
        if len(sides) != 3 or not all(isinstance(side, int) and side > 0 for side in sides):
            return f"shape {sides!r}"
        if sides[1] != sides[2]:
            return f"frames of {sides[1]} x {sides[2]}"
        for name in (self.dtype, self.original_dtype):
            if not _is_number(name):
                return f"dtype {name!r}"
        if self.unit not in ("counts", "amplitude"):
            return f"unit {self.unit!r}"
        if not isinstance(self.block, int) or not 1 <= self.block <= sides[0]:
            return f"block {self.block!r}"
        if self.step is not None and not (math.isfinite(self.step) and self.step > 0):
            return f"step {self.step!r}"
        if self.step is None and (self.residual or self.method == "poisson"):
            return "no step"
        return ""

    @property
    def keeps_frames(self) -> bool:
        """Whether the file stores every frame, beside the prediction."""
        return self.residual or self.method not in PREDICTING

    @property
    def raw_bits_per_frame(self) -> float:
        """Bits of an original frame without compression."""
        import numpy as np

        return float(8 * np.dtype(self.original_dtype).itemsize * self.shape[1] * self.shape[2])

    @property
    def ratio(self) -> float:
        """Raw bits over coded bits."""
        return self.raw_bits_per_frame / max(self.bits_per_frame, 1e-9)

    def as_text(self) -> str:
        """JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of_text(cls, text: str) -> Header:
        """The header of a JSON text; DataError for anything else."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise DataError(f"its header is no JSON ({error})") from None
        names = {entry.name for entry in fields(cls)}
        if not isinstance(values, dict) or set(values) - names:
            raise DataError("its header has entries that this version does not know; update ptychopinn")
        try:
            return cls(**{**values, "shape": tuple(values.get("shape", ()))})
        except TypeError as error:
            raise DataError(f"its header cannot be used ({error})") from None


def _is_number(name: object) -> bool:
    try:
        import numpy as np

        return np.dtype(str(name)).kind in _KINDS
    except TypeError:
        return False
