"""What a result holds, as the client reads it and as the independent oracle does: for results of any shape the same."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from pdp.client.reading import read_result
from pdp.client.values import ResultReading
from pdp.foundation.names import KINDS, Name
from pdp.foundation.valuedigests import value_digest
from tests.machinery.nearmisses import TEXTS, near_misses
from tests.machinery.oracle.held import read
from tests.machinery.oracle.outside import form_of
from tests.machinery.seeds import seeded

KEY = b"k" * 32
PIECES = (*TEXTS, *near_misses(), "DE89 3704 0044 0532 0130 00", "ab", "", "7", "2024-05-15", "general")
FRAMES = (
    "{}",
    "{}",
    "see {}.",
    "- {}",
    "2) {}",
    "name: {}",
    "* owner: '{}'",
    "<{}>",
    "({}),",
    "[x]({})",
    "{} {}",
    "a{}",
)
ISSUES = ((), ("id",), ("[].id",), ("files[].id", "id"))
ROUNDS = 200


def text(random: Random) -> str:
    """Return a text of a few lines."""
    return "\n".join(
        random.choice(FRAMES).format(random.choice(PIECES), random.choice(PIECES)) for _ in range(random.randint(1, 4))
    )


def value(random: Random, depth: int = 0) -> Any:
    """Return a value of any shape."""
    match random.randrange(6 if depth < 3 else 3):
        case 0:
            return random.choice(PIECES)
        case 1:
            return text(random)
        case 2:
            return random.choice((None, True, 7, 2.5, -3))
        case 3:
            return [value(random, depth + 1) for _ in range(random.randint(0, 3))]
        case _:
            names = random.sample(("id", "name", "files", "result"), random.randint(1, 3))
            return {name: value(random, depth + 1) for name in names}


def test_both_read_the_same() -> None:
    """Of each value, of those that look like it, and for each kind that is compared."""
    random = seeded()
    known = {form for piece in PIECES for kind in ("", *KINDS) if (form := form_of(piece, kind))}
    digests = {form: value_digest(KEY, Name(*form)) for form in known}
    for _ in range(ROUNDS):
        result, asked = value(random), {"query": random.choice((text(random), "x", 7, [text(random)]))}
        trusted, issues, kinds = random.random() < 0.6, random.choice(ISSUES), tuple(random.sample(list(KINDS), 2))
        if isinstance(result, dict | list) and random.random() < 0.2:
            result = json.dumps(result)
        told = ResultReading(
            key=KEY, trusted=trusted, issues=issues, kinds=kinds, arguments_json=json.dumps(asked).encode()
        )
        held = read_result(told, result)
        anew = read({}, result, trusted=trusted, issues=issues, kinds=sorted(kinds), asked=asked)
        of_others = "clean" if trusted else "tainted"
        classes = {**dict.fromkeys(held.others, of_others), **dict.fromkeys(held.issued, "issued")}

        digests |= {form: value_digest(KEY, Name(*form)) for form in anew.keys() - digests.keys()}
        seen = {form: classes.get(digest) for form, digest in digests.items()}
        assert {form: anew.get(form) for form in digests} == seen, (result, asked, told)
