"""What comes of an RPC in each state of the session that it is about."""

from __future__ import annotations

LIVE = ("active", "in_its_last_second")
OVER = ("at_its_end", "one_second_over", "waited_too_long", "denied", "ended", "revoked")
ALL_STATES = ("requested", *LIVE, *OVER, "unknown", "of_another_tenant", "of_another_gateway")


def in_states(*, live: str, over: str, **more: str) -> dict[str, str]:
    """Return a row: what an active session gets, what one gets that is over, and each further state by name."""
    return dict.fromkeys(LIVE, live) | dict.fromkeys(OVER, over) | more


# A call is answered whatever the state is: its handle is all that counts, whoever of the tenant holds it.
CALLED = in_states(
    live="permit",
    over="session_expired",
    requested="session_not_approved",
    denied="session_not_approved",
    ended="session_ended",
    revoked="session_revoked",
    unknown="session_not_found",
    of_another_tenant="session_not_found",
    of_another_gateway="permit",
)
DECIDED = in_states(
    live="FAILED_PRECONDITION",
    over="FAILED_PRECONDITION",
    requested="OK",
    unknown="NOT_FOUND",
    of_another_tenant="NOT_FOUND",
    of_another_gateway="FAILED_PRECONDITION",
)
SEEN = in_states(
    live="active",
    over="expired",
    requested="requested",
    denied="denied",
    ended="ended",
    revoked="revoked",
    unknown="NOT_FOUND",
    of_another_tenant="NOT_FOUND",
    of_another_gateway="NOT_FOUND",
)
ANYHOW = dict.fromkeys(ALL_STATES, "OK")
