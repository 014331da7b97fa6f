"""The only links that the server gives: to the console, where a person answers what waits for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Links:
    """Links to the console at a URL; empty texts without one. A link holds an id and no secret: people log in there."""

    console_url: str = ""

    def to_session(self, session_id: str) -> str:
        """Return where a request for a session is answered."""
        return self._to("sessions", session_id)

    def to_access_request(self, request_id: str) -> str:
        """Return where a request about one call is answered."""
        return self._to("approvals", request_id)

    def to_freezes(self) -> str:
        """Return where freezes are seen and lifted."""
        return self._to("freeze")

    def _to(self, *parts: str) -> str:
        return "/".join((self.console_url.rstrip("/"), *parts)) if self.console_url else ""


NO_LINKS = Links()
