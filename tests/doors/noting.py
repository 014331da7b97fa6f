"""An observer of a door that keeps what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pdp.observer import DoorCall, Refusal
from pdp.telemetry.doors import DoorTelemetry, span_of
from pdp.telemetry.limits import AttributeLimits
from pdp.telemetry.wire import Span
from pdp.testing.inprocess import RunningServer

# Where an agent is in a trace, its gateway in another, and what a header says that nobody has brought up to date.
AGENTS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
GATEWAYS = "00-1bf7651916cd43dd8448eb211c80319d-c7ad6b7169203332-00"
OLD = "00-2cf7651916cd43dd8448eb211c80319e-d7ad6b7169203333-01"

# The carriers of a trace from the innermost to the outermost, the one that is the parent, and the one that is linked.
CARRIED: Sequence[tuple[tuple[str, str, str], str, str]] = (
    ((AGENTS, GATEWAYS, OLD), AGENTS, GATEWAYS),
    (("", GATEWAYS, OLD), GATEWAYS, OLD),
    (("", "", OLD), OLD, ""),
    (("00-evil", "", AGENTS), AGENTS, ""),
    (("", "00-evil", ""), "", ""),
)


class Noted(DoorTelemetry):
    """Makes spans as a door does that sends them, and keeps the calls, and why messages were refused."""

    def __init__(self) -> None:
        self.calls: list[DoorCall] = []
        self.reasons: list[Refusal] = []
        super().__init__(spans=self.calls.append, metrics=None)

    def refused(self, why: Refusal) -> None:
        """Keep why a message is refused."""
        self.reasons.append(why)

    def anew(self) -> Self:
        """Forget all that was told, and return the observer."""
        self.calls.clear()
        self.reasons.clear()
        return self

    @property
    def spans(self) -> list[Span]:
        """Return the spans of all calls that are over."""
        return [span_of(call, AttributeLimits()) for call in self.calls]

    @property
    def shown(self) -> list[tuple[str, str, str]]:
        """Return of each call the name of its span, what became of it, and the word for what went wrong."""
        return [
            (span.name, str(span.attributes["pdp.door.outcome"]), str(span.attributes.get("error.type", "")))
            for span in self.spans
        ]

    def require_between(self, parent: str, linked: str, pdp: RunningServer) -> None:
        """Require that the last call is below the parent, and the last decision below the call."""
        span = self.spans[-1]
        decision = [one for one in pdp.evidence.spans if one.name == "pdp.authorize"][-1]
        above = f"00-{span.trace_id}-{span.parent_id}-{parent[-2:]}" if span.parent_id else ""
        assert parent == above
        assert [tuple(linked.split("-")[1:3])] * bool(linked) == list(span.links)
        assert (span.trace_id, span.span_id) == (decision.trace_id, decision.parent_id)

    def require_nothing_of(self, *secrets: str) -> None:
        """Require that no call holds a secret, nor what its span shows."""
        assert self.calls
        assert [] == [secret for secret in secrets if secret in f"{self.calls}{self.spans}"]
