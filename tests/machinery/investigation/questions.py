"""Every question of an investigator, asked of the index and of every line, with the time that each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from pdp.audit import Search
from pdp.audit.values import Filter, Found, PlannedSession, Selector, Touch, Window
from pdp.clock import utc_text
from tests.machinery.investigation.bruteforce import Record, below, chosen, live, moment, plan, reach, within

_MOST = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question by name, and how each side answers it."""

    name: str
    ask: Callable[[], Any]
    expected: Callable[[], Any]


def answered(question: Question) -> tuple[Any, Any, float]:
    """Return the answer, what it must be, and the seconds that the answer took."""
    started = time.perf_counter()
    answer = question.ask()
    seconds = time.perf_counter() - started
    return answer, question.expected(), seconds


def questions(
    search: Search, records: list[Record], now_at: float, cut: Callable[[Record], Record] = lambda record: record
) -> Iterator[Question]:
    """Yield the questions about an incident; records are compared as `cut` leaves them."""
    yield from _of_one(search, records, now_at, cut)
    yield from _of_many(search, records)
    yield from _of_revocation(search, records, now_at)


def _of_one(
    search: Search, records: list[Record], now_at: float, cut: Callable[[Record], Record]
) -> Iterator[Question]:
    decision = next(one for one in records[len(records) // 2 :] if one.get("ancestors"))
    session = decision["session_id"]
    yield Question(
        name="show DECISION",
        ask=lambda: [cut(one.record()) for one in search.show(decision["id"])],
        expected=lambda: [decision],
    )
    yield Question(
        name="session ID",
        ask=lambda: [cut(one.record()) for one in search.page(Filter(session_id=session), limit=_MOST)],
        expected=lambda: chosen(records, session_id=session),
    )
    yield Question(
        name="who-approved DECISION",
        ask=lambda: [
            (one.session_id, one.approved_by, one.delegated, one.state.value)
            for one in search.approvals(decision["id"], now_at=now_at)
        ],
        expected=lambda: list(_approvals(records, session, now_at)),
    )
    root = decision["ancestors"][-1]
    yield Question(
        name="touched --session --delegated",
        ask=lambda: _touched(search.touched(Filter(session_id=root, delegated=True), limit=_MOST)),
        expected=lambda: _reach_below(records, root),
    )


def _of_many(search: Search, records: list[Record]) -> Iterator[Question]:
    for name, field, value in (
        ("agent", "agent", "agent-3"),
        ("user", "user", "user-7"),
        ("pep", "caller_id", "gateway-2"),
    ):
        yield _executed_by(search, records, name, {field: value})
        yield _touched_by(search, records, name, {field: value})
        yield _last_allowed_to(search, records, name, {field: value})
    server, tool = next((one["server"], one["tool"]) for one in records if one["kind"] == "decision")
    yield Question(
        name="calls of a tool that a forbid denied",
        ask=lambda: _ids(search.page(Filter(tool=f"{server}/{tool}", server=server, basis="forbid"), limit=_MOST)),
        expected=lambda: [one["id"] for one in chosen(records, server=server, tool=tool, basis="forbid")],
    )
    yield Question(
        name="calls on a resource",
        ask=lambda: _ids(search.page(Filter(resource="repository-151"), limit=_MOST)),
        expected=lambda: [one["id"] for one in chosen(records, resource_id="repository-151")],
    )
    yield Question(
        name="all denials of a tenant",
        ask=lambda: _ids(search.page(Filter(outcome="deny", tenant="other"), limit=_MOST)),
        expected=lambda: [one["id"] for one in chosen(records, kind="decision", outcome="deny", tenant="other")],
    )


def _executed_by(search: Search, records: list[Record], name: str, which: dict[str, str]) -> Question:
    middle = moment(records[len(records) // 2]["time"])
    span = (middle - 60.0, middle + 60.0)
    where = Filter(outcome="allow", window=Window(since_at=span[0], until_at=span[1]), **which)  # type: ignore[arg-type]  # by name
    return Question(
        name=f"executed-by {name}, two minutes",
        ask=lambda: _ids(search.page(where, limit=_MOST)),
        expected=lambda: [
            one["id"] for one in within(chosen(records, kind="decision", outcome="allow", **which), *span)
        ],
    )


def _touched_by(search: Search, records: list[Record], name: str, which: dict[str, str]) -> Question:
    where = Filter(**which)  # type: ignore[arg-type]  # by name
    return Question(
        name=f"touched by {name}",
        ask=lambda: _touched(search.touched(where, limit=_MOST)),
        expected=lambda: reach(chosen(records, **which)),
    )


def _last_allowed_to(search: Search, records: list[Record], name: str, which: dict[str, str]) -> Question:
    since_at = moment(records[len(records) // 2]["time"])
    where = Filter(window=Window(since_at=since_at), **which)  # type: ignore[arg-type]  # by name
    allowed = within(chosen(records, kind="decision", outcome="allow", **which), since_at, inf)
    return Question(
        name=f"last allowed to {name}",
        ask=lambda: dict(search.last_allowed(where)),
        # The records are in order of time.
        expected=lambda: {f"{one['server']}/{one['tool']}": moment(one["time"]) for one in allowed},
    )


def _to_revoke(
    search: Search,
    records: list[Record],
    name: str,
    selector: Selector,
    now_at: float,
    meant: Callable[[Record], bool],
) -> Question:
    return Question(
        name=f"revoke-plan {name}",
        ask=lambda: _planned(search.plan(selector, now_at=now_at, limit=_MOST)),
        expected=lambda: plan(records, now_at, meant),
    )


def _of_revocation(search: Search, records: list[Record], now_at: float) -> Iterator[Question]:
    window, span = Window(since_at=now_at - 120.0, until_at=now_at), (now_at - 120.0, now_at)

    def calls(**wanted: str) -> Callable[[Record], bool]:
        wanted |= {"kind": "decision", "outcome": "allow"}
        return lambda one: all(one.get(name) == value for name, value in wanted.items())

    def during(meant: Callable[[Record], bool]) -> Callable[[Record], bool]:
        return lambda one: span[0] <= moment(one["time"]) < span[1] and meant(one)

    def by_pep(one: Record) -> bool:
        return one["caller_id"] == "gateway-1" and one["kind"] in ("session.requested", "decision")

    def by_approver(one: Record) -> bool:
        delegated = one.get("facts", {}).get("parent_id")
        return one["kind"] == "session.approved" and one["caller_id"] == "approver-2" and not delegated

    resource = "repository-9"
    bundle = next(one["bundle_version"] for one in reversed(records) if one["kind"] == "decision")
    for name, selector, meant in (
        ("user", Selector(user="user-7"), lambda one: one.get("user") == "user-7"),
        ("agent", Selector(agent="agent-3"), lambda one: one.get("agent") == "agent-3"),
        ("tool", Selector(tool="server-1/tool-4"), calls(server="server-1", tool="tool-4")),
        ("server", Selector(server="server-1"), calls(server="server-1")),
        ("resource", Selector(resource=resource), calls(resource_id=resource)),
        ("bundle", Selector(bundle=bundle), calls(bundle_version=bundle)),
        ("pep", Selector(pep="gateway-1"), by_pep),
        ("approver", Selector(approver="approver-2"), by_approver),
        ("window", Selector(window=window), during(lambda _: True)),
        (
            "server and agent, window",
            Selector(server="server-1", agent="agent-3", window=window),
            during(calls(server="server-1", agent="agent-3")),
        ),
        (
            "tenant",
            Selector(agent="agent-3", tenant="other"),
            lambda one: one.get("agent") == "agent-3" and one["tenant"] == "other",
        ),
    ):
        yield _to_revoke(search, records, name, selector, now_at, meant)


def _reach_below(records: list[Record], session: str) -> dict[tuple[str, str, str, str], tuple[int, int, str, str]]:
    tree = below(records, [session])
    return reach(one for one in records if one.get("session_id") in tree)


def _approvals(records: list[Record], session: str, now_at: float) -> Iterator[tuple[str, str, bool, str]]:
    states = live(records, now_at)
    while session:
        own = chosen(records, session_id=session)
        approved = next(one for one in own if one["kind"] == "session.approved")
        parent = approved["facts"].get("parent_id", "")
        closed = [
            one["kind"].removeprefix("session.") for one in own if one["kind"] in ("session.ended", "session.revoked")
        ]
        yield session, approved["facts"]["by"], bool(parent), (closed or [states.get(session, "expired")])[0]
        session = parent


def _ids(found: list[Found]) -> list[str]:
    return [one.record()["id"] for one in found]


def _touched(found: list[Touch]) -> dict[tuple[str, str, str, str], tuple[int, int, str, str]]:
    return {
        (one.server, one.tool, one.resource_type, one.resource_id): (
            one.allowed,
            one.denied,
            utc_text(one.first_at),
            utc_text(one.last_at),
        )
        for one in found
    }


def _planned(found: list[PlannedSession]) -> dict[str, tuple[str, bool]]:
    return {one.session_id: (one.state.value, one.matched) for one in found}
