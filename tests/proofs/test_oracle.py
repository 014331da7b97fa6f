"""Whatever happens in whatever order, the product answers as the independent oracle does, with and without cache."""

from __future__ import annotations

import ast
import os
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.machinery.oracle import counting, freezes, held, judge, model, outside, people, sessions
from tests.machinery.oracle.choices import (
    ATTRIBUTES,
    BAD,
    CALLS,
    GRANTS,
    LABELS,
    PATTERNS,
    READS,
    RESULTS,
    RUNS,
    TERMS,
    WRITES,
    on_thing,
    pay,
)
from tests.machinery.oracle.world import ToolCall, World

COUNTS: Counter[str] = Counter()
# What policies count.
COUNTED = (
    ToolCall(server="notes", tool="add", arguments=b'{"text":null,"count":1}'),
    ToolCall(server="notes", tool="add", arguments=b'{"text":"","count":9}', digest="right"),
    ToolCall(server="repo", tool="read", arguments=on_thing("acme", "plan")),
    ToolCall(server="repo", tool="drop", arguments=b'{"project":"acme"}', digest="right"),
    ToolCall(server="bank", tool="balance", arguments=b'{"account":"main"}'),
)


class Machine(RuleBasedStateMachine):
    """Anything that can happen to sessions, bundles, clocks and the cache, with calls in between."""

    world: World
    recent: list[tuple[str, ToolCall]]
    waiting: list[tuple[str, str, ToolCall]]
    tried: list[str]
    turn: int

    def _session(self, number: int) -> str:
        """Return a session: for small numbers one of the active ones, the last first, else one of all."""
        return self._chosen(number, "active")

    def _waiting(self, number: int) -> str:
        """Return a session: for small numbers one that waits for approval, else one of all."""
        return self._chosen(number, "requested")

    def _chosen(self, number: int, state: str) -> str:
        names = (number < 6 and self._in_state(state)) or self.world.names
        return names[-1 - number % len(names)]

    def _in_state(self, state: str) -> list[str]:
        sessions = self.world.oracle.sessions
        return [name for name in self.world.names if self.world.oracle.state(sessions[name]) == state]

    def _call(self, name: str, wanted: ToolCall) -> None:
        found = self.world.call(name, wanted)
        if found.basis == "approval_required" and found.question not in [one for _, one, _ in self.waiting]:
            self.waiting = [*self.waiting[-7:], (name, found.question, wanted)]
        self.recent = [*self.recent[-5:], (name, wanted)]

    def _open(self, grants: tuple[str, ...]) -> None:
        name = self.world.request(
            user="alice",
            agent="coder",
            patterns=PATTERNS[0],
            duration=3600.0,
            # By turns with terms that fit most bundles, and without.
            terms=TERMS[self.turn % 5] if self.world.bundle_number < 4 else b"",
            may_delegate=True,
        )
        self.world.approve(name, grants)
        self._call(name, CALLS[0])
        self.world.request(
            parent=name, user="carol", agent="coder", patterns=PATTERNS[3], duration=1800.0, may_delegate=True
        )

    @initialize(on_disk=st.booleans(), granted=st.sampled_from(GRANTS))
    def begin(self, on_disk: bool, granted: tuple[str, ...]) -> None:  # noqa: FBT001 - hypothesis passes it by name
        """Open two sessions, so that there is something to ask about."""
        self.world = World(COUNTS, remembering_on_disk=on_disk)
        # Sessions that are as old as the bundle do not know what they have called.
        self.world.clock.advance(1.0)
        self.recent, self.turn, self.waiting, self.tried = [], 0, [], []
        self._open(granted)
        second = self.world.request(user="bob", agent="helper", patterns=PATTERNS[1], duration=1200.0)
        self.world.approve(second, ("all",))
        self._call(second, CALLS[0])
        # Deeds that are rare otherwise.
        for deed in (self.world.deny, lambda name: self.world.end(name, "gateway-1")):
            name = self.world.request(user="carol", agent="coder", patterns=PATTERNS[3], duration=60.0)
            deed(name)
            self.world.call(name, LIST)
        self.world.call(second, replace(CALLS[0], facts=b'{"shift":"9"}'))
        self.world.narrow(second, ("repo/*", "notes/*"), 1100.0, ("seen",))
        self._read()
        self._use_up()
        self._ask_people()
        self._ask_once_for_many()
        self._bind()
        self._stop()

    def _read(self) -> None:
        """Write to what results held, from the session that read them and from one below it."""
        wanted: dict[str, Any] = {"user": "alice", "agent": "coder", "duration": 900.0}
        name = self.world.request(patterns=PATTERNS[0], may_delegate=True, **wanted)
        self.world.approve(name, ("all",))
        below = self.world.request(parent=name, patterns=PATTERNS[1], **wanted)
        self.world.read(below, READS[0], RESULTS[0])
        for reader, write in ((name, WRITES[0]), (below, WRITES[2]), (name, WRITES[3])):
            self.world.call(reader, write)
        self.world.read(name, READS[3], RESULTS[1])
        self.world.call(below, WRITES[3])

    def _use_up(self) -> None:
        """Take all of a session's budgets, in part from a session below it, and then more in both."""
        name = self.world.request(
            user="alice",
            agent="coder",
            patterns=PATTERNS[0],
            duration=900.0,
            terms=b'{"max_calls":2,"max_sum":10}',
            may_delegate=True,
        )
        self.world.approve(name, ("all",))
        below = self.world.request(parent=name, user="alice", agent="coder", patterns=PATTERNS[3], duration=600.0)
        for spender, wanted in ((name, PAY), (name, PAY), (below, LIST), (below, LIST), (name, LIST)):
            self.world.call(spender, wanted)

    def _ask_people(self) -> None:
        """Have a person say yes, take it back and say no, in sessions that have read too much; and call too often."""
        above = self.world.request(
            user="alice", agent="coder", patterns=PATTERNS[0], duration=900.0, labels=("tainted",), may_delegate=True
        )
        self.world.approve(above, ("all",))
        below = self.world.request(parent=above, user="alice", agent="coder", patterns=PATTERNS[1], duration=600.0)
        said: tuple[tuple[Literal["yes", "no", "revoked"], ...], ...] = (
            ("yes",),
            # What was taken back is taken back for good.
            ("yes", "revoked", "yes", "revoked"),
            ("yes",),
            ("no",),
        )
        for words in said:
            for name in (above, below):
                asked = self.world.call(name, WRITE)
                # What was refused above is not asked about below.
                for word in words if asked.question else ():
                    self.world.answer(asked.question, word)
                self._call(name, WRITE)
        self._call(above, PAY)
        counting = self.world.request(user="alice", agent="coder", patterns=PATTERNS[3], duration=600.0)
        self.world.approve(counting, ("all",))
        self.world.call_and_fail(counting, ADD)
        for _ in range(2):
            self._call(counting, ADD)

    def _ask_once_for_many(self) -> None:
        """Have a person allow a run of calls; try some of them again."""
        name = self.world.request(
            user="alice", agent="coder", patterns=PATTERNS[3], duration=900.0, labels=("tainted",), terms=b""
        )
        self.world.approve(name, ("all",))
        asked = self.world.call(name, RUNS[0])
        self.world.answer(asked.question, "yes", 3)
        # The first ones do not belong to the run.
        for wanted in (*RUNS[3:], *RUNS[:3]):
            self._try(name, wanted)
            self._retry(0)
        brief = self.world.request(user="alice", agent="coder", patterns=PATTERNS[3], duration=60.0)
        self.world.approve(brief, ())
        # Just before a retry is another call, and then.
        for seconds in (59.75, 0.25):
            self.world.clock.advance(seconds)
            self._retry(0)
        self.world.call(brief, LIST)

    def _bind(self) -> None:
        """Pay to whom and as much as a session's terms do not allow, and call what was taken from the one above."""
        wanted: dict[str, Any] = {"user": "alice", "agent": "coder", "duration": 900.0}
        above = self.world.request(patterns=PATTERNS[0], terms=TERMS[3], may_delegate=True, **wanted)
        self.world.approve(above, ("all",))
        for arguments in (pay("7", memo='"z"'), pay("499.75")):
            self._call(above, replace(PAY, arguments=arguments))
        below = self.world.request(parent=above, patterns=PATTERNS[3], **wanted)
        self.world.approve(below, ())
        self.world.narrow(above, ("bank/*",), None, ())
        self._call(below, LIST)

    def _stop(self) -> None:
        """Stop a session for a while and then for good, after others who may not have tried."""
        wanted: dict[str, Any] = {"user": "alice", "agent": "coder", "patterns": PATTERNS[1]}
        self.world.request(duration=28801.0, **wanted)
        name = self.world.request(duration=900.0, **wanted)
        self.world.approve(name, ())
        self.world.deny(name)
        self.world.freeze("default")
        self._call(name, LIST)
        self.world.lift("default")
        # In the second bundle alice is a contractor, and her agent an intern.
        for number in (2, 0):
            self.world.reload(number)
            self._call(name, DROP)
        self.world.call("nobody", LIST)
        self.world.end(name, "gateway-2")
        for caller in ("oz", "ann"):
            self.world.revoke("session", name, caller)
        self._call(name, LIST)

    def _try(self, name: str, wanted: ToolCall) -> None:
        self.tried = [*self.tried[-5:], self.world.try_call(name, wanted)]

    def _retry(self, place: int) -> None:
        if self.tried:
            self.world.retry(self.tried[-1 - place % len(self.tried)])

    @rule(session=st.integers(0, 11), wanted=st.sampled_from(CALLS))
    def call(self, session: int, wanted: ToolCall) -> None:
        """Call."""
        COUNTS["steps"] += 1
        self._call(self._session(session), wanted)

    @rule(session=st.integers(0, 7), first=st.sampled_from(CALLS), second=st.sampled_from(CALLS))
    def call_twice(self, session: int, first: ToolCall, second: ToolCall) -> None:
        """Call, call something else, and call the first again."""
        COUNTS["steps"] += 1
        for wanted in (first, second, first):
            self._call(self._session(session), wanted)

    @rule(session=st.integers(0, 5), wanted=st.sampled_from(COUNTED))
    def call_what_is_counted(self, session: int, wanted: ToolCall) -> None:
        """Call what policies count, and let it fail now and then."""
        COUNTS["steps"] += 1
        (self.world.call_and_fail if self.turn % 4 == 0 else self._call)(self._session(session), wanted)

    @rule(
        session=st.integers(0, 7),
        other=st.integers(0, 7),
        wanted=st.sampled_from(READS),
        result=st.sampled_from(RESULTS),
        write=st.sampled_from(WRITES),
    )
    def read(self, session: int, other: int, wanted: ToolCall, result: Any, write: ToolCall) -> None:
        """Call, report what the result held, and write to something before and after, also in another session."""
        COUNTS["steps"] += 1
        name = self._session(session)
        self._call(name, write)
        self.world.read(name, wanted, result)
        for one in (name, self._session(other)):
            self._call(one, write)

    @rule(place=st.integers(0, 5))
    def call_again(self, place: int) -> None:
        """Repeat a call that was made just now: what happened in between must not matter to the cache."""
        COUNTS["steps"] += 1
        if self.recent:
            self._call(*self.recent[-1 - place % len(self.recent)])

    @rule(session=st.integers(0, 7), wanted=st.sampled_from((*CALLS, *COUNTED, *RUNS)), again=st.booleans())
    def try_call(self, session: int, wanted: ToolCall, *, again: bool) -> None:
        """Call in such a way that the call can be tried again, and perhaps do so."""
        COUNTS["steps"] += 1
        self._try(self._session(session), wanted)
        if again:
            self._retry(0)

    @rule(place=st.integers(0, 5))
    def try_again(self, place: int) -> None:
        """Try a call again: what it took before counts for it, and nothing else does."""
        COUNTS["steps"] += 1
        self._retry(place)

    @rule(
        session=st.integers(0, 5),
        wanted=st.lists(st.sampled_from(RUNS), min_size=2, max_size=5),
        calls=st.integers(1, 4),
    )
    def ask_once_for_many(self, session: int, wanted: list[ToolCall], calls: int) -> None:
        """Ask a person about one call, have so many like it allowed, and make others."""
        COUNTS["steps"] += 1
        name = self._session(session)
        asked = self.world.call(name, wanted[0])
        if asked.question:
            self.world.answer(asked.question, "yes", calls)
        for one in wanted[1:]:
            self._try(name, one)

    @rule(session=st.integers(0, 7), wanted=st.sampled_from(BAD))
    def call_badly(self, session: int, wanted: ToolCall) -> None:
        """Make a call that cannot be right, or only just."""
        COUNTS["steps"] += 1
        self._call(self._session(session), wanted)

    @rule(wanted=st.sampled_from(CALLS))
    def call_unknown(self, wanted: ToolCall) -> None:
        """Call with a handle that nobody was given."""
        COUNTS["steps"] += 1
        self.world.call("nobody", wanted)

    @rule(
        user=st.sampled_from(("alice", "bob", "carol", "dora")),
        agent=st.sampled_from(("coder", "helper")),
        patterns=st.sampled_from(PATTERNS),
        duration=st.sampled_from((60.0, 900.0, 3600.0, 28800.0, 28801.0)),
        labels=st.sampled_from(LABELS),
        attributes=st.sampled_from(ATTRIBUTES),
        terms=st.sampled_from(TERMS),
        may_delegate=st.booleans(),
        caller=st.sampled_from(("gateway-1", "gateway-1", "gateway-2", "gateway-x")),
        approved=st.booleans(),
        grants=st.sampled_from(GRANTS),
    )
    def request(self, *, caller: str, approved: bool, grants: tuple[str, ...], **wanted: Any) -> None:
        """Request a session, and perhaps approve it."""
        COUNTS["steps"] += 1
        name = self.world.request(caller=caller, **wanted)
        if name and approved:
            self.world.approve(name, grants)

    @rule(
        parent=st.integers(0, 5),
        same=st.booleans(),
        agent=st.sampled_from(("coder", "helper")),
        patterns=st.sampled_from(PATTERNS),
        duration=st.sampled_from((60.0, 900.0, 3600.0)),
        labels=st.sampled_from(LABELS),
        # Mostly none: a child with its own terms is often refused.
        terms=st.sampled_from((*[b""] * 10, *TERMS)),
        approved=st.booleans(),
        grants=st.sampled_from(GRANTS),
    )
    def delegate(
        self,
        parent: int,
        agent: str,
        patterns: tuple[str, ...],
        duration: float,
        labels: tuple[str, ...],
        terms: bytes,
        grants: tuple[str, ...],
        *,
        same: bool,
        approved: bool,
    ) -> None:
        """Request a session below another one, and perhaps approve it."""
        COUNTS["steps"] += 1
        above = self.world.oracle.sessions[self._session(parent)]
        name = self.world.request(
            parent=above.name,
            caller=above.opened_by,
            user=above.user if same else "carol",
            agent=agent,
            patterns=patterns,
            duration=duration,
            labels=labels,
            terms=terms,
            may_delegate=True,
        )
        if name:
            COUNTS[f"depth:{len(self.world.oracle.sessions[name].parents)}"] += 1
            if approved:
                self.world.approve(name, grants)

    @rule(session=st.integers(0, 8), grants=st.sampled_from(GRANTS), look=st.booleans())
    def approve(self, session: int, grants: tuple[str, ...], *, look: bool) -> None:
        """Approve a session, perhaps without having looked at it again."""
        COUNTS["steps"] += 1
        name = self._waiting(session)
        if look:
            self.world.look(name)
        self.world.approve(name, grants)

    @rule(session=st.integers(0, 5), caller=st.sampled_from(("stranger", "oz")))
    def approve_wrongly(self, session: int, caller: str) -> None:
        """Approve as somebody whom the policies do not know, or of another tenant."""
        COUNTS["steps"] += 1
        self.world.approve(self._waiting(session), (), caller)

    @rule(session=st.integers(0, 11))
    def deny(self, session: int) -> None:
        """Refuse a session."""
        COUNTS["steps"] += 1
        self.world.deny(self._waiting(session))

    @rule(number=st.integers(0, 3), word=st.sampled_from(("yes", "yes", "yes", "no", "revoked")), again=st.booleans())
    def answer(self, number: int, word: Literal["yes", "no", "revoked"], *, again: bool) -> None:
        """Answer one of the last questions about calls, and perhaps make that call again."""
        COUNTS["steps"] += 1
        if self.waiting:
            name, asked, wanted = self.waiting[-1 - number % len(self.waiting)]
            self.world.answer(asked, word)
            for _ in range(2 * again):
                self._call(name, wanted)

    @rule(session=st.integers(0, 5), caller=st.sampled_from(("gateway-1", "gateway-1", "gateway-2", "gateway-x")))
    def end(self, session: int, caller: str) -> None:
        """End a session."""
        COUNTS["steps"] += 1
        self.world.end(self._session(session), caller)

    @rule(session=st.integers(0, 7), caller=st.sampled_from(("ann", "ann", "oz")))
    def revoke_session(self, session: int, caller: str) -> None:
        """Revoke one session and what is below it."""
        COUNTS["steps"] += 1
        self.world.revoke("session", self._session(session), caller)

    @rule(
        which=st.sampled_from(
            (("user", "alice"), ("user", "bob"), ("agent", "helper"), ("tenant", "default"), ("tenant", "other"))
        ),
        caller=st.sampled_from(("ann", "oz", "oz")),
    )
    def revoke_many(self, which: tuple[Literal["user", "agent", "tenant"], str], caller: str) -> None:
        """Revoke all sessions of a user, an agent or a tenant."""
        COUNTS["steps"] += 1
        self.world.revoke(*which, caller)

    @rule(
        tenant=st.sampled_from(("default", "default", "other", "all")),
        session=st.integers(0, 7),
        wanted=st.sampled_from(CALLS),
    )
    def freeze(self, tenant: Literal["default", "other", "all"], session: int, wanted: ToolCall) -> None:
        """Stop a tenant, or all, between two calls; for so long nothing is requested or approved."""
        COUNTS["steps"] += 1
        name = self._session(session)
        self._call(name, wanted)
        self.world.freeze(tenant)
        self._call(name, wanted)
        self.world.request(user="alice", agent="coder", patterns=("notes/*",), duration=60.0)
        self.world.approve(self._waiting(session), ())
        self.world.lift(tenant)
        self._call(name, wanted)

    @rule(
        session=st.integers(0, 7),
        patterns=st.sampled_from(((), (), *PATTERNS)),
        seconds=st.sampled_from((None, None, 30.0, 600.0, 5000.0, 0.0)),
        labels=st.sampled_from(LABELS),
    )
    def narrow(self, session: int, patterns: tuple[str, ...], seconds: float | None, labels: tuple[str, ...]) -> None:
        """Take something from a session."""
        COUNTS["steps"] += 1
        self.world.narrow(self._session(session), patterns, seconds, labels)

    @rule(number=st.integers(0, 4))
    def reload(self, number: int) -> None:
        """Take another bundle, or the same again."""
        COUNTS["steps"] += 1
        self.world.reload(number)

    @rule(seconds=st.sampled_from((0.25, 29.75, 30.0, 60.0, 60.0, 300.0, 300.0, 900.0, 2700.0)))
    def wait(self, seconds: float) -> None:
        """Let time pass: the machine may sleep meanwhile, its boot clock goes on."""
        COUNTS["steps"] += 1
        self.world.clock.advance(seconds)

    @rule(seconds=st.sampled_from((-4000.0, -600.0, -600.0, -30.0, -0.25, 30.0, 600.0, 2000.0)))
    def step_wall_clock(self, seconds: float) -> None:
        """Set the wall clock forward or back."""
        COUNTS["steps"] += 1
        self.world.clock.step_wall(seconds)

    @rule(lost=st.sampled_from((0.0, 0.0, 60.0, 600.0)))
    def reboot(self, lost: float) -> None:
        """Begin a new boot, a while later."""
        COUNTS["steps"] += 1
        self.world.clock.reboot()
        self.world.clock.step_wall(lost)

    @rule()
    def evict(self) -> None:
        """Forget all that is remembered."""
        COUNTS["steps"] += 1
        self.world.evict()

    @rule()
    def look_at_all(self) -> None:
        """Look at the state, tools and labels of all sessions."""
        COUNTS["steps"] += 1
        self.world.check_states()

    @invariant()
    def same_again(self) -> None:
        """After whatever happened: repeat the last call, repeat one of an active session, and make another one."""
        self.turn += 1
        if self.turn % 40 == 0:
            self.world.reload(self.turn // 40 % 5)
        if not self._in_state("active"):
            self._open(("all",))
        active = self._in_state("active")
        # Mostly the youngest that work, now and then any other.
        names = active[-3:] if self.turn % 4 else self.world.names
        other = (names[-1 - self.turn % len(names)], CALLS[self.turn * 7 % len(CALLS)])
        again = next((pair for pair in reversed(self.recent) if pair[0] in active), other)
        for name, wanted in dict.fromkeys((self.recent[-1], again, other)):
            self.world.call(name, wanted)

    def teardown(self) -> None:
        """Close what was opened."""
        if hasattr(self, "world"):
            self.world.close()


LIST = ToolCall(server="notes", tool="list")
READ = ToolCall(server="repo", tool="read", arguments=on_thing("acme", "plan"))
DROP = ToolCall(server="repo", tool="drop", arguments=b'{"project":"acme"}', digest="right")
PAY = ToolCall(server="bank", tool="pay", arguments=pay("5.5"))
ADD = ToolCall(server="notes", tool="add")
WRITE = ToolCall(server="repo", tool="write", arguments=on_thing("acme", "plan"))

# What must have happened in every long run: `begin` does what chance leaves out, as each example goes without some of
# the rules; the rarer answers have scenes of their own below.
EXPECTED = (
    *("hit", "hit by what is read", "miss", "bypass", "none"),
    *("deed:request", "deed:approve", "deed:deny", "deed:end", "deed:revoke", "deed:narrow", "deed:reload"),
    *("refused:request", "refused:approve", "refused:deny", "refused:end", "refused:revoke"),
    *("basis:permit", "basis:forbid", "basis:policy_error", "basis:ancestor_denied"),
    *("basis:invalid_arguments", "basis:unknown_tool", "basis:tool_changed", "basis:out_of_scope", "basis:refused"),
    *("basis:session_not_found", "basis:session_not_approved", "basis:session_expired"),
    *("deed:freeze", "deed:lift", "basis:frozen"),
    *("basis:session_revoked", "basis:session_ended", "basis:budget_exhausted", "took of a budget"),
    *("policy:guard/destructive", "policy:guard/contractors", "policy:guard/interns", "policy:guard/owner"),
    *("policy:guard/amount", "policy:guard/hidden", "policy:guard/overflow", "policy:guard/caller"),
    *("policy:guard/sum", "policy:guard/targets"),
    *("deed:read", "policy:source/tainted", "policy:source/clean", "policy:source/issued"),
    *("policy:count/few", "policy:count/order", "saw counts", "saw what is done", "failed", "explained with counts"),
    *("basis:approval_required", "lifted", "lifted in a chain", "lifted in a run", "unasked: denied"),
    *("tried again and allowed", "tried again and lifted"),
    *("deed:answer yes", "deed:answer no", "deed:answer revoked", "refused:answer yes", "refused:answer revoked"),
)


def walk(number: int, examples: int) -> Counter[str]:
    """Run the machine from a seed, some 150 to 170 steps in each example; return what happened."""
    COUNTS.clear()
    # Shrinking takes minutes: only for somebody who looks into one failure.
    phases = [Phase.generate, *([Phase.shrink] if os.environ.get("PDP_TEST_SHRINK") else [])]
    once = settings(
        max_examples=examples,
        stateful_step_count=200,
        deadline=None,
        database=None,
        print_blob=True,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(number)(Machine), settings=once)
    return COUNTS


@pytest.mark.timeout(900)  # half a minute on an idle machine, and never this long on a busy one
def test_any_interleaving() -> None:
    """Thousands of steps of anything in any order: every answer is the oracle's."""
    number = int(os.environ.get("PDP_TEST_SEED") or secrets.randbits(32))
    print(f"PDP_TEST_SEED={number}; with PDP_TEST_SHRINK=1 the failing steps are made few")  # noqa: T201 - to run it again

    counts = walk(number, 25)

    print(sorted(counts.items()))  # noqa: T201 - the figures of the proof
    assert [] == [name for name in EXPECTED if not counts[name]]
    assert counts["steps"] >= 2_500
    assert 0 == counts["hit without cache"]


@pytest.mark.long
@pytest.mark.parametrize("number", range(1, 11))
def test_any_interleaving_for_long(number: int) -> None:
    """More than 900,000 steps from ten seeds."""
    counts = walk(number, 570)

    print(sorted(counts.items()))  # noqa: T201 - the figures of the proof
    assert counts["steps"] > 90_000


@pytest.fixture
def world() -> Iterator[World]:
    """Yield a world in which nothing has happened."""
    with closing(World(Counter(), remembering_on_disk=False)) as world:
        # As in the walk above.
        world.clock.advance(1.0)
        yield world


def test_expired_stays_expired_when_the_user_goes(world: World) -> None:
    """A session that was over stays expired when a bundle without its user comes and the clock was set back."""
    name = world.request(user="bob", agent="helper", patterns=("notes/*",), duration=60.0)
    world.approve(name, ())
    world.clock.step_wall(60.0)
    world.revoke("user", "nobody", "ann")  # any write puts the time on record
    world.clock.step_wall(-60.0)

    world.reload(3)

    assert "session_expired" == world.call(name, LIST).basis


def test_both_clocks_after_a_reboot(world: World) -> None:
    """A session below one from before a reboot ends by the boot clock too, though the wall clock is set back."""
    parent = world.request(user="alice", agent="coder", patterns=("notes/*",), duration=3600.0, may_delegate=True)
    world.approve(parent, ())
    world.clock.advance(3000.0)
    world.clock.reboot()
    child = world.request(parent=parent, user="alice", agent="coder", patterns=("notes/*",), duration=900.0)

    assert "permit" == world.call(child, LIST).basis

    world.clock.step_wall(-900.0)
    world.clock.advance(899.75)

    assert "permit" == world.call(child, LIST).basis

    world.clock.advance(0.25)

    assert "session_expired" == world.call(child, LIST).basis


def test_a_look_at_what_is_over_approves_nothing(world: World) -> None:
    """A request that is over by the boot clock shows nothing to approve, also when a reboot brings it back."""
    name = world.request(user="alice", agent="coder", patterns=("notes/*",), duration=600.0)
    world.clock.advance(900.0)
    world.look(name)
    world.clock.step_wall(-600.0)
    world.clock.reboot()

    world.approve(name, ())

    assert "session_not_approved" == world.call(name, LIST).basis

    world.look(name)
    world.approve(name, ())

    assert "permit" == world.call(name, LIST).basis


def test_narrowing_after_a_reboot_counts_on_the_boot_clock(world: World) -> None:
    """An end that is set after a reboot holds on the boot clock too."""
    name = world.request(user="alice", agent="coder", patterns=("notes/*",), duration=3600.0)
    world.approve(name, ())
    world.clock.reboot()
    world.narrow(name, (), 900.0, ())
    world.clock.step_wall(-900.0)
    world.clock.advance(900.0)

    assert "session_expired" == world.call(name, LIST).basis


@pytest.mark.parametrize(
    ("meanwhile", "basis"),
    [
        (lambda *_: None, "permit"),
        (lambda world, name: world.revoke("session", name, "ann"), "session_revoked"),
        (lambda world, _: world.revoke("user", "alice", "ann"), "session_revoked"),
        (lambda world, name: world.end(name, "gateway-1"), "session_ended"),
        (lambda world, name: world.narrow(name, ("bank/*",), None, ()), "out_of_scope"),
        (lambda world, _: world.reload(3), "session_revoked"),
        (lambda world, _: world.reload(2), "forbid"),
    ],
    ids=["nothing", "revoked", "user revoked", "ended", "narrowed", "agent gone", "other groups"],
)
def test_what_happens_to_a_session_that_comes_back(
    world: World, meanwhile: Callable[[World, str], None], basis: str
) -> None:
    """A session that was over by the boot clock alone is back after a reboot, with all that was said meanwhile."""
    name = world.request(user="alice", agent="helper", patterns=("repo/*",), duration=900.0)
    world.approve(name, ())
    world.clock.step_wall(-900.0)
    world.clock.advance(900.0)

    assert "session_expired" == world.call(name, READ).basis

    meanwhile(world, name)
    world.clock.reboot()

    assert basis == world.call(name, READ).basis


@pytest.mark.parametrize(("behind", "basis"), [(600.0, "permit"), (600.25, "session_expired")])
def test_a_reboot_with_a_wall_clock_that_is_far_back(world: World, behind: float, basis: str) -> None:
    """Then nothing tells how much time has passed since: the session is back when the clock is right."""
    name = world.request(user="alice", agent="helper", patterns=("repo/*",), duration=900.0)
    world.approve(name, ())
    world.clock.reboot()
    world.clock.step_wall(-behind)

    assert basis == world.call(name, READ).basis

    world.clock.step_wall(behind)

    assert "permit" == world.call(name, READ).basis


@pytest.mark.parametrize(
    ("above", "below", "happens", "wanted", "basis"),
    [
        ({}, {}, "narrow", LIST, "out_of_scope"),
        ({}, {}, "expire", LIST, "session_expired"),
        (
            {"patterns": ("bank/*",)},
            {"patterns": ("bank/*",)},
            "taint",
            ToolCall(server="bank", tool="balance", arguments=b'{"account":"main"}'),
            "forbid",
        ),
        ({"user": "carol"}, {"grants": ("all",)}, "", ToolCall(server="notes", tool="add"), "default_deny"),
        ({"attributes": {"level": 3}}, {"grants": ("all",)}, "reload", LIST, "policy_error"),
    ],
)
def test_what_an_ancestor_is_denied(
    world: World, above: dict[str, Any], below: dict[str, Any], happens: str, wanted: ToolCall, basis: str
) -> None:
    """What the session above may not do, the session below may not do either, whatever the reason."""
    facts: dict[str, Any] = {"user": "alice", "agent": "coder", "patterns": ("notes/*",), "duration": 900.0}
    parent = world.request(**{**facts, **above})
    world.approve(parent, ())
    child = world.request(parent=parent, **{**facts, "patterns": below.get("patterns", facts["patterns"])})
    world.approve(child, below.get("grants", ()))
    if happens == "narrow":
        world.narrow(parent, ("notes/add",), None, ())
    if happens == "expire":
        world.narrow(parent, (), 60.0, ())
        world.clock.advance(60.0)
    if happens == "taint":
        world.narrow(parent, (), None, ("tainted",))
    if happens == "reload":
        world.reload(1)

    answer = world.call(child, wanted)

    assert ("ancestor_denied", parent, basis) == (answer.basis, answer.ancestor, answer.ancestor_basis)


def test_a_person_lifts_what_denies_a_call_in_a_whole_chain(world: World) -> None:
    """The question is asked in the session of the call, and a yes is good for one call there and for none above."""
    facts: dict[str, Any] = {"user": "alice", "agent": "coder", "patterns": ("notes/*",), "duration": 900.0}
    parent = world.request(**facts)
    world.approve(parent, ())
    child = world.request(parent=parent, **facts)
    world.approve(child, ())
    world.narrow(parent, (), None, ("tainted",))
    asked = world.call(child, ADD)
    world.answer(asked.question, "yes")
    above = world.call(parent, ADD)
    lifted = world.call(child, ADD)
    again = world.call(child, ADD)

    assert ["approval_required"] * 2 + ["permit", "approval_required"] == [
        one.basis for one in (asked, above, lifted, again)
    ]
    assert (("guard/tainted",), asked.question) == (lifted.lifted, lifted.question)
    assert 3 == len({one.question for one in (asked, above, again)})


@pytest.mark.parametrize(
    "meanwhile",
    [
        lambda world: world.clock.advance(600.0),
        lambda world: world.clock.step_wall(600.0),
        lambda world: world.reload(2),
        lambda world: world.answer("question-0", "revoked"),
    ],
    ids=["time passes", "the clock is set", "another bundle", "taken back"],
)
def test_a_yes_does_not_last(world: World, meanwhile: Callable[[World], None]) -> None:
    """It ends by either clock, with its bundle, and when it is taken back."""
    name = world.request(
        user="carol",
        agent="coder",
        patterns=("notes/*",),
        duration=3600.0,
        labels=("tainted",),
        attributes={"level": 3},
    )
    world.approve(name, ("all",))
    asked = world.call(name, ADD)
    world.answer(asked.question, "yes")
    meanwhile(world)
    late = world.call(name, ADD)

    assert ("approval_required", "question-0") == (asked.basis, asked.question)
    assert "permit" != late.basis


@pytest.mark.parametrize("meanwhile", [60.0, -60.0, 0.0])
def test_a_retry_is_allowed_for_a_minute(world: World, meanwhile: float) -> None:
    """By either clock, also when the wall clock is set meanwhile; then another person's answer is needed."""
    name = world.request(
        user="alice",
        agent="coder",
        patterns=("notes/*",),
        duration=3600.0,
        labels=("tainted",),
        attributes={"level": 3},
    )
    world.approve(name, ("all",))
    asked = world.call(name, ADD)
    world.answer(asked.question, "yes")
    request_id = world.try_call(name, ADD)
    bases = [world.retry(request_id).basis]
    world.clock.step_wall(meanwhile)
    world.clock.advance(59.75)
    bases.append(world.retry(request_id).basis)
    world.clock.advance(0.25)
    bases.append(world.retry(request_id).basis)

    assert ["permit", "approval_required" if meanwhile > 0 else "permit", "approval_required"] == bases


def test_a_session_from_when_no_policy_looked_sees_no_results(world: World) -> None:
    """It was requested below another one, under a bundle without rules about targets: its names are unseen."""
    wanted: dict[str, Any] = {"user": "alice", "agent": "coder", "patterns": PATTERNS[1], "may_delegate": True}
    above = world.request(duration=3600.0, **wanted)
    world.approve(above, ())
    world.read(above, READS[0], RESULTS[0])
    world.reload(4)
    below = world.request(parent=above, duration=900.0, **wanted)
    world.reload(0)
    lowest = world.request(parent=below, duration=900.0, **wanted)
    for name in (below, lowest):
        world.read(name, READS[0], RESULTS[0])
    found = [world.call(name, WRITES[0]) for name in (above, below, lowest)]

    assert ["forbid", "permit", "permit"] == [one.basis for one in found]
    assert ("source/issued",) == found[0].policies


def test_the_oracle_is_independent() -> None:
    """The oracle imports nothing of the product, and its model of sessions is short."""
    files = [
        Path(module.__file__ or "") for module in (model, sessions, judge, outside, held, counting, people, freezes)
    ]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    imported = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    names = ("sessions", "judge", "outside", "held", "counting", "people", "freezes")
    own = {f"tests.machinery.oracle.{name}" for name in names}

    assert {"cedarpy", "jsonschema", "yaml"} == {
        name for name in imported - own if name.partition(".")[0] not in sys.stdlib_module_names
    }
    assert len(files[1].read_text(encoding="utf-8").splitlines()) <= 340
