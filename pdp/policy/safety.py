"""Measure Cedar text before the engine reads it, so that no text can exhaust a thread's stack.

The engine walks expressions by recursion. Measured on a 16 MiB stack with Cedar 4.12: parsing 1,200 nested brackets
crashes the process, and a policy with 3,300 nested operators or attribute steps is skipped with an error. `scan` bounds
the depth of every expression by `policy_depth` (brackets and postfix steps) plus `policy_terms` (operators): 232 with
the default limits.

The scan is not a parser: it understands strings, comments, brackets and operators, and leaves everything else to the
engine. Where they differ, the scan measures more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pdp.errors import InvalidJSONError, UnsafePolicyError
from pdp.limits import Limits

# The engine's JSON parser has the same limit. Counting first also keeps Python's parser within its recursion limit.
JSON_DEPTH = 128

# Common types can refer to each other, so their depths add up. 8,192 levels were harmless on a 16 MiB stack.
SCHEMA_TYPES_DEPTH = 512

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n\r]*)
    |(?P<string>"[^"\\]*(?:\\.[^"\\]*)*")
    |(?P<quote>")
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<operator>&&|\|\||==|!=|<=|>=|[<>+\-*!])
    |(?P<open>[(\[{])
    |(?P<close>[)\]}])
    |(?P<end>;)
    |(?P<comma>,)
    |(?P<step>\.)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_JSON_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}"]', re.DOTALL)

# `when` and `unless` are here because the engine joins a policy's conditions with `&&`.
_OPERATOR_WORDS = frozenset({"in", "like", "has", "is", "if", "when", "unless"})
_OPERAND_ENDS = _OPERATOR_WORDS | {"then", "else"}
_CLOSING = {"(": ")", "[": "]", "{": "}", "<": ">"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyText:
    """One policy as its author wrote it; `line` and `column`, from 1, are those of its first token."""

    text: str
    line: int
    column: int = 1


@dataclass(frozen=True, slots=True)
class Token:
    """One token of Cedar text; `start` is its offset, `line` counts from 1. Blanks and comments are not tokens.

    `kind` is one of the names in `_TOKEN`, or `name` for an attribute after a dot.
    """

    kind: str
    text: str
    start: int
    line: int


def scan(text: str, limits: Limits) -> tuple[PolicyText, ...]:
    """Split Cedar policies at each `;` outside brackets, and check the depth and width of each.

    Comments between policies belong to none. Text after the last `;` is returned too, so that the engine rejects it.
    Raise `UnsafePolicyError` for a policy beyond `policy_depth` or `policy_terms`, for a string without an end and for
    brackets that do not pair: how the engine reads those cannot be measured.
    """
    policies = []
    first: Token | None = None
    nesting = _Nesting(limits.policy_depth, "policy_depth")
    terms = 0
    for token in tokens(text):
        first = first or token
        terms += token.kind == "operator" or (token.kind == "word" and token.text in _OPERATOR_WORDS)
        if terms > limits.policy_terms:
            raise UnsafePolicyError(
                f"more than {limits.policy_terms} operators in one policy (limit `policy_terms`)", token.line
            )
        nesting.take(token)
        if token.kind == "end" and nesting.closed:
            policies.append(_policy_text(text, first, token.start + 1))
            first, terms = None, 0
    nesting.finish()
    if first:
        policies.append(_policy_text(text, first, len(text)))
    return tuple(policies)


def _policy_text(text: str, first: Token, end: int) -> PolicyText:
    column = first.start - (text.rfind("\n", 0, first.start) + 1) + 1
    return PolicyText(text=text[first.start : end], line=first.line, column=column)


def scan_schema(text: str, limits: Limits) -> None:
    """Check the depth of a schema in Cedar's syntax.

    Raise `UnsafePolicyError` for brackets beyond `policy_depth`, for common types with more than 512 levels in total,
    for a string without an end and for brackets that do not pair.
    """
    nesting = _Nesting(limits.policy_depth, "policy_depth")
    total = deepest = 0
    declaring = False
    before = ""
    for token in tokens(text, angles=True):
        nesting.take(token)
        if token.kind == "word" and before == "type":
            declaring, deepest = True, 1
        elif token.kind == "end":
            total += deepest if declaring else 0
            declaring = False
        deepest = max(deepest, nesting.depth)
        if total > SCHEMA_TYPES_DEPTH:
            raise UnsafePolicyError(f"common types nest more than {SCHEMA_TYPES_DEPTH} levels deep", token.line)
        before = token.text
    nesting.finish()


def scan_json(text: str) -> None:
    """Check that a JSON text nests at most 128 levels; raise `InvalidJSONError` otherwise."""
    depth = 0
    for match in _JSON_STRING_OR_BRACKET.finditer(text):
        bracket = match.group()
        if bracket == '"':
            # Searching for a string's end from every later quote would take quadratic time.
            raise InvalidJSONError("not JSON: a string is never closed")
        if bracket in ("[", "{"):
            depth += 1
            if depth > JSON_DEPTH:
                raise InvalidJSONError(f"deeper than {JSON_DEPTH} levels")
        elif bracket in ("]", "}"):
            depth -= 1


class _Nesting:
    """The depth of the expression at the current token: open brackets, and postfix steps within each.

    `a.b["c"]` is two levels deep, `(a.b).c` three: a step encloses all that precedes it in its operand.
    """

    def __init__(self, limit: int, limit_name: str) -> None:
        self._limit = limit
        self._limit_name = limit_name
        self._open: list[Token] = []
        self._operand = [0]  # outside all brackets, and in each open one: the depth of the operand being read
        self._deepest = [0]  # the same: the deepest operand so far

    @property
    def depth(self) -> int:
        """Return the number of open brackets."""
        return len(self._open)

    @property
    def closed(self) -> bool:
        """Return whether no bracket is open."""
        return not self._open

    def take(self, token: Token) -> None:
        """Count one token; raise `UnsafePolicyError` beyond the limit."""
        if token.kind == "open":
            self._open.append(token)
            self._operand.append(0)
            self._deepest.append(0)
        elif token.kind == "close":
            self._close(token)
        elif token.kind == "step":
            self._operand[-1] += 1
        elif token.kind in ("operator", "comma", "end") or (token.kind == "word" and token.text in _OPERAND_ENDS):
            self._deepest[-1] = max(self._deepest[-1], self._operand[-1])
            self._operand[-1] = 0
        if len(self._open) + self._operand[-1] > self._limit:
            raise UnsafePolicyError(f"deeper than {self._limit} levels (limit `{self._limit_name}`)", token.line)

    def finish(self) -> None:
        """Raise `UnsafePolicyError` when a bracket is still open."""
        if self._open:
            raise UnsafePolicyError(f"`{self._open[-1].text}` is never closed", self._open[-1].line)

    def _close(self, token: Token) -> None:
        if not self._open:
            raise UnsafePolicyError(f"`{token.text}` closes nothing", token.line)
        opened = self._open.pop()
        if _CLOSING[opened.text] != token.text:
            raise UnsafePolicyError(f"`{opened.text}` is closed by `{token.text}`", token.line)
        inside = max(self._deepest.pop(), self._operand.pop()) + 1
        # An index is a step of its operand, `a["b"]` like `a.b`; the step of a call is its dot.
        step = 1 if opened.text == "[" and self._operand[-1] else 0
        self._operand[-1] = max(self._operand[-1] + step, inside)


def tokens(text: str, *, angles: bool = False) -> Iterator[Token]:
    """Yield the tokens of Cedar text; with `angles`, `<` and `>` are brackets, as in schemas.

    Raise `UnsafePolicyError` for a string without an end.
    """
    line, counted, before = 1, 0, ""
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "other"
        if kind == "space":
            continue
        if kind == "word" and before == "step":
            kind = "name"  # `context.in` is an attribute, even if the engine rejects the name
        line += text.count("\n", counted, match.start())
        counted = match.start()
        if kind == "quote":
            raise UnsafePolicyError("a string is never closed", line)
        if angles and match.group() in ("<", ">"):
            kind = "open" if match.group() == "<" else "close"
        before = kind
        yield Token(kind, match.group(), match.start(), line)
