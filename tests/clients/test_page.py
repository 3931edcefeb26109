"""What docs/integrations/ptychodus.md shows is run as it stands there, with one epoch."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from client_driver import Client, batch, export_training_data, printed_complaints, running_client
from client_scans import Case, write_scan

from ptycho.io.ptychodus_product import read_product

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations" / "ptychodus.md"
CASE = Case(64, 1, True)
SETTING = re.compile(r"^\| (PtychoPINN(?:-Torch)?) (\w+), ([\w, ]+) \| ([\w, `]+)", re.MULTILINE)


def blocks() -> list[str]:
    return re.findall(r"^```\w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def lines_of(program: str) -> list[list[str]]:
    """The commands of one program, in order."""
    lines = (line for block in blocks() for line in block.splitlines())
    return [shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} ")]


def shown_settings() -> str:
    return next(block for block in blocks() if block.startswith("[Processing]"))


def test_the_commands(tmp_path: Path, simulated) -> None:
    """Batch mode in both directions, then this package's own commands on the same two files."""
    given = tmp_path / "in"
    write_scan(given, simulated(CASE), truth=False)
    with running_client() as client:
        export_training_data(client, client.load(given), given, "ptychopinn-torch_unsupervised")
    quick = "\n[PtychoPINNTorchTraining]\nepochs = 1\n[PtychoPINNTorchModel]\nnum_filters_scale = 1\n"
    (given / "settings.ini").write_text(shown_settings() + quick)
    commands = lines_of("ptychodus")
    assert [words[2] for words in commands] == ["train", "reconstruct"]
    for words in commands:
        assert words[1::2] == ["-b", "-i", "-o"]
        if words[2] == "reconstruct":
            checkpoint = next((tmp_path / "trained").rglob("*.ckpt"))
            shutil.copy(checkpoint, given / "model.ckpt")
        done = batch(words[2], tmp_path / words[4], tmp_path / words[6])
        assert done.returncode == 0 and printed_complaints(done.stdout) == [], done.stdout
    made = next((tmp_path / "out").glob("product*.h5"))
    assert read_product(made).object[0].shape == simulated(CASE).object_true.shape

    own = lines_of("ptycho")
    assert [words[1] for words in own] == ["validate", "train", "infer"]
    for words in own:
        pairs = zip(words, words[1:], strict=False)
        smaller = ["1" if before == "--nepochs" else word for before, word in pairs]
        few = ["--n_filters_scale", "1"] if words[1] == "train" else []
        subprocess.run([sys.executable, "-m", "ptycho.cli", *smaller, *few], check=True, cwd=tmp_path)
    assert len(read_product(tmp_path / "out.h5").loss_values) == 1


def test_the_settings_exist(client: Client) -> None:
    """Keys of the page's settings.ini and of its table are ptychodus' own; the table says their defaults."""
    registry = client.core.settings_registry
    for line in shown_settings().splitlines():
        if line.startswith("["):
            group = line.strip("[]")
        elif line:
            assert line.partition(" =")[0] in registry[group].parameters(), line
    rows = SETTING.findall(PAGE.read_text())
    assert len(rows) == 4
    for plugin, part, names, defaults in rows:
        parameters = registry[plugin.replace("-", "") + part.capitalize()].parameters()
        shown = defaults.replace("`", "").strip().split(", ")
        for name, default in zip(names.split(", "), shown, strict=True):
            found = [value for key, value in parameters.items() if key in (name, f"{name}_x", f"{name}_y")]
            assert found and {str(value.get_value()) for value in found} == {default}, name
