"""Lints about names: unknown names, and names that look like others."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise

from pdp.errors import Problem
from pdp.foundation.nearest import nearest
from pdp.policy.contents import MANIFEST
from pdp.policy.directory import FILE, Uid
from pdp.policy.lint.facts import Finding, LintBundle, LintPolicy, Tree, nodes, path
from pdp.policy.lint.labels import labels_named
from pdp.policy.locate import entity_anchor
from pdp.policy.provenance import CLEAN, ISSUED, KNOWN, NAMED, NONE, TAINTED, UNDECLARED, UNSEEN
from pdp.policy.tools.parameters import FURTHER, ListingType, RecordType, cedar_string

_WORDS = {"User": "user", "UserGroup": "group", "Agent": "agent", "AgentGroup": "agent group", "Server": "server"}
_RESULTS = (ISSUED, CLEAN, TAINTED)
# The words that each attribute can hold.
_TARGETS: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("context", "targets", "provenance"): (NAMED, KNOWN, *_RESULTS, UNSEEN, NONE, UNDECLARED),
    ("context", "targets", "links"): (NAMED, KNOWN, *_RESULTS, UNSEEN, UNDECLARED),
}
# What an overlay says for a name to become this, and of which tools.
_OVERLAY: Mapping[str, tuple[str, str]] = {
    CLEAN: ("results: trusted", "whose results strangers do not write; all others are not trusted"),
    ISSUED: ("issues: [PATH]", "whose results issue ids"),
}
_NEAR = 0.8
# Shorter names that differ in one letter are intended.
_SHORTEST = 6
# All spellings that are one error away take the square of the length.
_LONGEST = 256
# Scripts with letters that look alike.
_ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "FULLWIDTH", "MATHEMATICAL"})


def unknown_names(bundle: LintBundle) -> Iterator[tuple[LintPolicy, Finding]]:
    """Find unknown users, agents, groups and servers, and grants that look like another one."""
    named = [(policy, policy.uids) for policy in bundle.policies]
    grants = _Grants(name for _, uids in named for kind, name in uids if kind == "Grant")
    for policy, uids in named:
        for kind, name in uids:
            if kind in bundle.known and name not in bundle.known[kind]:
                place = "no catalogue has this name" if kind == "Server" else f"it is not in `{FILE}`"
                yield policy, _unknown(policy, (kind, name), place, nearest(name, bundle.known[kind]))
            elif kind == "Grant" and (near := grants.meant(name)):
                yield policy, _unknown(policy, (kind, name), f"it looks like a misspelling of `{near}`", near)


def unknown_labels(policy: LintPolicy, bundle: LintBundle) -> Iterator[Finding]:
    """Find labels that `bundle.yaml` does not declare, so that no session can have them."""
    labels = bundle.contents.labels
    for name in sorted(set(labels_named(policy)) - labels.keys()):
        near = nearest(name, labels)
        yield Finding(
            message=f"policy `{policy.id}` names the label `{name}`: `{MANIFEST}` does not declare it, so no session "
            "has it",
            help=f"did you mean `{near}`?"
            if near
            else f"declare it in `{MANIFEST}`: `labels: {{{name}: {{meaning: …}}}}`",
            at=[cedar_string(name)],
        )


def unknown_opaque(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find a test for an opaque parameter that no tool of the policy has: it is false in every call."""
    hidden = {label for one in policy.environments if one.tool for label in _hidden(one.tool.input)}
    for node in nodes(policy.conditions):
        match node:
            case {"contains": {"left": left, "right": {"Value": str(name)}}} if path(left) == ("context", "opaque"):
                if name not in hidden:
                    near = nearest(name, hidden)
                    yield Finding(
                        message=f"policy `{policy.id}` tests whether `{name}` is opaque: no tool that the policy can "
                        "match has such an opaque parameter, so the test is always false",
                        help=f"did you mean `{near}`?"
                        if near
                        else f"test for the argument itself: `context.input has {name}`",
                        at=[cedar_string(name)],
                    )


def unknown_provenances(policy: LintPolicy, bundle: LintBundle) -> Iterator[Finding]:
    """Find words that are compared with `context.targets` and never are in it, or not with these overlays."""
    tools = bundle.catalogue.tools.values()
    brought = {CLEAN: any(one.trusted for one in tools), ISSUED: any(one.issues for one in tools)}
    for node in nodes(policy.conditions):
        match node:
            case {"contains": sides} | {"containsAll": sides} | {"containsAny": sides}:
                attributes = {path(sides["left"]), path(sides["right"])} & _TARGETS.keys()
                words = _constants(sides["left"]) + _constants(sides["right"])
                for attribute in attributes:
                    yield from (_never(policy, attribute, word) for word in words if word not in _TARGETS[attribute])
                    yield from (_brought_by_none(policy, word) for word in words if not brought.get(word, True))


def _never(policy: LintPolicy, attribute: tuple[str, ...], word: str) -> Finding:
    name, near = ".".join(attribute), nearest(word, _TARGETS[attribute])
    return Finding(
        message=f"policy `{policy.id}` compares `{name}` with `{word}`, which it never holds",
        help=f"did you mean `{near}`?" if near else f"it holds some of {_listed(_TARGETS[attribute])}",
        at=[cedar_string(word)],
    )


def _brought_by_none(policy: LintPolicy, word: str) -> Finding:
    key, what = _OVERLAY[word]
    return Finding(
        message=f"policy `{policy.id}` asks for `{word}`, and no name ever is: no overlay of a tool says `{key}`",
        help=f"say it of each tool {what}",
        at=[cedar_string(word)],
    )


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _constants(tree: Tree) -> list[str]:
    members = tree.get("Set", [tree]) if isinstance(tree, dict) else []
    found = [one.get("Value") for one in members if isinstance(one, dict)]
    return [value for value in found if isinstance(value, str)]


def mixed_scripts(bundle: LintBundle) -> Iterator[tuple[LintPolicy, Finding]]:
    """Find names in policies whose letters come from scripts that look alike."""
    for policy in bundle.policies:
        for name, anchor in _names(policy):
            if scripts := _scripts(name):
                yield (
                    policy,
                    Finding(
                        message=f"policy `{policy.id}`: `{name}` mixes letters of {scripts}; it may not be the name "
                        "that it looks like",
                        help="retype the name",
                        at=[anchor],
                    ),
                )


def mixed_scripts_elsewhere(bundle: LintBundle) -> Iterator[Problem]:
    """Find names in the directory and the catalogue whose letters come from scripts that look alike."""
    for (kind, name), entity in bundle.directory.entities.items():
        if scripts := _scripts(name):
            message = f"`{kind}::{name}` mixes letters of {scripts}; it may not be the name that it looks like"
            yield Problem(FILE, entity.line, message, help="retype the name")
    for action, tool in bundle.catalogue.tools.items():
        if scripts := _scripts(tool.name):
            message = f"`{action}` mixes letters of {scripts}; it may not be the tool that it looks like"
            yield Problem(
                f"tools/{tool.server}.json", 0, message, help="ask the operator of the server; do not permit it"
            )


def unknown_references(bundle: LintBundle) -> Iterator[Problem]:
    """Find attributes in the directory that refer to unknown entities."""
    entities = bundle.directory.entities
    kinds: dict[str, list[str]] = {}
    for kind, name in entities:
        kinds.setdefault(kind, []).append(name)
    for (kind, name), entity in entities.items():
        for uid in sorted(entity.refers_to - entities.keys()):
            if uid[0] == "Server":
                continue
            near = nearest(uid[1], kinds.get(uid[0], ()))
            yield Problem(
                FILE,
                entity.line,
                f"`{kind}::{name}` refers to `{uid[0]}::{uid[1]}`, which is not in `{FILE}`",
                help=(f"did you mean `{near}`? " if near else "")
                + "a policy that reads an attribute of an unknown entity cannot be evaluated, and the call is denied",
            )


def _unknown(policy: LintPolicy, uid: Uid, why: str, near: str) -> Finding:
    word = _WORDS.get(uid[0], "grant")
    remedy = "use the name of its catalogue" if word == "server" else f"add it to `{FILE}`, or correct the name"
    if word == "grant":
        remedy = "an approver must give the grant by exactly this name"
    return Finding(
        message=f"policy `{policy.id}` names the {word} `{uid[1]}`: {why}",
        help=f"did you mean `{near}`?" if near else remedy,
        at=[entity_anchor(*uid)],
    )


class _Grants:
    """The grants that policies name. Each look-up takes as long as the name: a bundle can name thousands."""

    def __init__(self, names: Iterable[str]) -> None:
        self._counts = Counter(names)
        self._common = [name for name, count in self._counts.items() if count > 1]
        self._by_shorter: dict[str, list[str]] = defaultdict(list)
        for name in self._counts:
            for shorter in _one_letter_less(name):
                self._by_shorter[shorter].append(name)

    def meant(self, name: str) -> str:
        """Return the grant of which this one looks like a misspelling; empty when there is none."""
        return self._commoner(name) or self._slip(name)

    def _commoner(self, name: str) -> str:
        """Return a grant with almost the same name that is used more often."""
        return nearest(name, self._common, alike=_NEAR) if self._counts[name] == 1 else ""

    def _slip(self, name: str) -> str:
        """Return another grant that differs by one typing error: the longer one, or the earlier by name.

        An error is a letter left out or typed twice, or two letters swapped; a different letter or digit may be
        intended.
        """
        if len(name) < _SHORTEST:
            return ""
        alike = {*self._by_shorter.get(name, ()), *_one_letter_less(name), *_two_letters_swapped(name)}
        others = (one for one in alike if one in self._counts and self._rank(one) > self._rank(name))
        return min(others, default="")

    def _rank(self, name: str) -> tuple[int, int, str]:
        return self._counts[name], len(name), name


def _one_letter_less(name: str) -> set[str]:
    if len(name) > _LONGEST:
        return set()
    return {name[:at] + name[at + 1 :] for at, letter in enumerate(name) if letter.isalpha()}


def _two_letters_swapped(name: str) -> set[str]:
    if len(name) > _LONGEST:
        return set()
    pairs = enumerate(pairwise(name))
    return {name[:at] + second + first + name[at + 2 :] for at, (first, second) in pairs if first != second}


def _hidden(record: RecordType) -> Iterator[str]:
    """Yield the labels that `context.opaque` can hold: what Cedar cannot express, and what can be null."""
    if record.open:
        yield FURTHER
    for one in record.parameters:
        if one.opaque or one.nullable:
            yield one.label
        if isinstance(one.type, ListingType):
            yield from one.type.labels()
        if isinstance(one.type, RecordType):
            yield from _hidden(one.type)


def _names(policy: LintPolicy) -> Iterator[tuple[str, str]]:
    seen = set()
    for kind, name in policy.uids:
        seen.add(name)
        yield name, entity_anchor(kind, name)
    for node in nodes(policy.conditions):
        inner = node.get(".") or node.get("has")
        attribute = inner.get("attr") if isinstance(inner, dict) else None
        if isinstance(attribute, str) and attribute not in seen:
            seen.add(attribute)
            yield attribute, attribute


def _scripts(name: str) -> str:
    """Return the scripts of a name if letters of one look like those of another; otherwise an empty text."""
    if name.isascii():
        return ""
    found = {unicodedata.name(letter, "").partition(" ")[0] for letter in name if letter.isalpha()}
    alike = sorted(found & _ALIKE)
    return " and ".join(script.capitalize() for script in alike) if len(alike) > 1 else ""
