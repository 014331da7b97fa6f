"""Why a call token is refused."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The first check that a call token, or the request for one, did not pass. The text is for programs."""

    MALFORMED = "malformed"  # no call token of this version, or a field that is not as it must be
    UNKNOWN_KEY = "unknown_key"  # signed by a key that is not published, or no longer
    SIGNATURE = "signature"  # not signed by the key that it names
    ISSUER = "issuer"  # of another deployment
    AUDIENCE = "audience"  # for another tool server
    TIME = "time"  # over, from the future, or from before what remembers used ones began
    PRESENTER = "presenter"  # bound to another certificate or key
    TOOL = "tool"  # for another tool
    ARGUMENTS = "arguments"  # for other arguments, or for some that have no canonical form
    USED = "used"  # used before
    REVOKED = "revoked"  # the session, its scope, the bundle or the key is no longer as it was
    UNAVAILABLE = "unavailable"  # what has to be asked does not answer: refused for now


class CallTokenRefusedError(Exception):
    """The call must not be made, by `reason`; the message is one line and holds no value of the token."""

    def __init__(self, reason: Reason, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason
