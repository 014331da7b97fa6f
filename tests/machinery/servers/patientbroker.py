"""Brokers in this process that wait long for their server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from tests.machinery.servers.running import PATIENCE


@contextmanager
def patient() -> Iterator[None]:
    """Let brokers that are made in the block wait long for their server: a late answer would be a refusal."""
    with patch("pdp.broker.serving._CHECK_SECONDS", PATIENCE), patch("pdp.broker.persons._SECONDS", PATIENCE):
        yield
