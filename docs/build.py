"""Write the generated parts of the documentation: the tables of specs/configuration.md, from the fields."""

from __future__ import annotations

import re
from pathlib import Path

from ptycho.config import config
from ptycho.config.fields import field_table

PAGE = Path(__file__).resolve().parents[1] / "specs" / "configuration.md"
CLASSES = (config.ModelConfig, config.TrainingConfig, config.InferenceConfig, config.PyTorchExecutionConfig)


def with_tables(text: str) -> str:
    """The page with the table under each `### Class` heading replaced by that class's own."""
    for cls in CLASSES:
        table = re.compile(rf"(### {cls.__name__}\n(?:(?!###|\|).*\n)*)(?:\|.*\n)+")
        text, found = table.subn(lambda match, cls=cls: match.group(1) + field_table(cls), text)
        if found != 1:
            raise SystemExit(f"{PAGE}: expected one table under '### {cls.__name__}', found {found}")
    return text


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote the tables of {PAGE}")
