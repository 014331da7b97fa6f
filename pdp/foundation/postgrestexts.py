"""Say why PostgreSQL made no connection, in our words: its errors of a connection have no code, only a text."""

from __future__ import annotations

import re
from typing import Final

# What the library, and a server that speaks English, say; the first that matches counts.
_REASONS: Final = (
    (r"invalid .* value|invalid port number|parse network address", "a value in its connection string is not valid"),
    (r"definition of service|could not match \d|weak sslmode", "a value in its connection string is not valid"),
    (r"Connection refused", "nothing listens there"),
    (r"No such file or directory", "there is no such socket"),
    (r"failed to resolve host|could not translate host name", "its host is not known"),
    (r"look-up of its host takes too long", "its host is not found in time"),
    (r"timeout expired", "no answer in time"),
    (r"root certificate file", "`sslrootcert` names no file of certificates to trust"),
    (r"certificate verify failed|server certificate for", "its certificate is not trusted"),
    (r"server does not support SSL", "it does not speak TLS"),
    (r"no pg_hba\.conf entry", "its `pg_hba.conf` lets nobody in from here"),
    (r"password authentication failed|no password supplied", "it does not take the password"),
    (r"role \".*\" does not exist", "it has no such role"),
    (r"database \".*\" does not exist", "it has no such database"),
    (r"too many clients|too many connections|remaining connection slots", "it has no place for another connection"),
    (r"database system is (?:starting up|shutting down|not yet accepting)|in recovery mode", "it starts or stops"),
    (r"unsupported startup parameter", "a pooler is in between, which does not take what connections ask for"),
    (r"session is read-only|server is in hot standby", "it only reads"),
)


def why_not_connected(text: str) -> str:
    """Return the reason in the text of an error, without the names of hosts, users and databases that are in it.

    Empty when the text is none of those that are known, such as one in another language.
    """
    return next((words for pattern, words in _REASONS if re.search(pattern, text)), "")
