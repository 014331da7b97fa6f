"""Two real PDPs and the oracle beside them: every deed happens to all three, and every answer must be one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from unittest.mock import patch

from pdp.app.embedded import Embedded, open_embedded
from pdp.client.reading import read_result
from pdp.client.values import ResultReading
from pdp.clock import no_earlier
from pdp.decision.cache import DecisionCache
from pdp.decision.explanation import Explanation
from pdp.decision.stepup import UNASKED
from pdp.errors import InvalidRequestError, NotFoundError, PDPError
from pdp.foundation.lrucache import LRUCache
from pdp.limits import Limits
from pdp.model import AT_EACH_CALL, CacheResult, Call, Caller, CallRequest, CallStatus, Decision, Role
from pdp.policy.bundle import Bundle as LoadedBundle
from pdp.policy.entities import EntityMemory
from pdp.policy.loading import Compile, load_bundle
from pdp.registry.outcomes import OutcomeReport
from pdp.registry.readings import ReportedValues
from pdp.registry.words import Selector, SessionRequest, SessionView
from pdp.sessions import access
from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.lifecycle import earliest_end
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.testing.bundles import compile_here
from pdp.testing.clock import FakeClock
from tests.machinery.oracle.bundles import all_bundles
from tests.machinery.oracle.judge import Answer, Bundle, parsed
from tests.machinery.oracle.model import Oracle, Session, Time
from tests.machinery.ways.explained import assert_explains

CALLERS = {
    "gateway-1": Caller(id="gateway-1", kind="token", roles=frozenset({Role.PEP})),
    "gateway-2": Caller(id="gateway-2", kind="token", roles=frozenset({Role.PEP})),
    "gateway-x": Caller(id="gateway-x", kind="token", roles=frozenset({Role.PEP}), tenant="other"),
    "ann": Caller(id="ann", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL),
    "oz": Caller(
        id="oz", kind="token", roles=frozenset({Role.APPROVER}), tenant="other", authenticated_at=AT_EACH_CALL
    ),
    "ops": Caller(id="ops", kind="token", roles=frozenset({Role.OPERATOR})),
    "stranger": Caller(id="stranger", kind="token", roles=frozenset({Role.APPROVER}), authenticated_at=AT_EACH_CALL),
}
UNKNOWN_HANDLE = "pdps_" + "A" * 43

_CALLS_TO_AN_EXPLANATION = 50


def _frozen(tenant: str) -> str:
    """Return the product's name of what the oracle calls `all`, or a tenant."""
    return "" if tenant == "all" else tenant


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One call as the pool of the state machine holds it; `digest` says how the definition is stated."""

    server: str
    tool: str
    arguments: bytes = b""
    digest: Literal["none", "right", "wrong"] = "none"
    facts: bytes = b""
    caller: str = "gateway-1"


@dataclass(frozen=True, kw_only=True)
class Try:
    """One call that a gateway tries again as it was: by the session's name, and with the digest that it stated."""

    session: str
    wanted: ToolCall
    digest: str


@dataclass
class Product:
    """One real PDP, with its own ids and handles for the sessions that the oracle knows by name."""

    embedded: Embedded
    ids: dict[str, str] = field(default_factory=dict)
    handles: dict[str, str] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    latest: Decision | None = None
    # What people are asked, by the names that the oracle gives it.
    questions: dict[str, str] = field(default_factory=dict)


class Lasting(MemorySessionHistory):
    """A history that goes on after it was closed."""

    def close(self) -> None:
        """Keep all."""


_loaded: dict[frozenset[tuple[str, bytes]], LoadedBundle] = {}


def _load_once(
    files: Mapping[str, bytes], limits: Limits, compile_files: Compile, memory: EntityMemory
) -> LoadedBundle:
    """Load each bundle once in the whole run: the machine changes often between few. Each PDP keeps its memory."""
    key = frozenset(files.items())
    if key not in _loaded:
        _loaded[key] = load_bundle(files, limits, compile_files)
    bundle = copy(_loaded[key])
    bundle._memory, bundle._mark = memory, object()
    return bundle


@cache
def _bundles() -> list[tuple[Bundle, dict[str, bytes]]]:
    return all_bundles()


class World:
    """A clock, the oracle, a PDP that remembers much and forgets often, and one that remembers nothing.

    `counts` is told of everything that happened: `hit`, `basis:forbid`, `deed:approve` … One of the two has its
    sessions on the disk, in the store that `open_disk` opens.
    """

    def __init__(
        self,
        counts: Counter[str],
        *,
        remembering_on_disk: bool,
        open_disk: Callable[[], SQLiteSessionStore] | None = None,
    ) -> None:
        self._counts = counts
        self._calls = count()
        # What was asked for each session, but for the digest, which is in no key.
        self._asked: set[tuple[str, ToolCall]] = set()
        # The calls that can be tried again, by their request ids.
        self._tries: dict[str, Try] = {}
        self._opened = ExitStack()
        self._folder = Path(self._opened.enter_context(TemporaryDirectory()))
        self._opened.enter_context(patch("pdp.bundles.loading.load_bundle", _load_once))
        self.clock = FakeClock()
        self.oracle = Oracle(self._time)
        self._current = 0
        self._write_files()
        disk = open_disk() if open_disk else SQLiteSessionStore(self._folder / "sessions.sqlite")
        memory = MemorySessionStore()
        first, second = (disk, memory) if remembering_on_disk else (memory, disk)
        self.cache = DecisionCache(size=24, max_ttl=300.0)
        # What calls left outlives a PDP that is closed, as the disk does.
        self._history = Lasting()
        self.products = [
            self._open(first, self.cache, self._history),
            self._open(second, DecisionCache(size=0), MemorySessionHistory()),
        ]
        self._forget_entities()
        self.oracle.activate(_bundles()[0][0])
        self.shown: dict[str, Mapping[str, str] | None] = {}

    def close(self) -> None:
        """Release stores and files."""
        self._opened.close()

    @property
    def bundle_number(self) -> int:
        """Return which bundle is active."""
        return self._current

    @property
    def names(self) -> list[str]:
        """Return the names of all sessions, oldest first."""
        return list(self.oracle.sessions)

    # Deeds.

    def request(
        self,
        *,
        parent: str = "",
        caller: str = "gateway-1",
        labels: tuple[str, ...] = (),
        terms: bytes = b"",
        **wanted: Any,
    ) -> str:
        """Ask for a session; return its name, empty when it is refused."""
        name = f"session-{len(self.names)}"
        session = Session(
            name=name,
            tenant=CALLERS[caller].tenant,
            opened_by=caller,
            labels=frozenset(labels),
            terms=parsed(terms),
            **wanted,
        )
        happens = self.oracle.request(session, caller, parent)

        def ask(product: Product) -> None:
            wish = SessionRequest(
                user=session.user,
                agent=session.agent,
                purpose="p",
                tool_patterns=tuple(session.patterns),
                duration=session.duration,
                parent_session_handle=product.handles.get(parent, ""),
                user_attributes_json=json.dumps(session.attributes).encode("ascii"),
                labels=labels,
                may_delegate=session.may_delegate,
                terms_json=terms,
            )
            view, handle = product.embedded.registrar.request(wish, CALLERS[caller])
            product.ids[name], product.handles[name] = view.session.id, handle
            self._check_view(name, view)

        self._all("request", ask, happens=happens)
        if happens:
            self.look(name)
        return name if happens else ""

    def look(self, name: str) -> None:
        """Look at a session, as an approver does."""
        session = self.oracle.sessions[name]
        # Where nothing waits there is nothing to approve, also when a new boot brings the session back.
        self.shown[name] = self.oracle.shown(session) if self.oracle.state(session) == "requested" else None
        for product in self.products:
            view = product.embedded.registrar.get(product.ids[name], caller=self._approver(name))
            product.shown[name] = view.request_digest
            self._check_view(name, view)

    def approve(self, name: str, grants: tuple[str, ...], caller: str = "") -> None:
        """Approve what was shown when somebody looked last."""
        speaker = CALLERS[caller] if caller else self._approver(name)
        visible = self.oracle.sessions[name].tenant == speaker.tenant
        # A grant that no policy asks for would give nothing, and is refused.
        asked = all(f'Grant::"{grant}"' in self.oracle.bundle.policies for grant in grants)
        happens = visible and asked and self.oracle.approve(name, self.shown[name], grants, speaker.id)
        self._all(
            "approve",
            lambda product: product.embedded.registrar.approve(
                product.ids[name], request_digest=self._shown_with(product, name, grants), grants=grants, caller=speaker
            ),
            happens=happens,
        )

    def _shown_with(self, product: Product, name: str, grants: tuple[str, ...]) -> str:
        """Return the digest of what was shown when somebody looked last, with grants."""
        registrar, shown, looking = product.embedded.registrar, product.shown[name], self._approver(name)
        if grants and shown and shown == registrar.get(product.ids[name], caller=looking).request_digest:
            return registrar.proposal(product.ids[name], grants=grants, caller=looking).request_digest
        return shown

    def deny(self, name: str) -> None:
        """Refuse a session."""
        speaker = self._approver(name)
        self._all(
            "deny",
            lambda product: product.embedded.registrar.deny(product.ids[name], reason="r", caller=speaker),
            happens=self.oracle.deny(name),
        )

    def end(self, name: str, caller: str) -> None:
        """End a session with its handle."""
        session = self.oracle.sessions[name]
        happens = session.opened_by == caller and self.oracle.end(name)
        self._all(
            "end",
            lambda product: product.embedded.registrar.end(product.handles[name], caller=CALLERS[caller]),
            happens=happens,
        )

    def revoke(self, kind: Literal["session", "user", "agent", "tenant"], value: str, caller: str) -> None:
        """Revoke by a session's name, a user, an agent or a tenant."""
        speaker = CALLERS[caller]
        happens = {
            "session": value in self.oracle.sessions and self.oracle.sessions[value].tenant == speaker.tenant,
            "tenant": value == speaker.tenant,
        }.get(kind, True)
        if happens:
            self.oracle.revoke(kind, value, speaker.tenant)
        self._all(
            "revoke",
            lambda product: product.embedded.registrar.revoke(
                Selector(kind=kind, value=product.ids[value] if kind == "session" else value),
                reason="r",
                caller=speaker,
            ),
            happens=happens,
        )

    def freeze(self, tenant: Literal["default", "other", "all"]) -> None:
        """Stop a tenant, or all."""
        by = {"default": "ann", "other": "oz", "all": "ops"}[tenant]
        self._all(
            "freeze",
            lambda product: product.embedded.freezer.freeze(_frozen(tenant), reason="r", caller=CALLERS[by]),
            happens=self.oracle.freeze(tenant, by),
        )

    def lift(self, tenant: Literal["default", "other", "all"]) -> None:
        """Lift a freeze; who may do that is shown elsewhere."""

        def act(product: Product) -> None:
            sessions = product.embedded.sessions
            (freeze,) = (one for one in sessions.freezes() if one.tenant == _frozen(tenant))
            sessions.change_freeze(freeze.id, lambda _: None, wall_at=self.clock.now().wall_at)

        self.oracle.lift(tenant, "one")
        self._all("lift", act, happens=self.oracle.lift(tenant, "two"))

    def narrow(self, name: str, patterns: tuple[str, ...], seconds: float | None, labels: tuple[str, ...]) -> None:
        """Take tools from a session, set its end so many seconds from now, add labels."""
        speaker = self._approver(name)
        expires_at = None if seconds is None else self.clock.now().wall_at + seconds
        self._all(
            "narrow",
            lambda product: product.embedded.registrar.narrow(
                product.ids[name], tool_patterns=patterns, expires_at=expires_at, labels=labels, caller=speaker
            ),
            happens=self.oracle.narrow(name, patterns, expires_at, labels),
        )

    def reload(self, number: int) -> None:
        """Take another bundle."""
        changes, self._current = number != self._current, number
        self._write_files()
        if changes:
            self.oracle.activate(_bundles()[number][0])

        for product in self.products:
            assert changes == product.embedded.keeper.reload(by="test")

        self._counts["deed:reload"] += changes

    def touch(self) -> None:
        """Put the time on record, as the server's heartbeat does."""
        for product in self.products:
            product.embedded.sessions.touch(wall_at=self.clock.now().wall_at)
        self.oracle._written()

    def restart(self, store: Callable[[], SQLiteSessionStore]) -> None:
        """Close the PDP that remembers, and open it again on what is on the disk."""
        before = self.products[0]
        before.embedded.close()
        self.products[0] = replace(before, embedded=self._open(store(), self.cache, self._history).embedded)

    def evict(self) -> None:
        """Forget all decisions and entities that are remembered."""
        self.cache.clear()
        self._forget_entities()

    def _forget_entities(self) -> None:
        # So small that entities are made again and again.
        memory = self.products[0].embedded.keeper._bundles._memory
        memory.of_sessions, memory.of_actions = LRUCache(3), LRUCache(3)

    def answer(self, name: str, word: Literal["yes", "no", "revoked"], calls: int = 1) -> None:
        """Answer what a person was asked about a call, yes for so many calls, or take a yes back."""
        now = no_earlier(self.clock.now(), self.oracle._latest)

        def say(product: Product) -> None:
            requests = product.embedded.history.access()
            found = requests.get(product.questions[name])
            assert found is not None
            chain = product.embedded.sessions.get(found.call.session_id)
            change = {
                "yes": partial(access.approve, now=now, by="ann", session_end=earliest_end(chain, now), uses=calls),
                "no": partial(access.deny, now=now, by="ann", reason="r"),
                "revoked": partial(access.revoke, now=now, by="ann", reason="r"),
            }[word]
            requests.answer(found.id, change)

        self._all(f"answer {word}", say, happens=self.oracle.answer(name, word, calls))

    # Calls.

    def try_call(self, name: str, wanted: ToolCall) -> str:
        """Call in such a way that the call can be tried again; return its request id."""
        request_id = f"try-{len(self._tries)}"
        self._tries[request_id] = Try(session=name, wanted=wanted, digest=self._digest(wanted))
        self._call(name, wanted, self._tries[request_id].digest, request_id)
        return request_id

    def retry(self, request_id: str) -> Answer:
        """Try a call again, as it was."""
        one = self._tries[request_id]
        return self._call(one.session, one.wanted, one.digest, request_id, again=True)

    def call(self, name: str, wanted: ToolCall) -> Answer:
        """Ask all three about a call, compare, and return what all say."""
        return self._call(name, wanted, self._digest(wanted))

    def _digest(self, wanted: ToolCall) -> str:
        tool = self.oracle.bundle.tools.get(f"{wanted.server}/{wanted.tool}")
        return {"none": "", "wrong": "sha256:" + "0" * 64, "right": tool.digest if tool else ""}[wanted.digest]

    def _call(self, name: str, wanted: ToolCall, digest: str, request_id: str = "", *, again: bool = False) -> Answer:
        caller = CALLERS[wanted.caller]
        expected = self.oracle.call(
            name,
            caller.tenant,
            caller.id,
            wanted.server,
            wanted.tool,
            wanted.arguments,
            digest,
            wanted.facts,
            request_id=request_id,
        )
        for product in self.products:
            call = Call(
                session_handle=product.handles.get(name, UNKNOWN_HANDLE),
                server=wanted.server,
                tool=wanted.tool,
                arguments_json=wanted.arguments,
                definition_digest=digest,
                facts_json=wanted.facts,
            )
            request = CallRequest(call=call, request_id=request_id)
            found, looked_up = self._answer(product, request, caller, expected.question, again=again)

            assert expected == found, f"{name} {wanted}: {looked_up}: {found}, expected {expected}"

            if looked_up is CacheResult.HIT and (name, replace(wanted, digest="none")) not in self._asked:
                self._counts["hit by what is read"] += 1
            self._counts[f"{looked_up.value}{'' if product is self.products[0] else ' without cache'}"] += 1
        self._asked.add((name, replace(wanted, digest="none")))
        self._counts[f"basis:{expected.basis}"] += 1
        self._counts["took of a budget"] += bool(expected.debits)
        self._counts["saw counts"] += any(count for _, count in expected.counts)
        self._counts["saw what is done"] += bool(expected.done)
        self._counts["lifted"] += bool(expected.lifted)
        self._counts["tried again and allowed"] += again and expected.basis == "permit"
        self._counts["tried again and lifted"] += again and bool(expected.lifted)
        self._counts["lifted in a run"] += bool(expected.lifted and self.oracle.people.runs(expected.question))
        self._counts["lifted in a chain"] += bool(expected.lifted and self.oracle.sessions[name].parents)
        self._counts.update(line for line in expected.advice if line.startswith("unasked"))
        self._counts[f"ancestor:{expected.ancestor_basis}"] += 1
        self._counts.update(f"policy:{policy}" for policy in (*expected.policies, *expected.errors))
        return expected

    def call_and_fail(self, name: str, wanted: ToolCall) -> None:
        """Call, and report that it failed when it was allowed, twice."""
        if self.call(name, wanted).basis != "permit":
            return
        tool = self.oracle.bundle.tools[f"{wanted.server}/{wanted.tool}"]
        self.oracle.fail(name, self.oracle.counted_as(tool))
        for product in self.products * 2:
            assert product.latest is not None
            token = product.embedded.outcomes.token(product.latest)
            report = OutcomeReport(outcome_token=token, status=CallStatus.FAILED)
            product.embedded.outcomes.report(report, CALLERS[wanted.caller])
        self._counts["failed"] += 1

    def read(self, name: str, wanted: ToolCall, result: Any) -> None:
        """Make a call, and report what its result held if it is allowed and a policy looks."""
        if self.call(name, wanted).basis != "permit" or not self.oracle.looks_at_results():
            return
        if self.oracle.sessions[name].blind:
            for product in self.products:
                assert product.latest is not None
                assert product.embedded.outcomes.reading(product.latest, product.handles[name]) is None
            self._counts["read in vain"] += 1
            return
        for product in self.products:
            _report(product, name, wanted, result)
        self.oracle.read(name, f"{wanted.server}/{wanted.tool}", parsed(wanted.arguments), result)
        self._counts["deed:read"] += 1

    def check_states(self) -> None:
        """Compare the state, the tools and the labels of every session."""
        for product in self.products:
            for name in self.names:
                speaker = self._approver(name)
                self._check_view(name, product.embedded.registrar.get(product.ids[name], caller=speaker))

    def _answer(
        self, product: Product, request: CallRequest, caller: Caller, question: str, *, again: bool
    ) -> tuple[Answer, CacheResult]:
        # Explained first: the call can change its session. What is explained is never a retry.
        explanation = None if again else self._explanation(product, request.call, caller)
        try:
            decision = product.embedded.authorizer.authorize(request, caller)
        except InvalidRequestError:
            return Answer("refused"), CacheResult.NONE
        if explanation is not None and decision.session_id:
            assert_explains(explanation, decision)
            self._counts["explained with counts"] += decision.ruling.counted is not None
        product.latest = decision
        if decision.access_request_id not in product.questions.values() and decision.access_request_id:
            # A new one, if the oracle says so too.
            product.questions.setdefault(question, decision.access_request_id)
        return spoken(decision, product), decision.cache_result

    def _explanation(self, product: Product, call: Call, caller: Caller) -> Explanation | None:
        """Return what explains one call in many: it costs as much as some ten decisions."""
        session_id = next(
            (product.ids[name] for name, one in product.handles.items() if one == call.session_handle), ""
        )
        if product is not self.products[1] or not session_id or next(self._calls) % _CALLS_TO_AN_EXPLANATION:
            return None
        try:
            return product.embedded.explainer.explain(session_id, call, caller, made_by=caller.id)
        except (InvalidRequestError, NotFoundError):
            return None

    def _all(self, deed: str, act: Callable[[Product], object], *, happens: bool) -> None:
        for product in self.products:
            refusal = ""
            try:
                act(product)
            except PDPError as error:
                refusal = str(error) or "refused"

            assert happens == (not refusal), f"{deed}: the oracle says {happens}, the product `{refusal}`"

        self._counts[f"{'deed' if happens else 'refused'}:{deed}"] += 1

    def _check_view(self, name: str, view: SessionView) -> None:
        session = self.oracle.sessions[name]
        state = self.oracle.state(session)
        scope = self.oracle.expansion(session) if state == "requested" else session.scope

        assert (state, sorted(session.labels)) == (view.state.value, list(view.session.labels))
        assert scope == {f"{tool.server}/{tool.tool}": tool.definition_digest for tool in view.tools}

        self._counts[f"state:{state}"] += 1

    def _approver(self, name: str) -> Caller:
        return CALLERS["ann" if self.oracle.sessions[name].tenant == "default" else "oz"]

    def _open(
        self,
        store: MemorySessionStore | SQLiteSessionStore,
        remembered: DecisionCache,
        history: MemorySessionHistory,
    ) -> Product:
        embedded = open_embedded(
            self._folder / "policies",
            sessions=store,
            history=history,
            clock=self.clock,
            cache=remembered,
            trusted_attributes=frozenset({"level"}),
            compile_files=compile_here,
        )
        self._opened.callback(embedded.close)
        return Product(embedded)

    def _write_files(self) -> None:
        folder = self._folder / "policies"
        (folder / "tools").mkdir(parents=True, exist_ok=True)
        files = _bundles()[self._current][1]
        for path in [*folder.glob("*.*"), *folder.glob("tools/*")]:
            path.unlink()
        for name, content in files.items():
            (folder / name).write_bytes(content)

    def _time(self) -> Time:
        now = self.clock.now()
        return now.wall_at, now.boot_at, now.boot_id


def _report(product: Product, name: str, wanted: ToolCall, result: Any) -> None:
    """Report what the result of the last call held, as the client does."""
    decision, outcomes = product.latest, product.embedded.outcomes
    assert decision is not None
    told = outcomes.reading(decision, product.handles[name])
    assert told is not None
    held = read_result(
        ResultReading(
            key=told.key,
            trusted=told.trusted,
            issues=told.issues,
            kinds=told.kinds,
            arguments_json=wanted.arguments,
        ),
        result,
    )
    report = OutcomeReport(
        outcome_token=outcomes.token(decision),
        status=CallStatus.SUCCEEDED,
        values=ReportedValues(issued=held.issued, others=held.others),
    )
    outcomes.report(report, CALLERS[wanted.caller])


def spoken(decision: Decision, product: Product) -> Answer:
    """Return a decision in the oracle's words."""
    ruling = decision.ruling
    names = {session_id: name for name, session_id in product.ids.items()}
    questions = {request_id: name for name, request_id in product.questions.items()}
    reasons = {said: f"unasked: {why.value}" for why, said in UNASKED.items()}

    assert decision.allowed == (ruling.basis.value == "permit")

    return Answer(
        ruling.basis.value,
        ruling.policies,
        ruling.errors,
        (ruling.resource_type, ruling.resource_id),
        names.get(ruling.ancestor_id, ""),
        ruling.ancestor_basis.value if ruling.ancestor_basis else "",
        labels=decision.labels_added,
        debits=decision.debits,
        counts=ruling.counted.counts if ruling.counted else (),
        done=ruling.counted.done if ruling.counted else (),
        obligations=tuple((one.id, one.parameters_json) for one in ruling.obligations),
        advice=tuple(reasons.get(line, line) for line in ruling.advice),
        lifted=ruling.policies_lifted,
        question=questions.get(decision.access_request_id, decision.access_request_id),
    )
