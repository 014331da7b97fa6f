"""Lints about names: what nobody is called, and names that read like others."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

from pdp.errors import Problem
from pdp.policy.directory import FILE, Uid
from pdp.policy.lint_facts import Finding, LintBundle, LintPolicy, nodes
from pdp.policy.locate import entity_anchor

_WORDS = {"User": "user", "UserGroup": "group", "Agent": "agent", "AgentGroup": "agent group", "Server": "server"}
_NEAR = 0.8
# Scripts whose letters look like those of another one of these.
_ALIKE = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE", "COPTIC", "FULLWIDTH", "MATHEMATICAL"})


def unknown_names(bundle: LintBundle) -> Iterator[tuple[LintPolicy, Finding]]:
    """Find users, agents, groups and servers that nothing is called, and grants that look like another one."""
    named = [(policy, policy.uids) for policy in bundle.policies]
    grants = Counter(name for _, uids in named for kind, name in uids if kind == "Grant")
    for policy, uids in named:
        for kind, name in uids:
            if kind in bundle.known and name not in bundle.known[kind]:
                place = "no catalogue is called so" if kind == "Server" else f"it does not stand in `{FILE}`"
                yield policy, _unknown(policy, (kind, name), place, _nearest(name, bundle.known[kind]))
            elif kind == "Grant" and (near := _commoner(name, grants)):
                yield policy, _unknown(policy, (kind, name), "no other policy speaks of it", near)


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
                        help="type the name anew",
                        at=[anchor],
                    ),
                )


def mixed_scripts_elsewhere(bundle: LintBundle) -> Iterator[Problem]:
    """Find such names in the directory and among the tools."""
    for (kind, name), entity in bundle.directory.entities.items():
        if scripts := _scripts(name):
            message = f"`{kind}::{name}` mixes letters of {scripts}; it may not be the name that it looks like"
            yield Problem(FILE, entity.line, message, help="type the name anew")
    for action, tool in bundle.catalogue.tools.items():
        if scripts := _scripts(tool.name):
            message = f"`{action}` mixes letters of {scripts}; it may not be the tool that it looks like"
            yield Problem(f"tools/{tool.server}.json", 0, message, help="ask who runs the server; do not permit it")


def unknown_references(bundle: LintBundle) -> Iterator[Problem]:
    """Find attributes in the directory that refer to what does not stand there."""
    entities = bundle.directory.entities
    kinds: dict[str, list[str]] = {}
    for kind, name in entities:
        kinds.setdefault(kind, []).append(name)
    for (kind, name), entity in entities.items():
        for uid in sorted(entity.refers_to - entities.keys()):
            if uid[0] == "Server":
                continue
            near = _nearest(uid[1], kinds.get(uid[0], ()))
            yield Problem(
                FILE,
                entity.line,
                f"`{kind}::{name}` refers to `{uid[0]}::{uid[1]}`, which does not stand in `{FILE}`",
                help=(f"did you mean `{near}`? " if near else "")
                + "a policy that reads an attribute of what is unknown cannot be evaluated, and the call is denied",
            )


def _unknown(policy: LintPolicy, uid: Uid, why: str, near: str) -> Finding:
    word = _WORDS.get(uid[0], "grant")
    remedy = "name it as its catalogue is named" if word == "server" else f"add it to `{FILE}`, or mend the name"
    if word == "grant":
        remedy = "an approver gives a grant by exactly this name"
    return Finding(
        message=f"policy `{policy.id}` names the {word} `{uid[1]}`: {why}",
        help=f"did you mean `{near}`?" if near else remedy,
        at=[entity_anchor(*uid)],
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), "")


def _commoner(name: str, grants: Counter[str]) -> str:
    """Return a grant that reads almost like this one and is spoken of more often."""
    others = [one for one in grants if one != name and grants[one] > grants[name] == 1]
    return next(iter(difflib.get_close_matches(name, sorted(others), n=1, cutoff=_NEAR)), "")


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
    """Return the scripts of a name, when letters of one look like those of another; else an empty text."""
    if name.isascii():
        return ""
    found = {unicodedata.name(letter, "").partition(" ")[0] for letter in name if letter.isalpha()}
    alike = sorted(found & _ALIKE)
    return " and ".join(script.capitalize() for script in alike) if len(alike) > 1 else ""
