"""A provider of tokens in this process that answers as it is told, and connections to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from pdp.broker.words import Connection, Mode, TokenSource
from tests.broker.tills import KIND
from tests.broker.vaults import connection
from tests.broker.worlds import Upstream
from tests.machinery.calltokens import CLAIMS

P = TypeVar("P", bound="Provider")
TOKEN: Final = "t0ken/canary-97c1"  # noqa: S105 - a canary
NARROW: Final = "narr0w/canary-03e8"
SECRET: Final = b"the client's"
REVOKE, INTROSPECT, EXCHANGE = "/revoke", "/introspect", "exchange"
_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a kind


class Provider(Upstream):
    """A provider of tokens. `said` has status and answer of each path; `active` is what it says of its tokens.

    What it answers to exchanges has the name `EXCHANGE` in `said`. `seconds` is how long its tokens live.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: dict[str, tuple[int, Any]] = {}
        self.active: list[bool] = []
        self.seconds = 100
        self.pieces = lambda: iter([json.dumps(self._answer[1]).encode()])

    def reset(self) -> None:
        """Let it be as at first: it knows its tokens, and ends them."""
        self.got.clear()
        self.said.clear()
        self.active, self.seconds = [True, False], 100

    @property
    def status(self) -> int:
        """Return the status of the present answer."""
        *_, path, _, body = self.got[-1]
        if path == INTROSPECT:
            self._answer: tuple[int, Any] = (200, {"active": self.active.pop(0)})
        elif b"token-exchange" in body:
            self._answer = self.said.get(EXCHANGE, (200, self.exchanged))
        else:
            self._answer = self.said.get(path, (200, self.given if path == "/token" else {}))
        return self._answer[0]

    @status.setter
    def status(self, _: int) -> None:
        """Leave it as it is."""

    @property
    def given(self) -> dict[str, Any]:
        """Return what it gives a client."""
        return {"access_token": TOKEN, "token_type": "Bearer", "expires_in": self.seconds}

    @property
    def exchanged(self) -> dict[str, Any]:
        """Return what it gives for a token."""
        return {**self.given, "access_token": NARROW, "issued_token_type": _ACCESS_TOKEN}

    @property
    def asked(self) -> list[str]:
        """Return the paths that were asked for, in order."""
        return [path for _, path, _, _ in self.got]


@contextmanager
def provider_here(kind: type[P]) -> Iterator[P]:
    """Run a provider."""
    provider = kind()
    threading.Thread(target=provider.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield provider
    finally:
        provider.shutdown()
        provider.server_close()


def client_of(
    provider: Provider, *, revocation: str = REVOKE, introspection: str = INTROSPECT, **more: Any
) -> Connection:
    """Return a connection whose tokens are handed out. `of_source` has other values of its source."""
    ends = {"revocation": revocation, "introspection": introspection}
    found: dict[str, Any] = {name: f"{provider.origin}{path}" if path else "" for name, path in ends.items()}
    found |= {"endpoint": f"{provider.origin}/token", "client_id": "broker", **more.pop("of_source", {})}
    source = TokenSource(**found)
    known = {"kind": KIND, "tenant": CLAIMS.tenant, "source": source, "modes": (Mode.CHECKOUT,), "scopes": ("a", "b")}
    return connection("app", **{**known, **more})
