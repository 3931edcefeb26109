"""`ptycho train --from shipped`: what it writes says which network it trained, and `infer` opens it."""

from pathlib import Path

import pytest
import yaml

from ptycho.cli.main import main
from ptycho.simulation import Scenario, simulate


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shipped")
    simulate(Scenario(object="lines", n_positions=49, seed=4)).to_npz(folder / "scan.npz")
    words = [str(folder / "scan.npz"), "-o", str(folder / "run"), "--from", "shipped", "--nepochs", "1"]
    assert main(["train", *words]) == 0
    return folder


def test_config_yaml_names_the_network_that_was_trained(trained: Path) -> None:
    written = yaml.safe_load((trained / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert written["model"]["reference"] == "coarse"
    assert written["start_from"] == "shipped"


def test_infer_opens_the_model(trained: Path) -> None:
    words = [str(trained / "scan.npz"), "--model", str(trained / "run"), "-o", str(trained / "image")]
    assert main(["infer", *words]) == 0
    assert (trained / "image" / "reconstruction.npz").is_file()


def test_a_run_whose_config_yaml_left_the_network_at_its_defaults_opens(trained: Path) -> None:
    settings = trained / "run" / "config.yaml"
    now = settings.read_text(encoding="utf-8")
    settings.write_text(now.replace("reference: coarse", "reference: flat"), encoding="utf-8")
    try:
        words = [str(trained / "scan.npz"), "--model", str(trained / "run"), "-o", str(trained / "older")]
        assert main(["infer", *words]) == 0
    finally:
        settings.write_text(now, encoding="utf-8")


def test_training_goes_on_from_the_folder(trained: Path) -> None:
    assert main(["train", "--resume", str(trained / "run"), "--nepochs", "2"]) == 0


def test_another_setting_of_the_network_is_refused_before_anything_is_written(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(trained / "scan.npz"), "-o", str(trained / "other"), "--from", "shipped"]
    assert main(["train", *words, "--n_filters_scale", "1"]) != 0
    assert "n_filters_scale" in capsys.readouterr().err
    assert not (trained / "other").exists()
