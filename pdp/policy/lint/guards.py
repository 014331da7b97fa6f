"""Find the read of an optional attribute that no `has` stands before: the engine names the attribute alone."""

from __future__ import annotations

from typing import Any

from pdp.policy.lint.facts import LintPolicy, Tree, nodes, path

_Path = tuple[str, ...]
_Known = frozenset[_Path]
_NOTHING: _Known = frozenset()


def first_unguarded(policy: LintPolicy, where: _Path) -> int:
    """Return which of the reads of an attribute is the first without a `has` before it, from 0 in their order.

    As the validator does, what `has` promises holds in what follows it by `&&`, in later conditions, and in `then`;
    `!` and `||` pass nothing on. 0 when there is none, or none that is read by this path.
    """
    walk = _Walk(where)
    known = _NOTHING
    for condition in policy.tree["conditions"]:
        promised = walk.visit(condition["body"], known)
        known |= promised if condition["kind"] == "when" else _NOTHING
    return next((place for place, guarded in enumerate(walk.reads) if not guarded), 0)


def asks_for(policy: LintPolicy, where: _Path) -> bool:
    """Say whether a policy asks for an attribute with `has`, somewhere."""
    return any(_asked(node) == where for node in nodes(policy.conditions))


class _Walk:
    """Walks over expressions in the order of the text; `reads` says of each read whether it is guarded."""

    def __init__(self, where: _Path) -> None:
        self._where = where
        self.reads: list[bool] = []

    def visit(self, tree: Any, known: _Known) -> _Known:  # noqa: ANN401 - any JSON value
        """Return the attributes that are there when the expression is true."""
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
