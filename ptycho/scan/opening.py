"""Opens a scan of any known format in Python, as `ptycho import` does but without writing a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ptycho.io.hdf5_read import links_anywhere
from ptycho.io.import_settings import found_in, read_settings
from ptycho.io.importing import Imported, prepare_from
from ptycho.io.inputs import check_input
from ptycho.io.registry import kept_patterns
from ptycho.scan.checks import check_side
from ptycho.scan.raw_data import RawData
from ptycho.scan.units import explain_unit


def open_scan(
    path: str | os.PathLike[str],
    *,
    positions: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    format: str | None = None,
    patterns: str = "auto",
) -> RawData:
    """The scan in a file or folder of any format of `ptycho info --formats`, recognised by its contents.

    positions: a second file that holds the positions. settings: values missing in the files, by the keys of
    `ptycho import --set` (numbers or text), such as {"object_pixel_size_m": 30e-9, "path.frames": "/a/b"};
    they have precedence over the files. format: a name of `ptycho info --formats`, for a file that is not
    recognised.
    patterns: 'memory', 'disk' (read by rows) or 'auto', see `RawData.from_file`. A scan without a probe gets
    one made of its mean pattern (`probe_made`). `geometry` has what is known of metres, and
    `object_pixel_size_m` is None where it does not follow from that.

    Raises MissingFileError, InputError for an unknown setting or format, DataError for contents that cannot
    be used or lack what a scan needs.

    >>> import tempfile
    >>> import numpy as np
    >>> x = np.arange(36) % 6 * 1e-7
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = f"{folder}/frames.npy"
    ...     np.save(file, np.random.default_rng(0).poisson(3.0, (36, 32, 32)).astype(np.uint16))
    ...     np.save(f"{folder}/places.npy", np.stack([x, np.sort(x)], axis=1))
    ...     metres = {"object_pixel_size_m": 30e-9}
    ...     scan = open_scan(file, positions=f"{folder}/places.npy", settings=metres, patterns="memory")
    >>> scan.n_positions, scan.N, scan.object_pixel_size_m, scan.probe_made
    (36, 32, 3e-08, True)
    """
    if positions is None and not settings and format is None:
        return RawData.from_file(path, patterns=patterns, make_probe=True)
    source = check_input(path)
    paths, options = read_settings(settings or {})
    with links_anywhere(paths.get("links") == "anywhere"):
        found = found_in(source, None if positions is None else check_input(positions), paths, format)
        arrays = checked(prepare_from(source, found, options)).as_arrays()
    arrays["diff3d"] = kept_patterns(arrays["diff3d"], patterns)
    known = {key: value for key, value in arrays.items() if value is not None}
    made = RawData(**{"xcoords_start": None, "ycoords_start": None, **known})
    made.source = source
    return made.with_storage(patterns)


def checked(made: Imported) -> Imported:
    """The same scan; DataError for an invalid side or unit. Its values are not read."""
    check_side(int(made.frames.shape[-1]))
    explain_unit(made.frames, made.unit, made.bad_pixels is not None)
    return made
