"""Read the fields of records strictly: what is missing, or of another type, is empty."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NUMBER = re.compile("[0-9]{1,18}")


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Return the text of a field; empty where there is none."""
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def object_of(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the fields of an object; none where there is no object."""
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def facts_of(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the facts of a record."""
    return object_of(record, "facts")


def resource_of(record: Mapping[str, Any]) -> str:
    """Return the id of the resource that a call was mapped to, or the digest in its place; else empty."""
    return text_of(record, "resource_id") or text_of(record, "resource_digest")


def number_of(facts: Mapping[str, Any], name: str) -> int:
    """Return the number in a text among facts; 0 where there is none."""
    return whole_number(text_of(facts, name)) or 0


def whole_number(text: str) -> int | None:
    """Return the number that a text is; None for another text, also for a number that is no count and no time."""
    return int(text) if _NUMBER.fullmatch(text) else None
