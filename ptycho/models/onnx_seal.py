"""The checksum of an ONNX file: a last entry of its metadata, so that every runtime reads the file as before.

In this format, a file with one more entry of a repeated field after it is still a valid file. The entry
holds the SHA-256 of all bytes before it. A file that says it is sealed and has no such entry was cut or
damaged.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ptycho.errors import BundleError

#: metadata of a sealed file; its text is this name
SEALED, BY = "checksum", "sha256"
_KEY = b"ptychopinn_sha256"
# field 14 of ModelProto (metadata_props), of one StringStringEntryProto: field 1 the key, field 2 the value
_ENTRY = b"\x0a" + bytes([len(_KEY)]) + _KEY + b"\x12" + bytes([64])
_HEAD = b"\x72" + bytes([len(_ENTRY) + 64]) + _ENTRY


def sealed(data: bytes) -> bytes:
    """The bytes of a model with their checksum."""
    return data + _HEAD + hashlib.sha256(data).hexdigest().encode()


def check_seal(data: bytes, path: Path) -> None:
    """BundleError where the bytes of a file are not those that its checksum was taken of.

    A file of earlier versions, which does not say that it is sealed, passes.
    """
    body, tail = data[: -len(_HEAD) - 64], data[-len(_HEAD) - 64 :]
    mark = b"\x0a" + bytes([len(SEALED)]) + SEALED.encode() + b"\x12" + bytes([len(BY)]) + BY.encode()
    if tail.startswith(_HEAD):
        if hashlib.sha256(body).hexdigest().encode() == tail[len(_HEAD) :]:
            return
    elif mark not in data:
        return
    raise BundleError(
        f"{path} does not match its checksum: it was damaged, truncated or changed; export it again"
    )
