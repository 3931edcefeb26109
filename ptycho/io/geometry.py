"""The geometry of a measurement: wavelength, distance and pixel sizes, and how metres become pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ptycho.errors import DataError

#: Planck's constant times the speed of light, eV m (CODATA 2018, exact)
HC_EV_M = 1.239841984332003e-6
#: rest energy of the electron, eV (CODATA 2018)
ELECTRON_REST_ENERGY_EV = 510998.95
#: two sources of one number may differ by this much (a file often rounds)
_AGREE = 2e-3


@dataclass(frozen=True)
class Geometry:
    """What a scan knows of its metres. Every number is positive, or None where nobody said it.

    Attributes:
        wavelength_m: of the photons, or the de Broglie wavelength of the electrons.
        beam: 'photon' or 'electron'.
        distance_m: from the sample to the detector; for electrons the camera length.
        detector_pixel_size_m: side of a square detector pixel.
        angular_pixel_size_rad: the angle that one detector pixel covers, where a calibration gives it
            instead of distance and pixel (electrons).
        measured_object_pixel_size_m: side of an object pixel, where somebody gave it; it wins over the
            computed one.
        rotation_rad: angle from the scan axes to the detector axes, counter-clockwise; 0 where nobody said.

    Nothing is invented: `object_pixel_size_m` is None where a number is missing, and
    `require_object_pixel_size_m` says which.

    >>> known = {"energy_eV": 8800.0, "distance_m": 2.0, "detector_pixel_size_m": 75e-6}
    >>> geometry = Geometry.of_settings(known)
    >>> round(geometry.require_object_pixel_size_m(128) * 1e9, 2)
    29.35
    """

    wavelength_m: float | None = None
    beam: str = "photon"
    distance_m: float | None = None
    detector_pixel_size_m: float | None = None
    angular_pixel_size_rad: float | None = None
    measured_object_pixel_size_m: float | None = None
    rotation_rad: float = 0.0

    def __post_init__(self) -> None:
        if self.beam not in ("photon", "electron"):
            raise DataError(f"beam is {self.beam!r}; it must be 'photon' or 'electron'")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("beam", "rotation_rad") or value is None:
                continue
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"{field.name} is {value}; it must be a positive number")
        if not math.isfinite(self.rotation_rad):
            raise DataError(f"rotation_rad is {self.rotation_rad}; it must be a finite angle")

    @classmethod
    def of_settings(cls, values: Mapping[str, Any]) -> Geometry:
        """The geometry that named numbers describe; see `SETTINGS` for the names and their units.

        Raises DataError for an unknown name, and where two of them contradict each other.
        """
        made: dict[str, Any] = {}
        for name, value in values.items():
            if name not in SETTINGS:
                raise DataError(f"unknown geometry {name!r}; known: {', '.join(SETTINGS)}")
            number = _number(name, value)
            target, given = _CONVERTED[name](number)
            if target in made and not math.isclose(made[target], given, rel_tol=_AGREE):
                raise DataError(
                    f"{name} = {value} contradicts another setting: {target} would be {given:.6g} and "
                    f"{made[target]:.6g}; drop one of them"
                )
            made[target] = given
            if name == "voltage_V":
                made["beam"] = "electron"
        return cls(**made)

    @property
    def energy_eV(self) -> float | None:
        """Photon energy, eV; None for electrons and where the wavelength is not known."""
        if self.wavelength_m is None or self.beam == "electron":
            return None
        return HC_EV_M / self.wavelength_m

    def object_pixel_size_m(self, N: int) -> float | None:
        """Side of an object pixel for patterns of N x N pixels, m; None where a number is missing.

        Far field: wavelength * distance / (N * detector pixel) (Rodenburg 2008, Adv. Imaging Electron Phys.
        150, eq. 24); with a calibrated angle a pixel: wavelength / (N * angle).
        """
        if self.measured_object_pixel_size_m is not None:
            return self.measured_object_pixel_size_m
        angle = self.angular_pixel_size_rad
        if angle is None and self.distance_m is not None and self.detector_pixel_size_m is not None:
            angle = self.detector_pixel_size_m / self.distance_m
        if self.wavelength_m is None or angle is None:
            return None
        return self.wavelength_m / (N * angle)

    def require_object_pixel_size_m(self, N: int) -> float:
        """`object_pixel_size_m`; DataError that names what is missing."""
        size = self.object_pixel_size_m(N)
        if size is None:
            raise DataError(
                f"the object pixel size is not known: {' and '.join(self.missing())} "
                "missing; add --set object_pixel_size_m=..., or what it follows from"
            )
        return size

    def missing(self) -> tuple[str, ...]:
        """The settings that are needed for an object pixel size and not there, by their names."""
        if self.measured_object_pixel_size_m is not None:
            return ()
        gone = [] if self.wavelength_m is not None else ["energy_eV (or wavelength_m)"]
        if self.angular_pixel_size_rad is None:
            gone += [name for name in ("distance_m", "detector_pixel_size_m") if getattr(self, name) is None]
        return tuple(gone)

    def completed_by(self, other: Geometry) -> Geometry:
        """This geometry, with the numbers of another one where it has none itself."""
        changes = {
            field.name: getattr(other, field.name)
            for field in fields(self)
            if getattr(self, field.name) is None and getattr(other, field.name) is not None
        }
        if self.wavelength_m is None and other.wavelength_m is not None:
            changes["beam"] = other.beam
        if not self.rotation_rad:
            changes["rotation_rad"] = other.rotation_rad
        return replace(self, **changes)

    def overruled_by(self, other: Geometry) -> Geometry:
        """This geometry where the other one has no number; what follows from older numbers is dropped.

        A calibrated angle is dropped where the other one has distance and detector pixel; a measured object
        pixel where the other one has any number that it follows from, and the rest is known.
        """
        kept = self
        if other.distance_m is not None and other.detector_pixel_size_m is not None:
            kept = replace(kept, angular_pixel_size_rad=None)
        computed = other.completed_by(replace(kept, measured_object_pixel_size_m=None))
        names = ("wavelength_m", "distance_m", "detector_pixel_size_m", "angular_pixel_size_rad")
        if any(getattr(other, name) is not None for name in names) and not computed.missing():
            return computed
        return other.completed_by(kept)

    def cut(self, n_old: int, N: int) -> Geometry:
        """The geometry after patterns of `n_old` pixels a side were cropped or padded to `N`.

        The detector's numbers stay. A measured object pixel belongs to `n_old` and changes by n_old / N.
        """
        size = self.measured_object_pixel_size_m
        return self if size is None else replace(self, measured_object_pixel_size_m=size * n_old / N)

    def binned(self, factor: int) -> Geometry:
        """The geometry after `factor` x `factor` detector pixels were added up."""
        changes = {
            name: getattr(self, name) * factor
            for name in ("detector_pixel_size_m", "angular_pixel_size_rad")
            if getattr(self, name) is not None
        }
        return replace(self, **changes)

    def rows(self, N: int | None = None) -> list[tuple[str, str]]:
        """(name, value with its unit) of every known number, for tables; with the object pixel of patterns of
        N x N px.

        >>> Geometry.of_settings({"voltage_V": 80e3, "angular_pixel_size_rad": 1e-3}).rows(64)[0]
        ('beam', 'electrons, 80 kV')
        """
        made: list[tuple[str, str]] = []
        if self.wavelength_m is not None and self.beam == "electron":
            made.append(("beam", f"electrons, {electron_voltage_V(self.wavelength_m) / 1e3:.6g} kV"))
        elif self.energy_eV is not None:
            made.append(("energy", f"{self.energy_eV:.6g} eV"))
        angle = self.angular_pixel_size_rad
        size = self.measured_object_pixel_size_m if N is None else self.object_pixel_size_m(N)
        for name, value, factor, unit in (
            ("wavelength", self.wavelength_m, 1e12 if self.beam == "electron" else 1e9,
             "pm" if self.beam == "electron" else "nm"),
            ("distance" if self.beam == "photon" else "camera length", self.distance_m, 1.0, "m"),
            ("detector pixel", self.detector_pixel_size_m, 1e6, "um"),
            ("angle of a pixel", angle, 1e3, "mrad"),
            ("rotation", self.rotation_rad or None, 180 / math.pi, "degrees"),
            ("object pixel", size, 1e9, "nm"),
        ):  # fmt: skip
            if value is not None:
                made.append((name, f"{value * factor:.6g} {unit}"))
        return made

    def as_settings(self) -> dict[str, float]:
        """The known numbers by the names of `SETTINGS`: `Geometry.of_settings` gives the same again."""
        names = {"distance_m", "detector_pixel_size_m", "angular_pixel_size_rad"}
        made = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.measured_object_pixel_size_m is not None:
            made["object_pixel_size_m"] = self.measured_object_pixel_size_m
        if self.wavelength_m is not None and self.beam == "electron":
            made["voltage_V"] = electron_voltage_V(self.wavelength_m)
        elif self.wavelength_m is not None:
            made["wavelength_m"] = self.wavelength_m
        if self.rotation_rad:
            made["rotation_deg"] = math.degrees(self.rotation_rad)
        return made

    def as_dict(self) -> dict[str, float | str]:
        """The known numbers by name, for a file; `Geometry(**values)` gives the same again."""
        return {
            f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) not in (None, 0.0)
        }

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Geometry:
        """The inverse of `as_dict`; DataError for a name or a value that it does not write."""
        known = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or not set(values) <= known:
            raise DataError(f"geometry is {values!r}; known: {', '.join(sorted(known))}")
        made: dict[str, Any] = {}
        for name, value in values.items():
            number = name != "beam" and isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number and name != "beam":
                raise DataError(f"geometry: {name} is {value!r}; it must be a number")
            made[name] = float(value) if number else value
        return cls(**made)


def electron_wavelength_m(voltage_V: float) -> float:
    """De Broglie wavelength of electrons accelerated by a voltage, relativistic, m.

    lambda = h c / sqrt(eV (eV + 2 m c^2)) (Kirkland, Advanced Computing in Electron Microscopy, eq. 2.5).

    >>> round(electron_wavelength_m(300e3) * 1e12, 3)
    1.969
    """
    return HC_EV_M / math.sqrt(voltage_V * (voltage_V + 2 * ELECTRON_REST_ENERGY_EV))


def electron_voltage_V(wavelength_m: float) -> float:
    """The inverse of `electron_wavelength_m`, V."""
    momentum_eV = HC_EV_M / wavelength_m
    return math.hypot(momentum_eV, ELECTRON_REST_ENERGY_EV) - ELECTRON_REST_ENERGY_EV


#: name of a setting: its meaning and unit, for help and for errors
SETTINGS: dict[str, str] = {
    "energy_eV": "photon energy, eV",
    "wavelength_m": "wavelength, m",
    "voltage_V": "acceleration voltage of electrons, V",
    "distance_m": "sample to detector, m",
    "camera_length_m": "sample to detector (electrons), m",
    "detector_pixel_size_m": "side of a detector pixel, m",
    "angular_pixel_size_rad": "angle of one detector pixel, rad",
    "object_pixel_size_m": "side of an object pixel, m",
    "rotation_deg": "angle from the scan axes to the detector axes, degrees",
}

_CONVERTED: dict[str, Any] = {
    "energy_eV": lambda v: ("wavelength_m", HC_EV_M / v),
    "wavelength_m": lambda v: ("wavelength_m", v),
    "voltage_V": lambda v: ("wavelength_m", electron_wavelength_m(v)),
    "distance_m": lambda v: ("distance_m", v),
    "camera_length_m": lambda v: ("distance_m", v),
    "detector_pixel_size_m": lambda v: ("detector_pixel_size_m", v),
    "angular_pixel_size_rad": lambda v: ("angular_pixel_size_rad", v),
    "object_pixel_size_m": lambda v: ("measured_object_pixel_size_m", v),
    "rotation_deg": lambda v: ("rotation_rad", math.radians(v)),
}


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{name} is {value!r}; it must be a number ({SETTINGS[name]})") from None
    if not math.isfinite(number) or (number <= 0 and name != "rotation_deg"):
        raise DataError(f"{name} is {value!r}; it must be a positive number ({SETTINGS[name]})")
    return number
