"""Bound the work of checking a call by a tool's JSON schema, before the library does it.

A schema comes from a tool server. `anyOf` of two references to the same next definition doubles the work with each
step, and a schema that refers to itself for the same value never ends: with a few hundred bytes, a check can take
years. This module only knows how schemas contain and refer to each other; the library knows what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import takewhile
from typing import Any
from urllib.parse import unquote

MOST_SCHEMAS = 2000
# The most schemas that one value may be checked against, and the number of schemas that a pattern counts as.
MOST_LOOKS = 1_000_000
FEW_LOOKS = 256
PATTERN_WEIGHT = 64
# For a number with a fraction, or beyond 64 bits, in an `enum` or a `const`: the library compares it digit by digit.
LONG_NUMBER_WEIGHT = 16
# For a keyword that compares or divides numbers: the library uses fractions of any length, up to 50 µs each.
NUMBER_WEIGHT = 96
# A double, written out, has no more digits.
MOST_DIGITS = 400
_BEYOND_INTEGERS = 10**MOST_DIGITS
_OF_NUMBERS = ("multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LARGEST_SHORT = 2**63
# The longest chain of schemas to one value: the library recurses for each step.
MOST_STEPS = 1000
_LONGEST_CHAIN = 256

_Schema = dict[str, Any]
# The schemas by name or place, those of all others, those of every one, and the number of looks at their parent.
_Leads = tuple[Mapping[Any, int], list[int], list[int], int]
# Keywords whose schemas apply to the value itself, to what is in it, or to nothing until a `$ref` names them.
_OF_ITSELF = ("not", "if", "then", "else", "propertyNames")
_OF_ITSELF_LISTS = ("allOf", "anyOf", "oneOf")
_OF_ITSELF_MAPS = ("dependentSchemas", "dependencies")
_OF_EVERY_ITEM = ("contains", "unevaluatedItems")
_OF_OTHER_ITEMS = ("items", "additionalItems")
_OF_OTHER_PROPERTIES = ("additionalProperties", "unevaluatedProperties")
_DEFINITIONS = ("$defs", "definitions")
_UNEVALUATED = frozenset({"unevaluatedItems", "unevaluatedProperties"})
_DYNAMIC = ("$dynamicRef", "$recursiveRef")
# At least the depth of arguments in any sensible configuration; only schemas that repeat themselves go deeper.
DEPTH = 64
# The most work for computing the bounds themselves.
_MOST_WORK = 500_000


class SchemaBoundError(Exception):
    """A schema exceeds the bounds of a check; the message says how in one line."""


def looks(root: _Schema) -> tuple[int, ...]:
    """Return the most schemas that one value is checked against, for values of depth 0 to `DEPTH`.

    The depth of a value counts the objects and lists around its innermost value. Up to `FEW_LOOKS`, the number for
    `DEPTH` is returned for every depth. The tuple ends before the first depth with more than `MOST_LOOKS`.
    Raise `SchemaBoundError` for a schema that is too large, refers elsewhere, or never ends.
    """
    reader = _Reader(root)
    reader.read(root)
    costs = _Costs(reader.links)
    most, steps = costs.of(id(root), DEPTH)
    if steps > MOST_STEPS:
        raise SchemaBoundError(f"one value is reached by more than {MOST_STEPS} steps")
    if most <= FEW_LOOKS:
        return (most,) * (DEPTH + 1)
    by_depth = (costs.of(id(root), depth)[0] for depth in range(DEPTH + 1))
    found = tuple(takewhile(MOST_LOOKS.__ge__, by_depth))
    if not found:
        raise SchemaBoundError(f"it checks one value against more than {MOST_LOOKS} schemas")
    return found


def is_too_long(number: int | Decimal) -> bool:
    """Return whether a number has more digits before or after its point than are compared."""
    if isinstance(number, int):
        return not -_BEYOND_INTEGERS < number < _BEYOND_INTEGERS
    _, digits, exponent = number.as_tuple()
    return len(digits) > MOST_DIGITS or abs(int(exponent)) > MOST_DIGITS


def schemas(root: _Schema) -> tuple[_Schema, ...]:
    """Return every schema of a document, itself included. Raises what `looks` raises for references."""
    reader = _Reader(root)
    reader.read(root)
    return tuple(reader.found)


@dataclass(slots=True)
class _Links:
    """The schemas that one schema leads to: for the same value, by property name, and by place in a list.

    Values that are not listed lead to `other_properties` or `other_items`; `every_…` is added for all. `weight` is the
    cost of the schema itself.
    """

    weight: int = 1
    same: list[int] = field(default_factory=list)
    properties: dict[str, int] = field(default_factory=dict)
    every_property: list[int] = field(default_factory=list)
    other_properties: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    every_item: list[int] = field(default_factory=list)
    other_items: list[int] = field(default_factory=list)


class _Reader:
    """Finds every schema of a document, and those that it leads to. The key of a schema is its object's identity."""

    def __init__(self, root: _Schema) -> None:
        self._root = root
        self._anything: _Schema = {}
        self.found: list[_Schema] = []
        self.links: dict[int, _Links] = {}

    def read(self, root: _Schema) -> None:
        pending = [root]
        while pending:
            schema = pending.pop()
            if id(schema) in self.links:
                continue
            if len(self.links) == MOST_SCHEMAS:
                raise SchemaBoundError(f"it holds more than {MOST_SCHEMAS} schemas")
            self.found.append(schema)
            links = self.links[id(schema)] = _Links()
            pending += self._follow(schema, links)

    def _follow(self, schema: _Schema, links: _Links) -> list[_Schema]:
        """Store the links of a schema, and return the schemas found in it."""
        found: list[_Schema] = []

        def lead(to: list[int], *others: object) -> None:
            for other in others:
                if isinstance(other, dict):
                    to.append(id(other))
                    found.append(other)

        self._refuse_elsewhere(schema)
        links.weight += PATTERN_WEIGHT * (("pattern" in schema) + len(_map(schema, "patternProperties")))
        bounds = [schema[key] for key in _OF_NUMBERS if isinstance(schema.get(key), int | Decimal)]
        if any(map(is_too_long, bounds)):
            raise SchemaBoundError(f"a bound of numbers has more than {MOST_DIGITS} digits")
        links.weight += NUMBER_WEIGHT * len(bounds)
        links.weight += _weight_of_values(_list(schema, "enum")) + _weight_of_values([schema.get("const")])
        lead(links.same, *(schema.get(key) for key in _OF_ITSELF))
        lead(links.same, *(one for key in _OF_ITSELF_LISTS for one in _list(schema, key)))
        lead(links.same, *(one for key in _OF_ITSELF_MAPS for one in _map(schema, key).values()))
        if "$ref" in schema:
            lead(links.same, self._at(schema["$ref"]))
        if not _UNEVALUATED.isdisjoint(schema):
            # To find what the others have not evaluated, the library evaluates all of them again.
            links.same += links.same
        for name, one in _map(schema, "properties").items():
            if isinstance(one, dict):
                links.properties[name] = id(one)
                found.append(one)
        lead(links.every_property, *_map(schema, "patternProperties").values())
        lead(links.other_properties, *(schema.get(key) for key in _OF_OTHER_PROPERTIES))
        places = _list(schema, "prefixItems") or _list(schema, "items")
        # A place without a schema object, for example `true`, leads to an empty schema.
        lead(links.places, *(one if isinstance(one, dict) else self._anything for one in places))
        lead(links.every_item, *(schema.get(key) for key in _OF_EVERY_ITEM))
        lead(links.other_items, *(schema.get(key) for key in _OF_OTHER_ITEMS))
        lead([], *(one for key in _DEFINITIONS for one in _map(schema, key).values()))
        return found

    def _refuse_elsewhere(self, schema: _Schema) -> None:
        for key in _DYNAMIC:
            if key in schema:
                raise SchemaBoundError(f"it holds a `{key}`, which is not followed")
        name = "id" if "draft-04" in str(self._root.get("$schema")) else "$id"
        if schema is not self._root and isinstance(schema.get(name), str):
            raise SchemaBoundError(
                f"it holds an `{name}` below its top, which would change the meaning of its references"
            )

    def _at(self, reference: object) -> object:
        if reference != "#" and not (isinstance(reference, str) and reference.startswith("#/")):
            raise SchemaBoundError("a `$ref` leads elsewhere: only `#` and `#/…` are followed")
        place: Any = self._root
        for step in unquote(reference).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(place, list):
                place = place[int(key)] if key.isascii() and key.isdigit() and int(key) < len(place) else None
            else:
                place = place.get(key) if isinstance(place, dict) else None
        if not isinstance(place, dict | bool):
            raise SchemaBoundError("a `$ref` leads to nothing")
        return place


class _Costs:
    """The cost of each schema: the most looks at one value, and the steps that lead to it."""

    def __init__(self, links: Mapping[int, _Links]) -> None:
        self._links = links
        self._same: dict[int, dict[int, int]] = {}
        self._known: dict[tuple[int, int], tuple[int, int]] = {}
        self._work = 0

    def of(self, schema: int, depth: int) -> tuple[int, int]:
        """Return looks and steps for what is up to `depth` levels below the value of a schema."""
        found = self._known.get((schema, depth))
        if found is None:
            found = self._known[schema, depth] = self._find(schema, depth)
        return found

    def _find(self, schema: int, depth: int) -> tuple[int, int]:
        same = self._about_the_same(schema, ())
        self._spend(1)
        looks, steps = sum(self._links[one].weight * count for one, count in same.items()), len(same)
        if depth == 0:
            return looks, steps
        inside = [(self._links[one], count) for one, count in same.items()]
        properties = self._below(
            [(one.properties, one.other_properties, one.every_property, count) for one, count in inside], depth - 1
        )
        items = self._below(
            [(dict(enumerate(one.places)), one.other_items, one.every_item, count) for one, count in inside], depth - 1
        )
        return max(looks, properties[0], items[0]), steps + max(properties[1], items[1])

    def _below(self, leads: list[_Leads], depth: int) -> tuple[int, int]:
        """Return looks and steps for the most expensive name or place below a value."""
        elsewhere, longest = 0, 0
        more: dict[str | int, int] = {}

        def looks(to: Iterable[int]) -> int:
            nonlocal longest
            most = 0
            for one in to:
                found, steps = self._known.get((one, depth)) or self.of(one, depth)
                self._spend(1)
                most += found
                longest = max(longest, steps)
            return most

        for listed, other, every, count in leads:
            for_others = count * looks(other)
            elsewhere += for_others + count * looks(every)
            for name, to in listed.items():
                more[name] = more.get(name, 0) + count * looks((to,)) - for_others
        return elsewhere + max([0, *more.values()]), longest

    def _about_the_same(self, schema: int, above: tuple[int, ...]) -> dict[int, int]:
        """Return how often a schema leads to each schema for the same value, itself included."""
        found = self._same.get(schema)
        if found is None:
            if schema in above:
                raise SchemaBoundError("it describes a value by itself, without end")
            if len(above) == _LONGEST_CHAIN:
                raise SchemaBoundError(f"a chain of more than {_LONGEST_CHAIN} schemas describes one value")
            found = {schema: 1}
            for other in self._links[schema].same:
                inner = self._about_the_same(other, (*above, schema))
                self._spend(len(inner))
                for one, count in inner.items():
                    found[one] = found.get(one, 0) + count
            self._same[schema] = found
        return found

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > _MOST_WORK:
            raise SchemaBoundError("its schemas refer to each other in too many ways")


def _list(schema: _Schema, key: str) -> list[Any]:
    found = schema.get(key)
    return found if isinstance(found, list) else []


def _map(schema: _Schema, key: str) -> dict[str, Any]:
    found = schema.get(key)
    return found if isinstance(found, dict) else {}


def _weight_of_values(values: Sequence[object]) -> int:
    """Return the cost of finding a value among others: 0 if all are texts, or all are short integers."""
    if any(all(_is_short(value, kind) for value in values) for kind in (str, int)):
        return 0
    weight, pending = 0, list(values)
    while pending:
        value = pending.pop()
        weight += LONG_NUMBER_WEIGHT if _is_long_number(value) else 1
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        pending += inner
    return weight


def _is_short(value: object, kind: type) -> bool:
    return type(value) is kind and not _is_long_number(value)


def _is_long_number(value: object) -> bool:
    return isinstance(value, float | Decimal) or (isinstance(value, int) and abs(value) >= _LARGEST_SHORT)
