"""Find the read of an optional attribute without a `has` before it: the engine only names the attribute."""

from __future__ import annotations

from typing import Any

from pdp.policy.lint.facts import LintPolicy, Tree, nodes, path

_Path = tuple[str, ...]
_Known = frozenset[_Path]
_NOTHING: _Known = frozenset()


def first_unguarded(policy: LintPolicy, where: _Path) -> int:
    """Return the index of the first read of an attribute without a `has` before it, from 0.

    As in the validator, a `has` guards what follows it after `&&`, in later conditions, and in `then`, but not through
    `!` or `||`. Return 0 when there is none, or none by this path.
    """
    walk = _Walk(where)
    known = _NOTHING
    for condition in policy.tree["conditions"]:
        promised = walk.visit(condition["body"], known)
        known |= promised if condition["kind"] == "when" else _NOTHING
    return next((place for place, guarded in enumerate(walk.reads) if not guarded), 0)


def asks_for(policy: LintPolicy, where: _Path) -> bool:
    """Return whether a policy tests for an attribute with `has` anywhere."""
    return any(_asked(node) == where for node in nodes(policy.conditions))


class _Walk:
    """Walks expressions in the order of the text; `reads` says for each read whether it is guarded."""

    def __init__(self, where: _Path) -> None:
        self._where = where
        self.reads: list[bool] = []

    def visit(self, tree: Any, known: _Known) -> _Known:  # noqa: ANN401 - any JSON value
        """Return the attributes that are present when the expression is true."""
        match tree:
            case {"&&": {"left": left, "right": right}}:
                promised = self.visit(left, known)
                return promised | self.visit(right, known | promised)
            case {"||": {"left": left, "right": right}}:
                return self.visit(left, known) & self.visit(right, known)
            case {"if-then-else": {"if": condition, "then": then, "else": otherwise}}:
                promised = self.visit(condition, known)
                return (promised | self.visit(then, known | promised)) & self.visit(otherwise, known)
            case {"has": {"left": left}}:
                self.visit(left, known)
                return frozenset({_asked(tree)})
        return self._others(tree, known)

    def _others(self, tree: Tree, known: _Known) -> _Known:
        if isinstance(tree, dict):
            for inner in tree.values():
                self.visit(inner, known)
            if path(tree) == self._where:
                self.reads.append(self._where in known)
        elif isinstance(tree, list):
            for inner in tree:
                self.visit(inner, known)
        return _NOTHING


def _asked(tree: Tree) -> _Path:
    match tree:
        case {"has": {"left": left, "attr": str(name)}} if path(left):
            return (*path(left), name)
    return ()
