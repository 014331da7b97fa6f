"""Read which terms the author's schema declares for sessions.

The engine writes the schema that it has parsed: one form for every way of writing it, and no comments. That text is
read here, token by token. The engine has no other way to say what a type is made of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import cedarpy

from pdp.errors import BundleError, Problem, UnsafePolicyError
from pdp.foundation.jsontext import MINTING_KEYS
from pdp.foundation.nearest import hint
from pdp.foundation.yamltext import unknown
from pdp.limits import MOST_TERMS
from pdp.policy.contents import SCHEMA
from pdp.policy.safety import Token, tokens
from pdp.policy.terms import ATTRIBUTE, MOST_OF, SLICES, TYPE, reserved_problem, slices_problem
from pdp.policy.tools.overlay import RISKS
from pdp.policy.tools.typing import terms_type

JSON = dict[str, Any]

# A type as it is written: a name, what a set holds, or the attributes of a record.
_Type: TypeAlias = "str | _Set | Mapping[str, _Attribute]"

_JSON_TYPES: Mapping[str, JSON] = {
    "String": {"type": "string"},
    "Long": {"type": "integer"},
    "Bool": {"type": "boolean"},
    "decimal": {"type": "decimal"},
}
_ELEMENTS = ("String", "Long")
_OWN = "__cedar::"
_KNOWN = "`String`, `Long`, `Bool`, `decimal`, `Set<String>`, `Set<Long>` and records of these"
_DEPTH = 8


@dataclass(frozen=True, slots=True)
class _Set:
    element: _Type


@dataclass(frozen=True, slots=True)
class _Attribute:
    type: _Type
    required: bool
    annotations: Mapping[str, str]


def declared_terms(author: str, schema: cedarpy.Schema, groups: Collection[str] = ()) -> JSON | None:
    """Return the terms that a schema declares, for `terms_type`; None when it declares none.

    `author` is the author's part of the schema, for the lines of problems; `groups` are the further groups of actions.
    Raise `BundleError`.
    """
    try:
        declarations = _Reader(str(schema)).read()
    except (IndexError, UnsafePolicyError):
        message = "the engine cannot write the schema, so it is unknown which terms it declares"
        raise BundleError((Problem(SCHEMA, 0, message),)) from None
    attribute = declarations.session.get(ATTRIBUTE)
    if TYPE not in declarations.types:
        if attribute is None:
            return None
        message = f"`terms` of a session needs its type: declare `type {TYPE} = {{ … }};`"
        raise _problem(author, ("Session", ATTRIBUTE), message)
    if attribute is None or attribute.type != TYPE or not attribute.required:
        message = f"`type {TYPE}` is declared, so `entity Session` must declare `{ATTRIBUTE}: {TYPE}`"
        raise _problem(author, ("Session", ATTRIBUTE) if attribute else ("type", TYPE), message)
    return _Terms(author, declarations, (*RISKS, *groups)).read()


@dataclass(slots=True)
class _Declarations:
    """The common types by name, the names of entity types, and the attributes of `Session`."""

    types: dict[str, _Type] = field(default_factory=dict)
    entities: set[str] = field(default_factory=set)
    session: Mapping[str, _Attribute] = field(default_factory=dict)


class _Terms:
    """Turns the declared type into JSON."""

    def __init__(self, author: str, declarations: _Declarations, groups: Collection[str]) -> None:
        self._author = author
        self._groups = groups
        self._declarations = declarations
        self._count = 0

    def read(self) -> JSON:
        found = self._resolved(TYPE)
        if not isinstance(found, Mapping):
            raise _problem(self._author, ("type", TYPE), f"`{TYPE}` must be a record")
        record = self._record(found, ())
        for one in terms_type(record).parameters:
            if problem := reserved_problem(one.name, one.type):
                raise self._refusal((one.name,), f"{problem}, since the name is reserved")
            group = one.name.removeprefix(MOST_OF)
            if group not in (one.name, "") and group not in self._groups:
                raise self._refusal((one.name,), f"names no group of actions: {unknown('group', group, self._groups)}")
        slices = {name: int(one.annotations[SLICES]) for name, one in found.items() if SLICES in one.annotations}
        return {**record, SLICES: slices} if slices else record

    def _record(self, attributes: Mapping[str, _Attribute], path: tuple[str, ...]) -> JSON:
        for name, one in attributes.items():
            self._require_annotations((*path, name), one.annotations)
        properties = {name: self._json(one.type, (*path, name)) for name, one in attributes.items()}
        required = [name for name, one in attributes.items() if one.required]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def _json(self, written: _Type, path: tuple[str, ...]) -> JSON:
        self._count += 1
        if self._count > MOST_TERMS:
            message = f"`{TYPE}` has more than {MOST_TERMS} attributes, those of its records included"
            raise _problem(self._author, ("type", TYPE), message)
        if "\\" in path[-1] or path[-1] in MINTING_KEYS:
            raise self._refusal(path, "is not a name that a term can have")
        if len(path) > _DEPTH:
            raise self._refusal(path, f"is deeper than {_DEPTH} records")
        found = self._resolved(written)
        if isinstance(found, Mapping):
            return self._record(found, path)
        if isinstance(found, _Set):
            element = self._resolved(found.element)
            if element in _ELEMENTS:
                return {"type": "array", "items": _JSON_TYPES[str(element)]}
        elif found in _JSON_TYPES:
            return dict(_JSON_TYPES[found])
        raise self._refusal(path, f"has a type that a request cannot give as JSON; possible are {_KNOWN}")

    def _require_annotations(self, path: tuple[str, ...], annotations: Mapping[str, str]) -> None:
        for name, text in annotations.items():
            if name == SLICES:
                # Names in records are not reserved.
                problem = slices_problem(path[0] if len(path) == 1 else "", text)
            else:
                # Others are for people; but one that was to mean something must not mean nothing.
                near = hint(name, (SLICES,))
                problem = f"is unknown{near}" if near else ""
            if problem:
                raise self._refusal(path, f"has `@{name}`, which {problem}")

    def _resolved(self, written: _Type) -> _Type:
        """Follow the names of common types. A name that is left is one of the engine's own types, or unknown."""
        types, entities = self._declarations.types, self._declarations.entities
        while isinstance(written, str) and written in types:
            written = types[written]
        if isinstance(written, str):
            # An entity type hides a type of the engine's of the same name.
            return "" if written in entities else written.removeprefix(_OWN)
        return written

    def _refusal(self, path: tuple[str, ...], problem: str) -> BundleError:
        return _problem(self._author, ("type", TYPE, *path), f"`{TYPE}`: `{'.'.join(path)}` {problem}")


class _Reader:
    """Reads the declarations of a schema as the engine writes it."""

    def __init__(self, text: str) -> None:
        self._tokens: Sequence[Token] = tuple(tokens(text, angles=True))
        self._at = 0

    def read(self) -> _Declarations:
        found = _Declarations()
        while self._at < len(self._tokens):
            self._annotations()
            match self._take():
                case "type":
                    name = self._take()
                    self._take()
                    found.types[name] = self._type()
                    self._skip_to(";")
                case "entity":
                    self._entity(found)
                case "namespace":
                    # A session is of no namespace, and a term's type of another one is refused by its name.
                    self._skip_to("}")
                case _:
                    self._skip_to(";")
        return found

    def _entity(self, found: _Declarations) -> None:
        names = [self._take()]
        while self._next() == ",":
            self._take()
            names.append(self._take())
        found.entities.update(names)
        if self._next() == "in":
            self._skip_to("]")
        if self._next() == "=":
            self._take()
            attributes = self._type()
            if "Session" in names and isinstance(attributes, Mapping):
                found.session = attributes
        self._skip_to(";")

    def _type(self) -> _Type:
        word = self._take()
        if word == "{":
            return self._attributes()
        if word == "Set" and self._next() == "<":
            self._take()
            element = self._type()
            self._take()
            return _Set(element)
        while self._next() == ":":
            word += self._take()
            word += self._take()
            word += self._take()
        return word

    def _attributes(self) -> Mapping[str, _Attribute]:
        found: dict[str, _Attribute] = {}
        while self._next() != "}":
            annotations = self._annotations()
            name = self._take()
            mark = self._take()
            if mark == "?":
                self._take()
            plain = name[1:-1] if name.startswith('"') else name
            found[plain] = _Attribute(self._type(), mark != "?", annotations)
            if self._next() == ",":
                self._take()
        self._take()
        return found

    def _annotations(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        while self._next() == "@":
            self._take()
            name, text = self._take(), ""
            if self._next() == "(":
                self._take()
                text = self._take()[1:-1]
                self._take()
            found[name] = text
        return found

    def _skip_to(self, end: str) -> None:
        """Skip to the end of a bracket or statement, with all brackets inside."""
        depth = 0
        while True:
            token = self._tokens[self._at]
            self._at += 1
            if token.text == end and depth <= (end in "}])"):
                return
            depth += (token.kind == "open") - (token.kind == "close")

    def _next(self) -> str:
        return self._tokens[self._at].text if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1].text


def _problem(author: str, words: Sequence[str], message: str) -> BundleError:
    return BundleError((Problem(SCHEMA, _line(author, iter(words)), message),))


def _line(author: str, words: Iterator[str]) -> int:
    """Return the line of the last of these words that follow each other in the author's schema, with any between."""
    line, wanted = 1, next(words)
    for token in tokens(author):
        if token.text in (wanted, f'"{wanted}"'):
            line, wanted = token.line, next(words, "")
            if not wanted:
                break
    return line
