"""Services whose entries list two of three tenants: of the third they learn nothing, and can do nothing to it."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.message import Message

from pdp.model import Bounds, Caller, Role
from pdp.testing.bundles import OPEN_SESSIONS, bundle_files, tool
from pdp.testing.inprocess import RunningServer, running_server
from pdp.v1.freeze_pb2 import LiftFreezeRequest, ListFreezesRequest, SetFreezeRequest
from pdp.v1.session_pb2 import RevokeSessionsRequest, WatchSessionsResponse

MINE, ALSO_MINE, FOREIGN = TENANTS = ("acme", "globex", "initech")
NOWHERE = "nowhere"
LISTED = Bounds(tenants=frozenset({MINE, ALSO_MINE}))
FILES = bundle_files(
    policies={"sessions": OPEN_SESSIONS},
    tools={"git": [tool("log")]},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
)
CALLERS = (
    *(
        Caller(id=f"{role.value}-{tenant}", kind="token", roles=frozenset({role}), tenant=tenant)
        for tenant in TENANTS
        for role in (Role.PEP, Role.ADMIN)
    ),
    *(
        Caller(id=role.value, kind="token", roles=frozenset({role}), tenant=MINE, bounds=LISTED)
        for role in (Role.BROKER, Role.REVOKER)
    ),
    Caller(id="single", kind="token", roles=frozenset({Role.REVOKER}), tenant=ALSO_MINE),
    Caller(id="both", kind="token", roles=frozenset({Role.REVOKER, Role.OPERATOR}), tenant=MINE),
)
REVOKE, FREEZE = "pdp.v1.SessionService/RevokeSessions", "pdp.v1.FreezeService/SetFreeze"


class Site:
    """A running server, and what its services are told."""

    def __init__(self, server: RunningServer, channel: grpc.Channel) -> None:
        self.server = server
        self._channel = channel

    def session(self, tenant: str) -> str:
        """Request a session of alice in a tenant; return its id."""
        pep = self.server.client(f"pep-{tenant}")
        return pep.request_session(user="alice", agent="coder", purpose="p", tools=["git/*"]).session.session_id

    def state(self, session_id: str, tenant: str) -> int:
        """Return the state of a session."""
        return self.server.client(f"admin-{tenant}").get_session(session_id).state

    def refused(self, path: str, message: Message, caller: str = "revoker") -> tuple[str, str, tuple[object, ...]]:
        """Call an RPC that must be refused; return its whole status."""
        token = (("authorization", f"Bearer {self.server.token(caller)}"),)
        with pytest.raises(grpc.RpcError) as caught:
            self._channel.unary_unary(f"/{path}")(message.SerializeToString(), metadata=token, timeout=60)
        error = caught.value
        return error.code().name, error.details(), tuple(error.trailing_metadata() or ())


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Serve three tenants, with a broker and a revoker that list two of them."""
    with running_server(FILES, callers=CALLERS) as server, grpc.insecure_channel(server.address) as channel:
        yield Site(server, channel)


@pytest.mark.parametrize("more", [{"reason": "x"}, {"validate_only": True}], ids=["revoke", "preview"])
@pytest.mark.parametrize("of", ["", FOREIGN])
def test_a_session_elsewhere_is_as_unknown_as_none(site: Site, more: dict[str, object], of: str) -> None:
    """The whole status is the same, byte for byte, whether or not its tenant is named, and nothing happens to it."""
    foreign = site.session(FOREIGN)
    before = site.state(foreign, FOREIGN)

    answers = [
        site.refused(REVOKE, RevokeSessionsRequest(session_id=one, of_tenant=of, **more))  # type: ignore[arg-type]
        for one in (foreign, "ses_" + "u" * 26)
    ]

    assert answers[0] == answers[1]
    assert "NOT_FOUND" == answers[0][0]
    assert before == site.state(foreign, FOREIGN)


def test_a_tenant_that_is_not_listed_is_as_foreign_as_none(site: Site) -> None:
    """By any selector, to revoke, to freeze and to count either."""
    foreign = site.session(FOREIGN)
    before = site.state(foreign, FOREIGN)

    def answers(tenant: str) -> list[tuple[str, str, tuple[object, ...]]]:
        return [
            site.refused(REVOKE, RevokeSessionsRequest(tenant=tenant, reason="x")),
            site.refused(REVOKE, RevokeSessionsRequest(tenant=tenant, validate_only=True)),
            site.refused(REVOKE, RevokeSessionsRequest(user="alice", of_tenant=tenant, reason="x")),
            site.refused(REVOKE, RevokeSessionsRequest(agent="coder", of_tenant=tenant, validate_only=True)),
            site.refused(FREEZE, SetFreezeRequest(tenant=tenant, reason="x")),
            site.refused(FREEZE, SetFreezeRequest(tenant=tenant, validate_only=True)),
        ]

    assert answers(NOWHERE) == answers(FOREIGN)
    assert {"PERMISSION_DENIED"} == {code for code, _, _ in answers(FOREIGN)}
    assert before == site.state(foreign, FOREIGN)
    assert () == site.server.client(f"admin-{FOREIGN}").list_freezes()


def test_a_user_of_several_tenants_is_named_with_one(site: Site) -> None:
    """Users of two tenants can have one name; nothing is guessed, and the other tenant's session lives on."""
    first, second = site.session(MINE), site.session(ALSO_MINE)
    before = site.state(first, MINE)
    revoker = site.server.client("revoker")

    code, details, _ = site.refused(REVOKE, RevokeSessionsRequest(user="alice", reason="x"))
    counted = revoker.preview_revocation(agent="coder", of_tenant=ALSO_MINE)
    revoked = revoker.revoke_sessions(user="alice", of_tenant=ALSO_MINE, reason="device stolen")

    assert ("INVALID_ARGUMENT", True) == (code, details.startswith("`of_tenant`: is required"))
    assert second in revoked
    assert {one.session_id for one in counted.sessions} == set(revoked)
    assert first not in revoked
    assert before == site.state(first, MINE)


def test_a_session_is_not_revoked_as_one_of_another_tenant(site: Site) -> None:
    """Where the caller and the server differ about whose session it is, nothing ends."""
    session_id = site.session(MINE)
    revoker = site.server.client("revoker")

    code, _, _ = site.refused(REVOKE, RevokeSessionsRequest(session_id=session_id, of_tenant=ALSO_MINE, reason="x"))

    assert "NOT_FOUND" == code
    assert (session_id,) == revoker.revoke_sessions(session_id=session_id, of_tenant=MINE, reason="x")


def test_a_revoker_of_one_tenant_need_not_name_it(site: Site) -> None:
    """Its own is meant."""
    elsewhere, own = site.session(MINE), site.session(ALSO_MINE)

    revoked = site.server.client("single").revoke_sessions(user="alice", reason="x")

    assert (True, False) == (own in revoked, elsewhere in revoked)


def test_what_a_revoker_did_is_recorded(site: Site) -> None:
    """Who revoked and froze, with which reason, in the tenant to which it was done."""
    revoker, session_id = site.server.client("revoker"), site.session(ALSO_MINE)
    revoker.revoke_sessions(session_id=session_id, reason="account disabled")
    frozen = revoker.set_freeze(tenant=ALSO_MINE, reason="many at once")
    site.server.embedded.sessions.change_freeze(frozen.freeze_id, lambda _: None, wall_at=0.0)

    found = {
        record["kind"]: (record["caller_id"], record["tenant"], record["facts"].get("reason"))
        for record in site.server.evidence.records
        if record.get("session_id") == session_id or record.get("facts", {}).get("freeze_id") == frozen.freeze_id
    }
    assert ("revoker", ALSO_MINE, "account disabled") == found["session.revoked"]
    assert ("revoker", ALSO_MINE, "many at once") == found["freeze.set"]


def test_a_revoker_lifts_nothing(site: Site) -> None:
    """Nor does its role help an operator to lift the freeze of a tenant, and it sees no freezes."""
    frozen = site.server.client("revoker").set_freeze(tenant=MINE, reason="x")

    code, details, _ = _lift(site, frozen.freeze_id, "revoker")
    besides = _lift(site, frozen.freeze_id, "both")
    listed, _, _ = site.refused("pdp.v1.FreezeService/ListFreezes", ListFreezesRequest())
    everywhere, _, _ = site.refused(FREEZE, SetFreezeRequest(all_tenants=True, reason="x"))
    site.server.embedded.sessions.change_freeze(frozen.freeze_id, lambda _: None, wall_at=0.0)

    assert ("PERMISSION_DENIED", True) == (code, "may not call" in details)
    assert ("PERMISSION_DENIED", True) == (besides[0], "only an approver or admin may lift" in besides[1])
    assert ["PERMISSION_DENIED"] * 2 == [listed, everywhere]


def test_a_broker_follows_the_tenants_of_its_entry(site: Site) -> None:
    """It is told of sessions and freezes of both, and of none of the third, by its id neither."""
    broker = site.server.client("broker")
    feed = broker.watch_sessions()
    next(feed)
    # The foreign one changes first, so that what is told of the others comes after it.
    ids = {tenant: site.session(tenant) for tenant in reversed(TENANTS)}
    seen: set[str] = set()
    while not seen >= {ids[MINE], ids[ALSO_MINE]}:
        seen |= {one.session_id for one in next(feed).changes}
    frozen = [site.server.client(f"admin-{one}").set_freeze(tenant=one, reason="x") for one in (FOREIGN, ALSO_MINE)]
    told = next(broker.watch_sessions())
    named = {tenant: next(broker.watch_sessions(session_id=one)) for tenant, one in ids.items()}
    unknown = next(broker.watch_sessions(session_id="ses_" + "u" * 26))
    for one in frozen:
        site.server.embedded.sessions.change_freeze(one.freeze_id, lambda _: None, wall_at=0.0)

    assert ids[FOREIGN] not in seen
    assert [ALSO_MINE] == list(told.frozen_tenants)
    assert [[ids[MINE]], [ids[ALSO_MINE]]] == [
        [change.session_id for change in named[tenant].changes] for tenant in (MINE, ALSO_MINE)
    ]
    assert _plain(unknown) == _plain(named[FOREIGN])


def _lift(site: Site, freeze_id: str, caller: str) -> tuple[str, str, tuple[object, ...]]:
    return site.refused("pdp.v1.FreezeService/LiftFreeze", LiftFreezeRequest(freeze_id=freeze_id), caller)


def _plain(answer: WatchSessionsResponse) -> bytes:
    """Return an answer without the revision of the whole store."""
    answer.ClearField("revision")
    return answer.SerializeToString(deterministic=True)
