"""Where the names of a call's targets come from, as each session of its chain sees it.

- `named`: its terms hold the target, or its purpose names it;
- `known`: an attribute of its user in the directory, one that the bundle names, holds it;
- `issued`: a field of a result, one that the overlay says issues ids, held it;
- `clean`: a result that strangers do not write held it, though the call did not;
- `tainted`: only results of others held it;
- `unseen`: none of these;
- `none`: the overlay declares targets, and the call has none;
- `undeclared`: the overlay does not say which parameters are targets.

A session that was delegated without an approver names nothing by itself. Its purpose does not count, but that of the
nearest session above that a person approved. Its targets are some of those of the sessions above: so many count. The
results are those of its whole tree: of its root, and of all sessions below that one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple

from pdp.errors import Problem
from pdp.foundation.lrucache import LRUCache
from pdp.foundation.names import Name, links, name_of, name_of_value
from pdp.foundation.yamltext import Section, unknown
from pdp.model import NO_TERMS, Session, Targets, ValueClass
from pdp.policy.directory import Directory
from pdp.policy.purposes import Purpose
from pdp.policy.terms import TARGETS, read_terms
from pdp.policy.tools.catalogue import Tool
from pdp.policy.tools.targetpaths import TargetPath

NAMED, KNOWN, UNSEEN, NONE, UNDECLARED = "named", "known", "unseen", "none", "undeclared"
# From results; in this order, after the first two.
ISSUED, CLEAN, TAINTED = (one.value for one in ValueClass)

# Returns a word for each name that results held; others are left out.
FindNames = Callable[[Collection[Name]], Mapping[Name, str]]

# Of a call that names more, the others are `unseen`: each is looked for in the purposes of a whole chain.
MOST_TARGETS = 256
# Bounds of the memory: for the names of sessions and for what users know, in entries and in bytes.
_MOST_KEPT, _MOST_NAMING_BYTES, _MOST_KNOWN_BYTES = 1024, 8 * 1024 * 1024, 10 * 1024 * 1024
# Approximate bytes of an entry, of one name, and for each byte of text; a text is kept in one form for each kind.
_ENTRY_BYTES, _NAME_BYTES, _BYTES_PER_BYTE = 1024, 320, 64


def found_nowhere(_: Collection[Name]) -> Mapping[Name, str]:
    """Return that no result held any of the names."""
    return {}


class Target(NamedTuple):
    """One target of a call or one link in its texts: the path of its parameter, and where its name comes from."""

    path: str
    provenance: str


class _Found(NamedTuple):
    """What a parameter names, None when that equals nothing."""

    path: str
    name: Name | None


class Provenances:
    """Finds where names come from, for one bundle. Safe for threads.

    `known` names the attributes of users in the directory that hold what they know.
    """

    def __init__(self, known: Sequence[str], directory: Directory) -> None:
        self._attributes = tuple(known)
        self._directory = directory
        weigh = attrgetter("weight")
        self._naming: LRUCache[_Naming] = LRUCache(_MOST_KEPT, most_bytes=_MOST_NAMING_BYTES, weigh=weigh)
        self._known: LRUCache[_Known] = LRUCache(_MOST_KEPT, most_bytes=_MOST_KNOWN_BYTES, weigh=weigh)

    def with_directory(self, directory: Directory) -> Provenances:
        """Return the same for another directory."""
        return Provenances(self._attributes, directory)

    def of(
        self, chain: Sequence[Session], tool: Tool, arguments: Mapping[str, Any], find: FindNames = found_nowhere
    ) -> tuple[Targets, ...]:
        """Return what each session of a chain sees of a call with some raw JSON arguments.

        `find` is asked once, and only for names that a session neither names nor knows; what it raises is passed on.
        """
        names = _distinct(tuple(_targets(tool, arguments)))
        linked = _distinct(tuple(_links(tool, arguments)))
        words = self._words(chain, (*names, *linked), find)
        return tuple(
            Targets(
                _declared(tool, {_word(one, name) for name in names}),
                _declared_links(tool, {_word(one, name) for name in linked}),
            )
            for one in words
        )

    def each(
        self, chain: Sequence[Session], tool: Tool, arguments: Mapping[str, Any], find: FindNames = found_nowhere
    ) -> tuple[Target, ...]:
        """Return targets and links of a call, as the first session of a chain sees them, at most 256."""
        targets, linked = tuple(_targets(tool, arguments)), tuple(_links(tool, arguments))
        compared = (set(_distinct(targets)), set(_distinct(linked)))
        (words,) = self._words(chain[:1], tuple(compared[0] | compared[1]), find, above=chain[1:])
        found = [
            Target(path, _word(words, name if name in some else None))
            for listed, some in zip((targets, linked), compared, strict=True)
            for path, name in listed
        ]
        return tuple(islice(dict.fromkeys(found), MOST_TARGETS))

    def _words(
        self,
        chain: Sequence[Session],
        names: Sequence[Name | None],
        find: FindNames,
        above: Sequence[Session] = (),
    ) -> list[Mapping[Name, str]]:
        """Return for each session the words of names; those that are left out are unseen."""
        real = tuple(name for name in dict.fromkeys(names) if name is not None)
        own = [self._own_words((*chain[place:], *above), real) for place in range(len(chain))]
        others = tuple(name for name in real if any(name not in words for words in own))
        found = find(others) if others else {}
        return [{**found, **words} for words in own]

    def _own_words(self, chain: Sequence[Session], names: Sequence[Name]) -> Mapping[Name, str]:
        """Return the words of the names that the first session of a chain names, or that its user knows."""
        naming, user = self._naming_of(chain), chain[0].user
        words: dict[Name, str] = {}
        for name in names:
            if naming.names(name):
                words[name] = NAMED
            elif self._attributes and name in self._known_to(user, name.kind).names:
                words[name] = KNOWN
        return words

    def _naming_of(self, chain: Sequence[Session]) -> _Naming:
        approved = next((one for one in chain if _approved_by_a_person(one)), None)
        # INVARIANT: the targets of a session are among those of each above it, so a person has approved them.
        key = ("", NO_TERMS) if approved is None else (approved.purpose, chain[0].terms_json)
        return self._naming.get(key) or self._naming.keep(key, _Naming(*key))

    def _known_to(self, user: str, kind: str) -> _Known:
        key = (user, kind)
        found = self._known.get(key)
        if found is None:
            one = self._directory.entities.get(("User", user))
            attributes = one.json["attrs"] if one else {}
            texts = (text for name in self._attributes for text in known_texts(attributes.get(name, [])) or ())
            found = self._known.keep(key, _Known(texts, kind))
        return found


class _Naming:
    """What the purpose and the terms of a session name."""

    def __init__(self, purpose: str, terms_json: str) -> None:
        self._purpose = Purpose(purpose)
        self._terms: tuple[str, ...] = tuple(read_terms(terms_json).get(TARGETS, ()))
        self._by_kind: dict[str, frozenset[Name | None]] = {}
        self.weight = _ENTRY_BYTES + _BYTES_PER_BYTE * (len(purpose) + len(terms_json))

    def names(self, name: Name) -> bool:
        return name in self._in_terms(name.kind) or self._purpose.names(name)

    def _in_terms(self, kind: str) -> frozenset[Name | None]:
        found = self._by_kind.get(kind)
        if found is None:
            found = self._by_kind[kind] = frozenset(name_of(text, kind) for text in self._terms)
        return found


class _Known:
    """What one user knows, in the canonical form of one kind."""

    def __init__(self, texts: Iterable[str], kind: str) -> None:
        self.names = frozenset(name_of(text, kind) for text in texts)
        self.weight = _ENTRY_BYTES + sum(_NAME_BYTES + len(name.text) for name in self.names if name)


class Outside(NamedTuple):
    """A name outside that a call uses: as `target` of the parameter at a path, or as a `link` in any of its texts."""

    role: str
    path: str
    name: Name


def names_outside(tool: Tool, arguments: Mapping[str, Any]) -> frozenset[Outside] | None:
    """Return what a call with some raw JSON arguments names outside, in targets and links.

    None when it has no target, when one of the names equals nothing, and beyond 256 of them.
    """
    targets = {("target", path.text, one.name) for path in tool.targets or () for one in _targets_at(path, arguments)}
    found = targets | {("link", "", one.name) for one in _links(tool, arguments)}
    names = frozenset(Outside(role, path, name) for role, path, name in found if name is not None)
    return names if targets and len(names) == len(found) <= MOST_TARGETS else None


def read_known(manifest: Section, directory: Directory, problems: list[Problem]) -> tuple[str, ...]:
    """Read `known: [ATTRIBUTE, …]` of a manifest: attributes of users; append problems to `problems`.

    A user of the directory must have each, and it must hold texts or entities.
    """
    said = manifest.get("known", [])
    if not isinstance(said, list) or not all(isinstance(name, str) for name in said):
        problems.append(manifest.problem("`known` must be a list of attributes of users", "known"))
        return ()
    users = [one for uid, one in directory.entities.items() if uid[0] == "User"]
    held = sorted({name for one in users for name in one.json["attrs"]})
    missing = [name for name in said if users and name not in held]
    problems += [manifest.problem(unknown("attribute of users", name, held), "known") for name in missing]
    for one in users:
        for name in said:
            if known_texts(one.json["attrs"].get(name, [])) is None:
                what = f"`{name}` of user `{one.uid[1]}` must hold texts or entities, since `known` names it"
                problems.append(Problem("directory.yaml", one.line, what))
    return tuple(dict.fromkeys(said))


def known_texts(value: object) -> tuple[str, ...] | None:
    """Return the texts of an attribute, of an entity its id; None for an attribute that holds something else."""
    found: list[str] = []
    for one in value if isinstance(value, list) else [value]:
        uid = one.get("__entity", one) if isinstance(one, dict) else one
        text = uid.get("id") if isinstance(uid, dict) and set(uid) == {"type", "id"} else uid
        if not isinstance(text, str):
            return None
        found.append(text)
    return tuple(found)


def _approved_by_a_person(session: Session) -> bool:
    # Of a session that was delegated without an approver, the approval names the session above.
    return not session.parent_id or session.approved_by != session.parent_id


def _targets(tool: Tool, arguments: Mapping[str, Any]) -> Iterator[_Found]:
    for path in tool.targets or ():
        yield from _targets_at(path, arguments)


def _targets_at(path: TargetPath, arguments: Mapping[str, Any]) -> Iterator[_Found]:
    for place, value in path.found(arguments):
        yield _Found(place, name_of_value(value, path.kind))


def _links(tool: Tool, arguments: Mapping[str, Any]) -> Iterator[_Found]:
    for path in tool.text or ():
        for place, value in path.found(arguments):
            for text in _texts(value):
                yield from (_Found(place, name) for name in links(text))


def _texts(value: object) -> Iterator[str]:
    """Yield all texts in a JSON value."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            pending += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            pending += one


def _distinct(found: Sequence[_Found]) -> tuple[Name | None, ...]:
    """Return the names to compare, each once; None stands for those beyond the most."""
    names = dict.fromkeys(one.name for one in found)
    return tuple(names) if len(names) <= MOST_TARGETS else (*islice(names, MOST_TARGETS), None)


def _word(words: Mapping[Name, str], name: Name | None) -> str:
    return UNSEEN if name is None else words.get(name, UNSEEN)


def _declared(tool: Tool, words: set[str]) -> tuple[str, ...]:
    if tool.targets is None:
        return (UNDECLARED,)
    return tuple(sorted(words)) or (NONE,)


def _declared_links(tool: Tool, words: set[str]) -> tuple[str, ...]:
    # Whoever says what a tool's targets are has seen whether it takes texts.
    if tool.targets is None and tool.text is None:
        return (UNDECLARED,)
    return tuple(sorted(words))
