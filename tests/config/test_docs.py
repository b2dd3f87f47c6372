"""The docs name every key of the configuration, and what they show works."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import typing
from pathlib import Path

import pytest

from dovetail import settings
from dovetail.config import decode_config

TEXT = (Path(__file__).parents[2] / "docs" / "config.md").read_text(encoding="utf-8")
SECTIONS = {
    "## Top level": settings.RunConfig,
    "## `[model]`": settings.ModelConfig,
    "## `[data]`": settings.DataConfig,
    "## `[train]`": settings.TrainConfig,
    "## `[evaluation]`": settings.EvaluationConfig,
    "## `[[space.precision]]`": settings.PrecisionRule,
    "## `[[space.width]]`": settings.WidthRule,
    "## `[search]`": settings.SearchConfig,
    "## `[search.metrics]`": settings.MetricConfig,
}


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_is_documented_with_its_default(heading: str) -> None:
    kind = SECTIONS[heading]
    section = TEXT.split(f"{heading}", 1)[1].split("\n## ", 1)[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", section, re.M))
    hints = typing.get_type_hints(kind)
    fields = [f for f in dataclasses.fields(kind) if f.metadata.get("toml", True)]
    keys = {f.name: f.default for f in fields if not dataclasses.is_dataclass(hints[f.name])}
    assert set(rows) == set(keys)
    for key, default in keys.items():
        if isinstance(default, bool | int | float) or (isinstance(default, str) and default):
            assert rows[key].strip("`").strip('"') == str(default).lower()
        elif default is None:
            assert rows[key] == "absent"


def test_the_example_file_decodes() -> None:
    example = TEXT.split("```toml\n", 1)[1].split("```", 1)[0]
    assert decode_config(tomllib.loads(example)).search.limits[0].value == 4096


def test_the_python_example_runs() -> None:
    example = TEXT.split("```python\n", 1)[1].split("```", 1)[0]
    exec(compile(example, "docs/config.md", "exec"), {})
