"""The members of a JSON object as texts, exactly as they are written: no digit and no blank is lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_SPACE = " \t\r\n"


def member_texts(text: bytes) -> list[tuple[str, str]]:
    """Return the name of each member and its value as it is written.

    What is no JSON object is one value without a name.
    """
    try:
        return _members(text.decode("utf-8")) if text else []
    except (ValueError, RecursionError):
        return [("", text.decode("utf-8", "replace"))]


def _members(text: str) -> list[tuple[str, str]]:
    known: Mapping[str, Any] = json.loads(text)
    decoder, place = json.JSONDecoder(), text.index("{") + 1
    found: list[tuple[str, str]] = []
    while len(found) < len(known):
        place = _after(text, place, _SPACE + ",")
        name, place = decoder.raw_decode(text, place)
        start = _after(text, place, _SPACE + ":")
        _, place = decoder.raw_decode(text, start)
        found.append((str(name), text[start:place]))
    return found


def _after(text: str, place: int, skipped: str) -> int:
    while text[place] in skipped:
        place += 1
    return place
