"""Whatever ends or narrows authority is noted by the machine that acknowledges it, also where another has done it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

import apsw
import pytest

from pdp.app.embedded import Embedded
from pdp.clock import Deadline, Instant, SystemClock
from pdp.errors import WrongStateError
from pdp.model import Caller, Role
from pdp.registry.access import AccessSelector
from pdp.registry.words import Selector
from pdp.sessions import access
from pdp.sessions.closings import Closing
from pdp.sessions.historycontract import AccessRequests, CallTokenKeys, SessionHistory
from pdp.sessions.postgres import PostgresSessionStore
from pdp.sessions.postgresfailover import Replication
from pdp.sessions.postgreshistory import PostgresSessionHistory
from pdp.sessions.store import SessionStore
from pdp.sessions.values import Cut, SessionFilter
from pdp.sessions.writes import Write
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.stores.access import bound, request
from pdp.testing.stores.keykeeping import make_key
from pdp.testing.stores.samples import make_bundle, make_freeze, revoked, unchanged
from tests.machinery.oracle.opened import APPROVER, GATEWAY, Opened, opened
from tests.machinery.rpcs.services import SERVICES
from tests.sessions.postgres.conftest import PATIENT
from tests.sessions.postgres.machine import Machine
from tests.sessions.postgres.postgresserver import PostgresServer

pytestmark = pytest.mark.replicas

FILES = bundle_files(
    policies={"git": '@id("git/all") permit (principal, action, resource);'},
    tools={"git": [tool("log"), tool("show")]},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['git/*']}}}",
)
NUMBERS = count()
Notes = set[tuple[Closing, str]]


class Given(NamedTuple):
    """What a test has to close: ids, a tenant of its own, and a request id under which it is closed."""

    waiting: str
    session: str
    handle: str
    open: str
    approved: str
    key: str
    tenant: str
    write: Write


class Does(NamedTuple):
    """How an RPC closes something, which part of the server that is, and what is noted of what."""

    rpc: str
    part: str
    act: Callable[[Any, Given, Write | None], object]
    closing: Closing
    of: Callable[[Given], str] = lambda _: ""


class Kept(NamedTuple):
    """How a method of a store closes something, or tells of what `first` has closed, and what is noted of what."""

    method: str
    act: Callable[[Embedded, Given], object]
    closing: Closing
    of: Callable[[Given], str] = lambda _: ""
    first: Callable[[Embedded, Given], object] = lambda _, __: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """A server that notes what it closes, and one that is killed before it does so each time."""

    notes: Opened
    killed: Opened
    file: Path

    def given(self) -> Given:
        """Return what there is to close, of which nothing is noted yet."""
        name, at = str(next(NUMBERS)), SystemClock().now()
        session, handle = self.killed.session("git/*")
        requests, keys = self.killed.embedded.history.access(), self.killed.embedded.history.call_token_keys()
        late = Deadline(wall_at=time.time() + 3600, boot_at=0.0, boot_id="another boot")
        for one in ("open", "approved"):
            call = bound(one.encode(), session_id=session)
            requests.ask(request(f"{one} {name}", call, deadline=late), b"{}", at)
        approve = partial(access.approve, now=at, by="ann", session_end=late)
        requests.answer(f"acc_approved {name}", approve)
        keys.publish(make_key(name, published_at=at.wall_at, ends_at=late.wall_at))
        return Given(
            waiting=self.killed.request("git/*")[0],
            session=session,
            handle=handle,
            open=f"acc_open {name}",
            approved=f"acc_approved {name}",
            key=name,
            tenant=f"tenant {name}",
            write=Write(key=name.encode(), digest=b"asked"),
        )

    def noted(self) -> int:
        """Return how many notes there are."""
        return len(self._rows())

    def noted_since(self, before: int) -> Notes:
        """Return what was noted since there were so many notes."""
        return {(Closing(closing), one) for closing, one in self._rows()[before:]}

    def _rows(self) -> list[tuple[Any, ...]]:
        with closing(apsw.Connection(str(self.file), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
            return connection.execute("SELECT closing, id FROM notes ORDER BY position").fetchall()


@pytest.fixture(scope="module")
def servers(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Give both servers, on a database of their own."""
    folder = tmp_path_factory.mktemp("noting")
    with server.connect() as connection:
        connection.execute("CREATE DATABASE noting")
    conninfo = server.conninfo.replace("dbname=postgres", "dbname=noting")
    machine = Machine(conninfo=conninfo, folder=folder, replication=Replication.ASYNC, reasserts=True)
    with ExitStack() as opening:

        def started(store: PostgresSessionStore, **beside: Any) -> Opened:
            opening.callback(store.close)
            history = opening.enter_context(closing(PostgresSessionHistory(conninfo, **PATIENT, **beside)))
            one = opened(folder / "policies", FILES, sessions=store, history=history, clock=SystemClock())
            return opening.enter_context(one)

        killed = started(PostgresSessionStore(conninfo, **PATIENT))
        noting = machine.opened()
        yield Servers(notes=started(noting, beside=noting), killed=killed, file=folder / "closings")


def freezing(given: Given) -> Caller:
    """Return a caller who may freeze the tenant."""
    return Caller(id="ada", kind="token", roles=frozenset({Role.ADMIN}), tenant=given.tenant)


def revoking(
    kind: Literal["session", "user"], of: Callable[[Given], str]
) -> Callable[[Any, Given, Write | None], object]:
    """Return what revokes sessions by one selector."""
    return lambda part, given, write: part.revoke(
        Selector(kind=kind, value=of(given)), reason="x", caller=APPROVER, write=write
    )


def taking_back(
    kind: Literal["request", "session"], of: Callable[[Given], str]
) -> Callable[[Any, Given, Write | None], object]:
    """Return what takes back approvals by one selector."""
    return lambda part, given, write: part.revoke(
        AccessSelector(kind=kind, value=of(given)), reason="x", caller=APPROVER, write=write
    )


# What closes, by its RPC.
CLOSES = (
    Does(
        "DenySession",
        "registrar",
        lambda part, given, write: part.deny(given.waiting, reason="x", caller=APPROVER, write=write),
        Closing.OVER,
        lambda given: given.waiting,
    ),
    Does(
        "EndSession",
        "registrar",
        lambda part, given, write: part.end(given.handle, caller=GATEWAY, write=write),
        Closing.OVER,
        lambda given: given.session,
    ),
    Does(
        "RevokeSessions",
        "registrar",
        revoking("session", lambda given: given.session),
        Closing.OVER,
        lambda given: given.session,
    ),
    Does(
        "NarrowSession",
        "registrar",
        lambda part, given, write: part.narrow(
            given.session, tool_patterns=("git/log",), expires_at=None, labels=(), caller=APPROVER, write=write
        ),
        Closing.NARROWED,
        lambda given: given.session,
    ),
    Does(
        "DenyCall",
        "approvals",
        lambda part, given, write: part.deny(given.open, reason="x", caller=APPROVER, write=write),
        Closing.REFUSED,
        lambda given: given.open,
    ),
    Does(
        "RevokeAccess",
        "approvals",
        taking_back("request", lambda given: given.approved),
        Closing.REFUSED,
        lambda given: given.approved,
    ),
    Does(
        "RevokeAccess",
        "approvals",
        taking_back("session", lambda given: given.session),
        Closing.REFUSED,
        lambda given: given.approved,
    ),
    Does(
        "SetFreeze",
        "freezer",
        lambda part, given, write: part.freeze(given.tenant, reason="x", caller=freezing(given), write=write),
        Closing.FROZEN,
    ),
    Does(
        "WithdrawCallTokenKey",
        "call_tokens",
        lambda part, given, write: part.withdraw(given.key, reason="x", caller=APPROVER, write=write),
        Closing.WITHDRAWN,
        lambda given: given.key,
    ),
)
# What opens something, or takes of it; of a bundle the page of deployment says what is lost.
OPENS = {"RequestSession", "ApproveSession", "ApproveCall", "LiftFreeze", "Authorize", "ActivateBundle", "ReloadBundle"}

IDS = [f"{one.rpc}-{number}" for number, one in enumerate(CLOSES)]


def test_every_change_closes_something_or_is_named_here() -> None:
    """A new RPC that changes anything is a row above, or opens something."""
    changing = {one.name for all_ in SERVICES for one in all_.methods if "request_id" in one.input_type.fields_by_name}

    assert changing == OPENS | {does.rpc for does in CLOSES}


@pytest.mark.parametrize("does", CLOSES, ids=IDS)
@pytest.mark.parametrize("found", ["made", "done by another", "asked for again"])
def test_what_is_acknowledged_as_closed_is_noted(servers: Servers, does: Does, found: str) -> None:
    """Whether this server has closed it, finds it closed, or tells of it under the request id; also by an error."""
    given, part = servers.given(), getattr(servers.notes.embedded, does.part)
    if found != "made":
        does.act(getattr(servers.killed.embedded, does.part), given, given.write)
    before = servers.noted()
    with suppress(WrongStateError):
        if found == "asked for again":
            assert part.written(given.write) is not None
        else:
            does.act(part, given, None)
    noted = servers.noted_since(before)

    assert (does.closing, does.of(given)) in noted or (does.of(given) == "" and does.closing in dict(noted))


def test_a_revocation_of_many_is_noted_as_a_whole(servers: Servers) -> None:
    """So also what another has revoked first, and has not noted."""
    before = servers.noted()
    revoking("user", lambda _: "alice")(servers.notes.embedded.registrar, servers.given(), None)

    assert (Closing.CUT, "") in servers.noted_since(before)


def changed(store: SessionStore, given: Given) -> object:
    """Revoke the session, under the request id."""
    return store.change_tree(given.session, revoked, wall_at=1000.0, write=given.write)


def activated(at: Embedded, given: Given) -> None:
    """Revoke the session with the activation of another bundle, and then activate the first one again."""
    bundle = make_bundle(given.tenant)
    at.sessions.activate_bundle(bundle, b"", lambda one: revoked(one) if one.id == given.session else None)
    at.keeper.reload(by="ann")


def answered(requests: AccessRequests, given: Given) -> object:
    """Say no to the call, under the request id."""
    return requests.answer(given.open, no, write=given.write)


def no(one: access.AccessRequest) -> access.AccessRequest:
    """Say no to a call."""
    return access.deny(one, Instant(wall_at=1500.0, boot_at=0.0, boot_id="boot"), by="ann", reason="x")


def session_of(given: Given) -> str:
    """Return the id of the session."""
    return given.session


def open_of(given: Given) -> str:
    """Return the id of the request that waits."""
    return given.open


KEEPS = (
    Kept(
        "SessionStore.update",
        lambda at, given: at.sessions.update([_over(at, given)], wall_at=1000.0),
        Closing.OVER,
        session_of,
    ),
    Kept("SessionStore.change_tree", lambda at, given: changed(at.sessions, given), Closing.OVER, session_of),
    Kept(
        "SessionStore.change_tree",
        lambda at, given: at.sessions.change_tree(given.session, unchanged, wall_at=1000.0),
        Closing.OVER,
        session_of,
        first=lambda at, given: changed(at.sessions, given),
    ),
    Kept(
        "SessionStore.change_where",
        lambda at, given: at.sessions.change_where(SessionFilter(id=given.session), revoked, wall_at=1000.0),
        Closing.OVER,
        session_of,
    ),
    Kept(
        "SessionStore.activate_bundle",
        activated,
        Closing.OVER,
        session_of,
    ),
    Kept(
        "SessionStore.cut",
        lambda at, given: at.sessions.cut(Cut(tenant=given.tenant, at=1000.0, by="ann", reason="x")),
        Closing.CUT,
    ),
    Kept(
        "SessionStore.freeze",
        lambda at, given: at.sessions.freeze(make_freeze(given.tenant)),
        Closing.FROZEN,
        lambda given: make_freeze(given.tenant).id,
    ),
    Kept(
        "SessionStore.written",
        lambda at, given: at.sessions.written(given.write, wall_at=1000.0),
        Closing.OVER,
        session_of,
        first=lambda at, given: changed(at.sessions, given),
    ),
    Kept(
        "SessionStore.outwait",
        lambda at, given: at.sessions.outwait([given.session]),
        Closing.OVER,
        session_of,
        first=lambda at, given: changed(at.sessions, given),
    ),
    Kept("AccessRequests.answer", lambda at, given: answered(at.history.access(), given), Closing.REFUSED, open_of),
    Kept(
        "AccessRequests.answer_all",
        lambda at, given: at.history.access().answer_all([given.open], no),
        Closing.REFUSED,
        open_of,
        first=lambda at, given: answered(at.history.access(), given),
    ),
    Kept(
        "AccessRequests.written",
        lambda at, given: at.history.access().written(given.write, wall_at=1000.0),
        Closing.REFUSED,
        open_of,
        first=lambda at, given: answered(at.history.access(), given),
    ),
    Kept(
        "AccessRequests.outwait",
        lambda at, given: at.history.access().outwait([given.open]),
        Closing.REFUSED,
        open_of,
        first=lambda at, given: answered(at.history.access(), given),
    ),
    Kept(
        "CallTokenKeys.withdraw",
        lambda at, given: at.history.call_token_keys().withdraw(given.key, wall_at=1000.0),
        Closing.WITHDRAWN,
        lambda given: given.key,
    ),
)
# What reads, opens, clears away or belongs to the process; and what is lost, as the page of deployment says: labels,
# debits, uses, handles.
CLOSES_NOTHING = {
    SessionStore: "active_bundle bundle_content bundle_past changed close count_by_state count_live cuts fencing find"
    " freezes get head high_water_at kept_bundles known lease live_families select untold view"
    " change_freeze insert lift renew_handle settle touch unfrozen forget_told note_expired purge",
    SessionHistory: "access call_token_keys close counts key used values"
    " charge forget_charges forget_reports keep_report take_back",
    AccessRequests: "arguments changed get revision select untold usable"
    " ask expire forget forget_told give_back note_expired use",
    CallTokenKeys: "get published publish",
}


def test_every_method_of_the_stores_closes_something_or_is_named_here() -> None:
    """A new one is a row above, or closes nothing."""
    methods = {f"{one.__name__}.{name}" for one in CLOSES_NOTHING for name in dir(one) if not name.startswith("_")}
    named = {f"{one.__name__}.{name}" for one, names in CLOSES_NOTHING.items() for name in names.split()}

    assert methods == named | {kept.method for kept in KEEPS}
    assert not named & {kept.method for kept in KEEPS}


@pytest.mark.parametrize("kept", KEEPS, ids=[f"{one.method}-{number}" for number, one in enumerate(KEEPS)])
def test_what_a_store_acknowledges_as_closed_is_noted(servers: Servers, kept: Kept) -> None:
    """By each of its methods that does so."""
    given = servers.given()
    kept.first(servers.killed.embedded, given)
    before = servers.noted()
    kept.act(servers.notes.embedded, given)

    assert (kept.closing, kept.of(given)) in servers.noted_since(before)


def _over(at: Embedded, given: Given) -> Any:
    return revoked(at.sessions.get(given.session)[0])
