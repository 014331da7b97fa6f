"""Lints about patterns that let calls pass: other texts that match them too."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pdp.policy.lint.facts import Finding, LintBundle, LintPolicy, Tree, lenient, path, pattern_text, strict

_INPUT = ("context", "input")
_PATHS = re.compile(r"(?i)path|file|dir|folder|source|destination")
# What distinguishes a host, an address or a path from other texts.
_STRUCTURE = re.compile(r"[./@:]")
_WILDCARD = "*"


def path_prefix(bundle: LintBundle) -> Iterator[tuple[LintPolicy, Finding]]:
    """Find paths that pass only by their prefix: `/srv/app/../../etc/passwd` also has the right one."""
    guards: dict[tuple[str, ...], list[frozenset[str]]] = {}
    for policy in bundle.policies:
        for where in _guarded(policy):
            guards.setdefault(where, []).append(policy.actions)
    for policy in bundle.policies:
        for where, found in _prefixes(policy):
            if not any(policy.actions <= actions for actions in guards.get(where, ())):
                yield policy, found


def _prefixes(policy: LintPolicy) -> Iterator[tuple[tuple[str, ...], Finding]]:
    for where, pattern in _patterns(policy):
        shown = ".".join(where)
        below = "/*" in pattern and not pattern.startswith(_WILDCARD) and "://" not in pattern
        named = pattern.startswith(("/", "~", ".")) or _PATHS.search(where[-1])
        if below and named and not any(_is_about_dots(tree, where) for tree in strict(policy)):
            found = Finding(
                message=f"{policy.effect} `{policy.id}` lets `{shown}` pass by its prefix, and `{_climbing(pattern)}` "
                "has the same prefix",
                help=f'refuse `..` as well: `{shown} like "{pattern}" && !({shown} like "*..*")`',
                at=[where],
            )
            yield where, found


def open_pattern(policy: LintPolicy, _: LintBundle) -> Iterator[Finding]:
    """Find a host, address or path whose pattern stops in the middle of a name."""
    for where, pattern in _patterns(policy):
        if (example := _another(pattern)) and _STRUCTURE.search(pattern):
            yield Finding(
                message=f"{policy.effect} `{policy.id}` lets `{'.'.join(where)}` pass when it matches `{pattern}`, and "
                f"`{example}` matches too",
                help='begin and end the pattern where a name begins and ends: `"https://www.example.com/*"`, '
                '`"*@example.com"`, `"/srv/app/*"`',
                at=[where],
            )


def _climbing(pattern: str) -> str:
    """Return a path that matches the pattern but leads elsewhere."""
    return pattern.replace(_WILDCARD, "../../etc/passwd", 1).replace(_WILDCARD, "x")


def _patterns(policy: LintPolicy) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the arguments that pass by matching a pattern, each with the pattern."""
    for tree in lenient(policy):
        match tree:
            case {"like": {"left": subject, "pattern": pattern}} if path(subject)[:2] == _INPUT:
                yield path(subject), pattern_text(pattern)


def _another(pattern: str) -> str:
    """Return a text that matches the pattern against its apparent intent; empty when the pattern is closed."""
    scheme, separator, rest = pattern.partition("://")
    if separator and _WILDCARD in rest.partition("/")[0][:-1]:
        # `*` also matches `/`, so the host may end before it.
        return f"{scheme}://{rest.replace(_WILDCARD, 'evil.example/', 1)}".replace(_WILDCARD, "x")
    if len(pattern) > 1 and pattern.endswith(_WILDCARD) and pattern[-2].isalnum():
        return f"{pattern[:-1]}.evil.example".replace(_WILDCARD, "x")
    if len(pattern) > 1 and pattern.startswith(_WILDCARD) and pattern[1].isalnum():
        return f"evil-{pattern[1:]}".replace(_WILDCARD, "x")
    return ""


def _guarded(policy: LintPolicy) -> Iterator[tuple[str, ...]]:
    """Yield the arguments in which a forbid refuses `..` in every call."""
    if policy.effect == "forbid" and policy.scope_length == 0:
        asked = [tree for tree in policy.conditions if "has" not in tree]
        match asked:
            case [{"like": {"left": subject}} as tree] if _is_about_dots(tree, path(subject)):
                yield path(subject)


def _is_about_dots(tree: Tree, where: tuple[str, ...]) -> bool:
    match tree:
        case {"like": {"left": subject, "pattern": pattern}}:
            return path(subject) == where and pattern_text(pattern) == "*..*"
    return False
