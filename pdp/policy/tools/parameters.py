"""The types of a tool's parameters: write them as a Cedar schema, and JSON values as Cedar's.

A parameter's declaration alone decides whether it is typed or opaque, never a value: otherwise an agent could hide
`amount` from a forbid by sending `500.00001` or `null`. What Cedar cannot express is opaque: it is left out of
`context.input` and named in `context.opaque`.

This module enforces the declared types, and `enum` and `const` of strings, integers and booleans.
`pdp.policy.tools.argumentcheck` checks everything else in a schema, also for opaque parameters. A `default` is not
filled in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Protocol

from pdp.errors import InvalidArgumentsError

# The name of a parameter in `context.opaque`; for a property of an object, `object.name`.
# Two parameters can share a label; a rule about it then applies to both.
Label = str

_LONG = 2**63
_DECIMAL_DIGITS = 4
_DECIMAL_WHOLE_DIGITS = 15
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}


class ParameterType(Protocol):
    """The type of a parameter: writes itself as Cedar schema text, and converts a JSON value to Cedar's JSON."""

    def cedar(self) -> str:
        """Write the type as Cedar schema text."""

    def value(self, found: object, hidden: list[Label], /) -> object:
        """Return Cedar's JSON for a value, and add what is left out to `hidden`; raise when it does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StringType:
    """A string; one of `allowed` if that is given."""

    allowed: frozenset[str] | None = None

    def cedar(self) -> str:
        """Write the type as Cedar schema text."""
        return "String"

    def value(self, found: object, _hidden: list[Label], /) -> str:
        """Return a string as it is."""
        if type(found) is not str:
            raise _UnfitError("must be a string")
        if self.allowed is not None and found not in self.allowed:
            raise _UnfitError("must be one of the declared values")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LongType:
    """An integer of 64 bits, written without fraction and exponent; one of `allowed` if that is given."""

    allowed: frozenset[int] | None = None

    def cedar(self) -> str:
        """Write the type as Cedar schema text."""
        return "Long"

    def value(self, found: object, _hidden: list[Label], /) -> int:
        """Return an integer as it is; `true` and `7.0` are not integers."""
        if type(found) is not int:
            raise _UnfitError("must be an integer, without fraction and exponent")
        if not -_LONG <= found < _LONG:
            raise _UnfitError("must fit in 64 bits")
        if self.allowed is not None and found not in self.allowed:
            raise _UnfitError("must be one of the declared values")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class BoolType:
    """A boolean; one of `allowed` if that is given."""

    allowed: frozenset[bool] | None = None

    def cedar(self) -> str:
        """Write the type as Cedar schema text."""
        return "Bool"

    def value(self, found: object, _hidden: list[Label], /) -> bool:
        """Return a boolean as it is."""
        if type(found) is not bool:
            raise _UnfitError("must be true or false")
        if self.allowed is not None and found not in self.allowed:
            raise _UnfitError("must be one of the declared values")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class DecimalType:
    """A number as Cedar's decimal: four fraction digits, 64 bits in total."""

    def cedar(self) -> str:
        """Write the type as Cedar schema text."""
        return "decimal"

    def value(self, found: object, _hidden: list[Label], /) -> dict[str, dict[str, str]]:
        """Return a number as an extension value; equal numbers become equal values."""
        return {"__extn": {"fn": "decimal", "arg": _decimal_text(found)}}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetType:
    """A list of values of one scalar type; in Cedar it has no order and no duplicates."""

    element: StringType | LongType | BoolType

    def cedar(self) -> str:
        """Write the type as Cedar schema text."""
        return f"Set<{self.element.cedar()}>"

    def value(self, found: object, hidden: list[Label], /) -> list[object]:
        """Return the elements, each checked."""
        if type(found) is not list:
            raise _UnfitError("must be a list")
        try:
            return [self.element.value(item, hidden) for item in found]
        except _UnfitError as error:
            raise error.below("[*]") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaqueType:
    """A type that Cedar cannot express, or that the overlay hides from the policies; `reason` is for people.

    `element` is the type of the elements of a list of objects with declared properties: the overlay can show some.
    """

    reason: str
    element: RecordType | None = field(default=None, repr=False, compare=False)

    def cedar(self) -> str:
        """Write nothing: an opaque parameter has no attribute."""
        return ""

    def value(self, _found: object, _hidden: list[Label], /) -> None:
        """Return None: an opaque parameter has no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingType:
    """A list of objects: their number, and the values of some members as sets.

    The opaque labels name each member that an object lacks or that is null, and each that is not shown: the sets do not
    say which values belong to the same object. Members that are not declared are refused.
    """

    label: Label
    members: tuple[Parameter, ...]
    others: tuple[str, ...]

    def cedar(self) -> str:
        """Write the type as Cedar schema text."""
        sets = (f"{cedar_string(one.name)}: Set<{one.type.cedar()}>" for one in self.members)
        return "{ " + ", ".join((f"{cedar_string(COUNT)}: Long", *sets)) + " }"

    def labels(self) -> tuple[Label, ...]:
        """Return the opaque labels that a call can have for it."""
        return tuple(f"{self.label}.{name}" for name in (*(one.name for one in self.members), *self.others))

    def value(self, found: object, hidden: list[Label], /) -> dict[str, object]:
        """Return the number and the sets, each value checked."""
        if type(found) is not list:
            raise _UnfitError("must be a list")
        if not all(type(one) is dict for one in found):
            raise _UnfitError("must be an object", "[*]")
        known = {*(one.name for one in self.members), *self.others}
        if not all(known.issuperset(one) for one in found):
            raise _UnfitError(_UNDECLARED, "[*]")
        shown: dict[str, object] = {COUNT: len(found)}
        try:
            for member in self.members:
                values = [one[member.name] for one in found if one.get(member.name) is not None]
                shown[member.name] = [_below(member, value, hidden) for value in values]
                if len(values) < len(found):
                    hidden.append(f"{self.label}.{member.name}")
        except _UnfitError as error:
            raise error.below("[*]") from None
        hidden += [f"{self.label}.{name}" for name in self.others if any(name in one for one in found)]
        return shown


# The name of the number of objects in a listing.
COUNT = "count"
# The label of all parameters that a tool accepts without declaring them.
FURTHER: Label = "*"
# The agent chooses the name. It may hold anything, so it is not repeated.
_UNDECLARED = "holds a parameter that is not declared"
NUMBER = OpaqueType(reason="a number; `type: decimal` would type it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a schema says about a parameter apart from its type, for `pdp check` only.

    `default` is the value when it is left out, `minimum` the lowest value, `fewest` the least length of a list. None
    and 0 mean that the schema says nothing.
    """

    default: object = None
    minimum: int | Decimal | None = None
    fewest: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a tool, or one property of an object below it."""

    name: str
    label: Label
    type: ParameterType
    required: bool
    nullable: bool
    declared: Declared = field(default=Declared(), compare=False, repr=False)

    @property
    def opaque(self) -> bool:
        """Return whether the policies cannot see it."""
        return isinstance(self.type, OpaqueType)

    @property
    def numeric(self) -> bool:
        """Return whether the overlay may type it `decimal`."""
        return isinstance(self.type, LongType) or self.type == NUMBER

    @property
    def step(self) -> str:
        """Return its part of a JSON path: `.name` or `["na me"]`."""
        return f".{self.name}" if _PLAIN_NAME.match(self.name) else f"[{json.dumps(self.name)}]"

    def cedar(self) -> str:
        """Write the attribute as Cedar schema text; a nullable one may be absent."""
        mark = "" if self.required and not self.nullable else "?"
        return f"{cedar_string(self.name)}{mark}: {self.type.cedar()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordType:
    """The parameters of a tool, or an object with declared properties.

    Other properties are refused, unless `open` lets them pass; then the opaque labels only contain `*`.
    `declares_more` says that the schema itself allows others; `open` is None when the overlay does not decide.
    """

    parameters: tuple[Parameter, ...] = ()
    declares_more: bool = False
    open: bool | None = None
    # The names of the parameters that must be present.
    required: tuple[str, ...] = field(init=False, repr=False, compare=False)
    # The steps of a conversion: (name, required, opaque, nullable, parameter).
    _plan: tuple[tuple[str, bool, bool, bool, Parameter], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        plan = tuple((one.name, one.required, one.opaque, one.nullable, one) for one in self.parameters)
        object.__setattr__(self, "_plan", plan)
        object.__setattr__(self, "required", tuple(one.name for one in self.parameters if one.required))

    def cedar(self) -> str:
        """Write the type as Cedar schema text: `{ "a": String, "b"?: Long }`."""
        return "{ " + ", ".join(one.cedar() for one in self.parameters if not one.opaque) + " }"

    def convert(self, arguments: dict[str, Any]) -> tuple[dict[str, object], tuple[Label, ...]]:
        """Return `context.input` in Cedar's JSON, and the sorted labels for `context.opaque`.

        Takes an object that `pdp.foundation.jsontext` parsed: numbers with fraction or exponent are `Decimal`.
        Raise `InvalidArgumentsError`, which names the JSON path and the rule and never a value.
        """
        hidden: list[Label] = []
        try:
            converted = self.value(arguments, hidden)
        except _UnfitError as error:
            raise InvalidArgumentsError(f"`${error.path}`: {error.rule}") from None
        return converted, tuple(sorted(set(hidden))) if hidden else ()

    def value(self, found: object, hidden: list[Label], /) -> dict[str, object]:
        """Return the typed properties and add the labels of the others to `hidden`."""
        if type(found) is not dict:
            raise _UnfitError("must be an object")
        converted: dict[str, object] = {}
        declared = 0
        for name, required, opaque, nullable, parameter in self._plan:
            if name in found:
                declared += 1
                item = found[name]
                if opaque or (nullable and item is None):
                    hidden.append(parameter.label)
                else:
                    converted[name] = _below(parameter, item, hidden)
            elif required:
                raise _UnfitError("is required", parameter.step)
        if declared != len(found):
            if self.open:
                hidden.append(FURTHER)
                return converted
            raise _UnfitError(_UNDECLARED)
        return converted

    def parameter(self, name: str) -> Parameter | None:
        """Return the parameter of this name, or None."""
        return next((one for one in self.parameters if one.name == name), None)

    def only(self, names: Collection[str] | None) -> RecordType:
        """Return only the parameters with these names; None keeps all."""
        return self if names is None else RecordType(parameters=tuple(p for p in self.parameters if p.name in names))

    def with_type(self, name: str, new: ParameterType) -> RecordType:
        """Return the same parameters with another type for one of them."""
        parameters = (replace(one, type=new) if one.name == name else one for one in self.parameters)
        return replace(self, parameters=tuple(parameters))

    def opaque_labels(self) -> dict[Label, str]:
        """Return the labels that are opaque in every call, each with the reason; a `null` can add more."""
        found: dict[Label, str] = {FURTHER: "parameters that the tool does not declare"} if self.open else {}
        for one in self.parameters:
            if isinstance(one.type, OpaqueType):
                found[one.label] = one.type.reason
            elif isinstance(one.type, ListingType):
                found |= dict.fromkeys((f"{one.label}.{name}" for name in one.type.others), "not shown by the overlay")
            elif isinstance(one.type, RecordType):
                found |= one.type.opaque_labels()
        return found


def cedar_string(text: str) -> str:
    r"""Write any text as a Cedar string literal, with unprintable characters as `\u{...}`."""
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text) + '"'


class _UnfitError(Exception):
    """A value does not fit its type; the path grows on the way out of nested types."""

    def __init__(self, rule: str, path: str = "") -> None:
        super().__init__(rule)
        self.rule = rule
        self.path = path

    def below(self, step: str) -> _UnfitError:
        return _UnfitError(self.rule, step + self.path)


def _below(parameter: Parameter, item: object, hidden: list[Label]) -> object:
    try:
        return parameter.type.value(item, hidden)
    except _UnfitError as error:
        raise error.below(parameter.step) from None


def _decimal_text(found: object) -> str:
    """Write a JSON number as the text of a Cedar decimal.

    A string is not a number, and nothing is rounded: `500.00001` does not fit, `500.10000` does.
    """
    if type(found) is int:
        found = Decimal(found)
    if type(found) is not Decimal:
        raise _UnfitError("must be a number")
    if not found:
        return "0.0"
    # The magnitude is checked first: writing out `1e999999999` would take a gigabyte.
    if found.adjusted() >= _DECIMAL_WHOLE_DIGITS:
        raise _UnfitError("must fit in a decimal of 64 bits")
    if found.adjusted() < -_DECIMAL_DIGITS:
        raise _UnfitError(f"must have at most {_DECIMAL_DIGITS} fraction digits")
    whole, _, fraction = format(found, "f").partition(".")
    fraction = fraction.rstrip("0")
    if len(fraction) > _DECIMAL_DIGITS:
        raise _UnfitError(f"must have at most {_DECIMAL_DIGITS} fraction digits")
    if not -_LONG <= int(whole + fraction.ljust(_DECIMAL_DIGITS, "0")) < _LONG:
        raise _UnfitError("must fit in a decimal of 64 bits")
    return f"{whole}.{fraction or '0'}"
