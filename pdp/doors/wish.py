"""What a door requests a session for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A session to request; `Client.request_session` explains the fields."""

    user: str
    agent: str
    purpose: str
    tools: tuple[str, ...]
    duration: float | None = None
    environment: str = ""
    terms: Mapping[str, Any] | bytes | None = None
    labels: tuple[str, ...] = ()
