"""Send export requests by OTLP, with the protocol's rules for retries.

The SDK's exporters take only objects of the SDK, log every failure and cannot be interrupted; these take bytes.
"""

from __future__ import annotations

import time
from random import uniform
from threading import Event

from pdp.telemetry.attempt import Attempt
from pdp.telemetry.pipeline import Sent
from pdp.telemetry.settings import Endpoint

_ATTEMPTS = 6
_JITTER = (0.8, 1.2)


class RetryingSender:
    """Retries for up to `timeout` seconds, at growing intervals; the receiver can set its own."""

    def __init__(self, way: Attempt, timeout: float) -> None:
        self._way = way
        self._timeout = timeout
        self._hurried = Event()

    def send(self, request: bytes) -> Sent:
        """Send a request and return the result. Never raises."""
        end = time.monotonic() + self._timeout
        for number in range(_ATTEMPTS):
            answer = self._way.attempt(request, max(0.0, end - time.monotonic()))
            pause = 2**number * uniform(*_JITTER) if answer.pause is None else answer.pause  # noqa: S311 - no secret
            if not answer.transient or pause > end - time.monotonic() or self._hurried.wait(pause):
                break
        return Sent(answer.problem, answer.rejected)

    def hurry(self) -> None:
        """Try each request only once from now on."""
        self._hurried.set()

    def close(self) -> None:
        """Abort the request that is being sent, and send nothing more."""
        self._hurried.set()
        self._way.close()


def open_sender(endpoint: Endpoint) -> RetryingSender:
    """Return the sender for an endpoint.

    Raise `ConfigurationError` for certificates that cannot be read.
    """
    return RetryingSender(open_attempt(endpoint), endpoint.timeout)


def open_attempt(endpoint: Endpoint) -> Attempt:
    """Return the single attempt for an endpoint's protocol.

    Raise `ConfigurationError` for certificates that cannot be read.
    """
    # Imported where they are chosen: the embedded mode does without gRPC.
    if endpoint.protocol == "grpc":
        from pdp.telemetry.transport_grpc import GRPCAttempt  # noqa: PLC0415 - see above

        return GRPCAttempt(endpoint)
    from pdp.telemetry.transport_http import HTTPAttempt  # noqa: PLC0415 - see above

    return HTTPAttempt(endpoint)
