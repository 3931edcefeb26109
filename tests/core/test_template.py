"""The settings file that `ptycho init` writes loads as it stands, and the schema knows every key of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from ptycho.cli.main import main
from ptycho.config.defaults import TRAINS_WELL
from ptycho.config.fields import describe_fields
from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.config.template import ScanFacts, json_schema, template
from ptycho.config.yaml_io import load_yaml_config, training_config_from

FACTS = ScanFacts(Path("scan.npz"), 32, 6, "counts", 28e-9)


@pytest.mark.parametrize("facts", [None, FACTS])
def test_the_template_loads_and_gives_the_defaults(facts: ScanFacts | None, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(template(facts))
    made, execution = training_config_from(load_yaml_config(path), source=path)
    if facts is None:
        assert made.nepochs == TRAINS_WELL["nepochs"] and made.model == ModelConfig()
        assert (made.scheduler, made.gradient_clip_val) == ("WarmupCosine", 1.0)
        assert execution == PyTorchExecutionConfig(learning_rate=TRAINS_WELL["learning_rate"])
    else:
        assert made.model.N == 32 and made.batch_size == 6 and made.train_data_file == Path("scan.npz")
        assert "6 patterns of 32 x 32 px, counts, object pixel 28 nm" in path.read_text()


def test_every_key_is_explained_and_there_are_about_twenty() -> None:
    lines = template(FACTS).splitlines()
    keys = [n for n, line in enumerate(lines) if line.strip().removeprefix("# ").split(":")[0].isidentifier()]
    keys = [n for n in keys if lines[n].strip() not in ("model:", "execution:")]
    assert 18 <= len(keys) <= 26
    assert all(lines[n - 1].strip().startswith("# ") and "(" in lines[n - 1] for n in keys)


def test_the_schema_has_every_field_with_its_type_and_limits() -> None:
    schema = json_schema()
    known = {
        info.name
        for cls in (TrainingConfig, ModelConfig, PyTorchExecutionConfig)
        for info in describe_fields(cls)
    }
    assert set(schema["properties"]) == known | {"model", "execution"}
    side = schema["properties"]["model"]["properties"]["N"]
    assert side["type"] == "integer" and side["minimum"] == 32 and side["multipleOf"] == 2
    assert schema["properties"]["backend"]["enum"][:2] == ["pytorch", "tensorflow"]


def test_the_schema_takes_the_template_and_refuses_a_wrong_value() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    values = yaml.safe_load(template(FACTS))
    jsonschema.validate(values, json_schema())
    for wrong in ({"nepochs": "many"}, {"model": {"N": 33}}, {"epochs": 3}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, json_schema())


def test_the_command_writes_the_file_for_a_scan(make_scan, tmp_path: Path, capsys) -> None:
    make_scan().to_file(tmp_path / "scan.npz")
    out = tmp_path / "settings.yaml"
    assert main(["init", str(tmp_path / "scan.npz"), "-o", str(out)]) == 0
    assert load_yaml_config(out)["model"]["N"] == 32
    assert main(["init", str(tmp_path / "scan.npz"), "-o", str(out)]) == 2
    assert "exists; choose another name" in capsys.readouterr().err
    assert main(["init", "--schema", "-o", str(tmp_path / "schema.json")]) == 0
    assert json.loads((tmp_path / "schema.json").read_text()) == json_schema()
