"""Policies written from their trees are read back as the same trees."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from pdp.foundation.threads import on_large_stack
from pdp.policy.rendering import expression_text, policy_text

# What real policies seldom hold.
AWKWARD = [
    "context.a - (context.b - 1) == -5 * -context.c",
    "!(!(context.a && (context.b && context.c)))",
    "(if context.a then context.b else context.c) && (if true then false else true)",
    'context["a b"]["if"].c == {"if": 1, d: [1, 2], "e\\"": {}}["if"]',
    'context.a like "*\\*a\\"*" && context has "a b" && context has a.b.c',
    'context.a is Foo::Bar in Server::"a\\u{1f600}\\n" || principal in [A::"x", B::"y"]',
    'ip("::1").isInRange(context.net) && decimal("1.5").lessThan(context.amount)',
    'context.now.offset(duration("-1h")).toDate() < datetime("2026-01-01")',
    'principal.hasTag("x") && principal.getTag("x").containsAny([1]) && ![].isEmpty()',
    "9223372036854775807 == -9223372036854775808",
    "(context.a < 1) == (context.b > 2)",
]


def trees(text: str) -> list[Any]:
    """Return policies as Cedar's JSON; none for what is no policy."""
    try:
        return list(json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values())
    except ValueError:
        return []


def real_texts(data: Path) -> Iterator[str]:
    """Yield policy files that others wrote, and those of Cedar's fuzzing corpus."""
    for path in sorted(data.rglob("*.cedar")):
        yield path.read_text(encoding="utf-8")
    with tarfile.open(next(data.rglob("corpus-tests.tar.gz"))) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name.endswith(".cedar") else None
            if content is not None:
                yield content.read().decode("utf-8")


@pytest.mark.parametrize("condition", AWKWARD)
def test_awkward_expressions(condition: str) -> None:
    """Brackets stand where the tree needs them, and names and texts are quoted where they must be."""
    (tree,) = trees(f'@id("a") permit (principal, action, resource) when {{ {condition} }};')

    assert [tree] == trees(policy_text(tree))


@pytest.mark.parametrize("each", [5, pytest.param(1, marks=pytest.mark.long)])
def test_real_policies(test_data: Path, each: int) -> None:
    """The policies of the test material, some 8,000, are read back as they were; of each fifth file, or of all."""

    def differing() -> tuple[int, list[str]]:
        found = [tree for text in islice(real_texts(test_data), 0, None, each) for tree in trees(text)]
        return len(found), [policy_text(tree) for tree in found if trees(policy_text(tree)) != [tree]]

    count, wrong = on_large_stack(differing)

    assert wrong == []
    assert count > 7000 / each


def test_chains_have_no_brackets() -> None:
    """A chain stays as flat as its author wrote it: each bracket would be a level of depth."""
    chain = " && ".join(f"context.a{n}" for n in range(150))
    (tree,) = trees(f"permit (principal, action, resource) when {{ {chain} }};")

    assert chain == expression_text(tree["conditions"][0]["body"])
