"""The decision log of a deployment, opened as its settings say."""

from __future__ import annotations

from collections.abc import Callable

from pdp.clock import Clock
from pdp.config.settings import Settings
from pdp.errors import ConfigurationError, reason_of
from pdp.foundation.ownership import require_own
from pdp.record import DecisionLog, Rotation, SigningKey
from pdp.record.segments import Head
from pdp.sessions.notedheads import NotedHeads


def record_key(settings: Settings) -> bytes:
    """Return the deployment's key for digests in logs and traces. Raise `ConfigurationError` when missing."""
    path = settings.record_digest_key
    try:
        require_own(path, "anyone could choose the key of digests")
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError(f"there is no `{path}`; run `pdp init`") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read `{path}`: {reason_of(error)}") from None


def open_record(
    settings: Settings,
    *,
    key: bytes,
    clock: Clock,
    on_failure: Callable[[], None] | None = None,
    noted: NotedHeads | None = None,
) -> DecisionLog:
    """Open the decision log of a deployment; `noted` is what servers have noted in the database that they share.

    Raise `ConfigurationError` when it cannot be written.
    """
    return DecisionLog(
        settings.record_folder,
        key=key,
        signer=SigningKey.load(settings.record_signing_key),
        clock=clock,
        durability=settings.record.durability,
        rotation=Rotation(bytes=settings.record.segment_bytes, seconds=settings.record.segment_seconds),
        reserve_bytes=settings.record.reserve_bytes,
        checkpoint_seconds=settings.record.checkpoint_seconds,
        anchors=settings.record_anchors,
        elsewhere={one.chain: Head(one.seq, one.hash) for one in noted.heads} if noted else {},
        origin={"deployment": noted.deployment, "replica": settings.replica} if noted else {},
        attributes=frozenset(settings.record.attributes),
        terms=frozenset(settings.record.terms),
        on_failure=on_failure,
    )
