"""`AuditService` on a real server: the answers of the index, for the caller's tenant, page by page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pdp.audit import AuditIndex, Search
from pdp.audit.searchable import SearchableRecord
from pdp.audit.values import Filter, Selector
from pdp.client import Client, NotFoundError
from pdp.errors import UnavailableError
from pdp.foundation.jsontext import keyed_digest
from pdp.model import AT_EACH_CALL, Caller, Role
from pdp.testing.bundles import bundle_files, tool, with_terms
from pdp.testing.clock import FakeClock
from pdp.testing.evidence import KEY
from pdp.testing.inprocess import RunningServer, running_server
from pdp.v1 import decision_pb2
from pdp.v1.audit_pb2 import PlanRevocationRequest, RecordFilter
from tests.machinery.investigation.bruteforce import Record, chosen, everything
from tests.machinery.investigation.incident import write_incident

COUNT = 3000
TENANTS = {"default": "auditor", "other": "foreign-auditor"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A server with an incident in its record, its auditors, and an index of the test's own."""

    clients: dict[str, Client]
    search: Search
    records: list[Record]
    now_at: float


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Serve an incident to an auditor of each tenant."""
    callers = [
        Caller(id=name, kind="token", roles=frozenset({Role.AUDITOR}), tenant=tenant)
        for tenant, name in TENANTS.items()
    ]
    files = bundle_files(
        policies={"files": '@id("files/all") permit (principal, action, resource is Server);'},
        tools={"files": [tool("read")]},
        directory="users: {alice: {}}\nagents: {coder: {}}\n",
    )
    clock = FakeClock()
    index_file = tmp_path_factory.mktemp("index") / "index.sqlite"
    with running_server(files, callers=callers, clock=clock) as server:
        folder = server.evidence.record_folder
        now_at = write_incident(folder, COUNT)
        clock.step_wall(now_at - clock.now().wall_at)
        with AuditIndex(folder, index_file) as index:
            index.refresh()
            yield Asked(
                clients={tenant: server.client(name) for tenant, name in TENANTS.items()},
                search=Search(index),
                records=everything(folder),
                now_at=now_at,
            )


@pytest.mark.parametrize("tenant", TENANTS)
def test_records_are_those_of_the_tenant_in_order(asked: Asked, tenant: str) -> None:
    """Over all pages an auditor gets every line of the own tenant, byte for byte, and no other."""
    found = [one.record_json for one in asked.clients[tenant].list_records(page_size=1000)]

    assert [json.loads(line) for line in found] == chosen(asked.records, tenant=tenant)


def test_filters_travel(asked: Asked) -> None:
    """Each field of the filter means what it means locally."""
    session = next(
        one
        for one in asked.records[COUNT // 2 :]
        if one.get("tenant") == "default" and one.get("ancestors") and one["basis"] == "permit" and one["resource_id"]
    )
    since, until = asked.records[COUNT // 10]["time"], asked.records[COUNT - COUNT // 10]["time"]
    which = RecordFilter(
        session_id=session["ancestors"][-1],
        delegated=True,
        user=session["user"],
        caller_id=session["caller_id"],
        outcome=decision_pb2.OUTCOME_ALLOW,
        kind="decision",
        server=session["server"],
        tool=f"{session['server']}/{session['tool']}",
        resource=session["resource_id"],
        basis=decision_pb2.BASIS_PERMIT,
    )
    which.since_time.FromJsonString(since)
    which.until_time.FromJsonString(until)

    found = [json.loads(one.record_json)["id"] for one in asked.clients["default"].list_records(which, page_size=3)]

    assert found
    assert found == [
        one["id"]
        for one in chosen(
            asked.records,
            kind="decision",
            outcome="allow",
            user=session["user"],
            caller_id=session["caller_id"],
            server=session["server"],
            tool=session["tool"],
            resource_id=session["resource_id"],
        )
        if session["ancestors"][-1] in (one["session_id"], *one["ancestors"]) and since <= one["time"] < until
    ]


@pytest.mark.parametrize("tenant", TENANTS)
def test_touched_is_that_of_the_tenant(asked: Asked, tenant: str) -> None:
    """What was reached is counted over the tenant's calls, over all pages."""
    found = asked.clients[tenant].list_touched(RecordFilter(agent="agent-3"), page_size=7)

    expected = asked.search.touched(Filter(agent="agent-3", tenant=tenant), limit=10_000)
    assert [(one.server, one.tool, one.resource_type, one.resource_id, one.allowed, one.denied) for one in found] == [
        (one.server, one.tool, one.resource_type, one.resource_id, one.allowed, one.denied) for one in expected
    ]


@pytest.mark.parametrize("tenant", TENANTS)
def test_the_plan_is_that_of_the_tenant(asked: Asked, tenant: str) -> None:
    """Only sessions of the tenant are named, over all pages."""
    found = asked.clients[tenant].plan_revocation(PlanRevocationRequest(agent="agent-3", page_size=2))

    expected = asked.search.plan(Selector(agent="agent-3", tenant=tenant), now_at=asked.now_at, limit=10_000)
    assert expected
    assert [(one.session_id, one.matched, one.allowed) for one in found] == [
        (one.session_id, one.matched, one.allowed) for one in expected
    ]


def test_approvals_travel(asked: Asked) -> None:
    """Who approved a delegated session is told up to the person."""
    decision = next(one for one in asked.records if one.get("tenant") == "default" and one.get("ancestors"))

    found = asked.clients["default"].list_approvals(decision_id=decision["id"])

    expected = asked.search.approvals(decision["id"], now_at=asked.now_at)
    assert len(expected) > 1
    assert [(one.session_id, one.approved_by, one.delegated, list(one.grants)) for one in found] == [
        (one.session_id, one.approved_by, one.delegated, list(one.grants)) for one in expected
    ]


def test_a_foreign_record_looks_unknown(asked: Asked) -> None:
    """Another tenant's decision and session cannot be told from invented ones."""
    decision = next(one for one in chosen(asked.records, kind="decision", tenant="other"))
    client = asked.clients["default"]

    with pytest.raises(NotFoundError) as foreign:
        client.get_records(decision["id"])
    with pytest.raises(NotFoundError) as invented:
        client.get_records("dec_0")
    with pytest.raises(NotFoundError):
        client.list_approvals(session_id=decision["session_id"])

    assert str(foreign.value).replace(decision["id"], "dec_0") == str(invented.value)
    assert [decision] == [json.loads(one.record_json) for one in asked.clients["other"].get_records(decision["id"])]


@pytest.fixture(scope="module")
def clock() -> FakeClock:
    """Return a clock that stands."""
    return FakeClock()


@pytest.fixture(scope="module")
def tenants(clock: FakeClock) -> Iterator[RunningServer]:
    """Serve a gateway, an approver and an auditor of each of two tenants."""
    files = bundle_files(
        policies={
            "files": '@id("files/first") permit (principal, action, resource is Server)'
            ' when { context.now < datetime("2026-01-01T00:00:30Z") };',
            "sessions": '@id("sessions/all") permit (principal, action, resource is Session);',
        },
        tools={"files": [tool("read", {"path": {"type": "string"}})]},
        overlays={"files": "tools: {read: {log: [path]}}"},
        directory="users: {alice: {}}\nagents: {coder: {ceiling: ['files/*']}}\n",
        schema=with_terms("ticket?: String, max_sum?: decimal"),
    )
    callers = [
        Caller(
            id=f"{role.value}-{tenant}",
            kind="token",
            roles=frozenset({role}),
            tenant=tenant,
            authenticated_at=AT_EACH_CALL,
        )
        for tenant in ("a", "b")
        for role in (Role.PEP, Role.APPROVER, Role.AUDITOR)
    ]
    with running_server(files, callers=callers, clock=clock) as server:
        yield server


def test_a_foreign_handle_is_seen_by_the_auditor_of_whoever_used_it(tenants: RunningServer) -> None:
    """A call with a handle of another tenant, or of nobody, is recorded for the caller's tenant, without a session."""
    session = tenants.client("pep-a").request_session(user="alice", agent="coder", purpose="p", tools=["files/*"])
    for handle in (session.session_handle, "pdps_unknown"):
        tenants.client("pep-b").authorize(handle, "files", "read", {})

    seen = {
        tenant: [
            json.loads(one.record_json)
            for one in tenants.client(f"auditor-{tenant}").list_records(RecordFilter(kind="decision"))
        ]
        for tenant in ("a", "b")
    }

    assert [] == seen["a"]
    told = [(one["basis"], one["caller_id"], one["tenant"], one["session_id"], one["user"]) for one in seen["b"]]
    assert [("session_not_found", "pep-b", "b", "", "")] * 2 == told
    assert session.session.session_id not in json.dumps(seen["b"])


def test_questions_by_an_argument_travel(tenants: RunningServer) -> None:
    """Records, what was touched and the plan are found by what the overlay lets into the record."""
    client, approver, auditor = (tenants.client(f"{role}-a") for role in ("pep", "approver", "auditor"))
    opened = client.request_session(user="alice", agent="coder", purpose="p", tools=["files/*"])
    session = approver.approve_session(opened.session.session_id, request_digest=opened.session.request_digest)
    made = {path: client.authorize(opened.session_handle, "files", "read", {"path": path}) for path in ("x=1", "y")}

    which = RecordFilter(arguments=["path=x=1"])
    found = [json.loads(one.record_json)["id"] for one in auditor.list_records(which)]
    touched = list(auditor.list_touched(which))
    planned = [one.session_id for one in auditor.plan_revocation(PlanRevocationRequest(argument="path=y"))]

    assert [made["x=1"].decision_id] == found
    assert [1] == [one.allowed for one in touched]
    assert [session.session_id] == planned
    assert [] == list(tenants.client("auditor-b").list_records(which))


def test_what_the_policies_said_is_found_by_its_id(tenants: RunningServer) -> None:
    """The id that a trace shows of a decision about a session leads to its record, and to who approved the session."""
    tenants.client("pep-a").request_session(user="alice", agent="coder", purpose="p", tools=["files/*"])
    auditor = tenants.client("auditor-a")
    decided = [json.loads(one.record_json) for one in auditor.list_records(RecordFilter(kind="session.decided"))][-1]

    found = auditor.get_records(decided["facts"]["decision_id"])
    (approval,) = auditor.list_approvals(decision_id=decided["facts"]["decision_id"])

    assert [decided] == [json.loads(one.record_json) for one in found]
    assert (decided["session_id"], "p", ["files/*"]) == (
        approval.session_id, approval.purpose, list(approval.tool_patterns)
    )  # fmt: skip


def test_the_terms_of_a_session_are_told(tenants: RunningServer) -> None:
    """By their digests, as the settings show no value."""
    opened = tenants.client("pep-a").request_session(
        user="alice", agent="coder", purpose="p", tools=["files/*"], terms={"ticket": "OPS-1", "max_sum": 20.5}
    )
    auditor = tenants.client("auditor-a")

    (approval,) = auditor.list_approvals(session_id=opened.session.session_id)

    digests = {"ticket": keyed_digest(KEY, '"OPS-1"'), "max_sum": keyed_digest(KEY, '"20.5"')}
    assert (b"{}", digests) == (approval.terms_json, json.loads(approval.term_digests_json))


def test_a_retry_with_another_outcome_is_another_decision(tenants: RunningServer, clock: FakeClock) -> None:
    """Each id stands for one outcome, and its records are all shown."""
    client, approver = tenants.client("pep-a"), tenants.client("approver-a")
    opened = client.request_session(user="alice", agent="coder", purpose="p", tools=["files/*"])
    session_id = opened.session.session_id
    approver.approve_session(session_id, request_digest=opened.session.request_digest)

    def decide() -> str:
        return client.authorize(opened.session_handle, "files", "read", {}, request_id="r-1").decision_id

    ids = [decide(), decide()]
    clock.advance(60)
    ids += [decide(), decide()]
    shown = [
        [json.loads(one.record_json)["outcome"] for one in tenants.client("auditor-a").get_records(decision_id)]
        for decision_id in ids
    ]

    assert [ids[0], ids[0], ids[2], ids[2]] == ids
    assert ids[0] != ids[2]
    assert [["allow"] * 2] * 2 + [["deny"] * 2] * 2 == shown


def test_a_backlog_is_read_in_pieces(tmp_path: Path) -> None:
    """A server does not answer from half of the record, and each question brings the index on."""
    write_incident(tmp_path, 2000)
    searchable = SearchableRecord(tmp_path, most_bytes=400_000)
    percents: list[str] = []
    while len(percents) < 100:
        try:
            search = searchable.search()
            break
        except UnavailableError as error:
            percents.append(str(error))
    found = [one.record() for one in search.all(Filter())]
    searchable.close()

    assert "the index of the record is being built: " in percents[0]
    assert sorted(set(percents)) == sorted(percents)
    assert everything(tmp_path) == found
