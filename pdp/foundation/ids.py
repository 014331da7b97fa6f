"""Create ids and secrets, each in its form."""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
from base64 import b32encode
from collections.abc import Callable

_LENGTH = 26


def new_session_id() -> str:
    """Return a new public session id: `ses_` and 130 random bits."""
    return "ses_" + _base32(secrets.token_bytes(17))


def new_access_request_id() -> str:
    """Return a new id of an access request: `acc_` and 130 random bits."""
    return "acc_" + _base32(secrets.token_bytes(17))


def new_event_id() -> str:
    """Return a new id of an event that receivers outside are told: `evt_` and 130 random bits."""
    return "evt_" + _base32(secrets.token_bytes(17))


def new_message_id() -> str:
    """Return a new id of a message to one receiver: `msg_` and 130 random bits."""
    return "msg_" + _base32(secrets.token_bytes(17))


def new_freeze_id() -> str:
    """Return a new id of a freeze: `frz_` and 130 random bits."""
    return "frz_" + _base32(secrets.token_bytes(17))


def new_signal_id() -> str:
    """Return a new id of a signal that came from outside: `sig_` and 130 random bits."""
    return "sig_" + _base32(secrets.token_bytes(17))


def new_connection_id() -> str:
    """Return a new id of a connection that a person makes: `con_` and 130 random bits."""
    return "con_" + _base32(secrets.token_bytes(17))


def new_handle() -> str:
    """Return a new secret session handle: `pdps_` and 256 random bits."""
    return "pdps_" + secrets.token_urlsafe(32)


def handle_digest(handle: str) -> bytes:
    """Return the key under which a session is stored: the SHA-256 of its secret handle."""
    return hashlib.sha256(handle.encode("utf-8", "surrogatepass")).digest()


def decision_ids() -> Callable[[], str]:
    """Return a source of decision ids: `dec_`, 80 random bits of this source, and a count.

    Every decision needs one: encoding new random bytes each time would take a third of a remembered decision's time.
    """
    prefix, count = "dec_" + _base32(os.urandom(10)), itertools.count()
    return lambda: f"{prefix}{next(count):010x}"


def _base32(content: bytes) -> str:
    return b32encode(content)[:_LENGTH].decode("ascii").lower()
