"""`--write`: a reconstruction in the files of other programs, beside reconstruction.npz; and `--start`.

If the scan lacks a value that a file needs, an error names it before the work starts; it is never invented.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.parser import Parser
from ptycho.cli.runs import file_target
from ptycho.errors import DataError, InputError

if TYPE_CHECKING:
    import numpy as np

    from ptycho.io.images import Image
    from ptycho.scan.raw_data import RawData

#: name for --write: file in OUT
KINDS = {
    "npz": "reconstruction.npz",
    "cxi": "reconstruction.cxi",
    "tiff": "reconstruction.tif",
    "product": "product.h5",
    "ptyr": "reconstruction.ptyr",
}


def add_write_flag(parser: Parser) -> None:
    """`--write NAMES`."""
    parser.add_argument(
        "--write", default="npz", metavar="NAMES",
        help=f"files to write, joined by commas: {','.join(KINDS)} (npz always)",
    )  # fmt: skip


def kinds_of(words: str) -> list[str]:
    """The names in `--write`, each once. InputError for an unknown one."""
    names = list(dict.fromkeys(word.strip() for word in words.split(",") if word.strip()))
    for name in names:
        if name not in KINDS:
            raise InputError(f"--write {name}: not known; known: {', '.join(KINDS)}")
    return names


def check_writes(kinds: Sequence[str], raw: RawData, scan: Path) -> None:
    """DataError if the scan lacks a value that a file needs; MissingDependencyError for a missing library."""
    if "tiff" in kinds:
        from ptycho.io.formats.arrays import require_tifffile

        require_tifffile()
    if "product" in kinds:
        from ptycho.io.ptychodus_scan import check_product_geometry

        check_product_geometry(scan, raw.geometry, raw.N)
    if "ptyr" in kinds and raw.object_pixel_size_m is None:
        gone = " and ".join(raw.geometry.missing())
        raise DataError(f"{scan}: --write ptyr needs {gone}, which the scan does not say; {remedy(scan)}")


def remedy(scan: Path) -> str:
    """How to add the missing values to a scan."""
    return f"add it: ptycho import {scan} --set KEY=VALUE -o with_geometry.h5"


def write_kinds(
    kinds: Sequence[str],
    folder: Path,
    image: Image,
    raw: RawData,
    scan: Path,
    say: Callable[[str], None],
    *,
    probe_in_counts: np.ndarray[Any, Any] | None = None,
) -> None:
    """Write an image in every requested kind except NPZ, and print each file. `probe_in_counts`: the probe of
    a product.
    """
    from ptycho.io.cxi import write_image_cxi
    from ptycho.io.images import write_image_ptyr, write_image_tiff

    assert image.probe is not None
    for kind in kinds:
        target = folder / KINDS[kind]
        if kind == "cxi":
            write_image_cxi(
                target, image.object, image.probe, raw.geometry, image.coverage,
                origin_xy=image.origin_xy, positions_px=image.positions_px,
            )  # fmt: skip
        elif kind == "tiff":
            target = write_image_tiff(target, image)[0]
        elif kind == "ptyr":
            write_image_ptyr(target, image, raw.geometry.energy_eV)
        elif kind == "product":
            _write_product(
                target, image, raw, scan, image.probe if probe_in_counts is None else probe_in_counts
            )
        if kind != "npz":
            say(f"{kind:<12} {target}")


def _write_product(target: Path, image: Image, raw: RawData, scan: Path, probe: Any) -> None:
    from ptycho.io.ptychodus_product import write_product
    from ptycho.io.ptychodus_scan import product_of_image

    places = raw.positions_px if image.positions_px is None else image.positions_px
    made = product_of_image(
        scan, image.object, image.origin_xy or (0.0, 0.0), probe, places, geometry=raw.geometry,
        frame_numbers=raw.frame_numbers,
    )  # fmt: skip
    write_product(target, made)


def add_product_flag(parser: Parser) -> None:
    """`--product OUT.h5`."""
    parser.add_argument(
        "--product", type=Path, metavar="OUT.h5", help="write the image as a product of ptychodus"
    )


def product_target(arguments: argparse.Namespace, image: Path, inputs: Iterable[Path | None]) -> Path | None:
    """The file of `--product`, checked as every target; None where it was not asked for. `image`: the file
    that the command writes anyway. Raises InputError."""
    path: Path | None = vars(arguments).get("product")
    if path is None:
        return None
    if path.suffix.lower() not in (".h5", ".hdf5", ".npz"):
        raise InputError(f"--product {path}: a product of ptychodus ends in .h5 or .npz")
    file_target(path, (".h5", ".hdf5", ".npz"), arguments, inputs)
    if path.absolute() == image.absolute():
        raise InputError(f"--product {path}: is the image that the command writes anyway; give another name")
    return path


def product_from_npz(target: Path, image: Path, raw: RawData, scan: Path) -> None:
    """The contents of reconstruction.npz as a ptychodus product."""
    from ptycho.io.images import read_image

    made = read_image(image)
    _write_product(target, made, raw, scan, made.probe)


def write_from_npz(
    words: str, product: Path, raw: RawData, scan: Path, say: Callable[[str], None], to_counts: float = 1.0
) -> None:
    """Write reconstruction.npz in the other requested kinds. `to_counts`: makes the probe's power counts."""
    import numpy as np

    from ptycho.io.images import read_image

    kinds = [kind for kind in kinds_of(words) if kind != "npz"]
    if not kinds:
        return
    image = read_image(product)
    assert image.probe is not None
    write_kinds(
        kinds, product.parent, image, raw, scan, say, probe_in_counts=np.asarray(image.probe) * to_counts
    )


def start_of(path: Path, raw: RawData) -> dict[str, Any]:
    """Object, its origin and probe of an image file, from which a reconstruction of this scan can start.

    The origin follows from the positions in the file, where it has as many as the scan; else from what the
    file says. DataError where the pixels differ in size, or no origin is known.
    """
    import numpy as np

    from ptycho.image.registration import apply_shift_fourier
    from ptycho.io.images import read_image

    image = read_image(path)
    here, there = raw.object_pixel_size_m, image.object_pixel_size_m
    if here is not None and there is not None and abs(here - there) > 1e-3 * here:
        raise DataError(
            f"{path}: its object pixels are {there:.4g} m, those of the scan {here:.4g} m; resample it"
        )
    origin = image.origin_xy
    if image.positions_px is not None and len(image.positions_px) == raw.n_positions and origin is not None:
        moved = np.mean(raw.positions_px - image.positions_px, axis=0)
        origin = (float(origin[0] + moved[0]), float(origin[1] + moved[1]))
    if origin is None:
        raise DataError(f"{path} does not say where its object lies; write it as .npz, .cxi or a product")
    whole = (round(origin[0]), round(origin[1]))
    rest = (origin[1] - whole[1], origin[0] - whole[0])
    obj = image.object if np.abs(rest).max() < 1e-3 else apply_shift_fourier(image.object, rest)
    made: dict[str, Any] = {"initial_object": obj, "initial_origin_xy": whole}
    if image.probe is not None:
        if image.probe.shape[-1] != raw.N:
            raise DataError(f"{path}: its probe has {image.probe.shape[-1]} px, the scan's patterns {raw.N}")
        made["initial_probe"] = image.probe
    return made
