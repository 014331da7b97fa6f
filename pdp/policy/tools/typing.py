"""Type the parameters of a tool: read its JSON Schema into the types of `pdp.policy.tools.parameters`.

What is not understood is opaque: unions, free-form objects, references in a circle or to another document.
A parameter that cannot be expressed never makes its tool fail, and a tool never makes the catalogue fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from pdp.foundation.jsontext import MINTING_KEYS
from pdp.policy.tools.parameters import (
    NUMBER,
    BoolType,
    DecimalType,
    Declared,
    Label,
    LongType,
    OpaqueType,
    Parameter,
    ParameterType,
    RecordType,
    SetType,
    StringType,
)

__all__ = ["RecordType", "facts_type", "input_type", "terms_type"]

_Schema = dict[str, Any]
# The references that led to a schema: a repeated one closes a circle.
_References = frozenset[str]

_RECORD_DEPTH = 8
# The digits of the largest integer in Cedar.
_LONGEST_INTEGER = 19
# A chain of definitions that each name the next one twice unfolds into exponentially many schemas.
_SCHEMAS_PER_PARAMETER = 256
_NULL = OpaqueType(reason="always null")
_BRANCHES = ("allOf", "anyOf", "oneOf")
_CONDITIONALS = ("if", "then", "else")
_OPENINGS = ("additionalProperties", "patternProperties", "unevaluatedProperties")
_ANNOTATIONS = frozenset({"title", "description", "default", "examples", "deprecated", "$comment"})
_KINDS = {str: "string", int: "integer", bool: "boolean", type(None): "null", Decimal: "number"}


def input_type(schema: object) -> RecordType | None:
    """Read a tool's `inputSchema`: the JSON Schema of an object of parameters.

    Takes JSON as `pdp.foundation.jsontext` parses it. A missing schema (None) declares no parameter.
    Returns None when it is not the schema of an object.
    """
    if schema is None:
        return RecordType()
    if not isinstance(schema, dict) or schema.get("type", "object") not in ("object", ["object"]):
        return None
    return _SchemaReader(schema).read()


def facts_type(declared: object) -> RecordType:
    """Read the `caller_facts` of a bundle: `properties` as in JSON Schema, and `required`.

    Here `type: decimal` is a type too, and every fact must have a type that Cedar can express.
    Raise `ValueError` with one line that names the fact.
    """
    names, required = _declared_facts(declared)
    for name in required:
        if name not in names:
            raise ValueError(f"`{name}` is required but not declared")
    if "id" in names:
        raise ValueError("`id` is the caller's own id; choose another name for the fact")
    facts = _SchemaReader({"properties": names, "required": required}, decimals=True).read() or RecordType()
    for label, reason in facts.opaque_labels().items():
        raise ValueError(f"`{label}` must have a type that Cedar can express; it is {reason}")
    return facts


def _declared_facts(declared: object) -> tuple[dict[str, Any], list[str]]:
    """Return the `properties` and `required` of a bundle's `caller_facts`."""
    if declared is None:
        return {}, []
    if not isinstance(declared, dict):
        raise ValueError("must be a mapping with `properties` and `required`")  # noqa: TRY004 - as for a wrong key
    for key in declared:
        if key not in ("properties", "required"):
            raise ValueError(f"unknown key: `{key}`; known are `properties` and `required`")
    names, required = declared.get("properties") or {}, declared.get("required") or []
    if not isinstance(names, dict) or not all(isinstance(one, dict) for one in names.values()):
        raise ValueError("`properties` must be a mapping of facts, such as `workstation: {type: string}`")
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise ValueError("`required` must be a list of facts")
    return names, required


def terms_type(declared: Mapping[str, Any]) -> RecordType:
    """Return the type of a session's terms, from what `pdp.policy.child.terms` has read of the schema."""
    return _SchemaReader(dict(declared), decimals=True).read() or RecordType()


class _TooWideError(Exception):
    """A parameter unfolds into too many schemas."""


class _SchemaReader:
    """Reads one schema document."""

    def __init__(self, root: _Schema, *, decimals: bool = False) -> None:
        self._root = root
        self._simple: dict[str, Callable[[_Schema], ParameterType]] = {
            "string": lambda schema: StringType(allowed=_allowed(schema, str)),
            "integer": lambda schema: LongType(allowed=_allowed(schema, int)),
            "boolean": lambda schema: BoolType(allowed=_allowed(schema, bool)),
            "number": lambda _: NUMBER,
        }
        if decimals:
            self._simple["decimal"] = lambda _: DecimalType()
        self._left = 0

    def read(self) -> RecordType | None:
        schema, references = self._resolved(self._root, frozenset())
        if schema is None:
            return None
        return replace(self._record(schema, "", references, 0), declares_more=_opens(schema))

    def _record(self, schema: _Schema, prefix: Label, references: _References, depth: int) -> RecordType:
        declared = dict(_object(schema.get("properties")))
        required = [name for name in _list(schema.get("required")) if isinstance(name, str)]
        # A name that is only in `required`, or only declared in a branch, may hold anything.
        for name in (*required, *self._branch_names(schema, set(references))):
            declared.setdefault(name, True)
        parameters = (
            self._parameter(name, one, prefix, references, depth, required=name in required)
            for name, one in declared.items()
            if one is not False and name not in MINTING_KEYS
        )
        return RecordType(parameters=tuple(parameters))

    def _branch_names(self, schema: _Schema, seen: set[str]) -> Iterator[str]:
        branches = [one for key in _BRANCHES for one in _list(schema.get(key))]
        branches += [schema.get(key) for key in _CONDITIONALS]
        branches += _object(schema.get("dependentSchemas")).values()
        for branch in branches:
            resolved, references = self._resolved(branch, frozenset(seen))
            seen |= references
            if resolved is not None:
                yield from _object(resolved.get("properties"))
                yield from self._branch_names(resolved, seen)

    def _parameter(
        self, name: str, schema: object, prefix: Label, references: _References, depth: int, *, required: bool
    ) -> Parameter:
        label = prefix + name
        kind: ParameterType
        if depth == 0:
            self._left = _SCHEMAS_PER_PARAMETER
        try:
            kind, nullable = self._type(schema, label, references, depth)
        except _TooWideError:
            if depth:
                raise  # the parameter as a whole becomes opaque, which is easy to explain
            kind, nullable = OpaqueType(reason="too many properties"), False
        declared = _declared(self._resolved(schema, references)[0])
        return Parameter(name=name, label=label, type=kind, required=required, nullable=nullable, declared=declared)

    def _type(self, schema: object, label: Label, references: _References, depth: int) -> tuple[ParameterType, bool]:
        """Return the type, and whether null is also allowed."""
        self._left -= 1
        if self._left < 0:
            raise _TooWideError
        resolved, references = self._resolved(schema, references)
        if resolved is None:
            return OpaqueType(reason="not a schema, or one that leads in a circle or elsewhere"), False
        kinds = _kinds(resolved)
        nullable = "null" in kinds or resolved.get("nullable") is True
        if kinds == {"null"}:
            return _NULL, True
        kinds -= {"null"}
        branches = _list(resolved.get("anyOf")) or _list(resolved.get("oneOf"))
        if not kinds and branches:
            types = [self._type(branch, label, references, depth) for branch in branches]
            return _joined([kind for kind, _ in types if kind != _NULL]), nullable or any(null for _, null in types)
        if kinds == {"integer", "number"}:
            return NUMBER, nullable
        if len(kinds) != 1:
            return OpaqueType(reason="a union" if kinds else "of no declared type"), nullable
        return self._of_kind(kinds.pop(), resolved, label, references, depth), nullable

    def _of_kind(self, kind: str, schema: _Schema, label: Label, references: _References, depth: int) -> ParameterType:
        if kind in self._simple:
            return self._simple[kind](schema)
        if kind == "array":
            return self._array(schema, label, references, depth)
        if kind == "object":
            return self._nested(schema, label, references, depth)
        return OpaqueType(reason="of an unknown type")

    def _array(self, schema: _Schema, label: Label, references: _References, depth: int) -> ParameterType:
        if "prefixItems" in schema or not isinstance(schema.get("items"), dict):
            return OpaqueType(reason="an array of anything")
        element, nullable = self._type(schema["items"], label, references, depth)
        if not nullable and isinstance(element, RecordType):
            return OpaqueType(reason="an array of objects; `members` would show some of them as sets", element=element)
        if nullable or not isinstance(element, StringType | LongType | BoolType):
            return OpaqueType(reason="an array of what a set cannot hold")
        return SetType(element=element)

    def _nested(self, schema: _Schema, label: Label, references: _References, depth: int) -> ParameterType:
        if _opens(schema):
            return OpaqueType(reason="an object with further properties")
        if depth == _RECORD_DEPTH:
            return OpaqueType(reason="an object deep below the parameter")
        record = self._record(schema, f"{label}.", references, depth + 1)
        closed = schema.get("additionalProperties") is False
        return record if record.parameters or closed else OpaqueType(reason="a free-form object")

    def _resolved(self, schema: object, references: _References) -> tuple[_Schema | None, _References]:
        """Follow references and single `allOf` branches; None for a circle, a foreign reference or a contradiction."""
        while isinstance(schema, dict):
            siblings = dict(schema)
            if "$ref" in schema:
                reference = siblings.pop("$ref")
                if not isinstance(reference, str) or reference in references:
                    return None, references
                references |= {reference}
                schema = _merged(self._at(reference), siblings)
            elif "type" not in schema and len(_list(schema.get("allOf"))) == 1:
                schema = _merged(siblings.pop("allOf")[0], siblings)
            else:
                return schema, references
        return ({} if schema is True else None), references

    def _at(self, reference: str) -> object:
        if reference != "#" and not reference.startswith("#/"):
            return None
        place: object = self._root
        for step in unquote(reference).split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            place = place.get(key) if isinstance(place, dict) else None
        return place


def _declared(schema: _Schema | None) -> Declared:
    """Return what a schema says apart from the type; a bound can be in the only branch that is not null."""
    if schema is None:
        return Declared()
    branches = _list(schema.get("anyOf")) or _list(schema.get("oneOf"))
    inner = [one for one in branches if isinstance(one, dict) and one.get("type") != "null"]
    bounds = {**inner[0], **schema} if len(inner) == 1 else schema
    minimum, fewest = bounds.get("minimum", bounds.get("exclusiveMinimum")), bounds.get("minItems", 0)
    return Declared(
        default=schema.get("default"),
        minimum=minimum if type(minimum) in (int, Decimal) else None,
        fewest=fewest if type(fewest) is int else 0,
    )


def _opens(schema: _Schema) -> bool:
    """Return whether a schema explicitly allows properties that it does not name."""
    return any(schema.get(key, False) is not False for key in _OPENINGS)


def _kinds(schema: _Schema) -> set[str]:
    """Return the JSON types that a schema names, or those of its `enum` or `const` when it names none."""
    declared = schema.get("type")
    if isinstance(declared, str):
        return {declared}
    if declared is not None:
        return {str(one) for one in _list(declared)}
    listed = _list(schema.get("enum")) or ([schema["const"]] if "const" in schema else [])
    return {_KINDS.get(type(one), "other") for one in listed}


def _allowed(schema: _Schema, kind: type) -> frozenset[Any] | None:
    """Return the values of exactly this type that `enum` and `const` allow; None without either."""
    lists = [_list(schema["enum"])] if "enum" in schema else []
    lists += [[schema["const"]]] if "const" in schema else []
    # The exact type, since `1 == True` in Python but not in JSON.
    sets = [frozenset(one for one in map(_whole, listed) if type(one) is kind) for listed in lists]
    return frozenset.intersection(*sets) if sets else None


def _whole(value: object) -> object:
    """Return an integer for a whole number, for example `1.0`; JSON Schema makes no difference."""
    # The bound is checked first: writing out `1e999999999` would take a gigabyte.
    if isinstance(value, Decimal) and value.adjusted() < _LONGEST_INTEGER and value == value.to_integral_value():
        return int(value)
    return value


def _joined(types: list[ParameterType]) -> ParameterType:
    """Return the type that covers every branch of a union, opaque if Cedar has none."""
    if len(types) == 1:
        return types[0]
    scalars = [one for one in types if isinstance(one, StringType | LongType | BoolType)]
    if types and len(scalars) == len(types) and len({type(one) for one in scalars}) == 1:
        sets: list[frozenset[Any] | None] = [one.allowed for one in scalars]
        allowed: Any = None if None in sets else frozenset().union(*filter(None, sets))
        return replace(scalars[0], allowed=allowed)
    numbers = all(isinstance(one, LongType) or one == NUMBER for one in types)
    return NUMBER if types and numbers else OpaqueType(reason="a union")


def _merged(target: object, siblings: _Schema) -> object:
    """Return both schemas merged; None when they differ in a keyword that is not an annotation."""
    if target is True:
        return siblings
    if not isinstance(target, dict):
        return None
    clash = any(key in target and target[key] != one for key, one in siblings.items() if key not in _ANNOTATIONS)
    return None if clash else {**target, **siblings}


def _list(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _object(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}
