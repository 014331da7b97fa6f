"""The page of what is kept of people: its settings and its tables are those that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pdp.config.reading import describe

_ROOT: Final = Path(__file__).parents[2]
_PAGE: Final = (_ROOT / "pdp" / "RETENTION.md").read_text(encoding="utf-8")


def test_the_settings_have_their_defaults() -> None:
    """Each setting of the page exists, with the default that it states."""
    stated = re.findall(r"^\| `([a-z_.]+)` \| (?:`([^`]*)`)? \| ", _PAGE, re.MULTILINE)
    defaults = {row.name: row.default for row in describe()}

    assert stated
    assert [(name, defaults.get(name)) for name, _ in stated] == stated


def test_no_table_is_left_out() -> None:
    """Whoever adds a table to a file of SQLite says what it has of people; a table that is gone goes from the page."""
    code = "".join(file.read_text(encoding="utf-8") for file in (_ROOT / "pdp").rglob("*.py"))
    made = set(re.findall(r"CREATE TABLE (?:IF NOT EXISTS )?([a-z_]+)", code))
    rows = re.findall(r"^\| [^|:]+: ((?:`[a-z_]+` ?)+) \| ", _PAGE, re.MULTILINE)

    assert made == {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
