"""What people have begun to connect: each step is known by the digest of a secret that only their browser has."""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from pdp.broker.sealing.aead import decrypted, encrypted
from pdp.broker.words import OTHERS_USED
from pdp.foundation.database import Database
from pdp.foundation.jsontext import canonical

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS flows (
  digest BLOB PRIMARY KEY,
  step TEXT NOT NULL,
  person TEXT NOT NULL,
  client TEXT NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
  sealed BLOB NOT NULL,
  until REAL NOT NULL
) STRICT, WITHOUT ROWID;
"""
_KEY, _NAME = b"pdp-broker/flow/v1/key\n", b"pdp-broker/flow/v1/name\n"
# What people have gone away for, and what has come back and is to be finished.
AWAY, BACK = "away", "back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One step of a person's way: who began it, with which client, and what it needs next, which is secret."""

    person: str
    client: str
    until: float
    held: Mapping[str, str] = field(repr=False)


class Flows:
    """The steps that are open, in the file of the store. Safe for threads and for several processes.

    The store has a digest of each step's secret, and what the step needs sealed under a key made of that secret. So
    whoever has the store alone can neither take a step nor read what it holds.
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA, name="broker's store", danger=OTHERS_USED)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def open(self, step: str, flow: Flow, *, now_at: float) -> str:
        """Open a step, and return its secret of 256 bits. A former one of the same person and client is over."""
        secret = urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode()
        text = encrypted(_key(secret), json.dumps(dict(flow.held)).encode(), _place(step, flow.person, flow.client))
        row = (_digest(secret), step, flow.person, flow.client, text, flow.until)
        with self._database.writing() as connection:
            connection.execute(
                "DELETE FROM flows WHERE until <= ? OR (person = ? AND client = ?)", (now_at, flow.person, flow.client)
            )
            connection.execute("INSERT INTO flows VALUES (?, ?, ?, ?, ?, ?)", row)
        return secret

    def take(self, step: str, secret: str, *, now_at: float) -> Flow | None:
        """Return a step of this secret, which is over with that; None for one that is not open, or not for long."""
        where = "digest = ? AND step = ? RETURNING person, client, sealed, until"
        with self._database.writing() as connection:
            row = connection.execute(f"DELETE FROM flows WHERE {where}", (_digest(secret), step)).fetchone()  # noqa: S608 - names of columns alone
        if row is None or row[3] <= now_at:
            return None
        person, client, text, until = row
        held = json.loads(decrypted(_key(secret), text, _place(step, person, client)))
        return Flow(person=person, client=client, until=until, held=held)


def _key(secret: str) -> bytes:
    return sha256(_KEY + secret.encode()).digest()


def _digest(secret: str) -> bytes:
    return sha256(_NAME + secret.encode()).digest()


def _place(step: str, person: str, client: str) -> bytes:
    return canonical(["pdp-broker/flow/v1", step, person, client])
