"""The way of a thing through the rooms: run a command and note each call that hands the thing on.

A call counts where caller and callee are files of the package, in different rooms, and an argument of the
callee is the thing. A climb is a call into a room that stands higher. Run with PYTHONPATH on the tree that is
measured: `python trace.py patterns|settings|weights FOLDER`.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
N = 64
#: the highest first; everything of the PyTorch package but the iterative engine is the room `torch`
ORDER = [
    "cli",
    "clients.door",
    "workflows",
    "torch",
    "tf",
    "backends",
    "report",
    "clients",
    "run",
    "tracking",
    "models",
    "experiments",
    "simulation",
    "evaluation",
    "image",
    "objectives",
    "scan",
    "networks",
    "io",
    "config",
    "physics",
    "errors",
]


def room_of(path: str) -> str:
    """Room of a file: the folder below the package; the clients' functions of the workflow are a door."""
    parts = Path(path).parts
    if "ptycho_torch" in parts:
        return "torch"
    rest = parts[parts.index("ptycho") + 1 :] if "ptycho" in parts else ()
    if not rest:
        return ""
    name = rest[0].removesuffix(".py")
    if rest[:2] in (
        ("workflows", "components.py"),
        ("workflows", "backend_selector.py"),
        ("clients", "workflow.py"),
    ):
        return "clients.door"
    if rest[:2] in (("clients", "results.py"), ("clients", "trained_model.py")):
        return "clients.door"
    return name


def is_patterns(value: Any) -> bool:
    kind = type(value).__name__
    if kind in ("RawData", "PtychoDataContainer", "LazyPatterns", "ScanSet"):
        return True
    shape = getattr(value, "shape", None)
    return (
        shape is not None
        and len(shape) >= 3
        and tuple(shape[-2:]) == (N, N)
        and "float32" in str(value.dtype)
    )


def is_settings(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and type(value).__name__.endswith("Config")


def is_weights(value: Any) -> bool:
    if type(value).__name__ in ("Bundle", "TrainedState", "PtychoPINN_Keras", "TrainedModel"):
        return True
    return isinstance(value, Path) and ("wts.h5" in value.name or value.name == "model")


def main(what: str, folder: Path) -> None:
    import ptycho

    root = str(Path(ptycho.__file__).parents[1])
    from ptycho.cli.main import main as command

    thing = {"patterns": is_patterns, "settings": is_settings, "weights": is_weights}[what]
    scan, model = folder / "scan.npz", folder / "model"
    if not scan.exists():
        command(["simulate", "-o", str(scan), "--N", str(N), "--n_positions", "64", "--quiet"])
    train = [
        "train",
        str(scan),
        "-o",
        str(model),
        "--nepochs",
        "1",
        "--probe_from",
        "guess",
        "--accelerator",
        "cpu",
    ]
    if not (model / "wts.h5.zip").exists():
        command([*train, "--quiet"])
    words = {
        "patterns": ["infer", "--model", str(model), "--data", str(scan), "-o", str(folder / "image")],
        "settings": [*train[:3], str(folder / "again"), *train[4:]],
        "weights": [
            "infer",
            "--model",
            str(model),
            "--data",
            str(scan),
            "-o",
            str(folder / "tf"),
            "--backend",
            "tensorflow",
        ],
    }[what]
    steps: list[tuple[str, str, str]] = []

    def look(frame: Any, event: str, _: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(root):
            return
        back = frame.f_back
        while back is not None and not back.f_code.co_filename.startswith(root):
            back = back.f_back
        if back is None:
            return
        here, there = room_of(back.f_code.co_filename), room_of(frame.f_code.co_filename)
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
        if here and there and any(thing(frame.f_locals.get(name)) for name in names):
            file = Path(frame.f_code.co_filename).relative_to(root).as_posix()
            steps.append((here, there, f"{file}:{frame.f_code.co_name}"))

    sys.setprofile(look)
    try:
        command([*words, "--quiet"])
    finally:
        sys.setprofile(None)
    files = {file.split(":")[0] for *_, file in steps}
    rooms = {room for here, there, _ in steps for room in (here, there)}
    moves = {(a, b, f) for a, b, f in steps if a != b}
    climbs = sorted((a, b, f) for a, b, f in moves if ORDER.index(b) < ORDER.index(a))
    print(
        f"{Path(root).name}: {what}: {len(rooms)} rooms, {len(files)} files, {len(moves)} moves, {len(climbs)} climbs"
    )
    for climb in climbs:
        print("   ", *climb)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
