"""A worker's key is stolen: what is forged with it passes until the key is withdrawn, and is found afterwards."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pdp.broker.admitting import Admission
from pdp.broker.opening import opened_record
from pdp.broker.rules import rules_of
from pdp.broker.using import Asked, Broker
from pdp.broker.words import Mode
from pdp.calltokens.claims import CallClaims, encoded
from pdp.calltokens.keys import CallKey, claims_of, key_named_by
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.uses import MemoryUses
from pdp.calltokens.verifying import PublishedKeys, Verifier
from pdp.cli.root import root
from pdp.client import CallTokenRequest
from pdp.client.calltokens import fetch_keys, live_check
from pdp.model import Caller, Role
from pdp.testing.inprocess import RunningServer, running_server
from tests.broker.notes import AUDIENCE, CALLERS, FILES, ISSUER, RULES, opened_session
from tests.broker.worlds import Memory, connection_to, upstream_here
from tests.machinery.calltokens import PRESENTER

ARGUMENTS = {"path": "n"}
ADMIN = Caller(id="admin", kind="token", roles=frozenset({Role.ADMIN}))


@dataclass
class Site:
    """A server, and a broker that asks it. Both keep a record."""

    server: RunningServer
    broker: Broker
    handle: str
    folder: Path

    def token(self) -> str:
        """Return a call token that the server has issued for an allowed call."""
        wanted = CallTokenRequest(audience=AUDIENCE, certificate_thumbprint=PRESENTER.certificate)
        client = self.server.client("gateway")
        return client.authorize(self.handle, "notes", "read", ARGUMENTS, call_tokens=(wanted,)).call_tokens[0].token

    def use(self, token: str) -> int:
        """Use the secret by a call token, and return the status of the upstream's answer."""
        asked = Asked(
            server="notes",
            tool="read",
            token=token,
            arguments={**ARGUMENTS},
            presenter=PRESENTER,
            request=self.broker.rules["notes"].templates["read"].filled(ARGUMENTS),
            mode=Mode.CONNECTOR,
        )
        return self.broker.use(asked, lambda answer: answer.status)

    def reconciled(self, *more: str) -> tuple[int, Any]:
        """Run `pdp audit reconcile` over both records; return its exit code and what it says."""
        words = ("audit", "reconcile", str(self.folder / "record"), "--record", str(self.server.evidence.record_folder))
        done = CliRunner().invoke(root, (*words, *more, "--json"), prog_name="pdp")
        return done.exit_code, json.loads(done.stdout)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Provide a server with a session, and a broker with a connection."""
    with (
        running_server(FILES, callers=(*CALLERS, ADMIN), call_token_issuer=ISSUER) as server,
        upstream_here() as upstream,
        opened_record(tmp_path) as record,
    ):

        def now() -> float:
            return server.clock.now().wall_at

        client = server.client("broker")
        keys = PublishedKeys(fetch_keys(client), monotonic=now)
        uses = MemoryUses(wall=now)
        server.clock.advance(6)
        verifier = Verifier(issuer=ISSUER, audience=AUDIENCE, keys=keys, uses=uses, live=live_check(client), wall=now)
        admission = Admission(
            rules=rules_of("rules.yaml", RULES.encode(), tmp_path),
            verifier=verifier,
            keys=keys,
            connections=Memory([connection_to(upstream, tenant="default", compartment="")]),
            record=record,
            wall=now,
        )
        yield Site(server, Broker(admission), opened_session(server)[1], tmp_path)


def stolen_key(token: str) -> CallKey:
    """Return the private key that signed a token, found in this process's memory, where the server's worker is."""
    wanted = key_named_by(token)
    return next(one for one in gc.get_objects() if isinstance(one, CallKey) and one.public.id == wanted)


def another_id(claims: CallClaims) -> CallClaims:
    """Return the claims with an id that the server never gave."""
    return replace(claims, id=encoded(b"forged".ljust(32, b".")))


def another_call(claims: CallClaims) -> CallClaims:
    """Return claims with the id of a token that was issued, for another decision."""
    return replace(claims, decision_id="dec_forged")


@pytest.mark.parametrize(
    ("forge", "problem"), [(another_id, "never issued"), (another_call, "issued for another call")]
)
def test_a_token_that_was_forged_with_a_stolen_key_is_found(
    site: Site, forge: Callable[[CallClaims], CallClaims], problem: str
) -> None:
    """It passes all checks, live ones too, while the session lives; withdrawing the key ends that; it is found then."""
    first, spare, late = site.token(), site.token(), site.token()
    key = stolen_key(spare)
    forged = claims_of(spare, key.public)
    assert (200, 0) == (site.use(first), site.reconciled()[0])

    assert 200 == site.use(key.signed(forge(forged)))

    admin = site.server.client("admin")
    assert admin.withdraw_call_token_key(key.public.id, reason="it was stolen")
    for refused in (key.signed(replace(forge(forged), id=encoded(bytes(32)))), late):
        with pytest.raises(CallTokenRefusedError) as error:
            site.use(refused)
        assert Reason.REVOKED is error.value.reason
    # Published keys are asked for again after a pause.
    site.server.clock.advance(30)
    assert 200 == site.use(site.token())
    code, said = site.reconciled()
    (found,) = said["unmatched"]
    assert (1, problem, 3) == (code, found["problem"], said["uses"])
    assert (forge(forged).id, forge(forged).decision_id) == (found["token_id"], found["decision_id"])
    assert ("alice", "github-1", 3) == (found["user"], found["connection"], found["version"])
    never_used = 2 if problem == "never issued" else 1
    assert [{"audience": AUDIENCE, "issued": 4, "never_used": never_used}] == said["issued"]


def test_only_uses_since_a_time_are_compared(site: Site) -> None:
    """A use that is known already does not hide that there is nothing new; without a record there is no answer."""
    key = stolen_key(spare := site.token())
    site.use(key.signed(another_id(claims_of(spare, key.public))))

    code, said = site.reconciled("--since", "9999-01-01")
    (site.folder / "empty").mkdir()
    nothing = CliRunner().invoke(root, ("audit", "reconcile", str(site.folder / "empty"), "--record", "."))

    assert (0, 0, []) == (code, said["uses"], said["issued"])
    assert (1, 1) == (site.reconciled()[0], len(site.reconciled()[1]["unmatched"]))
    assert 2 == nothing.exit_code


def test_a_token_that_two_brokers_accepted_is_found(site: Site) -> None:
    """Each broker remembers only its own uses: the records of two brokers show what neither sees."""
    site.use(site.token())
    record = str(site.folder / "record")

    code, said = site.reconciled(record)
    text = CliRunner().invoke(
        root, ("audit", "reconcile", record, record, "--record", str(site.server.evidence.record_folder))
    )

    assert (1, ["used more than once"]) == (code, [one["problem"] for one in said["unmatched"]])
    assert (1, "1 of 2 uses do not fit to an issue") == (text.exit_code, text.output.splitlines()[-1])
