"""Check the arguments of a call against the tool's whole JSON schema, including what policies cannot see.

The library is `jsonschema-rs`: it generates no code from schemas, compares numbers exactly, fetches nothing, and
matches a pattern in time proportional to the text. A pattern that its engine does not support, for example one with a
lookahead, is left out and listed in `unchecked`. `format` is a hint and not enforced. `$schema` sets the dialect, by
default 2020-12.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import jsonschema_rs

from pdp.errors import InvalidArgumentsError, one_line
from pdp.policy.tools.schemabounds import DEPTH, FEW_LOOKS, SchemaBoundError, is_too_long, looks, schemas

# The most memory for a compiled pattern, and again for the matching state of each thread.
_PATTERN_BYTES = 64 * 1024
# The most work for one call: looks times values; every `_BYTES_FOR_A_VALUE` bytes of text count as one more value.
_MOST_WORK = 3_000_000
_BYTES_FOR_A_VALUE = 16
_MOST_TOLD = 3
_LONGEST_PLACE = 200
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
# Made once: a union is made each time that it is named, for each value of each call.
_NUMBERS = (int, Decimal)
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES)

_DIALECT = re.compile(r"https?://json-schema\.org/draft(-04|-06|-07|/2019-09|/2020-12)/schema#?")

_Schema = dict[str, Any]


class UncheckableSchemaError(Exception):
    """Arguments cannot be checked against a schema; the message says why in one line."""


class ArgumentCheck:
    """The compiled schema of one tool. Immutable and safe for threads.

    `schema` is the source; `patterns` counts the patterns that are matched, and `unchecked` holds those that are not.
    """

    def __init__(self, schema: _Schema, *, most_patterns: int) -> None:
        """Compile a schema as `pdp.foundation.jsontext` parses it. Raise `UncheckableSchemaError`."""
        if "$schema" in schema and not _DIALECT.fullmatch(str(schema["$schema"])):
            raise UncheckableSchemaError("its `$schema` names an unknown dialect")
        try:
            self._looks = looks(schema)
            self._branches = len(self._looks) <= DEPTH or self._looks[-1] > FEW_LOOKS
            checked, self.patterns, self.unchecked = _without_foreign_patterns(schema, most_patterns)
            self._validator = _compiled(checked)
        except SchemaBoundError as error:
            raise UncheckableSchemaError(str(error)) from None
        except jsonschema_rs.ValidationError as error:
            # The library's own message quotes the schema.
            raise UncheckableSchemaError(f"it is not a JSON schema at `{_place(error.instance_path)}`") from None
        self.schema = schema
        declared = (one.get("properties") for one in schemas(schema))
        self._names = frozenset(name for names in declared if isinstance(names, dict) for name in names)

    def require(self, arguments: dict[str, Any], size: int) -> None:
        """Raise `InvalidArgumentsError` unless the arguments, parsed from `size` bytes, fit the schema.

        The message names up to three paths and keywords of the schema, and never a value.
        """
        if _holds_long_number(arguments):
            raise InvalidArgumentsError("`$`: a number is too long to be checked")
        if self._branches:
            self._require_little_work(*_measured(arguments), size)
        if not self._validator.is_valid(arguments):
            found = sorted({self._told(error) for error in self._validator.iter_errors(arguments)})
            raise InvalidArgumentsError("; ".join(found[:_MOST_TOLD]))

    def _require_little_work(self, depth: int, values: int, size: int) -> None:
        work = self._looks[depth] * (values + size // _BYTES_FOR_A_VALUE) if depth < len(self._looks) else _MOST_WORK
        if work >= _MOST_WORK:
            raise InvalidArgumentsError("`$`: too large or too deep to be checked by a schema that branches so much")

    def _told(self, error: jsonschema_rs.ValidationError) -> str:
        path = "".join(self._step(step) for step in error.instance_path)
        return f"`${path}`: does not fit its schema (`{error.kind.name}`)"

    def _step(self, step: str | int) -> str:
        # The agent chooses a name that the schema does not declare. It may hold anything, so it is not repeated.
        return f".{step}" if step in self._names and _PLAIN_NAME.match(str(step)) else "[*]"


def _compiled(schema: _Schema) -> Any:  # noqa: ANN401 - the library has a class for each dialect
    return jsonschema_rs.validator_for(schema, validate_formats=False, offline=True, pattern_options=_PATTERNS)


def _without_foreign_patterns(schema: _Schema, most: int) -> tuple[_Schema, int, tuple[str, ...]]:
    """Return the schema without unsupported or surplus patterns, the number left, and those removed."""
    patterns = [pattern for one in schemas(schema) for pattern in _patterns(one)]
    foreign = {pattern for place, pattern in enumerate(patterns) if place >= most or not _is_known(pattern)}
    if not foreign:
        return schema, len(patterns), ()
    kept = copy.deepcopy(schema)
    for one in schemas(kept):
        _leave_out(one, foreign)
    return kept, sum(pattern not in foreign for pattern in patterns), tuple(sorted(foreign))


def _patterns(schema: _Schema) -> Iterator[str]:
    if isinstance(schema.get("pattern"), str):
        yield schema["pattern"]
    if isinstance(schema.get("patternProperties"), dict):
        yield from schema["patternProperties"]


def _is_known(pattern: str) -> bool:
    try:
        _compiled({"pattern": pattern})
    except ValueError:
        return False
    return True


def _leave_out(schema: _Schema, foreign: set[str]) -> None:
    if isinstance(schema.get("pattern"), str) and schema["pattern"] in foreign:
        del schema["pattern"]
    by_pattern = schema.get("patternProperties")
    if isinstance(by_pattern, dict) and not foreign.isdisjoint(by_pattern):
        schema["patternProperties"] = {name: one for name, one in by_pattern.items() if name not in foreign}
        # These keywords apply to the names that the removed pattern does not match.
        schema.pop("additionalProperties", None)
        schema.pop("unevaluatedProperties", None)


def _place(path: Iterable[str | int]) -> str:
    steps = "".join(f".{step}" if _PLAIN_NAME.match(str(step)) else f"[{json.dumps(step)}]" for step in path)
    return one_line(f"inputSchema{steps}")[:_LONGEST_PLACE]


def _holds_long_number(value: object) -> bool:
    """Say whether a number is too long: the library writes out each, and `1e-99999` has a hundred thousand digits."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            pending.extend(one.values())
        elif isinstance(one, list):
            pending.extend(one)
        elif isinstance(one, _NUMBERS) and is_too_long(one):
            return True
    return False


def _measured(value: object) -> tuple[int, int]:
    """Return the depth of the innermost value, and the number of values."""
    deepest, values = 0, 0
    pending: list[tuple[object, int]] = [(value, 0)]
    while pending:
        one, depth = pending.pop()
        deepest, values = max(deepest, depth), values + 1
        inner: Sequence[object] = ()
        if isinstance(one, dict):
            inner = tuple(one.values())
        elif isinstance(one, list):
            inner = one
        pending += [(other, depth + 1) for other in inner]
    return deepest, values
