"""Which calls are decided at once: what is remembered and what is quick, and nothing that would have to wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import pytest

from pdp.decision.authorizer import NO_PARENT, Decided, Passed
from pdp.decision.observers import Observers
from pdp.errors import RequestIdConflictError
from pdp.model import Basis, CacheResult, Call, CallRequest, Decision, Outcome, TraceParent
from pdp.observer import Event, Observed
from pdp.policy.budgets import UNITS
from pdp.record import DecisionLog, SigningKey
from pdp.telemetry.observer import Telemetry
from pdp.testing.bundles import bundle_files, tool, with_terms
from tests.machinery.oracle.opened import GATEWAY, Opened, opened

MANY = "\n".join(
    f'@id("mail/{n}") permit (principal, action == Action::"mail/pay", resource) when {{ context.input.cents == {n} }};'
    for n in range(200)
)
FILES = bundle_files(
    policies={
        "mail": '@id("mail/read") permit (principal, action == Action::"mail/read", resource)'
        ' when { context.input.folder like "*" };'
        '@id("mail/send") permit (principal, action == Action::"mail/send", resource);'
        '@id("mail/ask") @step_up("may it?") forbid (principal, action == Action::"mail/send", resource)'
        ' when { context.input.to == "boss" };' + MANY,
    },
    tools={
        "mail": [
            tool("read", {"folder": {"type": "string"}}, ["folder"]),
            tool("send", {"to": {"type": "string"}}, ["to"]),
            tool("pay", {"cents": {"type": "integer"}}, ["cents"]),
            tool("mark"),
        ]
    },
    overlays={"mail": "tools: {mark: {adds_labels: [marked]}}\n"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: ['mail/*']}}}",
    manifest="labels: {marked: {meaning: was marked}}",
)

RISKS = b"risk: mutating\ntools: {read: {risk: read_only}, pay: {sums: cents}}\n"


class Recorder:
    """A record that counts what comes together, and takes nothing while it is busy."""

    def __init__(self) -> None:
        self.busy = False
        self.takes_at_once = True
        self.alone: list[Decision] = []
        self.together: list[list[Decision]] = []

    def decision(self, decision: Decision, parent: TraceParent) -> Decision:  # noqa: ARG002 - as observers have it
        """Keep a decision."""
        self.alone.append(decision)
        return decision

    def decisions(self, observed: Sequence[Observed]) -> Sequence[Decision] | None:
        """Keep decisions that come together."""
        if self.busy:
            return None
        self.together.append([decision for decision, _ in observed])
        return self.together[-1]

    def event(self, event: Event) -> None:
        """Take an event."""


@pytest.fixture
def record() -> Recorder:
    """Return the record of the PDP."""
    return Recorder()


@pytest.fixture
def pdp(tmp_path: Path, record: Recorder) -> Iterator[Opened]:
    """Return a PDP."""
    with opened(tmp_path, FILES, observer=Observers(record=record)) as one:
        yield one


def call(handle: str, name: str = "read", arguments: bytes = b'{"folder":"a"}', request_id: str = "") -> CallRequest:
    """Return the request about a call."""
    asked = Call(session_handle=handle, server="mail", tool=name, arguments_json=arguments)
    return CallRequest(call=asked, request_id=request_id)


def try_now(pdp: Opened, *requests: CallRequest) -> Iterator[Passed]:
    """Begin to decide about calls that have come."""
    return pdp.embedded.authorizer.try_now((one, GATEWAY, NO_PARENT) for one in requests)


def tried(pdp: Opened, *requests: CallRequest) -> list[Decided | None]:
    """Return what is decided about calls that come together; None for each that has to wait."""
    begun = [next(try_now(pdp, request), None) for request in requests]
    decided = iter(pdp.embedded.authorizer.decide_now([one for one in begun if one is not None]))
    return [None if one is None else next(decided) for one in begun]


def at_once(pdp: Opened, request: CallRequest) -> Decision | None:
    """Return the recorded decision about a call that is decided at once, and None about any other."""
    (decided,) = tried(pdp, request)
    if decided is None:
        return None
    recorded = pdp.embedded.authorizer.record([decided])
    assert recorded is not None
    return recorded[0]


def test_a_remembered_decision_is_the_same_at_once(pdp: Opened) -> None:
    """All but its own id and duration."""
    _, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/read", b'{"folder":"a"}')
    waited, found = pdp.ask(handle, "mail/read", b'{"folder":"a"}'), at_once(pdp, call(handle))

    assert found is not None
    assert CacheResult.HIT is found.cache_result
    assert replace(waited, id="", duration_us=0.0, phases=()) == replace(found, id="", duration_us=0.0, phases=())


def test_a_quick_question_is_asked_at_once_and_remembered(pdp: Opened) -> None:
    """Once its policies are parsed: that takes longer than any question."""
    _, handle = pdp.session("mail/*")
    first = at_once(pdp, call(handle))
    pdp.ask(handle, "mail/read", b'{"folder":"b"}')
    second, third = at_once(pdp, call(handle)), at_once(pdp, call(handle))

    assert first is None
    assert second is not None
    assert third is not None
    assert [CacheResult.MISS, CacheResult.HIT] == [second.cache_result, third.cache_result]


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Opened]:
    """Return a PDP whose sessions can have budgets, which count all calls, those that change something, or sums."""
    schema = with_terms("max_calls?: Long, max_calls_of_mutating?: Long, max_sum?: Long")
    with opened(tmp_path, {**FILES, "schema.cedarschema": schema.encode(), "tools/mail.yaml": RISKS}) as one:
        yield one


@pytest.mark.parametrize("terms", [b"", b'{"max_calls_of_mutating":1}', b'{"max_sum":1}'])
def test_a_call_that_owes_nothing_is_decided_at_once(limited: Opened, terms: bytes) -> None:
    """Of no budget of its session, nor of one above it: what would be settled is the same, and is nothing."""
    session_id, handle = limited.session("mail/*", may_delegate=True, terms_json=terms)
    _, below = limited.request("mail/*", parent_session_handle=handle, terms_json=terms)
    for one in (handle, below):
        waited, found = limited.ask(one, "mail/read", b'{"folder":"a"}'), at_once(limited, call(one))

        assert found is not None
        assert CacheResult.HIT is found.cache_result
        assert (waited.matter, waited.ruling, waited.debits) == (found.matter, found.ruling, found.debits)
    assert {} == limited.embedded.history.used(session_id)


@pytest.mark.parametrize(
    ("terms", "unit", "name", "arguments"),
    [
        (b'{"max_calls":2}', 1, "read", b'{"folder":"a"}'),
        (b'{"max_calls_of_mutating":2}', 1, "send", b'{"to":"a"}'),
        (b'{"max_sum":2}', UNITS, "pay", b'{"cents":1}'),
    ],
)
def test_a_call_that_owes_has_to_wait(limited: Opened, terms: bytes, unit: int, name: str, arguments: bytes) -> None:
    """Whether the budget is that of its session or of one above it."""
    session_id, handle = limited.session("mail/*", may_delegate=True, terms_json=terms)
    _, below = limited.request("mail/*", parent_session_handle=handle, terms_json=terms)
    for one in (handle, below):
        limited.ask(one, f"mail/{name}", arguments)

        assert tried(limited, call(one, name, arguments)) == [None]
    assert [2] == [one.used // unit for one in limited.embedded.history.used(session_id).values()]


def test_what_the_ledger_makes_of_a_call_does_not_recur(limited: Opened) -> None:
    """Each deny for a budget that is used up has a ruling of its own; an allow has the one that is remembered."""
    _, handle = limited.session("mail/*", terms_json=b'{"max_calls":4}')
    asked = [limited.ask(handle, "mail/read", b'{"folder":"a"}') for _ in range(6)]

    assert [False, True, True, True, False, False] == [one.recurs for one in asked]
    assert asked[2].ruling is asked[3].ruling
    assert [CacheResult.HIT] * 2 == [one.cache_result for one in asked[4:]]


def test_what_a_new_bundle_counts_has_to_wait(limited: Opened) -> None:
    """A budget counts a tool from the moment on when the bundle puts it into its group."""
    _, handle = limited.session("mail/*", terms_json=b'{"max_calls_of_mutating":1}')
    limited.ask(handle, "mail/read", b'{"folder":"a"}')
    before = tried(limited, call(handle))
    limited.reload({"tools/mail.yaml": RISKS.replace(b"read_only", b"mutating")})
    limited.ask(handle, "mail/read", b'{"folder":"a"}')

    assert before != [None]
    assert tried(limited, call(handle)) == [None]
    assert Basis.BUDGET_EXHAUSTED is limited.ask(handle, "mail/read", b'{"folder":"a"}').ruling.basis


def ended(pdp: Opened, session_id: str, handle: str) -> CallRequest:
    """Return a call of a session that its gateway has ended."""
    pdp.embedded.registrar.end(handle, caller=GATEWAY)
    assert session_id
    return call(handle)


WAITING: dict[str, Callable[[Opened, str, str], CallRequest]] = {
    "an unknown session": lambda _, __, ___: call("pdps_unknown"),
    "a session that has ended": ended,
    "a label that is added": lambda _, __, handle: call(handle, "mark", b""),
    "a person who is asked": lambda _, __, handle: call(handle, "send", b'{"to":"boss"}'),
    "many policies": lambda _, __, handle: call(handle, "pay", b'{"cents":1}'),
    "many bytes": lambda _, __, handle: call(handle, "read", b'{"folder":"%s"}' % (b"a" * 5000)),
}


@pytest.mark.parametrize("what", WAITING.values(), ids=WAITING)
def test_what_waits_is_not_decided_at_once(
    pdp: Opened, record: Recorder, what: Callable[[Opened, str, str], CallRequest]
) -> None:
    """Nothing comes of it; asked as usual, it is answered."""
    session_id, handle = pdp.session("mail/*")
    for name, arguments in (("read", b'{"folder":"a"}'), ("send", b'{"to":"a"}'), ("pay", b'{"cents":2}')):
        pdp.ask(handle, f"mail/{name}", arguments)
    request = what(pdp, session_id, handle)
    record.alone.clear()

    assert tried(pdp, request) == [None]
    assert (record.alone, record.together) == ([], [])
    assert pdp.embedded.authorizer.authorize(request, GATEWAY) == record.alone[0]


def test_what_was_found_among_many_policies_is_remembered_at_once(pdp: Opened) -> None:
    """Only asking them takes long."""
    _, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/pay", b'{"cents":1}')
    found = at_once(pdp, call(handle, "pay", b'{"cents": 1}'))

    assert found is not None
    assert (Outcome.ALLOW, CacheResult.HIT) == (found.ruling.outcome, found.cache_result)


def test_a_store_that_is_being_changed_is_not_waited_for(pdp: Opened) -> None:
    """Whoever holds it may be about to end the session."""
    _, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/read", b'{"folder":"a"}')
    sessions: Any = pdp.embedded.sessions
    with sessions._lock:
        held = at_once(pdp, call(handle))

    assert held is None
    assert at_once(pdp, call(handle)) is not None


def test_decisions_are_recorded_together_in_their_order(pdp: Opened, record: Recorder) -> None:
    """One write has all of a turn."""
    _, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/read", b'{"folder":"a"}')
    requests = [call(handle, request_id=f"r{number}") for number in range(3)]
    decided = [one for one in tried(pdp, *requests) if one is not None]
    recorded = pdp.embedded.authorizer.record(decided)

    assert recorded is not None
    assert [["r0", "r1", "r2"]] == [[one.request_id for one in together] for together in record.together]
    assert record.together[0] == recorded


def test_record_and_telemetry_give_a_turn_back_as_it_was(tmp_path: Path) -> None:
    """So no answer has to be written anew after the record, where a failure would have the turn recorded twice."""
    log = DecisionLog(tmp_path / "record", key=b"k" * 32, signer=SigningKey.generate())
    telemetry = Telemetry(spans=list[object]().append, records=list[object]().append)
    watchers = Observers(telemetry, record=log)
    with opened(tmp_path / "policies", FILES, observer=watchers, trace_ids=telemetry.trace_ids) as pdp:
        _, handle = pdp.session("mail/*")
        pdp.ask(handle, "mail/read", b'{"folder":"a"}')
        decided = [one for one in tried(pdp, *[call(handle) for _ in range(3)]) if one is not None]
        recorded = pdp.embedded.authorizer.record(decided)
    log.close()

    assert recorded is not None
    assert [True] * 3 == [one is other.decision for one, other in zip(recorded, decided, strict=True)]
    assert all(one.trace_id and one.span_id for one in recorded)


def test_calls_that_come_together_are_decided_as_each_by_itself(pdp: Opened) -> None:
    """The second of two equal ones finds what the first has asked, and a person is asked about none of them."""
    _, handle = pdp.session("mail/*")
    for name, arguments in (("read", b'{"folder":"a"}'), ("send", b'{"to":"a"}')):
        pdp.ask(handle, f"mail/{name}", arguments)
    found = tried(
        pdp,
        call(handle, "read", b'{"folder":"b"}'),
        call(handle, "send", b'{"to":"boss"}'),
        call(handle, "read", b'{"folder":"b"}'),
        call(handle, "read", b'{"folder":1}'),
        call(handle, "send", b'{"to":"b"}'),
    )

    assert [
        (Outcome.ALLOW, CacheResult.MISS, ("mail/read",)),
        None,
        (Outcome.ALLOW, CacheResult.HIT, ("mail/read",)),
        (Outcome.DENY, CacheResult.NONE, ()),
        (Outcome.ALLOW, CacheResult.MISS, ("mail/send",)),
    ] == [one and (one.ruling.outcome, one.decision.cache_result, one.ruling.policies) for one in found]


def test_a_call_that_must_be_refused_leaves_those_that_come_with_it(pdp: Opened) -> None:
    """A request id that was used for another call concerns no other call of the same turn."""
    _, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/read", b'{"folder":"a"}')
    assert at_once(pdp, call(handle, request_id="r")) is not None
    found = tried(pdp, call(handle), call(handle, "read", b'{"folder":"b"}', "r"), call(handle, request_id="r"))

    assert [True, False, True] == [one is not None for one in found]


def test_a_decision_does_not_last_as_long_as_those_that_come_with_it(pdp: Opened) -> None:
    """Its phases are its own work, also where the policies were asked about others in between."""
    _, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/read", b'{"folder":"a"}')
    began = perf_counter_ns()
    found = tried(pdp, *[call(handle, "read", b'{"folder":"%d"}' % number) for number in range(20)])
    took = (perf_counter_ns() - began) / 1000

    assert took > sum(one.decision.duration_us for one in found if one is not None)


def test_where_each_record_waits_nothing_is_decided_at_once(pdp: Opened, record: Recorder) -> None:
    """It would all be decided twice."""
    _, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/read", b'{"folder":"a"}')
    record.takes_at_once = False

    assert list(try_now(pdp, call(handle))) == []


def test_calls_that_come_together_have_one_snapshot_for_each_session(pdp: Opened) -> None:
    """It is taken when they come, so the next calls have another one."""
    (_, first), (_, second) = pdp.session("mail/*"), pdp.session("mail/*")
    pdp.ask(first, "mail/read", b'{"folder":"a"}')
    pdp.ask(second, "mail/read", b'{"folder":"a"}')
    came, next_came = (
        [one.snapshot for one in try_now(pdp, *map(call, handles))] for handles in ((first, second, first), (first,))
    )

    assert [0, 1, 0] == [came.index(one) for one in came]
    assert came[0] is came[2]
    assert came[0] is not next_came[0]


def test_a_caller_sees_no_snapshot_of_another_one(pdp: Opened) -> None:
    """For one that may not ask about a session there is none, also if it comes together with one that may."""
    _, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/read", b'{"folder":"a"}')
    stranger = replace(GATEWAY, tenant="another")
    came = [(call(handle), caller, NO_PARENT) for caller in (GATEWAY, stranger)]

    assert len(list(pdp.embedded.authorizer.try_now(came))) == 1


def test_what_waits_ends_what_begins_at_once(pdp: Opened) -> None:
    """No call is begun after it, since it may change what that sees."""
    _, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/read", b'{"folder":"a"}')
    waits = call(handle, "mark", b"")

    assert len(list(try_now(pdp, call(handle), waits, call(handle)))) == 1


def test_what_a_batch_does_not_change_is_recorded_together(pdp: Opened, record: Recorder) -> None:
    """In order: before what changes something, and before a retry, whose id depends on the record."""
    _, handle = pdp.session("mail/*")
    asks = call(handle, "send", b'{"to":"boss"}')
    calls = [call(handle), call(handle), asks, call(handle, request_id="r")]
    decisions = pdp.embedded.authorizer.batch([*calls, call(handle, request_id="r"), call(handle)], GATEWAY)

    assert [[*decisions[:2]], [decisions[3]], [*decisions[4:]]] == record.together
    assert [decisions[2]] == record.alone
    assert decisions[3].id == decisions[4].id


def test_a_busy_record_takes_a_batch_one_by_one(pdp: Opened, record: Recorder) -> None:
    """A batch can wait for it."""
    _, handle = pdp.session("mail/*")
    record.busy = True
    decisions = pdp.embedded.authorizer.batch([call(handle), call(handle)], GATEWAY)

    assert [*decisions] == record.alone


def test_what_was_decided_before_a_batch_was_refused_is_recorded(pdp: Opened, record: Recorder) -> None:
    """The call that refuses it has the request id of another one."""
    _, handle = pdp.session("mail/*")
    other = call(handle, arguments=b'{"folder":"b"}', request_id="r")
    with pytest.raises(RequestIdConflictError):
        pdp.embedded.authorizer.batch([call(handle, request_id="r"), call(handle), other], GATEWAY)

    assert ["r", ""] == [one.request_id for group in record.together for one in group]


def test_a_busy_record_leaves_the_call_as_it_was(pdp: Opened, record: Recorder) -> None:
    """It is decided again where waiting is no harm, and a retry of it is the same decision."""
    _, handle = pdp.session("mail/*")
    pdp.ask(handle, "mail/read", b'{"folder":"a"}')
    request = call(handle, request_id="r")
    record.busy = True
    (decided,) = tried(pdp, request)
    assert decided is not None
    refused = pdp.embedded.authorizer.record([decided])
    again = pdp.embedded.authorizer.authorize(request, GATEWAY)

    assert (refused, record.together) == (None, [])
    assert [again.id] == [one.id for one in record.alone[1:]] == [decided.decision.id]
