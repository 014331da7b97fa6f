"""Split a policy into its scope and the conditions that must all hold, each with its position and its value.

A policy matches when its scope and each of its conditions hold, from left to right. `when { a && b }` has two
conditions; so does `unless { a || b }`, both of which must be false. The text is split at these operators only.
The engine evaluates the pieces: each piece becomes a permit, and so does the whole policy. Cedar's expressions have no
side effects, so the value of a piece alone is its value within the policy, if it is reached there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import pairwise

import cedarpy

from pdp.model import Session
from pdp.policy.answers import ProbeAnswer
from pdp.policy.bundle import Bundle
from pdp.policy.policysource import PolicySource
from pdp.policy.question import Facts
from pdp.policy.safety import Token, tokens

# The engine holds the interpreter lock while it evaluates, so this bounds the pieces of one question.
_PROBES_AT_ONCE = 500
# A string in a policy may be as long as its file.
_TEXT_CHARACTERS = 400

_SCOPE = ("principal", "action", "resource")
_SEPARATORS = {"when": "&&", "unless": "||"}
# The operator that splits an unsplit condition further into parts.
_WITHIN = {"when": "||", "unless": "&&"}
PART = "part"


class Value(Enum):
    """The value of a condition for some facts, or whether a policy matched."""

    TRUE = "true"
    FALSE = "false"
    ERROR = "error"
    NOT_REACHED = "not_reached"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition that must hold for a policy to match, and its position in the file.

    `kind` is `principal`, `action` or `resource` for the scope, otherwise the clause; the `text` of an `unless` must be
    false. `text` is one line, without comments, and shortened when it is very long. Lines and columns count from 1;
    `end_column` is the last character's. `within` holds the parts, of kind `part`, of a `when { a || b }` and of an
    `unless { a && b }`: they explain the condition and are not conditions themselves.
    """

    kind: str
    text: str
    line: int
    column: int
    end_line: int
    end_column: int
    probe: str
    within: tuple[Condition, ...] = ()

    def __str__(self) -> str:
        return f"unless {self.text}" if self.kind == "unless" else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyParts:
    """The parts of a policy. `scope` leaves out constraints that any principal, action or resource satisfies."""

    policy: PolicySource
    scope: tuple[Condition, ...]
    conditions: tuple[Condition, ...]
    probe: str

    @property
    def probes(self) -> tuple[str, ...]:
        """Return the permits to evaluate: the whole, the scope, the conditions, and then their parts."""
        parts = (one.probe for condition in self.conditions for one in condition.within)
        return (self.probe, *(one.probe for one in (*self.scope, *self.conditions)), *parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionResult:
    """A condition and its value.

    `error` is the kind of error when the value is `ERROR`. `alone` is the value without the conditions before it,
    whether or not it was reached: an error when it depends on one of them. `within` holds the result of each part.
    """

    condition: Condition
    value: Value
    alone: Value
    error: str = ""
    within: tuple[ConditionResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult:
    """The result of a policy for some facts: whether it matched, and the value of each condition."""

    policy: PolicySource
    value: Value
    scope: tuple[ConditionResult, ...]
    conditions: tuple[ConditionResult, ...]
    error: str = ""

    @property
    def parts(self) -> tuple[ConditionResult, ...]:
        """Return scope and conditions, in the order of evaluation."""
        return (*self.scope, *self.conditions)

    @property
    def failed(self) -> tuple[ConditionResult, ...]:
        """Return the conditions that keep the policy from matching; the first one was decisive."""
        return tuple(one for one in self.parts if one.alone is not Value.TRUE)


def parts_of(policy: PolicySource) -> PolicyParts:
    """Split the text of a policy that the engine has already parsed."""
    return _Splitter(policy).parts()


class Probes:
    """The pieces of some policies, parsed. Construct it where the slice is made: parsing needs the same stack."""

    def __init__(self, policies: Iterable[PolicySource]) -> None:
        self._chunks = [
            (chunk, cedarpy.PolicySet.from_str("\n".join(p for one in chunk for p in one.probes), release_gil=True))
            for chunk in _chunks(parts_of(policy) for policy in policies)
        ]

    def results(self, bundle: Bundle, session: Session, facts: Facts, at: float) -> tuple[PolicyResult, ...] | None:
        """Return the results of the policies for the question of `bundle.judge`; None when it does not fit."""
        results: list[PolicyResult] = []
        for chunk, probes in self._chunks:
            answer = bundle.probe(session, facts, at, probes)
            if answer is None:
                return None
            results += _results(chunk, answer)
        return tuple(results)


def _chunks(every: Iterable[PolicyParts]) -> Iterator[list[PolicyParts]]:
    chunk: list[PolicyParts] = []
    size = 0
    for parts in every:
        if chunk and size + len(parts.probes) > _PROBES_AT_ONCE:
            yield chunk
            chunk, size = [], 0
        chunk.append(parts)
        size += len(parts.probes)
    if chunk:
        yield chunk


def _results(chunk: Sequence[PolicyParts], answer: ProbeAnswer) -> Iterator[PolicyResult]:
    first = 0
    for parts in chunk:
        places = range(first, first + len(parts.probes))
        first = places.stop
        count = len(parts.scope) + len(parts.conditions)
        pieces = _reached((*parts.scope, *parts.conditions), places[1 : count + 1], answer)
        pieces = _explained(pieces, iter(places[count + 1 :]), answer)
        yield PolicyResult(
            policy=parts.policy,
            value=_value(places[0], answer),
            error=answer.errors.get(places[0], ""),
            scope=pieces[: len(parts.scope)],
            conditions=pieces[len(parts.scope) :],
        )


def _reached(pieces: Sequence[Condition], places: Sequence[int], answer: ProbeAnswer) -> tuple[ConditionResult, ...]:
    """Return the value of each piece: those after the first one that is not true are not reached."""
    results, reached = [], True
    for piece, place in zip(pieces, places, strict=True):
        alone = _value(place, answer)
        value = alone if reached else Value.NOT_REACHED
        error = answer.errors.get(place, "") if value is Value.ERROR else ""
        results.append(ConditionResult(condition=piece, value=value, alone=alone, error=error))
        reached = reached and alone is Value.TRUE
    return tuple(results)


def _explained(
    pieces: tuple[ConditionResult, ...], places: Iterator[int], answer: ProbeAnswer
) -> tuple[ConditionResult, ...]:
    """Return the pieces with the values of their parts; `places` are those of all parts in order."""
    results = []
    for piece in pieces:
        condition, reached = piece.condition, piece.value is not Value.NOT_REACHED
        ends = Value.TRUE if condition.kind == "when" else Value.FALSE
        found = []
        for part in condition.within:
            place = next(places)
            alone = _value(place, answer)
            value = alone if reached else Value.NOT_REACHED
            error = answer.errors.get(place, "") if value is Value.ERROR else ""
            found.append(ConditionResult(condition=part, value=value, alone=alone, error=error))
            reached = reached and alone not in (ends, Value.ERROR)
        results.append(replace(piece, within=tuple(found)))
    return tuple(results)


def _value(place: int, answer: ProbeAnswer) -> Value:
    if place in answer.errors:
        return Value.ERROR
    return Value.TRUE if place in answer.matched else Value.FALSE


class _Splitter:
    """Split the text of one policy. The engine has parsed it, so its brackets pair and its syntax is right."""

    def __init__(self, policy: PolicySource) -> None:
        self._policy = policy
        self._text = policy.text
        self._tokens = tuple(tokens(policy.text))
        self._closing = _pairs(self._tokens)

    def parts(self) -> PolicyParts:
        opening = self._effect() + 1
        closing = self._closing[opening]
        bounds = (opening, *self._places(opening + 1, closing, ","), closing)
        scope = [
            self._condition(kind, before + 1, after)
            for kind, (before, after) in zip(_SCOPE, pairwise(bounds), strict=True)
        ]
        return PolicyParts(
            policy=self._policy,
            scope=tuple(one for one in scope if one.text != one.kind),
            conditions=tuple(self._clauses(closing + 1)),
            probe="permit " + self._text[self._tokens[opening].start :],
        )

    def _effect(self) -> int:
        """Return the place of `permit` or `forbid`, after the annotations."""
        place = 0
        while self._tokens[place].text == "@":
            place += 2
            if self._tokens[place].text == "(":
                place = self._closing[place] + 1
        return place

    def _clauses(self, place: int) -> Iterator[Condition]:
        while self._tokens[place].text in _SEPARATORS:
            closing = self._closing[place + 1]
            clause = self._tokens[place].text
            for first, last in self._pieces(clause, place + 2, closing):
                within = tuple(self._condition(PART, *bounds) for bounds in self._within(clause, first, last))
                yield replace(self._condition(clause, first, last), within=within)
            place = closing + 1

    def _pieces(self, clause: str, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the pieces of an expression as half-open token ranges: those of `a && b` for a `when`."""
        bounds = (first - 1, *self._cuts(clause, first, last), last)
        if len(bounds) > 2:  # noqa: PLR2004 - there is an operator between first and last
            for before, after in pairwise(bounds):
                yield from self._pieces(clause, before + 1, after)
        elif self._tokens[first].text == "(" and self._closing[first] == last - 1:
            inner = tuple(self._pieces(clause, first + 1, last - 1))
            yield from inner if len(inner) > 1 else ((first, last),)
        else:
            yield first, last

    def _within(self, clause: str, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the parts of an unsplit condition, if any: those of `a && b` in an `unless`."""
        while self._tokens[first].text == "(" and self._closing[first] == last - 1:
            first, last = first + 1, last - 1
        if self._tokens[first].text == "if" or (clause == "unless" and self._places(first, last, "||")):
            return
        cuts = self._places(first, last, _WITHIN[clause])
        if cuts:
            yield from ((before + 1, after) for before, after in pairwise((first - 1, *cuts, last)))

    def _cuts(self, clause: str, first: int, last: int) -> tuple[int, ...]:
        # An `if` extends to the end, and `||` binds less tightly than `&&`: neither is a list of conditions.
        if self._tokens[first].text == "if" or (clause == "when" and self._places(first, last, "||")):
            return ()
        return self._places(first, last, _SEPARATORS[clause])

    def _places(self, first: int, last: int, text: str) -> tuple[int, ...]:
        """Return the places of a token between two places, outside all brackets there."""
        found, place = [], first
        while place < last:
            if self._tokens[place].text == text:
                found.append(place)
            place = self._closing.get(place, place) + 1
        return tuple(found)

    def _condition(self, kind: str, first: int, last: int) -> Condition:
        begin, final = self._tokens[first], self._tokens[last - 1]
        end = final.start + len(final.text) - 1
        line, column = self._place(begin.start)
        end_line, end_column = self._place(end)
        text = self._text[begin.start : end + 1]
        return Condition(
            kind=kind,
            text=self._one_line(first, last),
            line=line,
            column=column,
            end_line=end_line,
            end_column=end_column,
            # A text may end in a comment, so what follows it begins on a new line.
            probe=f"permit (principal, action, resource) {'when' if kind == PART else kind} {{ {text}\n}};"
            if kind in (*_SEPARATORS, PART)
            else "permit (" + ", ".join(text if one == kind else one for one in _SCOPE) + "\n);",
        )

    def _place(self, offset: int) -> tuple[int, int]:
        """Return line and column in the file of an offset in the text."""
        above = self._text.count("\n", 0, offset)
        column = offset - self._text.rfind("\n", 0, offset)
        return self._policy.line + above, column if above else column + self._policy.column - 1

    def _one_line(self, first: int, last: int) -> str:
        words, end = [], self._tokens[first].start
        for token in self._tokens[first:last]:
            text = " ".join(token.text.splitlines())  # a string may hold line breaks
            words += [" ", text] if token.start > end else [text]
            end = token.start + len(token.text)
        text = "".join(words)
        return text if len(text) <= _TEXT_CHARACTERS else text[: _TEXT_CHARACTERS - 1] + "…"


def _pairs(found: Sequence[Token]) -> dict[int, int]:
    """Return for each opening bracket the place of the one that closes it."""
    pairs: dict[int, int] = {}
    waiting: list[int] = []
    for place, token in enumerate(found):
        if token.kind == "open":
            waiting.append(place)
        elif token.kind == "close":
            pairs[waiting.pop()] = place
    return pairs
