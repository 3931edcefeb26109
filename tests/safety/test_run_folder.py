"""The folder of a run: whose it is, what a new run does with an old one's products, what a refusal leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptycho.errors import InputError
from ptycho.run import provenance
from ptycho.run.folder import OutputFolder, check_folder, owner_of


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def old_run(folder: Path, kind: str = "train") -> Path:
    """What a training leaves, in small."""
    (folder / "checkpoints").mkdir(parents=True)
    provenance.begin(folder, command=["ptycho", kind], inputs={}, seeds={}, kind=kind)
    for name in ("wts.h5.zip", "config.yaml", "history.json", "report.html", "checkpoints/last.ckpt"):
        (folder / name).write_text(f"old {name}")
    return folder


def test_a_new_run_keeps_nothing_of_the_old_one_in_place(tmp_path: Path) -> None:
    folder = old_run(tmp_path / "run")
    opened = OutputFolder(folder, "train")
    assert not (folder / "wts.h5.zip").exists() and not (folder / "checkpoints").exists()
    opened.close()
    aside = folder / "products.earlier"
    assert (aside / "wts.h5.zip").read_text() == "old wts.h5.zip"
    assert (aside / "config.yaml").read_text() == "old config.yaml"
    assert (folder / "checkpoints.earlier" / "last.ckpt").read_text() == "old checkpoints/last.ckpt"


def test_one_generation_is_kept(tmp_path: Path) -> None:
    folder = old_run(tmp_path / "run")
    for generation in ("second", "third"):
        opened = OutputFolder(folder, "train")
        (folder / "wts.h5.zip").write_text(generation)
        opened.close()
    OutputFolder(folder, "train").close()
    assert (folder / "products.earlier" / "wts.h5.zip").read_text() == "third"
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == []


def test_a_run_that_goes_on_keeps_its_own(tmp_path: Path) -> None:
    folder = old_run(tmp_path / "run")
    before = files(folder)
    OutputFolder(folder, "train", resumes=True).close()
    assert files(folder) == before


def test_a_refused_command_leaves_the_old_run_as_it_was(tmp_path: Path) -> None:
    folder = old_run(tmp_path / "run")
    for _ in range(2):  # also where an earlier generation is there already
        before = files(folder)
        opened = OutputFolder(folder, "train")
        (folder / "config.yaml").write_text("new")
        provenance.begin(folder, command=["ptycho"], inputs={}, seeds={}, kind="train")
        opened.refused()
        assert files(folder) == before
        opened = OutputFolder(folder, "train")
        opened.close()
        (folder / "wts.h5.zip").write_text("next")


def test_a_refused_command_leaves_no_folder(tmp_path: Path) -> None:
    opened = OutputFolder(tmp_path / "a" / "b", "train")
    (tmp_path / "a" / "b" / "config.yaml").write_text("new")
    opened.refused()
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_else_put_there_meanwhile_stays(tmp_path: Path) -> None:
    opened = OutputFolder(tmp_path / "a", "train")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    opened.refused()
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["infer", "reconstruct", "demo"])
def test_the_folder_of_another_command_is_refused(kind: str, tmp_path: Path) -> None:
    folder = old_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"holds what ptycho train made.*--overwrite"):
        OutputFolder(folder, kind)
    OutputFolder(folder, kind, overwrite=True).close()
    assert not (folder / "wts.h5.zip").exists()


def test_records_of_before_tell_the_owner_too(tmp_path: Path) -> None:
    for command in (
        ["ptycho", "infer", "--model", "train"],
        ["python", "-m", "ptycho.cli", "infer"],
        ["ptycho_infer"],
    ):
        provenance.begin(tmp_path, command=command, inputs={}, seeds={})
        assert owner_of(tmp_path) == "infer"


def test_no_product_takes_the_place_of_an_input(tmp_path: Path) -> None:
    data = tmp_path / "out" / "reconstruction.npz"
    data.parent.mkdir()
    data.write_text("measured")
    with pytest.raises(InputError, match="the command reads it"):
        check_folder(data.parent, "infer", inputs=(data,), overwrite=True)
