"""One use of a secret as it is observed: in the trace of whoever asks, and how long the upstream takes."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from pdp.broker.admitting import Presented
from pdp.broker.sending import UpstreamFailedError
from pdp.broker.shares import OfTenant
from pdp.broker.using import Asked
from pdp.calltokens.claims import CallClaims
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.errors import UnavailableError
from pdp.model import TraceParent
from pdp.observer import CallOutcome, DoorCall, DoorObserver

_OPERATION: Final = "use_secret"
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACE_ID, _SPAN_ID = slice(3, 35), slice(36, 52)


class Observed:
    """One use, from its arrival to the end of its answer. Without an observer nothing is noted.

    `trace` is the caller's `traceparent` and `tracestate`, or empty texts. `of_tenant` counts it as one of its tenant.
    """

    def __init__(
        self, observer: DoorObserver | None, asked: Presented, trace: Mapping[str, str], of_tenant: OfTenant
    ) -> None:
        self._observer, self._of_tenant = observer, of_tenant
        self._asked = asked
        given = trace["traceparent"]
        known = _TRACEPARENT.fullmatch(given) is not None
        self._parent = TraceParent(traceparent=given, tracestate=trace["tracestate"]) if known else TraceParent()
        self._below = self._parent
        self._claims: CallClaims | None = None
        self._upstream_at: float | None = None

    def __enter__(self) -> Self:
        self._wall, self._began = time.time(), time.perf_counter()
        if self._observer is not None:
            self._below = self._observer.began(self._parent)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        if self._observer is None:
            return
        now, claims = time.perf_counter(), self._claims
        traced = self._below.traceparent if self._below != self._parent else ""
        self._observer.over(
            DoorCall(
                operation=_OPERATION,
                outcome=_outcome_of(error),
                began_at=self._wall,
                seconds=now - self._began,
                upstream_seconds=None if self._upstream_at is None else now - self._upstream_at,
                error="" if error is None or isinstance(error, CallTokenRefusedError) else "no_answer",
                server=self._asked.server,
                tool=claims.tool if claims else "",
                session_id=claims.session_id if claims else "",
                user=claims.user if claims else "",
                agent=claims.agent if claims else "",
                decision_id=claims.decision_id if claims else "",
                bundle_version=claims.bundle_version if claims else "",
                trace_id=traced[_TRACE_ID],
                span_id=traced[_SPAN_ID],
                parent=self._parent,
            )
        )

    def verified(self, claims: CallClaims) -> None:
        """Note whose call it is: the request to the upstream is next. Raise `OverloadedError`."""
        self._claims = claims
        self._of_tenant(claims.tenant)
        self._upstream_at = time.perf_counter()

    def placed(self, asked: Asked) -> Asked:
        """Return what is asked, with the upstream's span below this one."""
        if self._below == self._parent:
            return asked
        trace = {"traceparent": self._below.traceparent, "tracestate": self._below.tracestate}
        headers = {**asked.request.headers, **{name: value for name, value in trace.items() if value}}
        return replace(asked, request=replace(asked.request, headers=headers))


def _outcome_of(error: BaseException | None) -> CallOutcome:
    if error is None or isinstance(error, UpstreamFailedError):
        return CallOutcome.ALLOW
    away = isinstance(error, UnavailableError) or (
        isinstance(error, CallTokenRefusedError) and error.reason is Reason.UNAVAILABLE
    )
    return CallOutcome.UNDECIDED if away else CallOutcome.DENY
