"""Plan for a secret that leaked: the live sessions whose calls used it, by the record of a broker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from pdp.audit.values import PlannedSession, Selector, Window
from pdp.cli.audit.source import Source
from pdp.clock import utc_text
from pdp.record.secretuses import SecretTrail, trail_of

C = TypeVar("C", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaked:
    """A secret of a connection that leaked: one version of it, or with 0 all, and the record of the broker."""

    connection: str
    version: int
    record: Path

    def trail(self, window: Window) -> SecretTrail:
        """Return what was done with it in a time."""
        ends = {"since": window.since_at, "until": window.until_at}
        bounds = {name: utc_text(at) for name, at in ends.items() if at is not None}
        return trail_of(self.record, self.connection, self.version, **bounds)

    def plan(self, trail: SecretTrail, selector: Selector, source: Source) -> list[PlannedSession]:
        """Return the sessions that used it and that a selector matches, and all below them, if they are live, by id.

        The window of the selector was for the use: the decision may be on its other side.
        """
        found: dict[str, PlannedSession] = {}
        for session_id in trail.sessions:
            if selector.session in ("", session_id):
                for one in source.plan(replace(selector, session=session_id, window=Window())):
                    # It may be below another one, and have used the secret itself.
                    if one.matched or one.session_id not in found:
                        found[one.session_id] = one
        return [found[session_id] for session_id in sorted(found)]


def leak_options(function: C) -> Callable[..., Any]:
    """Offer the secret that leaked, and pass it as `leaked`; None without one."""

    @click.option(
        "--connection", "secret_of", metavar="NAME", help="Only sessions that used the secret of a broker's connection."
    )
    @click.option(
        "--secret-version", type=click.IntRange(min=1), metavar="N", help="Only those that used this version of it."
    )
    @click.option(
        "--broker",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIR",
        help="The record of the broker, for --connection.",
    )
    @wraps(function)
    def command(
        *args: Any,  # noqa: ANN401 - a command's own parameters
        secret_of: str | None,
        secret_version: int | None,
        broker: Path | None,
        **given: Any,  # noqa: ANN401 - the same
    ) -> Any:  # noqa: ANN401 - the same
        if (secret_of is None) != (broker is None):
            raise click.UsageError("--connection and --broker need each other")
        if secret_version is not None and secret_of is None:
            raise click.UsageError("--secret-version needs --connection")
        leaked = None
        if secret_of is not None and broker is not None:
            leaked = Leaked(connection=secret_of, version=secret_version or 0, record=broker)
        return function(*args, leaked=leaked, **given)

    return command
