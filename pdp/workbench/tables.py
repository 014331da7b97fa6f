"""Read the cases of a test file: each cell of a table becomes a case with its own expectation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from pdp.errors import Problem
from pdp.foundation.yamltext import Section, unknown
from pdp.model import Basis, Outcome
from pdp.policy.obligations import parameters_json
from pdp.workbench.suite import Case, EarlierCall, Expectation, ExpectedObligation, NamedCall, NamedSession, Step
from pdp.workbench.values import FieldReader

CASE_KEYS = ("case", "now", "session", "sessions", "after", "approvals", "call", "calls", "step", "by", "expect")
EARLIER_KEYS = ("call", "labels", "failed", "result")
EXPECTATION_KEYS = ("outcome", "basis", "policies", "errors", "obligations")
STEPS = {step.name.lower(): step for step in Step}

# A table of a few lines can have more cells than memory holds.
_MOST_CASES = 100_000
_BASES = {basis.value: basis for basis in Basis}
_OUTCOMES = {outcome.value: outcome for outcome in Outcome}


class _Said(NamedTuple):
    """The expectation of one or more cells of a table, and its line."""

    value: Any
    line: int


class CaseReader:
    """Reads the list of cases. Problems go to `fields`."""

    def __init__(
        self,
        fields: FieldReader,
        sessions: Mapping[str, NamedSession],
        calls: Mapping[str, NamedCall],
        now: float,
    ) -> None:
        self._fields = fields
        self._sessions = sessions
        self._calls = calls
        self._now = now

    def read(self, top: Section) -> tuple[Case, ...]:
        """Return the cases of a file, every table expanded."""
        entries = top.get("cases", [])
        if not isinstance(entries, list) or not all(isinstance(entry, Section) for entry in entries):
            self._fields.problem(top.problem("`cases` must be a list of mappings", "cases"))
            return ()
        if not entries:
            self._fields.problem(top.problem("holds no case", "cases" if "cases" in top else None))
        seen: dict[str, int] = {}
        found: list[Case] = []
        for entry in entries:
            name = self._fields.text(entry, "case", "")
            if not name.isprintable():
                self._fields.problem(entry.problem("`case` must be printable", "case"))
            if name in seen:
                self._fields.problem(entry.problem(f"case `{name}` appears twice; first at line {seen[name]}", "case"))
            elif name:
                seen[name] = entry.lines["case"]
            found += islice(self._case(entry, name), _MOST_CASES + 1 - len(found))
            if len(found) > _MOST_CASES:
                self._fields.problem(entry.problem(f"more than {_MOST_CASES} cases in one file"))
                break
        return tuple(found)

    def _case(self, entry: Section, name: str) -> Iterator[Case]:
        fields = self._fields
        fields.problems += entry.unknown_keys(CASE_KEYS)
        for key in ("case", "expect"):
            fields.require(entry, key)
        now = fields.moment(entry, "now", self._now)
        sessions = self._names(entry, "session", "sessions", self._sessions)
        step = self._step(entry)
        with_call = step in (None, Step.APPROVE_CALL)
        if not with_call and not {"call", "calls"}.isdisjoint(entry):
            fields.problem(entry.problem("a case has either a call or a `step`, not both", "step"))
        if not with_call and "after" in entry:
            fields.problem(entry.problem("`after` needs a call: a `step` comes before all calls", "after"))
        if not with_call and "approvals" in entry:
            fields.problem(entry.problem("`approvals` needs a call: a `step` comes before all calls", "approvals"))
        if step is Step.APPROVE_CALL and "approvals" in entry and "after" not in entry:
            fields.problem(entry.problem("with `step: approve_call`, `approvals` names calls of `after`", "approvals"))
        if step is not Step.APPROVE_CALL and "by" in entry:
            fields.problem(entry.problem("`by` needs `step: approve_call`", "by"))
        by = fields.text(entry, "by", "") if "by" in entry else ""
        after, approvals = self._after(entry), self._approvals(entry)
        calls = self._names(entry, "call", "calls", self._calls) if with_call else [""]
        if "expect" not in entry or not sessions or not calls:
            return
        for session, call, said in self._cells(entry, sessions, calls):
            axes = [session] * ("sessions" in entry) + [call] * ("calls" in entry)
            yield Case(
                file=entry.file,
                line=said.line,
                name=f"{name} [{', '.join(axes)}]" if axes else name,
                now=now,
                session=session,
                call=call,
                after=after,
                approvals=approvals,
                step=step,
                by=by,
                expect=self._expectation(said.value, entry.file, said.line),
            )

    def _step(self, entry: Section) -> Step | None:
        if "step" not in entry:
            return None
        said = entry["step"]
        if isinstance(said, str) and said in STEPS:
            return STEPS[said]
        self._fields.problem(entry.problem(f"`step` must be one of {', '.join(STEPS)}", "step"))
        return Step.REQUEST

    def _after(self, entry: Section) -> tuple[EarlierCall, ...]:
        listed = entry.get("after", [])
        if not isinstance(listed, list) or ("after" in entry and not listed):
            self._fields.problem(entry.problem("`after` must be a list of calls", "after"))
            return ()
        return tuple(self._earlier(one, entry) for one in listed)

    def _approvals(self, entry: Section) -> tuple[str, ...]:
        names = self._fields.texts(entry, "approvals") if "approvals" in entry else ()
        if "approvals" in entry and (not names or len(set(names)) != len(names)):
            self._fields.problem(entry.problem("`approvals` must hold names of calls, each once", "approvals"))
        for name in names:
            if name not in self._calls:
                self._fields.problem(entry.problem(unknown("call", name, self._calls), "approvals"))
        return names

    def _earlier(self, said: object, entry: Section) -> EarlierCall:
        fields = self._fields
        if isinstance(said, Section):
            fields.problems += said.unknown_keys(EARLIER_KEYS)
            fields.require(said, "call")
            found = EarlierCall(
                call=fields.text(said, "call", ""),
                labels=fields.texts(said, "labels"),
                failed=fields.flag(said, "failed"),
                result_json=fields.any_json(said, "result"),
            )
            if found.failed and found.result_json:
                fields.problem(said.problem("a call that `failed` has no `result`", "result"))
        elif isinstance(said, str) and said:
            found = EarlierCall(call=said)
        else:
            fields.problem(entry.problem("`after` holds names of calls, or mappings such as `{call: NAME}`", "after"))
            return EarlierCall(call="")
        if found.call and found.call not in self._calls:
            place = (said, "call") if isinstance(said, Section) else (entry, "after")
            fields.problem(place[0].problem(unknown("call", found.call, self._calls), place[1]))
        return found

    def _names(self, entry: Section, one: str, many: str, known: Mapping[str, object]) -> list[str]:
        """Return the names of one axis; none when one of them is wrong."""
        if (one in entry) == (many in entry):
            self._fields.problem(entry.problem(f"a case needs either `{one}` or `{many}`", many))
            return []
        key = one if one in entry else many
        if isinstance(entry[key], Section):
            said = f"`{key}` takes names; define them under `{many}` at the top"
            self._fields.problem(entry.problem(said, key))
            return []
        names = self._fields.texts(entry, many) if key == many else (self._fields.text(entry, one, ""),)
        if key == many and (not names or len(set(names)) != len(names)):
            self._fields.problem(entry.problem(f"`{many}` must hold names, each once", many))
        unknown_names = [name for name in names if name and name not in known]
        for name in unknown_names:
            self._fields.problem(entry.problem(unknown(one, name, known), key))
        return [] if unknown_names else [name for name in names if name]

    def _cells(self, entry: Section, sessions: list[str], calls: list[str]) -> Iterator[tuple[str, str, _Said]]:
        """Yield each session with each call, and the expectation of the two."""
        whole = _Said(entry["expect"], entry.lines["expect"])
        rows = self._spread(whole, sessions, "session", by_name="sessions" in entry)
        for session, row in rows.items():
            for call, cell in self._spread(row, calls, "call", by_name="calls" in entry).items():
                yield session, call, cell

    def _spread(self, said: _Said, names: list[str], what: str, *, by_name: bool) -> dict[str, _Said]:
        """Spread an expectation over an axis: a mapping by name, or one value for all."""
        value = said.value
        if not by_name or not isinstance(value, Section) or not value or set(value) & set(EXPECTATION_KEYS):
            return dict.fromkeys(names, said)
        self._complete(value, names, what)
        return {name: _Said(value[name], value.lines[name]) for name in names if name in value}

    def _complete(self, said: Section, names: Iterable[str], what: str) -> None:
        listed = tuple(names)
        for name in said:
            if name not in listed:
                self._fields.problem(said.problem(unknown(what, name, listed), name))
        for name in listed:
            if name not in said:
                self._fields.problem(said.problem(f"no expectation for {what} `{name}`"))

    def _expectation(self, said: Any, file: str, line: int) -> Expectation:  # noqa: ANN401 - any YAML value
        if isinstance(said, str):
            return self._short(said, file, line)
        if not isinstance(said, Section) or not said:
            self._fields.problem(Problem(file, line, "an expectation is a text such as `deny forbid`, or a mapping"))
            return Expectation()
        self._fields.problems += said.unknown_keys(EXPECTATION_KEYS)
        expected = Expectation(
            outcome=self._fields.choice(said, "outcome", Outcome, Outcome.DENY) if "outcome" in said else None,
            basis=self._fields.choice(said, "basis", Basis, Basis.FORBID) if "basis" in said else None,
            policies=tuple(sorted(self._fields.texts(said, "policies"))) if "policies" in said else None,
            errors=tuple(sorted(self._fields.texts(said, "errors"))) if "errors" in said else None,
            obligations=self._obligations(said) if "obligations" in said else None,
        )
        self._fit(expected, file, said.lines.get("basis", line))
        return expected

    def _obligations(self, said: Section) -> tuple[ExpectedObligation, ...]:
        listed = said["obligations"]
        found = [_obligation(one) for one in listed] if isinstance(listed, list) else [None]
        if None in found:
            message = "`obligations` must be a list of names, or of names with parameters: `[ID, ID: {…}]`"
            self._fields.problem(said.problem(message, "obligations"))
        return tuple(one for one in found if one is not None)

    def _short(self, said: str, file: str, line: int) -> Expectation:
        outcome, _, basis = said.partition(" ")
        if outcome not in _OUTCOMES:
            self._fields.problem(Problem(file, line, unknown("outcome", outcome, _OUTCOMES) + _or_deny(outcome)))
        elif said != outcome and basis not in _BASES:
            self._fields.problem(Problem(file, line, unknown("basis", basis, _BASES)))
        expected = Expectation(outcome=_OUTCOMES.get(outcome), basis=_BASES.get(basis))
        self._fit(expected, file, line)
        return expected

    def _fit(self, expected: Expectation, file: str, line: int) -> None:
        if None not in (expected.outcome, expected.basis) and (
            (expected.outcome is Outcome.ALLOW) != (expected.basis is Basis.PERMIT)
        ):
            self._fields.problem(
                Problem(file, line, f"no decision is `{expected}`: `permit` is the basis of every allow and of no deny")
            )


def _obligation(said: object) -> ExpectedObligation | None:
    if isinstance(said, str) and said:
        return ExpectedObligation(said)
    if not isinstance(said, Section) or len(said) != 1:
        return None
    ((name, parameters),) = said.items()
    if not isinstance(parameters, Section | None):
        return None
    try:
        return ExpectedObligation(name, parameters_json(parameters or {}))
    except ValueError:
        return None


def _or_deny(word: str) -> str:
    return f"; did you mean `deny {word}`?" if word in _BASES else ""
