"""Carry out a plan: revoke its sessions one by one through the server, and say of each what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pdp.audit.values import PlannedSession
from pdp.cli.auditsource import Reach
from pdp.client import NotFoundError, PDPClientError
from pdp.model import Role

REVOKED = "revoked"
OVER = "over already"
UNKNOWN = "unknown to the server"
NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What came of each session: revoked, over already, unknown to the server, failed, or not tried after that."""

    by_session: dict[str, str]

    @property
    def complete(self) -> bool:
        """Say whether every session is revoked or was over."""
        return set(self.by_session.values()) <= {REVOKED, OVER}


def revoke_planned(planned: Sequence[PlannedSession], *, reason: str, reach: Reach) -> Outcomes:
    """Revoke every session of a plan; one that fell with the session above it counts as revoked.

    What the server revokes beyond the plan, because it was delegated since, is told too. When the server fails, the
    rest is not tried; the plan can be made and applied again.
    """
    found: dict[str, str] = {}
    with reach.client(Role.APPROVER) as client:
        for one in planned:
            if one.session_id in found:
                continue
            try:
                revoked = client.revoke_sessions(session_id=one.session_id, reason=reason)
            except NotFoundError:
                found[one.session_id] = UNKNOWN
            except PDPClientError as error:
                found[one.session_id] = f"failed: {error}"
                break
            else:
                found |= dict.fromkeys(revoked, REVOKED)
                found.setdefault(one.session_id, OVER)
    return Outcomes(by_session=dict.fromkeys((one.session_id for one in planned), NOT_TRIED) | found)
