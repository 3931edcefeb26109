"""The product of ptychodus (`product.h5`, or the same as NPZ): probe, object, positions, losses and geometry.

The NPZ form is a flat set of names. The HDF5 form stores some of them as attributes. Both are read into that
flat set and written from it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError, InputError
from ptycho.io.atomic import atomic_write
from ptycho.io.checksums import KEY, digest_of
from ptycho.io.ptychodus_frame import ObjectFrame
from ptycho.io.ptychodus_hdf5 import SUFFIXES, as_number, open_hdf5, read_optional, read_text
from ptycho.io.reading import damage
from ptycho.io.sealed_hdf5 import checked, new_file

# Field of Metadata: its name in the file, then older names that are read and never written.
_NUMBERS = {
    "detector_distance_m": ("detector_object_distance_m",),
    "photon_energy_ev": ("photon_energy_eV", "probe_energy_eV"),
    "probe_photon_count": ("probe_photon_count",),
    "exposure_time_s": ("exposure_time_s",),
    "mass_attenuation_m2_per_kg": ("mass_attenuation_m2_per_kg", "mass_attenuation_m2_kg"),
    "tomography_angle_deg": ("tomography_angle_deg",),
    "focus_object_distance_m": ("focus_object_distance_m",),
    "tilt_angle_deg": ("tilt_angle_deg",),
}
_TEXTS = ("name", "comments", "polarization")
_REQUIRED_NUMBERS = ("detector_distance_m", "photon_energy_ev")
_ARRAYS = (
    "probe",
    "object",
    "probe_position_indexes",
    "probe_position_x_m",
    "probe_position_y_m",
    "opr_weights",
    "object_layer_spacing_m",
    "probe_photon_counts",
    "loss_epochs",
    "loss_values",
)
_REQUIRED_ARRAYS = _ARRAYS[:5]
# Dataset: its attributes in HDF5, and the name of each in the flat set.
_ATTRIBUTES = {
    "probe": {"pixel_width_m": "probe_pixel_width_m", "pixel_height_m": "probe_pixel_height_m"},
    "object": {
        "pixel_width_m": "object_pixel_width_m",
        "pixel_height_m": "object_pixel_height_m",
        "center_x_m": "object_center_x_m",
        "center_y_m": "object_center_y_m",
    },
}


@dataclass(frozen=True)
class Metadata:
    """Sample and experiment of a product, in the units of the names; 0 where nobody said."""

    name: str = "Unnamed"
    comments: str = ""
    detector_distance_m: float = 0.0
    photon_energy_ev: float = 0.0
    probe_photon_count: float = 0.0
    exposure_time_s: float = 0.0
    mass_attenuation_m2_per_kg: float = 0.0
    tomography_angle_deg: float = 0.0
    focus_object_distance_m: float = 0.0
    tilt_angle_deg: float = 0.0
    polarization: str = ""
    far_field: bool = True


@dataclass(frozen=True, eq=False)
class Product:
    """One product (M positions, P incoherent modes, L layers).

    object: (L,H,W) complex; frame: where its pixels lie. layer_spacing_m: (L-1,).
    probe: (K,P,N,N) complex, K coherent (OPR) modes with opr_weights (M,K) or None; probe_pixel_xy_m [x, y].
    indexes (M,) int, x_m and y_m (M,) float64: positions, ptychodus' own convention (`ptychodus_frame`).
    photon_counts (M,) or None. loss_epochs, loss_values: (E,).
    Arrays of fewer axes are understood as ptychodus does: object (H,W), probe (N,N) or (P,N,N).
    """

    object: NDArray[Any]
    frame: ObjectFrame
    probe: NDArray[Any]
    indexes: NDArray[Any]
    x_m: NDArray[Any]
    y_m: NDArray[Any]
    metadata: Metadata = Metadata()
    probe_pixel_xy_m: tuple[float, float] | None = None
    layer_spacing_m: NDArray[Any] | None = None
    opr_weights: NDArray[Any] | None = None
    photon_counts: NDArray[Any] | None = None
    loss_epochs: NDArray[Any] | None = None
    loss_values: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "object", _with_axes(self.object, 3, "object"))
        put(self, "probe", _with_axes(self.probe, 4, "probe"))
        if self.object.shape[-2:] != tuple(self.frame.shape):
            raise DataError(f"object has shape {self.object.shape} but its frame {self.frame.shape}")
        spacing = np.zeros(0) if self.layer_spacing_m is None else np.asarray(self.layer_spacing_m)
        put(self, "layer_spacing_m", spacing.astype(np.float64))
        if len(self.object) != len(spacing) + 1:
            raise DataError(f"object has {len(self.object)} layers but {len(spacing)} layer spacings")
        put(self, "probe_pixel_xy_m", self.probe_pixel_xy_m or self.frame.pixel_xy_m)
        if np.asarray(self.indexes).dtype.kind not in "ui":
            raise DataError(
                f"probe_position_indexes have dtype {np.asarray(self.indexes).dtype}; "
                "they must be whole numbers"
            )
        for name in ("x_m", "y_m", "photon_counts"):
            values = getattr(self, name)
            if values is not None and np.shape(values) != (len(self.indexes),):
                raise DataError(f"{name} has shape {np.shape(values)} for {len(self.indexes)} positions")
        epochs, values = self.loss_epochs, np.zeros(0) if self.loss_values is None else self.loss_values
        epochs = np.arange(len(values)) if epochs is None else np.asarray(epochs, np.int64)
        values = np.asarray(values, np.float64)
        put(self, "loss_values", values)
        put(self, "loss_epochs", epochs)
        if epochs.shape != values.shape:
            raise DataError("loss_epochs and loss_values differ in length")


def read_product(path: str | os.PathLike[str]) -> Product:
    """Read a product, HDF5 or NPZ, with current or older names. Raises DataError naming file and key."""
    source = Path(path)
    flat = _read_npz(source) if source.suffix.lower() == ".npz" else _read_hdf5(source)
    for key in (*_REQUIRED_ARRAYS, *_ATTRIBUTES["object"].values()):
        if key not in flat:
            listed = ", ".join(sorted(flat)) or "nothing of a product"
            raise DataError(f"{source} has no {key!r}, so it is no product of ptychodus; it holds {listed}")
    try:
        return _from_flat(flat)
    except DataError as error:
        raise DataError(f"{source}: {error}") from None


def write_product(path: str | os.PathLike[str], product: Product) -> None:
    """Write a product whole or not at all, HDF5 or NPZ by its suffix; ptychodus opens either."""
    suffix = Path(path).suffix.lower()
    flat = _to_flat(product)
    if suffix == ".npz":
        from ptycho.io.npz import write_npz

        write_npz(path, flat)
    elif suffix in SUFFIXES:
        _write_hdf5(path, flat)
    else:
        raise InputError(f"cannot write {path}: a product ends in .h5 or .npz")


def is_product(archive: Any) -> bool:
    """Whether an open HDF5 file holds the datasets of a product."""
    return all(key in archive for key in _REQUIRED_ARRAYS)


def _read_hdf5(path: Path) -> dict[str, Any]:
    with open_hdf5(path) as archive, damage(str(path)):
        if KEY in archive.attrs and read_text(archive, KEY, "") != _digest_of_texts(archive):
            raise DataError(
                f"{path}: its texts do not match their checksum; copy it again, or delete its attribute {KEY}"
            )
        flat: dict[str, Any] = {key: archive.attrs[key] for key in _attribute_names() if key in archive.attrs}
        flat |= {key: read_text(archive, key, "") for key in _TEXTS if key in archive.attrs}
        for key in _ARRAYS:
            values = read_optional(archive, key)
            if values is not None:
                flat[key] = values
        for dataset, names in _ATTRIBUTES.items():
            for name, key in names.items():
                if dataset in flat and name in archive[dataset].attrs:
                    flat[key] = archive[dataset].attrs[name]
    return flat


def _write_hdf5(path: str | os.PathLike[str], flat: Mapping[str, Any]) -> None:
    """In the layout of HDF5 1.10, which keeps checksums of its own over headers, with those of values added.

    Other programs may then change the file in place, and a flipped bit is still refused. The library keeps
    none over texts of any length; theirs is an attribute.
    """
    with atomic_write(path) as temporary, new_file(temporary) as archive:
        for key in (*_attribute_names(), *_TEXTS):
            if key in flat:
                archive.attrs[key] = flat[key]
        archive.attrs[KEY] = np.bytes_(_digest_of_texts(archive))
        for key in _ARRAYS:
            if key in flat:
                values = np.asarray(flat[key])
                dataset = archive.create_dataset(key, data=values, **checked(values))
                for name, flat_key in _ATTRIBUTES.get(key, {}).items():
                    dataset.attrs[name] = flat[flat_key]


def _digest_of_texts(archive: Any) -> str:
    return digest_of({key: read_text(archive, key, "") for key in _TEXTS})


def _read_npz(path: Path) -> dict[str, Any]:
    from ptycho.io.npz import open_npz, read_array

    known = {*_attribute_names(), *_TEXTS, *_ARRAYS}.union(*(n.values() for n in _ATTRIBUTES.values()))
    with open_npz(path) as archive:
        flat: dict[str, Any] = {key: read_array(archive, key, path) for key in archive.files if key in known}
        if "loss_values" not in flat and "costs" in archive.files:
            flat["loss_values"] = read_array(archive, "costs", path)
    return {key: str(value) if key in _TEXTS else value for key, value in flat.items()}


def _attribute_names() -> tuple[str, ...]:
    return (*(name for names in _NUMBERS.values() for name in names), "far_field")


def _from_flat(flat: Mapping[str, Any]) -> Product:
    obj = _with_axes(flat["object"], 3, "object")
    numbers = {field: _number(flat, *names) for field, names in _NUMBERS.items()}
    for field in _REQUIRED_NUMBERS:
        if numbers[field] is None:
            raise DataError(f"there is no {_NUMBERS[field][0]!r}; write the file again")
    texts = {key: str(flat[key]) for key in _TEXTS if key in flat}
    kept = {field: value for field, value in numbers.items() if value is not None}
    known: dict[str, Any] = {**texts, **kept}
    metadata = Metadata(**known, far_field=bool(np.all(flat.get("far_field", True))))
    wide, high = (as_number(flat[f"object_pixel_{side}_m"], f"object_pixel_{side}_m") for side in _SIDES)
    centre = tuple(as_number(flat[f"object_center_{a}_m"], f"object_center_{a}_m") for a in "xy")
    frame = ObjectFrame((obj.shape[1], obj.shape[2]), (wide, high), (centre[0], centre[1]))
    probe_pixel = [_number(flat, f"probe_pixel_{side}_m") for side in _SIDES]
    return Product(
        object=obj,
        frame=frame,
        probe=flat["probe"],
        indexes=flat["probe_position_indexes"],
        x_m=flat["probe_position_x_m"],
        y_m=flat["probe_position_y_m"],
        metadata=metadata,
        probe_pixel_xy_m=(probe_pixel[0] or wide, probe_pixel[1] or high),
        layer_spacing_m=flat.get("object_layer_spacing_m"),
        opr_weights=flat.get("opr_weights"),
        photon_counts=flat.get("probe_photon_counts"),
        loss_epochs=flat.get("loss_epochs"),
        loss_values=flat.get("loss_values"),
    )


_SIDES = ("width", "height")


def _to_flat(product: Product) -> dict[str, Any]:
    metadata = product.metadata
    flat: dict[str, Any] = {names[0]: getattr(metadata, field) for field, names in _NUMBERS.items()}
    flat |= {"name": metadata.name, "comments": metadata.comments, "far_field": metadata.far_field}
    if metadata.polarization:
        flat["polarization"] = metadata.polarization
    flat |= {
        "probe": product.probe,
        "object": product.object,
        "probe_position_indexes": product.indexes,
        "probe_position_x_m": product.x_m,
        "probe_position_y_m": product.y_m,
        "object_layer_spacing_m": product.layer_spacing_m,
        "loss_epochs": product.loss_epochs,
        "loss_values": product.loss_values,
    }
    for key, value in (("opr_weights", product.opr_weights), ("probe_photon_counts", product.photon_counts)):
        if value is not None:
            flat[key] = value
    for what, sizes in (("object", product.frame.pixel_xy_m), ("probe", product.probe_pixel_xy_m)):
        assert sizes is not None
        flat |= {f"{what}_pixel_{side}_m": size for side, size in zip(_SIDES, sizes, strict=True)}
    return flat | {f"object_center_{a}_m": c for a, c in zip("xy", product.frame.center_xy_m, strict=True)}


def _number(flat: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        if name in flat:
            return as_number(flat[name], name)
    return None


def _with_axes(array: NDArray[Any], axes: int, name: str) -> NDArray[Any]:
    """The array with leading axes of length one up to `axes`; complex numbers only."""
    values = np.asarray(array)
    if values.dtype.kind != "c":
        raise DataError(f"{name} has dtype {values.dtype}; it must be complex")
    if not 2 <= values.ndim <= axes:
        raise DataError(f"{name} has shape {values.shape}; it must have 2 to {axes} axes")
    return values.reshape((1,) * (axes - values.ndim) + values.shape)
