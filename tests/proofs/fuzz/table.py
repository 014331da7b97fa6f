"""The targets: what is given any bytes, and where their corpora and the inputs of old crashes lie."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
CORPUS = FOLDER / "corpus"
CRASHES = FOLDER / "crashes"
TARGETS = (
    *("json_text", "packed", "bundle", "request", "key", "settings", "record", "token", "tool_list", "mcp_message"),
    "authzen_question",
    "envoy_request",
    "call_token",
    "upstream",
    "token_answer",
    "http2",
)


# Changes an input: how long it may become, a seed, and what changes bytes of which nothing is known.
Mutate = Callable[[bytes, int, int, Callable[[bytes, int], bytes]], bytes]


class Target(NamedTuple):
    """One target: `run` takes any bytes and raises only when something is wrong; `words` are what its inputs hold.

    `mutate` changes inputs whose form bytes at random would break.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[str, ...]
    mutate: Mutate | None


def target(name: str) -> Target:
    """Import a target. What it tests is imported with it, and only then."""
    module = importlib.import_module(f"tests.proofs.fuzz.targets.{name}")
    mutate = getattr(module, "mutate", None)
    return Target(name=name, run=module.run, seeds=module.SEEDS, words=module.WORDS, mutate=mutate)


def corpus(name: str) -> list[Path]:
    """Return the inputs that are kept for a target."""
    return sorted((CORPUS / name).glob("*"))
