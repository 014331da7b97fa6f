"""Make mutants of a module: its source with one small mistake each.

What is changed: comparisons, `and`, `or` and `not`, constants, arithmetic, returned values, statements without a value,
elements of literals, named arguments, slices, `min` and `max`, conditional expressions.
What is not: annotations, decorators, documentation, and whatever stands behind `raise`, which is text for people.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_UNTOUCHED_FIELDS = frozenset({"annotation", "returns", "decorator_list", "bases", "func", "exc", "type_comment"})
_UNTOUCHED = (ast.Import, ast.ImportFrom, ast.Global, ast.Pass, ast.pattern)
# How much of what stays the same is shown around a change.
_AROUND = 30
_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One mistake: in which module and function, on which line, what became what, and the whole source with it.

    `name` stays the same when lines move, and is unique in the module. `function` is the outermost function whose body
    holds the mistake; empty when it is in none. `of_class`: it stands in the body of a class and makes another one.
    """

    module: str
    name: str
    line: int
    function: str
    of_class: bool
    source: str


def mutants_of(module: str, source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module, in the order of its lines."""
    text = source.encode("utf-8")
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    seen: dict[str, int] = {}
    for change in sorted(_Walk().changes(ast.parse(source)), key=lambda one: (one.line, one.column)):
        begin = starts[change.line - 1] + change.column
        end = starts[change.end_line - 1] + change.end_column
        name = f"{change.place}: {_difference(change.before, change.after)}"
        seen[name] = seen.get(name, 0) + 1
        yield Mutant(
            module=module,
            name=name if seen[name] == 1 else f"{name} ({seen[name]})",
            line=change.line,
            function=change.function,
            of_class=change.of_class,
            source=(text[:begin] + change.after.encode("utf-8") + text[end:]).decode("utf-8"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A stretch of the source, and what stands there instead."""

    place: str
    function: str
    of_class: bool
    line: int
    column: int
    end_line: int
    end_column: int
    before: str
    after: str


class _Walk:
    """Goes through a tree and puts every replacement of every node into it, one at a time."""

    def __init__(self) -> None:
        self._place: list[str] = []
        self._function = ""
        self._of_class = False
        # The positions of what stands within a formatted string are not to be relied on, so it is replaced as a whole.
        self._whole: ast.expr | None = None

    def changes(self, node: ast.AST) -> Iterator[_Change]:
        """Yield the changes below a node."""
        outer, outer_class = self._function, self._of_class
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            self._of_class = isinstance(node, ast.ClassDef)
        for name, value in ast.iter_fields(node):
            if isinstance(node, ast.FunctionDef) and not outer:
                # Defaults are evaluated where the function is made.
                self._function = ".".join(self._place) if name == "body" else ""
            if name in _UNTOUCHED_FIELDS and not (name == "func" and isinstance(value, ast.Attribute)):
                continue
            if isinstance(value, list):
                for place, child in enumerate(value):
                    if isinstance(child, ast.AST) and not (name == "body" and place == 0 and _documents(child)):
                        yield from self._at(node, value, place, child, name)
            elif isinstance(value, ast.AST):
                yield from self._at(node, vars(node), name, value, name)
        self._function, self._of_class = outer, outer_class

    def _at(self, parent: ast.AST, holder: Any, key: Any, child: ast.AST, field: str) -> Iterator[_Change]:
        if isinstance(child, (*_UNTOUCHED, ast.Raise)):
            if isinstance(child, ast.Raise):
                yield self._change(child, ast.unparse(child), ast.Pass())
            return
        named = isinstance(child, ast.FunctionDef | ast.ClassDef)
        if named:
            self._place.append(child.name)  # type: ignore[attr-defined]  # both have a name
        outermost = self._whole is None and isinstance(child, ast.JoinedStr)
        if outermost:
            self._whole = child  # type: ignore[assignment]  # just looked at
        for replacement in _replacements(parent, child, field):
            replaced = self._whole or child
            before = ast.unparse(replaced)
            holder[key] = replacement
            yield self._change(replaced, before, replacement if replaced is child else replaced)
            holder[key] = child
        yield from self.changes(child)
        if outermost:
            self._whole = None
        if named:
            self._place.pop()

    def _change(self, replaced: Any, before: str, by: ast.AST) -> _Change:
        text = ast.unparse(ast.fix_missing_locations(by))
        return _Change(
            place=".".join(self._place) or "module",
            function=self._function,
            of_class=self._of_class,
            line=replaced.lineno,
            column=replaced.col_offset,
            end_line=replaced.end_lineno,
            end_column=replaced.end_col_offset,
            before=before,
            after=f"({text})" if isinstance(by, ast.expr) else text,
        )


def _difference(before: str, after: str) -> str:
    """Return what became what, with a little of what stands around it."""
    before, after = " ".join(before.split()), " ".join(after.removeprefix("(").removesuffix(")").split())
    begin = _in_common(before, after)
    end = _in_common(before[begin:][::-1], after[begin:][::-1])
    shown = [
        ("…" if begin > _AROUND else "")
        + text[max(0, begin - _AROUND) : len(text) - max(0, end - _AROUND)]
        + ("…" if end > _AROUND else "")
        for text in (before, after)
    ]
    return f"{shown[0]} => {shown[1]}"


def _in_common(one: str, other: str) -> int:
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _documents(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _replacements(parent: ast.AST, node: ast.AST, field: str) -> Iterator[ast.AST]:
    if isinstance(node, ast.stmt):
        yield from _statements(node)
    elif isinstance(node, ast.expr) and not isinstance(getattr(node, "ctx", None), ast.Store | ast.Del):
        if field == "test" and not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.IfExp):
            yield ast.UnaryOp(op=ast.Not(), operand=node)
        if field == "ifs":
            yield ast.Constant(value=True)
        if isinstance(parent, ast.JoinedStr):
            yield ast.Constant(value="" if isinstance(node, ast.FormattedValue) else "mutant")
        else:
            yield from _expressions(node)


def _expressions(node: ast.expr) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        yield from _comparisons(node)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(op=ast.Or() if isinstance(node.op, ast.And) else ast.And(), values=node.values)
        yield from _without_each(node, "values", 2)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield ast.BinOp(left=node.left, op=_ARITHMETIC[type(node.op)](), right=node.right)
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Constant):
        yield from (ast.Constant(value=other) for other in _other(node.value))
    else:
        yield from _compounds(node)


def _statements(node: ast.stmt) -> Iterator[ast.AST]:
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    if isinstance(node, ast.Expr | ast.AugAssign) or isinstance(target, ast.Attribute | ast.Subscript):
        yield ast.Pass()
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield ast.Return(value=ast.Constant(value=None))
    elif isinstance(node, ast.Continue | ast.Break):
        yield ast.Break() if isinstance(node, ast.Continue) else ast.Continue()


def _comparisons(node: ast.Compare) -> Iterator[ast.AST]:
    for place, operator in enumerate(node.ops):
        for other in _COMPARISONS[type(operator)]:
            operators = [*node.ops[:place], other(), *node.ops[place + 1 :]]
            yield ast.Compare(left=node.left, ops=operators, comparators=node.comparators)


def _compounds(node: ast.expr) -> Iterator[ast.AST]:
    if isinstance(node, ast.Call):
        yield from _without_each(node, "keywords", 1)
        if isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
            function = ast.Name(id=_FUNCTIONS[node.func.id], ctx=ast.Load())
            yield ast.Call(func=function, args=node.args, keywords=node.keywords)
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        yield from _without_each(node, "elts", 1)
    elif isinstance(node, ast.Dict):
        for place in range(len(node.keys)):
            keys, values = list(node.keys), list(node.values)
            del keys[place], values[place]
            yield ast.Dict(keys=keys, values=values)
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        yield node.value


def _without_each(node: ast.expr, field: str, least: int) -> Iterator[ast.AST]:
    parts = getattr(node, field)
    for place in range(len(parts)) if len(parts) >= least else ():
        shorter = copy.copy(node)
        left = [*parts[:place], *parts[place + 1 :]]
        setattr(shorter, field, left)
        yield left[0] if isinstance(node, ast.BoolOp) and len(left) == 1 else shorter


def _other(value: object) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield value + 1
    elif isinstance(value, str):
        yield "" if value else "mutant"
    elif isinstance(value, bytes):
        yield b"" if value else b"mutant"


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
