"""Read from the record of a broker which calls used which secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdp.errors import NotFoundError
from pdp.observer import EventKind
from pdp.record.fields import facts_of, number_of, text_of
from pdp.record.reader import read_records

_USES = (EventKind.CALL_TOKEN_USED, EventKind.CONNECTION_USED)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretUse:
    """One use of a secret. `time` is that of the record; `version` is that of the secret.

    A use that calls no tool, such as `initialize`, has no token, decision, session, user and agent, and `action` is the
    name of the tool server.
    """

    time: str
    token_id: str
    decision_id: str
    session_id: str
    user: str
    agent: str
    tenant: str
    action: str
    connection: str
    version: int
    mode: str
    upstream: str
    presenter: str


def use_of(record: Mapping[str, Any]) -> SecretUse | None:
    """Return the use that a record is about; None for any other record."""
    if record.get("kind") not in _USES:
        return None
    facts = facts_of(record)
    return SecretUse(
        time=text_of(record, "time"),
        token_id=text_of(facts, "token_id"),
        decision_id=text_of(facts, "decision_id"),
        session_id=text_of(record, "session_id"),
        user=text_of(record, "user"),
        agent=text_of(record, "agent"),
        tenant=text_of(record, "tenant"),
        action=text_of(facts, "action") or text_of(facts, "server"),
        connection=text_of(facts, "connection"),
        version=number_of(facts, "version"),
        mode=text_of(facts, "mode"),
        upstream=text_of(facts, "upstream"),
        presenter=text_of(facts, "presenter"),
    )


def read_uses(folder: Path) -> Iterator[SecretUse]:
    """Yield all uses in a folder, by time. Raise `OSError` when it cannot be read."""
    return (use for located in read_records(folder) if (use := use_of(located.record)) is not None)


def sessions_that_used(
    folder: Path, connection: str, version: int = 0, *, since: str = "", until: str = ""
) -> tuple[str, ...]:
    """Return the sessions whose calls used the secret of a connection, or one version of it, in order of first use.

    A version of 0 stands for all, and an empty time for no bound. Raise `NotFoundError` when the record never names the
    connection or the version, and `OSError` when it cannot be read.
    """
    known, sessions = False, dict[str, None]()
    for located in read_records(folder):
        if not names_secret(located.record, connection, version):
            continue
        known = True
        use = use_of(located.record)
        if use is not None and use.session_id and since <= use.time and (not until or use.time < until):
            sessions[use.session_id] = None
    if not known:
        raise never_named(folder, connection, version)
    return tuple(sessions)


def names_secret(record: Mapping[str, Any], connection: str, version: int) -> bool:
    """Say whether a record is about the secret of a connection, in one version or with 0 in any."""
    facts = facts_of(record)
    return text_of(facts, "connection") == connection and version in (0, number_of(facts, "version"))


def never_named(folder: Path, connection: str, version: int) -> NotFoundError:
    """Return the error of a record that is about the secret of a connection, or about one version of it, nowhere."""
    what = f"version {version} of `{connection}`" if version else f"the connection `{connection}`"
    return NotFoundError(f"the record in `{folder}` never names {what}")
