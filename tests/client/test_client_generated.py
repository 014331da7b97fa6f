"""The client for threads is the one for asyncio, and only two modules know how either waits."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.generate import ROOT, TARGET, generated

CLIENT = ROOT / "pdp" / "client"
WAITING = frozenset({"asyncio", "threading", "queue"})


def test_the_client_for_threads_is_current() -> None:
    """`make client` gives the committed files, byte for byte."""
    kept = {path.name: path.read_text("utf-8") for path in TARGET.glob("*.py")}

    assert kept == generated()


def test_tasks_and_threads_offer_the_same() -> None:
    """What the one calls by a name, the other has by the same name."""
    tasks, threads = (
        set(_public(ast.parse((CLIENT / name).read_text("utf-8")))) for name in ("tasks.py", "threads.py")
    )

    assert threads == tasks
    assert "Exchange.ask" in tasks


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(CLIENT.rglob("*.py")) if path.name not in ("tasks.py", "threads.py")],
    ids=lambda path: str(path.relative_to(CLIENT)),
)
def test_nothing_else_waits(path: Path) -> None:
    """What both clients share, and what is generated, knows neither tasks nor threads nor queues."""
    nodes = list(ast.walk(_parsed(path)))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}

    assert imported & WAITING == set()


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _public(tree: ast.Module | ast.ClassDef, before: str = "") -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from _public(node, f"{node.name}.")
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield before + node.name
        if isinstance(node, ast.Assign):
            yield from (before + ast.unparse(target) for target in node.targets)
