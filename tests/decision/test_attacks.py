"""Ways in which a deny could become an allow, an answer an accident, or a listing a lie; none of them works."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.bundles.keeper import BundleKeeper
from pdp.bundles.localsources import FolderSource
from pdp.decision.observers import Observers
from pdp.errors import (
    BundleError,
    BundleUnavailableError,
    InvalidRequestError,
    PermissionDeniedError,
    RequestIdConflictError,
    StoreUnavailableError,
)
from pdp.limits import DEFAULT_LIMITS
from pdp.model import (
    AT_EACH_CALL,
    Basis,
    Call,
    Caller,
    CallRequest,
    Decision,
    Outcome,
    Role,
    Ruling,
    Session,
    SessionState,
    Visibility,
)
from pdp.registry.words import SessionRequest
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.values import ActiveBundle, Captured, Change, Expected, SessionFilter
from pdp.sessions.writes import Write
from pdp.testing.bundles import SCHEMA, bundle_files, compile_once_here, tool
from pdp.testing.clock import FakeClock
from pdp.testing.waiting import wait_until

PEP = Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="approver", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
WANTED = SessionRequest(user="alice", agent="worker", purpose="Work", tool_patterns=("files/*",))

RICH_SCHEMA = SCHEMA.replace("level?: Long }", "level?: Long, home?: Thing, boss?: User }").replace(
    "entity Thing in [Server]", "entity Thing in [Server, Thing]"
)
AGENTS = "\nagents: {worker: {ceiling: ['files/*']}}\n"
READ = tool("read")
OPEN = tool("open", {"id": {"type": "string"}, "n": {"type": "integer"}, "x": {"type": "number"}}, ["id"])
MAPPED = 'tools: {read: {risk: read_only}, open: {resource: {type: Thing, id: "{id}"}}}'
PERMIT = '@id("files/permit") permit (principal, action, resource);'

Open = Callable[..., Embedded]


def write(folder: Path, policies: str, directory: str, schema: str = RICH_SCHEMA, labels: Iterable[str] = ()) -> None:
    """Write a bundle with a mapped tool, `files/open`, and one of the server, `files/read`."""
    files = bundle_files(
        policies={"files": policies},
        tools={"files": [READ, OPEN]},
        overlays={"files": MAPPED},
        directory=directory + AGENTS,
        schema=schema,
        # Random policies may permit what has it.
        manifest="labels: {red: {meaning: may be, widens: true}}\n" if not labels else "",
        labels=labels,
    )
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands."""
    return FakeClock()


@pytest.fixture
def opened(tmp_path: Path, clock: FakeClock) -> Open:
    """Return what opens a PDP on policies and a directory."""

    def open_pdp(policies: str, directory: str, **changes: Any) -> Embedded:
        write(tmp_path, policies, directory, **changes)
        trusted = frozenset({"level", "boss"})
        return open_embedded(tmp_path, clock=clock, compile_files=compile_once_here, trusted_attributes=trusted)

    return open_pdp


def approved(pdp: Embedded, wanted: SessionRequest = WANTED) -> str:
    """Return the handle of an approved session."""
    view, handle = pdp.registrar.request(wanted, PEP)
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
    return handle


def ruling(pdp: Embedded, handle: str, name: str, arguments: bytes = b"") -> Ruling:
    """Return what is found about a call."""
    call = Call(session_handle=handle, server="files", tool=name, arguments_json=arguments)
    return pdp.authorizer.authorize(CallRequest(call=call), PEP).ruling


def listed(pdp: Embedded, handle: str) -> dict[str, Visibility]:
    """Return how each tool is listed."""
    return {one.tool: one.visibility for one in pdp.authorizer.list_tools(handle, PEP).tools}


LOW_LEVEL = """
@id("files/permit") permit (principal, action, resource);
@id("files/low") forbid (principal, action in Action::"destructive", resource)
when { principal has level && principal.level < 3 };
"""
HOME = """
users: {alice: {attributes: {home: {type: Thing, id: home}}}}
entities: [{type: Thing, id: home, attributes: {owner: {type: User, id: alice}}}]
"""


@pytest.mark.parametrize("thing", ["home", "other"])
def test_vouched_attribute_counts_for_what_the_user_refers_to(opened: Open, thing: str) -> None:
    """What the directory says of the user never hides what was vouched for, whichever thing a call is about."""
    pdp = opened(LOW_LEVEL, HOME)
    handle = approved(pdp, replace(WANTED, user_attributes_json=b'{"level": 1}'))

    assert Basis.FORBID is ruling(pdp, handle, "open", json.dumps({"id": thing}).encode()).basis


def test_what_a_vouched_attribute_refers_to_is_present(opened: Open) -> None:
    """A forbid on the groups of a boss holds for a boss that was vouched for."""
    policies = """
    @id("files/permit") permit (principal, action, resource);
    @id("files/boss") forbid (principal, action in Action::"destructive", resource)
    when { principal has boss && principal.boss in UserGroup::"suspects" };
    """
    pdp = opened(policies, "user_groups: {suspects: {}}\nusers: {alice: {}, carol: {groups: [suspects]}}")
    handle = approved(pdp, replace(WANTED, user_attributes_json=b'{"boss": {"type": "User", "id": "carol"}}'))

    assert Basis.FORBID is ruling(pdp, handle, "open", b'{"id": "x"}').basis


def test_listing_reads_entities_as_calls_do(opened: Open) -> None:
    """A policy about an entity that it names finds references in its attributes, not records."""
    condition = 'Thing::"home" has owner && Thing::"home".owner == principal'
    pdp = opened(f'@id("files/a") permit (principal, action, resource) when {{ {condition} }};', HOME)
    handle = approved(pdp)

    assert ruling(pdp, handle, "read").allowed
    assert Visibility.ALWAYS is listed(pdp, handle)["read"]


def test_session_that_fits_no_more_is_denied_and_listed_so(opened: Open, tmp_path: Path) -> None:
    """A new schema that the vouched attributes do not fit makes no error of ours, and tells no attribute."""
    pdp = opened(PERMIT, "users: {alice: {}}")
    handle = approved(pdp, replace(WANTED, user_attributes_json=b'{"level": 12345}'))
    write(tmp_path, PERMIT, "users: {alice: {}}", RICH_SCHEMA.replace("level?: Long", "level?: String"))
    pdp.keeper.reload(by="test")

    assert Basis.POLICY_ERROR is ruling(pdp, handle, "read").basis
    assert {"read": Visibility.NEVER, "open": Visibility.NEVER} == listed(pdp, handle)


def test_approver_who_fits_no_schema_is_refused(opened: Open) -> None:
    """An approver that the directory does not know lacks what the schema demands: a refusal, not a wrong field."""
    schema = RICH_SCHEMA.replace("team?: String", "team: String")
    pdp = opened(PERMIT, "users: {alice: {attributes: {team: red}}}", schema=schema)

    with pytest.raises(PermissionDeniedError, match="policy_error"):
        approved(pdp)


@pytest.mark.parametrize("number", ["1e99999999999999999999", "9" * 5000])
def test_number_beyond_all_bounds_is_a_deny(opened: Open, number: str) -> None:
    """What the agent wrote is a deny, however large."""
    pdp = opened(PERMIT, "users: {alice: {}}")

    found = ruling(pdp, approved(pdp), "open", b'{"id": "a", "x": ' + number.encode() + b"}")

    assert (Outcome.DENY, Basis.INVALID_ARGUMENTS) == (found.outcome, found.basis)


@pytest.mark.parametrize("moment", [nan, inf, -inf])
def test_end_that_is_no_moment_is_refused(opened: Open, moment: float) -> None:
    """No comparison with it holds, so a session would never end."""
    pdp = opened(PERMIT, "users: {alice: {}}")
    handle = approved(pdp)
    session_id = pdp.authorizer.list_tools(handle, PEP).session_id

    with pytest.raises(InvalidRequestError, match="expires_at"):
        pdp.registrar.narrow(session_id, tool_patterns=(), expires_at=moment, labels=(), caller=APPROVER)


def test_labels_do_not_grow_without_bound(opened: Open) -> None:
    """Narrowing again and again adds only so many labels."""
    pdp = opened(PERMIT, "users: {alice: {}}", labels=[f"label-{number}" for number in range(320)])
    session_id = pdp.authorizer.list_tools(approved(pdp), PEP).session_id

    def narrow(first: int) -> None:
        labels = tuple(f"label-{first + place}" for place in range(64))
        pdp.registrar.narrow(session_id, tool_patterns=(), expires_at=None, labels=labels, caller=APPROVER)

    for first in range(0, 256, 64):
        narrow(first)
    with pytest.raises(InvalidRequestError, match="labels"):
        narrow(256)


def test_retry_that_passes_later_is_another_decision(opened: Open) -> None:
    """A request id never puts an allow under the id of a deny by the gate, and still stands for one call only."""
    pdp = opened(PERMIT, "users: {alice: {}}")
    view, handle = pdp.registrar.request(WANTED, PEP)
    call = Call(session_handle=handle, server="files", tool="read")

    def decide(call: Call) -> Decision:
        return pdp.authorizer.authorize(CallRequest(call=call, request_id="r-1"), PEP)

    denied = [decide(call), decide(call)]
    with pytest.raises(RequestIdConflictError):
        decide(replace(call, tool="open"))
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=APPROVER)
    allowed = [decide(call), decide(call)]

    assert [Outcome.DENY] * 2 + [Outcome.ALLOW] * 2 == [one.ruling.outcome for one in (*denied, *allowed)]
    assert 1 == len({one.id for one in allowed})
    assert {one.id for one in allowed}.isdisjoint(one.id for one in denied)


def test_durations_are_no_finer_than_the_clock(opened: Open) -> None:
    """Microseconds with three digits: what a sum of floats adds is nothing that was measured."""
    pdp = opened(PERMIT, "users: {alice: {}}")
    call = Call(session_handle=approved(pdp), server="files", tool="read")

    found = [pdp.authorizer.authorize(CallRequest(call=call), PEP).duration_us for _ in range(300)]

    assert all(f"{one:.3f}".rstrip("0").rstrip(".") == repr(one).removesuffix(".0") for one in found)


def test_listing_by_state_visits_the_store_a_bounded_number_of_times(tmp_path: Path, clock: FakeClock) -> None:
    """A small page of a state that few sessions are in does not cost one look-up for each of the others."""
    write(tmp_path, PERMIT, "users: {alice: {}}")
    store = InterruptedStore()
    pdp = open_embedded(tmp_path, sessions=store, clock=clock, compile_files=compile_once_here)
    for _ in range(50):
        pdp.registrar.request(WANTED, PEP)
    clock.advance(3600)

    before = store.selections
    page, token = pdp.registrar.list(
        state=SessionState.REQUESTED, user="", agent="", page_size=1, page_token="", caller=PEP
    )

    assert ((), "", 1) == (page, token, store.selections - before)


def test_secrets_stand_in_no_representation() -> None:
    """What is written by accident holds neither handles nor attributes."""
    wanted = replace(WANTED, parent_session_handle="pdps_canary", user_attributes_json=b'{"level": "canary"}')

    assert "canary" not in repr(wanted)


def test_session_that_is_over_is_not_captured_again(opened: Open, clock: FakeClock, tmp_path: Path) -> None:
    """An expired session stays as it was, whatever the directory says later."""
    pdp = opened(PERMIT, "users: {alice: {}}")
    session_id = pdp.registrar.request(WANTED, PEP)[0].session.id
    clock.advance(3600)

    write(tmp_path, PERMIT, "users: {alice: {attributes: {level: 1}}}")
    pdp.keeper.reload(by="test")

    view = pdp.registrar.get(session_id, caller=APPROVER)
    assert (1, SessionState.EXPIRED) == (view.session.epoch, view.state)


class InterruptedStore(MemorySessionStore):
    """A memory store whose next writes are preceded by what a test lets happen; counts selections."""

    def __init__(self) -> None:
        super().__init__()
        self.before_insert: Callable[[], None] = lambda: None
        self.before_change: Callable[[], None] = lambda: None
        self.refuses = False
        self.selections = 0

    def insert(self, session: Session, *, wall_at: float, write: Write | None = None) -> None:
        """Insert, after what happens before."""
        before, self.before_insert = self.before_insert, lambda: None
        before()
        super().insert(session, wall_at=wall_at, write=write)

    def change_tree(
        self, session_id: str, change: Change, *, wall_at: float, write: Write | None = None
    ) -> tuple[Session, ...]:
        """Change, after what happens before."""
        before, self.before_change = self.before_change, lambda: None
        before()
        return super().change_tree(session_id, change, wall_at=wall_at, write=write)

    def select(
        self, which: SessionFilter, *, limit: int, before: tuple[float, str] | None = None
    ) -> tuple[Session, ...]:
        """Select, and count how often."""
        self.selections += 1
        return super().select(which, limit=limit, before=before)

    def activate_bundle(
        self,
        bundle: ActiveBundle,
        content: bytes,
        change: Change,
        *,
        captured: Captured | None = None,
        expected: Expected | None = None,
        write: Write | None = None,
    ) -> tuple[Session, ...]:
        """Activate, unless writes are refused."""
        if self.refuses:
            raise StoreUnavailableError("the disk is full")
        return super().activate_bundle(bundle, content, change, captured=captured, expected=expected, write=write)


def test_two_activations_around_an_insertion_leave_the_newest_facts(tmp_path: Path, clock: FakeClock) -> None:
    """A session that slips between two reloads ends up with what the last one says of its user."""
    write(tmp_path, PERMIT, "users: {alice: {attributes: {level: 1}}}")
    store = InterruptedStore()
    pdp = open_embedded(tmp_path, sessions=store, clock=clock, compile_files=compile_once_here)

    def reload_with(level: int) -> None:
        write(tmp_path, PERMIT, f"users: {{alice: {{attributes: {{level: {level}}}}}}}")
        pdp.keeper.reload(by="test")

    store.before_insert = lambda: reload_with(2)
    store.before_change = lambda: reload_with(3)
    view, _ = pdp.registrar.request(WANTED, PEP)

    assert '"level":3' in store.get(view.session.id)[0].entities_json


def test_activations_that_fail_leave_the_running_bundle(tmp_path: Path, clock: FakeClock) -> None:
    """Bundles that were loaded and could not be activated never push out the one that runs."""
    write(tmp_path, PERMIT, "users: {alice: {}}")
    store = InterruptedStore()
    pdp = open_embedded(tmp_path, sessions=store, clock=clock, compile_files=compile_once_here)
    running = pdp.keeper.current()

    store.refuses = True
    for level in (1, 2, 3):
        write(tmp_path, PERMIT, f"users: {{alice: {{attributes: {{level: {level}}}}}}}")
        with pytest.raises(StoreUnavailableError):
            pdp.keeper.reload(by="test")

    assert running is pdp.keeper.current()


def test_worker_without_a_thread_to_spare_catches_up_later(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no thread can be started the call is told to try again, and a later one finds the bundle."""
    write(tmp_path, PERMIT, "users: {alice: {}}")
    store = MemorySessionStore()
    open_embedded(tmp_path, sessions=store, clock=clock, compile_files=compile_once_here)
    behind = BundleKeeper(
        source=FolderSource(tmp_path, DEFAULT_LIMITS),
        compile_files=compile_once_here,
        history=store,
        clock=clock,
        observer=Observers(),
        limits=DEFAULT_LIMITS,
    )

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(BundleUnavailableError):
            behind.current()
    with pytest.raises(BundleUnavailableError):
        behind.current()
    wait_until(behind.serves)

    assert store.active_bundle() == behind.status().active
    assert behind.current().version == behind.status().active.version  # type: ignore[union-attr]  # asserted above


# What a policy may ask; each is true in some worlds and false in others.
ATOMS = [
    "true",
    "false",
    "principal has level && principal.level > 1",
    'principal has boss && principal.boss in UserGroup::"staff"',
    "principal has boss && principal.boss has level && principal.boss.level > 1",
    "principal has home && principal.home has owner && principal.home.owner == principal",
    'principal has home && principal.home in Server::"files"',
    'principal has home && principal.home in Thing::"top"',
    "principal has home && principal.home == resource",
    'principal in UserGroup::"staff" && context.agent == Agent::"worker"',
    'context.session.labels.contains("red")',
    "context.session.depth > 0",
    "{a: context.session}.a.depth > 0",
    'context has now && context.now < datetime("2001-01-01")',
    'context.now > datetime("2001-01-01")',
    '[context].contains(context) && context.session.labels.contains("red")',
    'Thing::"home" has owner && Thing::"home".owner == principal',
    'Thing::"deep" in Thing::"top"',
    'Thing::"deep" in Server::"files"',
    'resource in Server::"files"',
    'context.caller.id == "pep"',
    'context.opaque.contains("x")',
    "9223372036854775807 + context.session.depth > 0",
]
OF_THINGS = [
    "resource == principal",
    'resource == Thing::"home"',
    'resource in Thing::"top"',
    "resource has owner && resource.owner == principal",
    "resource has secret && resource.secret",
    "context.input has n && context.input.n > 3",
    'context has input && context.input.id == "deep"',
]
SCOPES = {
    "principal": ["principal", 'principal in UserGroup::"staff"', "principal is User", 'principal == User::"alice"'],
    "action": [
        'action in [Action::"files/read", Action::"files/open"]',
        'action in Action::"destructive"',
        'action in Action::"read_only"',
        "action == {action}",
    ],
    "resource": ["resource", 'resource in Server::"files"', 'resource == Server::"files"', "resource is {kind}"],
}
WORLD = """
user_groups: {{staff: {{}}}}
users:
  alice: {{groups: [{group}], attributes: {alice}}}
  bob: {{groups: [staff], attributes: {{level: 2}}}}
entities:
- {{type: Thing, id: top}}
- {{type: Thing, id: home, parents: [{{type: Thing, id: top}}], attributes: {home}}}
- {{type: Thing, id: deep, parents: [{{type: Thing, id: home}}]}}
"""


def random_policies(dice: random.Random) -> str:
    """Return some policies about the two tools."""
    texts = []
    for place in range(dice.randint(1, 4)):
        name, kind, things = dice.choice([("files/read", "Server", False), ("files/open", "Thing", True)])
        head = ", ".join(dice.choice(SCOPES[part]) for part in SCOPES).format(action=f'Action::"{name}"', kind=kind)
        atoms = dice.choices(ATOMS + OF_THINGS * (things and "action ==" in head), k=2)
        clauses = "".join(
            f" {word} {{ {dice.choice(['', '!'])}({atom}) }}"
            for word, atom in zip(dice.sample(["when", "unless"], 2), atoms, strict=True)
            if dice.random() < 0.8
        )
        texts.append(f'@id("files/p{place}") {dice.choice(["permit", "permit", "forbid"])} ({head}){clauses};')
    return "\n".join(texts)


def random_directory(dice: random.Random) -> str:
    """Return a directory in which alice and her things stand in random relations."""
    alice = dice.sample(
        ["level: 2", "home: {type: Thing, id: home}", "home: {type: Thing, id: gone}", "boss: {type: User, id: bob}"], 2
    )
    kept = {text.partition(":")[0]: text for text in alice}
    home = dice.choice(["{}", "{owner: {type: User, id: alice}}", "{owner: {type: User, id: bob}, secret: true}"])
    return WORLD.format(group=dice.choice(["staff", ""]), alice="{" + ", ".join(kept.values()) + "}", home=home)


CALLS = [
    ("read", b""),
    *(
        ("open", json.dumps({"id": name, **more}).encode())
        for name in ("home", "deep", "top", "gone", "elsewhere")
        for more in ({}, {"n": 5, "x": 1})
    ),
]


@pytest.mark.parametrize("seed", [*range(50), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(50, 150))])
def test_no_call_contradicts_the_listing(opened: Open, seed: int) -> None:
    """A tool listed `never` is never allowed, one listed `always` never denied; random policies and worlds."""
    dice = random.Random(seed)  # noqa: S311 - a seed that repeats is wanted
    while True:
        try:
            pdp = opened(random_policies(dice), random_directory(dice))
            break
        except BundleError:
            continue
    wanted = replace(WANTED, labels=dice.choice([(), ("red",)]), may_delegate=True)
    handles = [approved(pdp, wanted)]
    if dice.random() < 0.5:
        view, handle = pdp.registrar.request(replace(wanted, parent_session_handle=handles[0]), PEP)
        assert view.state is SessionState.ACTIVE
        handles.append(handle)

    for handle in handles:
        shown = listed(pdp, handle)
        for name, arguments in CALLS:
            found = ruling(pdp, handle, name, arguments)
            again = ruling(pdp, handle, name, arguments)
            assert found == again
            lie = shown[name] is (Visibility.NEVER if found.allowed else Visibility.ALWAYS)
            assert not lie, (seed, name, arguments, shown[name], found)
