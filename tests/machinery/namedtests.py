"""Tests that pages and tables name, as `tests/FILE::NAME`: whether they are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_NAMED: Final = re.compile(r"`(tests/[a-z0-9_/]+\.py::[^`]+)`")


def named_in(text: str) -> list[str]:
    """Return the tests that a text of a page names, in its order."""
    return _NAMED.findall(text)


def exists(test: str) -> bool:
    """Say whether there is a test of this name."""
    file, _, name = test.partition("::")
    return (_ROOT / file).is_file() and name in names_in(_ROOT / file)


@cache
def names_in(file: Path) -> frozenset[str]:
    """Return the names of the tests in a file; one in a class is `CLASS::NAME`."""
    return frozenset(_names_in(ast.parse(file.read_text(encoding="utf-8"))))


def _names_in(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}::{name}" for name in _names_in(node))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name
