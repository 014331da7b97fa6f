"""Read from the record of a broker which calls used which secret, and what of that cannot be taken back."""

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
# The mode in which the broker sends no request.
_HANDED_OUT = "checkout"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretTrail:
    """What was done with a secret: by which sessions, in order of first use, and how much of it has left.

    `requests` were sent with it, and `answer_bytes` of so many `answers` were handed on. `credentials` were handed out
    by it.
    """

    sessions: tuple[str, ...]
    requests: int
    answers: int
    answer_bytes: int
    credentials: int


def trail_of(folder: Path, connection: str, version: int = 0, *, since: str = "", until: str = "") -> SecretTrail:
    """Return what a record says was done with the secret of a connection, or one version of it, in a time.

    A version of 0 stands for all, and an empty time for no bound. Raise `NotFoundError` when the record never names the
    connection or the version, and `OSError` when it cannot be read.
    """
    known, sessions = False, dict[str, None]()
    requests = answers = size = credentials = 0
    for located in read_records(folder, naming=connection):
        record = located.record
        if not names_secret(record, connection, version):
            continue
        known = True
        time, kind = text_of(record, "time"), record.get("kind")
        if time < since or (until and time >= until):
            continue
        if (use := use_of(record)) is not None:
            sessions |= {use.session_id: None} if use.session_id else {}
            requests += use.mode != _HANDED_OUT
        elif kind == EventKind.CALL_TOKEN_ANSWERED:
            answers, size = answers + 1, size + number_of(facts_of(record), "bytes")
        elif kind == EventKind.CREDENTIAL_CHECKED_OUT:
            credentials += 1
    if not known:
        raise never_named(folder, connection, version)
    return SecretTrail(
        sessions=tuple(sessions), requests=requests, answers=answers, answer_bytes=size, credentials=credentials
    )


def names_secret(record: Mapping[str, Any], connection: str, version: int) -> bool:
    """Say whether a record is about the secret of a connection, in one version or with 0 in any."""
    facts = facts_of(record)
    return text_of(facts, "connection") == connection and version in (0, number_of(facts, "version"))


def never_named(folder: Path, connection: str, version: int) -> NotFoundError:
    """Return the error of a record that is about the secret of a connection, or about one version of it, nowhere."""
    what = f"version {version} of `{connection}`" if version else f"the connection `{connection}`"
    return NotFoundError(f"the record in `{folder}` never names {what}")
