"""Send one request with one secret to the upstream of a connection, and hand on its answer without the secret."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from pdp.broker import headers
from pdp.broker.rules import ServerRules
from pdp.broker.scrubbing import Scrubber
from pdp.broker.templates import UpstreamRequest
from pdp.broker.upstream import Upstream
from pdp.foundation.egress import Egress, EgressError, Roots, TooLargeError, pieces_of

T = TypeVar("T")

# For one step, such as connecting, or waiting for the next bytes of a stream.
_STEP_SECONDS: Final = 30.0
_NOT_MODIFIED: Final = 304
_FINAL, _REDIRECTS = range(200, 600), range(300, 400)


class UpstreamFailedError(Exception):
    """There is no answer that is handed on. Whether the upstream did what was asked is unknown: do not try again.

    The message continues after the origin: `did not answer in time`.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of an upstream: status, headers, and its body in pieces as they come, all without the secret.

    Going through the pieces raises `UpstreamFailedError` when they stop early, or are too many.
    """

    status: int
    headers: list[tuple[str, str]]
    pieces: Iterator[bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Sends requests for one tool server, each over a connection of its own."""

    upstream: Upstream
    rules: ServerRules
    roots: Roots

    def send(
        self,
        request: UpstreamRequest,
        credential: Mapping[str, str],
        secret: bytes,
        take: Callable[[Answer], T],
        *,
        opened: Callable[[Egress], object] = id,
    ) -> T:
        """Send a request, and return what `take` makes of its answer. Raise `UpstreamFailedError`.

        `credential` is the header that holds the secret; both are empty for a request without one. `opened` gets what
        ends the request from another thread.
        """
        egress = Egress(
            f"{self.upstream.origin}{request.target}",
            roots=self.roots,
            private_hosts=(self.upstream.host,) if self.rules.private else (),
            step_seconds=min(_STEP_SECONDS, self.rules.answer_seconds),
            whole_seconds=self.rules.answer_seconds,
        )
        opened(egress)
        # The last word is the broker's.
        sent = {**request.headers, **credential, "accept-encoding": "identity"}
        try:
            return egress.ask(
                request.method, sent, lambda got: take(self._answer(got, Scrubber(secret))), body=request.body
            )
        except EgressError as error:
            raise UpstreamFailedError(str(error)) from None

    def _answer(self, got: http.client.HTTPResponse, scrubber: Scrubber) -> Answer:
        if got.status not in _FINAL or (got.status in _REDIRECTS and got.status != _NOT_MODIFIED):
            raise EgressError(f"answers `{got.status}`, and neither redirects nor upgrades are followed")
        coded = got.getheader("content-encoding", "identity").lower() != "identity"
        if coded or got.getheader("transfer-encoding", "chunked").lower() != "chunked":
            # It could not be searched for the secret.
            raise EgressError("answers in an encoding that was not requested")
        more = self.rules.proxy.response_headers if self.rules.proxy else ()
        try:
            shown = headers.of_answer(got.getheaders(), more, scrubber)
        except headers.HeadersError as error:
            raise EgressError(f"answers with {error}") from None
        return Answer(status=got.status, headers=shown, pieces=self._pieces(pieces_of(got), scrubber))

    def _pieces(self, came: Iterable[bytes], scrubber: Scrubber) -> Iterator[bytes]:
        size = 0
        for piece in came:
            size += len(piece)
            if size > self.rules.answer_bytes:
                raise TooLargeError(f"answers more than {self.rules.answer_bytes} bytes")
            if clean := scrubber.feed(piece):
                yield clean
        if clean := scrubber.end():
            yield clean
