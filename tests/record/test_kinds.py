"""Every kind of event is told by some module, and explained to who reads the record."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pdp
from pdp import observer
from pdp.observer import EventKind

PACKAGE = Path(pdp.__file__).parent
# What the record says beside events.
OTHERS = {"decision", "segment.opened", "checkpoint", "record.gap"}


def explained() -> Iterator[str]:
    """Yield each kind of the page's first table; `.denied` behind `session.requested` is `session.denied`."""
    page = (PACKAGE / "record" / "README.md").read_text(encoding="utf-8")
    rows = page.partition("| `kind` |")[2].partition("\n\n")[0].splitlines()[2:]
    for row in rows:
        before = ""
        for name in re.findall("`([^`]+)`", row.split("|")[1]):
            yield before + name if name.startswith(".") else name
            before = before or name.partition(".")[0]


def test_every_kind_is_explained() -> None:
    """Once, beside what the record itself says."""
    assert sorted({*EventKind} | OTHERS) == sorted(explained())


def test_every_kind_is_told() -> None:
    """A kind that no module names is one that nobody is told of."""
    modules = [path for path in PACKAGE.rglob("*.py") if path != Path(observer.__file__)]
    named = {name for path in modules for name in re.findall(r"EventKind\.(\w+)", path.read_text(encoding="utf-8"))}

    assert {kind.name for kind in EventKind} == named
