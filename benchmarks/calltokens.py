"""Measure call tokens: `python -m benchmarks.calltokens`.

In each round all ways take turns: to sign bytes and verify that, which is the control; to sign a token and to verify
one, each by itself; to verify one with the live check; and a call that is decided, without a token and with one. Server
and client are in one process and take turns too, so a live check has both sides' work in it. Figures are medians over
rounds of each round's median. A first round warms up and does not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pdp.calltokens.canonical import arguments_digest
from pdp.calltokens.claims import CallClaims
from pdp.calltokens.keys import CallKey, claims_of, key_named_by, keys_of
from pdp.calltokens.verifying import Verifier
from pdp.client import Answer, CallTokenRequest, Client
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import RunningServer, running_server
from tests.machinery.calltokens import AUDIENCE, ISSUER, PRESENTER, server_verifier

_WANTED = (CallTokenRequest(audience=AUDIENCE, certificate_thumbprint=PRESENTER.certificate),)
_ARGUMENTS = {"path": "/srv/notes/2026/11/27.md", "text": "seen by everybody", "lines": 3, "labels": ["a", "b"]}
_FILES = bundle_files(
    policies={"notes": '@id("notes/all") permit (principal, action, resource);'},
    tools={"notes": [tool("write", {name: {} for name in _ARGUMENTS})]},
    directory="{users: {alice: {}, approver: {}}, agents: {coder: {ceiling: ['notes/*']}}}",
    overlays={"notes": f"audiences: ['{AUDIENCE}']\nrisk: read_only"},
)
_OFFLINE, _LIVE = "verify offline, and note the use", "the same with the live check"
_BARE, _WITH_TOKEN = "a decision", "a decision with a token"
# What is added, as the difference within each round.
_ADDED = (
    ("what the live check adds", _OFFLINE, _LIVE),
    ("what a token adds to a decision", _BARE, _WITH_TOKEN),
)
# Each measures one turn of something, in seconds.
_Ways = dict[str, Callable[[], float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """A server with one session."""

    server: RunningServer
    handle: str

    @property
    def pep(self) -> Client:
        """Return the gateway's client."""
        return self.server.client("pep")

    def ask(self, *, tokens: tuple[CallTokenRequest, ...] = ()) -> Answer:
        """Ask about the call."""
        answer = self.pep.authorize(self.handle, "notes", "write", _ARGUMENTS, call_tokens=tokens)
        if not answer or any(not one.token for one in answer.call_tokens):
            sys.exit("the call was not allowed, or without a token")
        return answer

    def ways(self) -> _Ways:
        """Return what is measured."""
        offline, live = server_verifier(self.server, live=False), server_verifier(self.server)
        key = CallKey()
        token = self.ask(tokens=_WANTED).call_tokens[0].token
        claims = claims_of(token, keys_of(self.pep.get_call_token_keys().jwks_json)[key_named_by(token)])

        def fresh() -> CallClaims:
            salt = time.perf_counter_ns().to_bytes(16, "big")
            return replace(claims, salt=salt, arguments_digest=arguments_digest(_ARGUMENTS, salt))

        def verifying(by: Verifier) -> float:
            token = self.ask(tokens=_WANTED).call_tokens[0].token
            return _took(
                lambda: by.verify(token, server="notes", tool="write", arguments=_ARGUMENTS, presenter=PRESENTER)
            )

        def signing() -> float:
            # Its arguments are digested, too, for each token has a salt of its own.
            return _took(lambda: key.signed(fresh()))

        bare = Ed25519PrivateKey.generate()
        public, signed = bare.public_key(), b"x" * 1_000

        def control() -> float:
            return _took(lambda: public.verify(bare.sign(signed), signed))

        return {
            "sign and verify bytes alone (control)": control,
            "sign, with the digest of the arguments": signing,
            _OFFLINE: lambda: verifying(offline),
            _LIVE: lambda: verifying(live),
            _BARE: lambda: _took(self.ask),
            _WITH_TOKEN: lambda: _took(lambda: self.ask(tokens=_WANTED)),
        }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Measure call tokens.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=300, help="turns of each way in a round")
    options = parser.parse_args()
    with _site() as site:
        ways = site.ways()
        rounds = [_round(ways, options.count) for _ in range(options.rounds + 1)][1:]
        size = len(site.ask(tokens=_WANTED).call_tokens[0].token)
    print("| | median, µs |\n|---|---|")
    for name in ways:
        print(f"| {name} | {1e6 * statistics.median(one[name] for one in rounds):.0f} |")
    for what, one, other in _ADDED:
        more = statistics.median(row[other] - row[one] for row in rounds)
        print(f"| {what} | {1e6 * more:.0f} |")
    print(f"\na token has {size} bytes; {options.rounds} rounds of {options.count} turns")


@contextmanager
def _site() -> Iterator[_Site]:
    with running_server(_FILES, call_token_issuer=ISSUER) as server:
        opened = server.client("pep").request_session(user="alice", agent="coder", purpose="p", tools=["notes/*"])
        server.client("approver").approve_session(
            opened.session.session_id, request_digest=opened.session.request_digest
        )
        yield _Site(server=server, handle=opened.session_handle)


def _round(ways: _Ways, count: int) -> dict[str, float]:
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(count):
        for name, way in ways.items():
            took[name].append(way())
    return {name: statistics.median(found) for name, found in took.items()}


def _took(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
