"""The cache remembers what policies say, never whether a session may speak: SAFETY's rows about it, one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, fields, replace
from enum import Enum
from pathlib import Path
from threading import Barrier
from typing import Any, Literal

import pytest

from pdp.clock import Deadline, Instant
from pdp.decision.cache import DecisionCache, Key
from pdp.errors import NotFoundError, PDPError, PermissionDeniedError, WrongStateError
from pdp.foundation.jsontext import digest
from pdp.model import Basis, CacheResult, Call, CallRequest, Decision, Matter, Outcome, Role, Ruling, SessionState
from pdp.registry.words import Selector, SessionRequest, SessionView
from pdp.testing.bundles import bundle_files, tool
from tests.machinery.oracle.opened import APPROVER, GATEWAY, Opened, opened

PERMIT = '@id("shop/all") permit (principal, action, resource);\n'
POLICIES = (
    PERMIT
    + """
@id("shop/none") forbid (principal, action == Action::"shop/sell", resource);
@id("shop/late") forbid (principal, action == Action::"shop/wait", resource)
when { context.now >= datetime("2026-01-01T00:01:00Z") };
@id("shop/minute") forbid (principal, action == Action::"shop/tick", resource)
when { context.now.durationSince(datetime("2026-01-01")).toMinutes() == 1 };
@id("shop/whole") forbid (principal, action == Action::"shop/whole", resource) when { [context].isEmpty() };
@id("shop/some") forbid (principal, action == Action::"shop/count", resource)
when { context.input.count + 9223372036854775800 < 0 };
@id("shop/parent") forbid (principal, action == Action::"shop/depth", resource)
when { context.session.labels.contains("big") && context.input.count + 9223372036854775800 < 0 };
"""
)
COUNT = {"count": {"type": "integer"}}
TOOLS = [
    *(tool(name) for name in ("buy", "sell", "tick", "wait", "whole")),
    *(tool(name, COUNT, ["count"]) for name in ("count", "depth")),
]
FILES = bundle_files(
    policies={"shop": POLICIES},
    tools={"shop": TOOLS},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: [shop/*]}}}",
    labels=("big", "tainted", "l"),
)
FOREIGN = replace(GATEWAY, tenant="other")
FOREIGN_APPROVER = replace(APPROVER, tenant="other")


@pytest.fixture
def pdp(tmp_path: Path) -> Iterator[Opened]:
    """Yield an open PDP that remembers for a minute."""
    with opened(tmp_path, FILES, DecisionCache(max_ttl=60.0)) as pdp:
        yield pdp


def said(decision: Decision) -> tuple[str, str]:
    """Return basis and cache result of a decision."""
    return decision.ruling.basis.value, decision.cache_result.value


def by_wall(pdp: Opened, seconds: float) -> None:
    """Let time pass on the wall clock alone."""
    pdp.clock.step_wall(seconds)


def by_boot(pdp: Opened, seconds: float) -> None:
    """Let time pass on the boot clock alone, as when the wall clock is set back after a sleep."""
    pdp.clock.advance(seconds)
    pdp.clock.step_wall(-seconds)


CLOCKS = pytest.mark.parametrize("pass_time", [by_wall, by_boot])
AROUND_THE_END = pytest.mark.parametrize(("offset", "alive"), [(-1.0, True), (0.0, False), (1.0, False)])


# An entry has an absolute end.


@CLOCKS
@AROUND_THE_END
def test_a_hot_entry_dies_after_max_ttl(
    pdp: Opened, pass_time: Callable[[Opened, float], None], offset: float, *, alive: bool
) -> None:
    """However often an entry is used, it is used no longer than `max_ttl` after it was made."""
    _, handle = pdp.session("shop/*")
    pdp.ask(handle, "shop/buy")
    for _ in range(59):
        pass_time(pdp, 1.0)
        assert ("permit", "hit") == said(pdp.ask(handle, "shop/buy"))
    pass_time(pdp, 1.0 + offset)

    assert ("permit", "hit" if alive else "miss") == said(pdp.ask(handle, "shop/buy"))


@CLOCKS
@AROUND_THE_END
def test_a_hot_call_is_denied_when_the_session_is_over(
    pdp: Opened, pass_time: Callable[[Opened, float], None], offset: float, *, alive: bool
) -> None:
    """An allowed call whose answer is remembered is denied from the very moment at which the session ends."""
    _, handle = pdp.session("shop/*", duration=30.0)
    pdp.ask(handle, "shop/buy")
    pass_time(pdp, 29.0)
    pdp.ask(handle, "shop/buy")
    pass_time(pdp, 1.0 + offset)

    assert (("permit", "hit") if alive else ("session_expired", "none")) == said(pdp.ask(handle, "shop/buy"))


@AROUND_THE_END
def test_an_entry_ends_with_its_session(offset: float, *, alive: bool) -> None:
    """The cache itself gives nothing out after the session's end, on either clock."""
    cache, key = DecisionCache(max_ttl=300.0), ("key",)
    now = Instant(wall_at=1000.0, boot_at=10.0, boot_id="boot-1")
    ruling = Ruling(outcome=Outcome.ALLOW, basis=Basis.PERMIT)
    cache.put(key, ruling, Deadline.after(now, 30.0), now)

    for later in (now._replace(wall_at=1030.0 + offset), now._replace(boot_at=40.0 + offset)):
        assert ([ruling] if alive else []) == [found.ruling for found in [cache.get(key, later)] if found]


def test_an_entry_made_after_a_reboot_ends_on_the_boot_clock() -> None:
    """A session from before a reboot does not free its entries from this boot's clock."""
    cache, key = DecisionCache(max_ttl=60.0), ("key",)
    before = Instant(wall_at=1000.0, boot_at=500.0, boot_id="boot-1")
    now = Instant(wall_at=1000.0, boot_at=0.0, boot_id="boot-2")
    cache.put(key, Ruling(outcome=Outcome.ALLOW, basis=Basis.PERMIT), Deadline.after(before, 30.0), now)

    assert cache.get(key, now._replace(boot_at=59.0)) is not None
    assert cache.get(key, now._replace(boot_at=60.0)) is None
    assert cache.get(key, now._replace(wall_at=1030.0)) is None


# What changed has another key.


def revoked(kind: Literal["session", "user"], pdp: Opened, value: str) -> None:
    """Revoke by a selector."""
    pdp.embedded.registrar.revoke(Selector(kind=kind, value=value), reason="", caller=APPROVER)


def directory(user: str, ceiling: str) -> dict[str, bytes]:
    """Return a directory of one user and one agent."""
    return {"directory.yaml": f"{{users: {{{user}: {{}}}}, agents: {{coder: {{ceiling: [{ceiling}]}}}}}}".encode()}


OTHER_POLICIES = {"shop.cedar": POLICIES.replace('"shop/sell"', '"shop/buy"').encode()}
FEWER_TOOLS = {"tools/shop.json": json.dumps({"tools": TOOLS[1:]}).encode()}


@pytest.mark.parametrize(
    ("change", "basis"),
    [
        (lambda pdp, one: revoked("session", pdp, one), "session_revoked"),
        (lambda pdp, _: revoked("user", pdp, "alice"), "session_revoked"),
        (lambda pdp, one: narrowed(pdp, one, tool_patterns=("shop/sell",)), "out_of_scope"),
        (lambda pdp, one: narrowed(pdp, one, expires_at=0.0), "session_expired"),
        (lambda pdp, _: pdp.reload(OTHER_POLICIES), "forbid"),
        (lambda pdp, _: pdp.reload(directory("alice", "shop/sell")), "out_of_scope"),
        (lambda pdp, _: pdp.reload(directory("bob", "shop/*")), "session_revoked"),
        (lambda pdp, _: pdp.reload({**FEWER_TOOLS, "shop.cedar": PERMIT.encode()}), "unknown_tool"),
    ],
    ids=["revoked", "user revoked", "fewer tools", "earlier end", "policies", "ceiling", "user gone", "tool gone"],
)
def test_the_next_call_after_a_change_is_denied(
    pdp: Opened, change: Callable[[Opened, str], object], basis: str
) -> None:
    """Nobody tells the cache of a change, and the very next call is denied."""
    session_id, handle = pdp.session("shop/*")
    assert ["miss", "hit"] == [pdp.ask(handle, "shop/buy").cache_result.value for _ in range(2)]
    change(pdp, session_id)

    assert basis == pdp.ask(handle, "shop/buy").ruling.basis.value


def test_what_a_remembered_decision_is_about_is_what_a_new_one_is_about(pdp: Opened) -> None:
    """Equal calls share it until their session changes, and no other call has it."""
    session_id, handle = pdp.session("shop/*")
    matters = [pdp.ask(handle, "shop/count", b'{"count":1}').matter for _ in range(3)]
    other = [pdp.ask(handle, "shop/count", b'{"count":2}').matter for _ in range(3)]
    narrowed(pdp, session_id, labels=("l",))
    later = [pdp.ask(handle, "shop/count", b'{"count":1}').matter for _ in range(3)]

    assert matters[0] is not matters[1] is matters[2]
    assert {matters[0]} == {*matters}
    assert {replace(matters[0], arguments_digest=digest(b'{"count":2}'))} == {*other}
    assert {replace(matters[0], session_epoch=matters[0].session_epoch + 1)} == {*later}


def narrowed(pdp: Opened, session_id: str, **wanted: Any) -> SessionView:
    """Narrow a session."""
    facts: dict[str, Any] = {"tool_patterns": (), "expires_at": None, "labels": ()}
    return pdp.embedded.registrar.narrow(session_id, **{**facts, **wanted}, caller=APPROVER)


class _SlowCache(DecisionCache):
    """A cache that is told about an answer only after something else has happened."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] = lambda: None

    def put(self, key: Key, ruling: Ruling, end: Deadline, now: Instant, matter: Matter | None = None) -> None:
        self.meanwhile()
        super().put(key, ruling, end, now, matter)


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda pdp, one: narrowed(pdp, one, labels=("tainted",)),
        lambda pdp, _: pdp.reload({"shop.cedar": PERMIT.replace("permit", "forbid").encode()}),
    ],
    ids=["narrowed", "reloaded"],
)
def test_a_slow_writer_brings_nothing_back(tmp_path: Path, meanwhile: Callable[[Opened, str], object]) -> None:
    """An answer that is remembered after the session or the bundle has changed is never given again."""
    tainted = """
    @id("shop/tainted") forbid (principal, action == Action::"shop/buy", resource)
    when { context.session.labels.contains("tainted") };
    """
    cache = _SlowCache()
    with opened(tmp_path, {**FILES, "shop.cedar": (PERMIT + tainted).encode()}, cache) as pdp:
        session_id, handle = pdp.session("shop/*")
        cache.meanwhile = lambda: meanwhile(pdp, session_id)

        assert ("permit", "miss") == said(pdp.ask(handle, "shop/buy"))

        cache.meanwhile = lambda: None

        assert ("forbid", "miss") == said(pdp.ask(handle, "shop/buy"))
        assert ("forbid", "hit") == said(pdp.ask(handle, "shop/buy"))


# What is remembered is what was said.


def test_a_remembered_deny_stays_a_deny(pdp: Opened) -> None:
    """A deny from the cache is the same deny, with the same policies, also between allows."""
    _, handle = pdp.session("shop/*")
    denies = []
    for _ in range(5):
        assert pdp.ask(handle, "shop/buy").allowed
        denies.append(pdp.ask(handle, "shop/sell"))

    assert [CacheResult.MISS, *[CacheResult.HIT] * 4] == [decision.cache_result for decision in denies]
    assert {("forbid", ("shop/none",), False)} == {
        (decision.ruling.basis.value, decision.ruling.policies, decision.allowed) for decision in denies
    }


def test_many_threads_on_one_entry(pdp: Opened) -> None:
    """Threads that share an entry get one ruling, each under a decision id of its own."""
    _, handle = pdp.session("shop/*")
    first = pdp.ask(handle, "shop/buy")
    together = Barrier(8)

    def ask_often(_: int) -> list[Decision]:
        together.wait(30)
        return [pdp.ask(handle, "shop/buy") for _ in range(200)]

    with ThreadPoolExecutor(8) as pool:
        decisions = [decision for found in pool.map(ask_often, range(8)) for decision in found]

    assert {CacheResult.HIT} == {decision.cache_result for decision in decisions}
    assert {first.ruling} == {decision.ruling for decision in decisions}
    assert 1601 == len({first.id, *(decision.id for decision in decisions)})


def test_a_ruling_cannot_be_changed(pdp: Opened) -> None:
    """What one caller is given, no caller can change for the next."""
    _, handle = pdp.session("shop/*")
    ruling = pdp.ask(handle, "shop/sell").ruling

    for field in fields(Ruling):
        value = getattr(ruling, field.name)
        assert isinstance(value, str | bool | tuple | Enum | None)
        assert not isinstance(value, tuple) or {str} >= {type(one) for one in value}
        with pytest.raises(FrozenInstanceError):
            setattr(ruling, field.name, value)


# What is never remembered.


@pytest.mark.parametrize(
    ("action", "arguments", "expected"),
    [
        ("shop/count", b'{"count":9}', ("policy_error", "bypass")),
        ("shop/count", b'{"count":"9"}', ("invalid_arguments", "none")),
        ("shop/tick", b"", ("permit", "bypass")),
        ("shop/whole", b"", ("permit", "bypass")),
        ("shop/none", b"", ("unknown_tool", "none")),
    ],
)
def test_what_is_never_remembered(pdp: Opened, action: str, arguments: bytes, expected: tuple[str, str]) -> None:
    """Errors, arguments that do not fit, and policies that reckon with the time or read all leave no entry."""
    _, handle = pdp.session("shop/*")

    assert [expected] * 3 == [said(pdp.ask(handle, action, arguments)) for _ in range(3)]
    assert 0 == len(pdp.cache._entries._values)


def test_an_error_about_an_ancestor_is_not_remembered(pdp: Opened) -> None:
    """An error in the answer about a session above is as little remembered."""
    parent, parent_handle = pdp.session("shop/*", labels=(), may_delegate=True)
    _, handle = pdp.request("shop/depth", parent_session_handle=parent_handle)
    narrowed(pdp, parent, labels=("big",))
    decisions = [pdp.ask(handle, "shop/depth", b'{"count":9}') for _ in range(3)]

    assert [("ancestor_denied", "bypass")] * 3 == [said(decision) for decision in decisions]
    assert {Basis.POLICY_ERROR} == {decision.ruling.ancestor_basis for decision in decisions}
    assert 0 == len(pdp.cache._entries._values)


@AROUND_THE_END
def test_a_policy_that_reckons_with_the_time_is_asked_each_time(pdp: Opened, offset: float, *, alive: bool) -> None:
    """A forbid for a minute holds from that very moment, however hot the call is."""
    _, handle = pdp.session("shop/*")
    pdp.ask(handle, "shop/tick")
    pdp.clock.advance(60.0 + offset)

    assert ("permit" if alive else "forbid", "bypass") == said(pdp.ask(handle, "shop/tick"))


@AROUND_THE_END
def test_what_is_remembered_about_the_time_ends_where_it_changes(pdp: Opened, offset: float, *, alive: bool) -> None:
    """A forbid from a moment on holds from that very moment, however hot the call is; until then it is remembered."""
    _, handle = pdp.session("shop/*")
    pdp.ask(handle, "shop/wait")
    pdp.clock.advance(60.0 + offset)

    assert (("permit", "hit") if alive else ("forbid", "miss")) == said(pdp.ask(handle, "shop/wait"))


# One answer about a session's state, from every method.


def _authorize(pdp: Opened, _: str, handle: str) -> object:
    return pdp.ask(handle, "shop/buy").ruling.basis.value


def _batch(pdp: Opened, _: str, handle: str) -> object:
    call = Call(session_handle=handle, server="shop", tool="buy")
    (decision,) = pdp.embedded.authorizer.batch([CallRequest(call=call)], GATEWAY)
    return decision.ruling.basis.value


def _list_tools(pdp: Opened, _: str, handle: str) -> object:
    return len(pdp.embedded.authorizer.list_tools(handle, GATEWAY).tools)


def _get(pdp: Opened, session_id: str, _: str) -> object:
    return pdp.embedded.registrar.get(session_id, caller=APPROVER).state.value


def _list(pdp: Opened, session_id: str, _: str) -> object:
    found: dict[str, str] = {}
    for state in (SessionState.ACTIVE, SessionState.EXPIRED, SessionState.REQUESTED):
        views, _token = pdp.embedded.registrar.list(
            state=state, user="", agent="", page_size=0, page_token="", caller=APPROVER
        )
        found |= {view.session.id: view.state.value for view in views}
    return found[session_id]


def _end(pdp: Opened, _: str, handle: str) -> object:
    return pdp.embedded.registrar.end(handle, caller=GATEWAY).state.value


def _narrow(pdp: Opened, session_id: str, _: str) -> object:
    return narrowed(pdp, session_id, labels=("l",)).session.labels


def _delegate(pdp: Opened, _: str, handle: str) -> object:
    return pdp.stored(pdp.request("shop/buy", parent_session_handle=handle)[0]).state.value


def _approve(pdp: Opened, session_id: str, _: str) -> object:
    pdp.approve(session_id)
    return pdp.stored(session_id).state.value


def _deny(pdp: Opened, session_id: str, _: str) -> object:
    return pdp.embedded.registrar.deny(session_id, reason="", caller=APPROVER).state.value


Method = Callable[[Opened, str, str], object]


def outcome(method: Method, pdp: Opened, session_id: str, handle: str) -> object:
    """Return what a method returns, or its refusal as type and text."""
    try:
        return method(pdp, session_id, handle)
    except PDPError as error:
        return type(error), str(error)


def still(method: Method, pass_time: Callable[[Opened, float], None], *, alive: bool) -> bool:
    """Say whether a method does what it does before the end.

    What closes or narrows does so also after an end by the boot clock alone, of which a reboot would know nothing.
    """
    return alive or (method in {_deny, _end, _narrow} and pass_time is by_boot)


@CLOCKS
@AROUND_THE_END
@pytest.mark.parametrize(
    ("method", "before", "after"),
    [
        (_authorize, "permit", "session_expired"),
        (_batch, "permit", "session_expired"),
        (_list_tools, len(TOOLS), (WrongStateError, "the session is expired, not active")),
        (_get, "active", "expired"),
        (_list, "active", "expired"),
        (_end, "ended", (WrongStateError, "the session is already expired")),
        (_narrow, ("l",), (WrongStateError, "the session is expired, not active")),
        (_delegate, "active", (WrongStateError, "the parent session is expired, not active")),
    ],
)
def test_every_method_at_the_end_of_a_session(
    pdp: Opened,
    pass_time: Callable[[Opened, float], None],
    offset: float,
    method: Method,
    before: object,
    after: object,
    *,
    alive: bool,
) -> None:
    """Every method takes a session for active until its end, and for expired from that very moment."""
    session_id, handle = pdp.session("shop/*", duration=30.0, may_delegate=True)
    pdp.ask(handle, "shop/buy")
    pass_time(pdp, 30.0 + offset)

    expected = before if still(method, pass_time, alive=alive) else after
    assert expected == outcome(method, pdp, session_id, handle)


@CLOCKS
@AROUND_THE_END
@pytest.mark.parametrize(
    ("method", "before", "after"),
    [
        (_authorize, "session_not_approved", "session_expired"),
        (_get, "requested", "expired"),
        (_list, "requested", "expired"),
        (_approve, "active", (WrongStateError, "the session is expired, not requested")),
        (_deny, "denied", (WrongStateError, "the session is expired, not requested")),
        (_end, "ended", (WrongStateError, "the session is already expired")),
    ],
)
def test_every_method_at_the_end_of_a_request(
    pdp: Opened,
    pass_time: Callable[[Opened, float], None],
    offset: float,
    method: Method,
    before: object,
    after: object,
    *,
    alive: bool,
) -> None:
    """A request waits until its end, and no longer."""
    session_id, handle = pdp.request("shop/*")
    pass_time(pdp, 3600.0 + offset)

    expected = before if still(method, pass_time, alive=alive) else after
    assert expected == outcome(method, pdp, session_id, handle)


@AROUND_THE_END
@pytest.mark.parametrize("waiting", [False, True])
def test_revoking_at_the_end(pdp: Opened, offset: float, *, waiting: bool, alive: bool) -> None:
    """A session that is over is not revoked any more: it stays expired."""
    session_id, _ = pdp.request("shop/*") if waiting else pdp.session("shop/*")
    pdp.clock.advance(3600.0 + offset)
    selector = Selector(kind="session", value=session_id)

    assert ((session_id,) if alive else ()) == pdp.embedded.registrar.revoke(selector, reason="", caller=APPROVER)
    assert ("revoked" if alive else "expired") == _get(pdp, session_id, "")


# A session of another tenant looks like none.


def _as_foreign(method: str, pdp: Opened, session_id: str, handle: str) -> object:
    authorizer, registrar = pdp.embedded.authorizer, pdp.embedded.registrar
    call = Call(session_handle=handle, server="shop", tool="buy")
    wish = SessionRequest(
        user="alice", agent="coder", purpose="p", tool_patterns=("shop/*",), parent_session_handle=handle
    )
    deeds: dict[str, Callable[[], object]] = {
        "authorize": lambda: replace(authorizer.authorize(CallRequest(call=call), FOREIGN), **_VARYING),
        "batch": lambda: [replace(one, **_VARYING) for one in authorizer.batch([CallRequest(call=call)], FOREIGN)],
        "list_tools": lambda: authorizer.list_tools(handle, FOREIGN),
        "request": lambda: registrar.request(wish, FOREIGN),
        "get": lambda: registrar.get(session_id, caller=FOREIGN_APPROVER),
        "approve": lambda: registrar.approve(session_id, request_digest="", grants=(), caller=FOREIGN_APPROVER),
        "deny": lambda: registrar.deny(session_id, reason="", caller=FOREIGN_APPROVER),
        "end": lambda: registrar.end(handle, caller=FOREIGN),
        "narrow": lambda: registrar.narrow(
            session_id, tool_patterns=(), expires_at=0.0, labels=(), caller=FOREIGN_APPROVER
        ),
        "revoke": lambda: registrar.revoke(
            Selector(kind="session", value=session_id), reason="", caller=FOREIGN_APPROVER
        ),
    }
    try:
        return deeds[method]()
    except PDPError as error:
        return type(error), str(error)


# What differs between any two decisions.
_VARYING: dict[str, Any] = {"id": "", "phases": (), "duration_us": 0.0}


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize(
    "method", ["authorize", "batch", "list_tools", "request", "get", "approve", "deny", "end", "narrow", "revoke"]
)
def test_a_foreign_session_looks_like_none(pdp: Opened, method: str, *, waiting: bool) -> None:
    """What another tenant is told about a session's id and handle is what it is told about invented ones."""
    session_id, handle = (pdp.request if waiting else pdp.session)("shop/*")
    before = pdp.stored(session_id)
    foreign = _as_foreign(method, pdp, session_id, handle)

    assert foreign == _as_foreign(method, pdp, "ses_" + "a" * 26, "pdps_" + "A" * 43)
    assert "permit" not in str(foreign)
    assert pdp.stored(session_id) == before


def test_a_foreign_tenant_lists_and_revokes_nothing(pdp: Opened) -> None:
    """By user, by agent and by list another tenant reaches nothing, and by tenant only its own."""
    session_id, _ = pdp.session("shop/*")
    registrar = pdp.embedded.registrar
    found, _token = registrar.list(state=None, user="", agent="", page_size=0, page_token="", caller=FOREIGN_APPROVER)

    assert () == found
    assert () == registrar.revoke(Selector(kind="user", value="alice"), reason="", caller=FOREIGN_APPROVER)
    assert () == registrar.revoke(Selector(kind="agent", value="coder"), reason="", caller=FOREIGN_APPROVER)
    assert () == registrar.revoke(Selector(kind="tenant", value="other"), reason="", caller=FOREIGN_APPROVER)
    with pytest.raises(PermissionDeniedError):
        registrar.revoke(Selector(kind="tenant", value="default"), reason="", caller=FOREIGN_APPROVER)
    assert SessionState.ACTIVE is pdp.stored(session_id).state


def test_another_gateway_of_the_tenant_sees_no_session(pdp: Opened) -> None:
    """A gateway sees and ends only the sessions that it opened itself."""
    session_id, handle = pdp.session("shop/*")
    other = replace(GATEWAY, id="gateway-2", roles=frozenset({Role.PEP}))

    with pytest.raises(NotFoundError):
        pdp.embedded.registrar.get(session_id, caller=other)
    with pytest.raises(NotFoundError):
        pdp.embedded.registrar.end(handle, caller=other)
