"""Every study that the documents show is one that `pellucid run` takes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pellucid.study.config import parse_config

DOCS = Path(__file__).parent.parent / "docs"
STUDIES = [
    (path.name, number, text)
    for path in sorted(DOCS.glob("*.md"))
    for number, text in enumerate(re.findall(r"```toml\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL))
]


@pytest.mark.parametrize(("page", "number", "text"), STUDIES, ids=lambda value: str(value)[:12])
def test_the_study_is_valid(page: str, number: int, text: str) -> None:
    config = parse_config(tomllib.loads(text), base=Path("/x"), where=f"{page}, example {number + 1}")
    assert config.datasets
    assert config.models


def test_there_are_studies() -> None:
    assert len(STUDIES) >= 4
