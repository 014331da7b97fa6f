"""The output of what a change has waited for until every server answers by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from pdp.client.fencing import Fence, fence_text


class Fenced:
    """Takes the fence of the one change that a command makes, and prints it."""

    def __init__(self) -> None:
        self._fence = Fence()

    def take(self, fence: Fence) -> None:
        """Take the fence."""
        self._fence = fence

    def plain(self) -> Mapping[str, Any]:
        """Return it as fields of a JSON object; `fence_duration` is in seconds, null without a fence."""
        fence = self._fence
        return {
            "fenced_by": fence.by,
            "fence_duration": fence.seconds if fence.by else None,
            "revision": fence.revision,
        }

    def tell(self) -> None:
        """Say on stderr what the change has waited for; nothing where no server answers from memory of its own."""
        if text := fence_text(self._fence):
            click.echo(text, err=True)
