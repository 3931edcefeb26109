"""HDF5 files in which the library keeps a checksum of its own over every header and every value.

The layout is that of HDF5 1.10, whose headers have checksums; values get Fletcher-32, or lie in their header
where they are few. Other programs read and change such a file as any other, and a flipped bit is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.io.guarded_disk import GuardedDisk, signals_later

#: the library takes no piece of 4 GiB
_LARGEST_PIECE = 1 << 30
_IN_HEADER = 4096


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An h5py.File to write to, in the layout with checksums; it holds no times, so the same contents are the
    same bytes.

    Raises OSError at the end, or in `check_written`, where the disk refused a write. Signals wait until then.
    """
    disk = GuardedDisk(path)
    try:
        with signals_later() as deliver, _on_disk(path, disk) as archive:
            archive.disk, archive.deliver = disk, deliver
            yield archive
    except Exception:
        disk.check()  # what the disk refused says more than what followed from it
        raise
    finally:
        disk.close()
    disk.check()


def _on_disk(path: str | os.PathLike[str], disk: GuardedDisk) -> Any:
    """An h5py.File whose bytes go to `disk`; the settings go with this frame, for none may live at the end of
    the process."""
    import h5py

    made = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    made.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_V110)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, disk)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, made, access))


def check_written(archive: Any) -> None:
    """Raise the OSError of a write that the disk refused, and let signals that wait be handled.

    For loops that write long: without it they go on to their end.
    """
    archive.disk.check()
    archive.deliver()


def new_group(holder: Any, name: str) -> Any:
    """The group at a place, made where it is not there, with those above it."""
    import h5py

    settings = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    settings.set_obj_track_times(False)
    for part in name.strip("/").split("/"):
        if part not in holder:
            h5py.h5g.create(holder.id, part.encode(), None, settings)
        holder = holder[part]
    return holder


def checked(values: NDArray[Any]) -> dict[str, Any]:
    """Keywords of `create_dataset` for a checksum; one piece, where the library allows one so large."""
    if not values.size or not values.ndim:
        return {}
    return {"chunks": values.shape if values.nbytes < _LARGEST_PIECE else True, "fletcher32": True}


def put(group: Any, name: str, values: Any) -> Any:
    """Store numbers of any shape, or a text (UTF-8, fixed length), with a checksum; returns the dataset."""
    import h5py

    array = np.asarray(np.bytes_(values.encode()) if isinstance(values, str) else values)
    if array.nbytes > _IN_HEADER:
        return group.create_dataset(name, data=array, **checked(array))
    place, _, last = name.rpartition("/")
    holder = new_group(group, place) if place else group
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_obj_track_times(False)
    settings.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(array.shape) if array.ndim else h5py.h5s.create(h5py.h5s.SCALAR)
    kind = h5py.h5t.py_create(array.dtype, logical=True)
    made = h5py.Dataset(h5py.h5d.create(holder.id, last.encode(), kind, space, settings))
    made[...] = array
    return made
