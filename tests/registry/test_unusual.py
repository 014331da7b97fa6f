"""What is said to be unusual about a session: seeded histories, and the sentences that follow or do not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pdp.app.embedded import Embedded, open_embedded
from pdp.model import AT_EACH_CALL, Caller, Role, Session, SessionState
from pdp.policy.tools.catalogue import Catalogue
from pdp.registry.past import MOST_SESSIONS, WINDOW_SECONDS, past_of_agent, past_of_user
from pdp.registry.unusual import RULES, Asked, Unusual, unusual
from pdp.registry.words import SessionRequest
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.store import SessionLists
from pdp.sessions.values import SessionFilter
from pdp.testing.bundles import OPEN_SESSIONS, bundle_files, compile_once_here, tool
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import write_folder
from pdp.testing.stores.samples import make_scope, make_session

CASES: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("unusual.yaml").read_text(encoding="utf-8"))
NOW = FakeClock().now().wall_at
HOUR = 3600.0
PEP = Caller(id="pep", kind="token", roles=frozenset({Role.PEP}))
APPROVER = Caller(id="approver", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL)
HARMLESS = ("copy", "list", "move", "read", "write")


@pytest.fixture(scope="module")
def pdp(tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    """Return a PDP whose server `files` has two destructive tools."""
    folder = tmp_path_factory.mktemp("policies")
    risks = {name: {"risk": "mutating"} for name in HARMLESS}
    files = bundle_files(
        policies={"files": '@id("files/all")\npermit (principal, action, resource);\n'},
        tools={"files": [tool(name) for name in (*HARMLESS, "wipe", "burn")]},
        # JSON is YAML.
        overlays={"files": json.dumps({"tools": risks})},
        directory="users: {alice: {}}\nagents: {coder: {ceiling: ['files/*']}}\n",
        sessions=OPEN_SESSIONS,
    )
    write_folder(folder, files)
    return open_embedded(folder, clock=FakeClock(), compile_files=compile_once_here)


def session_of(name: str, at: float, given: Mapping[str, Any]) -> Session:
    """Return a session that was requested at a time, as a case describes it."""
    state = SessionState(given.get("state", "ended"))
    tools, below = given.get("tools", ["files/read"]), given.get("below", False)
    return replace(
        make_session(name),
        state=state,
        user=given.get("user", "alice"),
        agent=given.get("agent", "coder"),
        tenant=given.get("tenant", "default"),
        purpose=given.get("purpose", "Work"),
        duration=float(given.get("duration", 3600)),
        terms_json=json.dumps(given.get("terms", {})),
        requested_at=at,
        approved_at=at + 30 if state in (SessionState.ENDED, SessionState.REVOKED) else 0.0,
        ended_at=at + 60,
        scope=None if state is SessionState.DENIED else make_scope(*tools),
        parent_id="ses_above" if below else "",
        ancestor_ids=("ses_above",) if below else (),
    )


def history(case: Mapping[str, Any]) -> Iterator[Session]:
    """Yield the sessions of a case's history."""
    number = itertools.count()
    for group in case.get("history", ()):
        for place in range(group["count"]):
            hours = group.get("hours_ago", 24) + place * group.get("apart", 24)
            yield session_of(f"{next(number)}", NOW - hours * HOUR, group)


def stored(sessions: Iterator[Session]) -> MemorySessionStore:
    """Return a store with these sessions."""
    store = MemorySessionStore()
    store.insert(make_session("above", user="carol", agent="manager", requested_at=NOW - 4000 * HOUR), wall_at=NOW)
    for session in sessions:
        store.insert(session, wall_at=NOW)
    return store


def said(case: Mapping[str, Any], catalogue: Catalogue) -> tuple[Unusual, ...]:
    """Return what is said in a case."""
    given = {**case.get("asked", {}), "state": "requested"}
    session, lists = session_of("asked", NOW, given), stored(history(case))
    asked = Asked(
        session=session,
        actions=tuple(given.get("tools", ["files/read"])),
        of_user=past_of_user(session, lists, kept_seconds=WINDOW_SECONDS),
        of_agent=past_of_agent(session, lists, kept_seconds=WINDOW_SECONDS),
        catalogue=catalogue,
        now_at=NOW,
    )
    return unusual(asked)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_history_says_exactly_what_is_expected(pdp: Embedded, case: dict[str, Any]) -> None:
    """Each expected sentence is said word for word, and no other rule speaks."""
    found = [(one.rule, one.sentence) for one in said(case, pdp.keeper.current().catalogue)]

    expected = [(name.partition(" ")[0], sentence) for name, sentence in case.get("says", {}).items()]
    assert sorted(expected) == sorted(found)
    assert {rule for rule, _ in found}.isdisjoint(case.get("silent", ()))


def test_each_rule_has_a_history_with_which_it_speaks_and_one_with_which_it_is_silent() -> None:
    """The table leaves no rule out."""
    rules = {rule.name for rule in RULES}

    assert rules == {name.partition(" ")[0] for case in CASES for name in case.get("says", {})}
    assert rules == {name for case in CASES for name in case.get("silent", ())}


def test_the_page_states_each_rule_with_its_minimum() -> None:
    """A person who reads a sentence finds what it rests on."""
    page = (Path(__file__).parents[2] / "proto" / "README.md").read_text(encoding="utf-8")

    assert [] == [rule.name for rule in RULES if f"| `{rule.name}` | {rule.minimum} |" not in page]


class Counting:
    """The lists of a store, with how many sessions were read of them, and at most how many at a time."""

    def __init__(self, lists: SessionLists) -> None:
        self._lists = lists
        self.read: list[int] = []

    def select(
        self, which: SessionFilter, *, limit: int, before: tuple[float, str] | None = None
    ) -> tuple[Session, ...]:
        """Return what the store has."""
        found = self._lists.select(which, limit=limit, before=before)
        self.read.append(len(found))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lists, name)


def test_the_past_is_read_in_small_steps_up_to_a_bound() -> None:
    """However many sessions are kept, a review reads a bounded number, and never many at a time."""
    lists = Counting(stored(session_of(f"{place}", NOW - place - 1, {}) for place in range(MOST_SESSIONS * 2)))

    past = past_of_user(session_of("asked", NOW, {}), lists, kept_seconds=WINDOW_SECONDS)

    assert MOST_SESSIONS == len(past.sessions)
    assert MOST_SESSIONS == past.seconds
    assert max(lists.read) <= 50
    assert sum(lists.read) <= MOST_SESSIONS + 50


def test_the_past_is_no_longer_than_sessions_are_kept() -> None:
    """Nothing is said of a time of which the store has already removed sessions."""
    past = past_of_agent(session_of("asked", NOW, {}), stored(iter(())), kept_seconds=60.0)

    assert 60.0 == past.seconds


def test_a_review_says_what_is_unusual(pdp: Embedded) -> None:
    """An approver who refused two requests is reminded of them at the third."""
    wanted = SessionRequest(user="alice", agent="coder", purpose="Wipe it", tool_patterns=("files/wipe",))
    for _ in range(2):
        asked = pdp.registrar.request(wanted, PEP)[0].session
        pdp.registrar.deny(asked.id, reason="no", caller=APPROVER)
    third = pdp.registrar.request(replace(wanted, purpose="Wipe  it"), PEP)[0].session

    review = pdp.registrar.review(third.id, grants=(), caller=APPROVER)

    assert ["refused_lately", "denied_purpose"] == [one.rule for one in review.unusual]
    assert [2, 2] == [one.count for one in review.unusual]
