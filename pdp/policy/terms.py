"""The terms of a session: the values that a bundle declares for it, their text, and which of two are narrower.

The author declares `type SessionTerms` in the schema, and policies read `context.session.terms`. The names of
`RESERVED` have an order, and a child session can have narrower values than its parent. All other terms pass to a child
unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from pdp.errors import InvalidArgumentsError
from pdp.foundation.yamltext import unknown
from pdp.model import NO_TERMS
from pdp.policy.tools.parameters import (
    BoolType,
    DecimalType,
    LongType,
    ParameterType,
    RecordType,
    SetType,
    StringType,
)

# The name of the type in the author's schema, and of the attribute that holds it in a `Session` entity.
TYPE, ATTRIBUTE = "SessionTerms", "terms"

TARGETS = "targets"
# What a name begins with that ends in a group of actions.
MOST_OF = "max_calls_of_"
# The annotation of a budget that servers may take in slices, and into how many it can be cut.
SLICES: Final = "slices"
_FEWEST_SLICES: Final = 2
_MOST_SLICES: Final = 1000
_LONG: tuple[type[ParameterType], ...] = (LongType,)
# The names of numbers that a child can only lower, and the types that they can have.
RESERVED: Mapping[str, tuple[type[ParameterType], ...]] = {
    "max_calls": _LONG,
    "max_calls_per_minute": _LONG,
    "max_sum": (LongType, DecimalType),
}

Terms = Mapping[str, Any]


def reserved_problem(name: str, kind: ParameterType) -> str:
    """Return what is wrong with the type of a declared term; empty when it is fine or the name is not reserved."""
    if name == TARGETS:
        fits = isinstance(kind, SetType) and isinstance(kind.element, StringType)
        return "" if fits else "must be a `Set<String>`"
    if not is_budget(name) or isinstance(kind, _types_of(name)):
        return ""
    return "must be a `Long` or a `decimal`" if DecimalType in _types_of(name) else "must be a `Long`"


def slices_problem(name: str, text: str) -> str:
    """Return what is wrong with the value of `@slices` at a declared term; empty when it is fine."""
    if not is_budget(name):
        return "is at a term that limits no calls"
    if len(text) <= len(str(_MOST_SLICES)) and text.isdecimal() and _FEWEST_SLICES <= int(text) <= _MOST_SLICES:
        return ""
    return f'must have a number from {_FEWEST_SLICES} to {_MOST_SLICES}, such as `@{SLICES}("10")`'


def slices_in(declared: Mapping[str, Any]) -> Mapping[str, int]:
    """Return into how many slices each budget can be cut, by its name, from what `pdp.policy.child.terms` has read."""
    found: Mapping[str, int] = declared.get(SLICES, {})
    return found


def canonical_terms(declared: RecordType | None, given: Mapping[str, Any]) -> str:
    """Return terms as canonical JSON: sorted keys, sets sorted and without duplicates, decimals with a fraction.

    `given` is JSON with numbers as `int` and `Decimal`; `declared` is None when the bundle declares no terms.
    Raise `InvalidArgumentsError`, which names the JSON path and the rule and never a value.
    """
    if declared is None:
        if given:
            raise InvalidArgumentsError("`$`: the bundle declares no `type SessionTerms`")
        return NO_TERMS
    _require_known(declared, given, "$")
    converted, _ = declared.convert(dict(given))
    for name, value in converted.items():
        # A decimal is an object here; its text shows its sign too.
        if is_budget(name) and _written(value).startswith("-"):
            raise InvalidArgumentsError(f"`$.{name}`: must not be negative")
    return _written(converted)


def cedar_terms(declared: RecordType, text: str) -> dict[str, object]:
    """Return stored terms in Cedar's JSON. Raise `InvalidArgumentsError` when they do not fit what is declared."""
    converted, _ = declared.convert(read_terms(text))
    return converted


def read_terms(text: str) -> dict[str, Any]:
    """Return the values of canonical terms, decimals as `Decimal`."""
    found: dict[str, Any] = json.loads(text, parse_float=Decimal)
    return found


def wider_term(own: Terms, above: Terms, above_name: str = "the parent session") -> tuple[str, str] | None:
    """Return the first term that is wider than the one above, and the rule that it breaks; None when all are narrower.

    Both hold values of canonical terms of one declaration; `own` also holds those that it takes over unchanged.
    """
    for name, value in own.items():
        if rule := _breaks(name, value, above.get(name)):
            return name, f"{rule} {above_name}"
    return None


def is_budget(name: str) -> bool:
    """Say whether a term of this name limits calls."""
    return name in RESERVED or (name.startswith(MOST_OF) and name != MOST_OF)


def sample_terms(declared: RecordType) -> dict[str, Any]:
    """Return terms that fit a declaration, with every optional term, and an element in every set."""
    return {one.name: _sample(one.type) for one in declared.parameters}


def _breaks(name: str, own: Any, above: Any) -> str:  # noqa: ANN401 - any JSON value; None for no value
    if name == TARGETS:
        return "" if set(own) <= set(above or ()) else "must hold only targets of"
    if is_budget(name):
        return "" if above is None or own <= above else "must not be more than in"
    return "" if own == above else "must be as in"


def _types_of(name: str) -> tuple[type[ParameterType], ...]:
    return RESERVED.get(name, _LONG)


def _require_known(declared: RecordType, given: Mapping[str, Any], path: str) -> None:
    for name, value in given.items():
        parameter = declared.parameter(name)
        if parameter is None:
            known = [one.name for one in declared.parameters]
            raise InvalidArgumentsError(f"`{path}`: {unknown('term', name, known)}")
        if isinstance(parameter.type, RecordType) and isinstance(value, dict):
            _require_known(parameter.type, value, path + parameter.step)


def _written(value: object) -> str:
    """Write Cedar's JSON as canonical JSON."""
    if isinstance(value, dict):
        if "__extn" in value:
            text: str = value["__extn"]["arg"]
            return text
        return "{" + ",".join(f"{_written(key)}:{_written(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, sorted(set(value)))) + "]"
    return json.dumps(value, ensure_ascii=False)


def _sample(kind: ParameterType) -> Any:  # noqa: ANN401 - any JSON value
    match kind:
        case RecordType():
            return sample_terms(kind)
        case SetType():
            return [_sample(kind.element)]
        case StringType():
            return ""
        case BoolType():
            return False
    return 0
