"""Configurations from and to YAML. A flag overrides the file, the file overrides the default; unknown keys
fail.

Keys stand at the top level, or in the sections `model:` and `execution:`. `scheduler` and `gradient_clip_val`
exist for training and for execution; at the top level they belong to training.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import stat
from collections.abc import Hashable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ptycho.config.fields import FieldInfo, Unfit, coerce, describe_fields, shown
from ptycho.config.settings import InferenceConfig, ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError, MissingFileError, RunError

log = logging.getLogger(__name__)

Run = TrainingConfig | InferenceConfig
# A file that begins so must end with its mark: a part of a configuration is another configuration.
_BEGIN = "# written by ptychopinn; the last line is its end mark"
_END = "# end, sha256 "
SECTIONS: dict[str, type] = {"model": ModelConfig, "execution": PyTorchExecutionConfig}


def load_yaml_config(path: Path | str, *, unchanged: bool = True) -> dict[str, Any]:
    """The mapping in a YAML file, as written.

    A file of `dump_yaml` must have its end mark. Where its lines are others than those that were written, it
    is refused, or, not `unchanged`, a warning is logged. A file without its first line is a user's own and
    has no mark. Raises MissingFileError, or ConfigError (with the
    line): no file, not YAML, no mapping, empty, cut short, a key twice.
    """
    path = Path(path)
    text = _text_of(path)
    _check_end(text, path, unchanged)
    try:
        values = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path}{_where(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply; a configuration has two levels") from error
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    if values is None:
        raise ConfigError(f"{path}: the file is empty; write 'key: value' lines or drop it")
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold 'key: value' lines, found a {type(values).__name__}")
    return values


def _text_of(path: Path) -> str:
    """What an ordinary file holds; every reason against it in one line."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ConfigError(f"{path}: is a folder; give a YAML file")
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{path}: is a pipe or a device, not a file; give a YAML file")
        return path.read_text(encoding="utf-8")
    except ConfigError:
        raise
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file; give a YAML configuration") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    except ValueError:
        raise ConfigError(f"{str(path)!r}: no such name can be; check the path") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def training_config_from(
    values: Mapping[str, Any] | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    source: Path | str = "configuration",
) -> tuple[TrainingConfig, PyTorchExecutionConfig]:
    """A training and an execution configuration from a YAML mapping and overrides, which win.

    A key that is there with None sets None; leave keys out to keep the file's value or the default.
    `source` is named in errors.  Raises ConfigError: unknown key, wrong type, out of bounds.
    """
    config = TrainingConfig()
    return config, _fill(config, values or {}, overrides or {}, str(source))


def inference_config_from(
    values: Mapping[str, Any] | None,
    overrides: Mapping[str, Any] | None = None,
    *,
    source: Path | str = "configuration",
) -> tuple[InferenceConfig, PyTorchExecutionConfig]:
    """An inference and an execution configuration; as `training_config_from`."""
    config = InferenceConfig()
    return config, _fill(config, values or {}, overrides or {}, str(source))


def dump_yaml(config: Run, execution: PyTorchExecutionConfig, path: Path | str) -> None:
    """Write every field of a run to a file that starts the same run again; an old file stays until then."""
    lines = _lines(config, "")
    lines += ["model:", *_lines(config.model, "  "), "execution:", *_lines(execution, "  ")]
    write_sealed(path, lines)


def write_sealed(path: Path | str, lines: Sequence[str]) -> None:
    """Write the lines of a configuration with the end mark that `load_yaml_config` checks; an old file stays
    until then. Raises RunError."""
    body = "\n".join([_BEGIN, *lines]) + "\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(f"{body}{_END}{_digest(body)}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"cannot write {path}: {reason}; free some space, or choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def written_here(path: Path | str) -> bool:
    """Whether a file is one that `dump_yaml` wrote, so that it may be written anew."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip("\n") == _BEGIN
    except OSError:
        return False


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def _check_end(text: str, path: Path, unchanged: bool) -> None:
    if not text.startswith(_BEGIN):
        return
    body, mark, digest = text.rpartition(_END)
    if not mark or not text.endswith("\n"):
        raise ConfigError(
            f"{path}: is cut short: its end mark is missing; copy it again, or delete its first line if this "
            "is what you mean"
        )
    if digest.strip() == _digest(body):
        return
    if unchanged:
        raise ConfigError(
            f"{path}: was changed since it was written; put it back, or, where you mean the change, delete "
            "its first and last line: then it is a file of your own"
        )
    log.warning("%s was changed since it was written", path)


def _fill(
    config: Run, values: Mapping[str, Any], overrides: Mapping[str, Any], source: str
) -> PyTorchExecutionConfig:
    run = _assigned(type(config), values, source)
    over = _assigned(type(config), overrides, "override")
    for name, value in over["run"].items():
        if name not in over["execution"] and value is not None:
            run["execution"].pop(name, None)
    for part in run:
        run[part].update(over[part])
    for name, value in run["run"].items():
        setattr(config, name, value)
    for name, value in run["model"].items():
        setattr(config.model, name, value)
    try:
        return PyTorchExecutionConfig(**run["execution"])
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _assigned(cls: type, values: Mapping[str, Any], source: str) -> dict[str, dict[str, Any]]:
    """The values by part (run, model, execution), each checked against its field."""
    known = {"run": cls, **SECTIONS}
    fields = {part: {i.name: i for i in describe_fields(kind)} for part, kind in known.items()}
    found: dict[str, dict[str, Any]] = {part: {} for part in known}
    for key, value in values.items():
        if key in SECTIONS:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: {key} = {shown(value)}: must be a mapping of {key} keys")
            for name, inner in value.items():
                if name not in fields[key]:
                    raise _unknown(f"{key}.{name}", str(name), fields[key], source)
                found[key][name] = _fitting(known[key], fields[key][name], inner, source)
            continue
        part = next((part for part in known if key in fields[part]), None)
        if part is None:
            raise _unknown(str(key), str(key), [n for names in fields.values() for n in names], source)
        section = values.get(part)
        if isinstance(section, Mapping) and key in section:
            raise ConfigError(f"{source}: {key!r} is given twice: at the top and in {part!r}; keep one")
        found[part][key] = _fitting(known[part], fields[part][key], value, source)
    return found


def _fitting(cls: type, info: FieldInfo, value: Any, source: str) -> Any:
    try:
        return coerce(info, value, from_text=True)
    except Unfit as unfit:
        hint = "; write null" if info.optional and value in ("None", "none") else ""
        raise ConfigError(f"{source}: {cls.__name__}.{info.name} = {shown(value)}: {unfit}{hint}") from unfit


def _unknown(shown: str, name: str, known: Any, source: str) -> ConfigError:
    near = get_close_matches(name, list(known), n=1, cutoff=0.0)
    return ConfigError(f"{source}: unknown key {shown!r}; nearest known: {near[0]!r}")


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    problem = " ".join((error.problem or error.context or "not YAML").split())
    if "'\\t'" in problem:
        problem = "tabs cannot indent YAML: use spaces"
    return f", line {mark.line + 1}: {problem}" if mark else f": {problem}"


def _lines(config: Any, indent: str) -> list[str]:
    lines = []
    for info in describe_fields(type(config)):
        value = _fitting(type(config), info, getattr(config, info.name), "configuration to write")
        value = str(value) if isinstance(value, Path) else value
        text = yaml.safe_dump({info.name: value}, allow_unicode=False, width=2**31).rstrip("\n")
        if isinstance(value, list):
            flow = yaml.safe_dump(value, allow_unicode=False, width=2**31, default_flow_style=True)
            text = f"{info.name}: {flow.rstrip()}"
        lines.append(
            f"{indent}{text}  # {info.help}" if "\n" not in text else _double_quoted(info.name, value, indent)
        )
    return lines


def _double_quoted(name: str, value: Any, indent: str) -> str:
    """A text with line breaks on one line, with its line breaks escaped."""
    text = yaml.safe_dump(value, default_style='"', allow_unicode=False, width=2**31).rstrip("\n")
    return f"{indent}{name}: {text}"


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain word", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)
