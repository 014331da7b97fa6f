"""Write a policy's tree, in Cedar's JSON, as Cedar text with as few brackets as possible.

The engine's own writer puts every operand in brackets, so a chain of a hundred terms becomes a hundred brackets deep:
deeper than the engine can read. Callers parse the text again and compare the trees.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pdp.policy.tools.parameters import cedar_string

Tree = Any

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_RESERVED = frozenset({"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"})
_CONSTRUCTORS = frozenset({"ip", "decimal", "datetime", "duration"})

# How tightly an operator binds its operands; chains of equal ones associate to the left.
_OR, _AND, _RELATION, _SUM, _PRODUCT, _UNARY, _PRIMARY = range(1, 8)
_CHAINS = {"||": _OR, "&&": _AND, "+": _SUM, "-": _SUM, "*": _PRODUCT}
_RELATIONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})
_METHODS = frozenset({"contains", "containsAll", "containsAny", "hasTag", "getTag"})


def policy_text(policy: Tree) -> str:
    """Write one policy, annotations first."""
    notes = "".join(f"@{name}({cedar_string(value or '')})\n" for name, value in policy.get("annotations", {}).items())
    scope = ", ".join(scope_text(name, policy[name]) for name in ("principal", "action", "resource"))
    conditions = "".join(f"\n{one['kind']} {{ {expression_text(one['body'])} }}" for one in policy["conditions"])
    return f"{notes}{policy['effect']} ({scope}){conditions};"


def scope_text(name: str, scope: Tree) -> str:
    """Write one of the three constraints of a policy's scope."""
    match scope["op"]:
        case "All":
            return name
        case "is":
            within = f" in {uid_text(scope['in']['entity'])}" if "in" in scope else ""
            return f"{name} is {scope['entity_type']}{within}"
        case operator if "entity" in scope:
            return f"{name} {operator} {uid_text(scope['entity'])}"
        case operator:
            return f"{name} {operator} [{', '.join(map(uid_text, scope['entities']))}]"


def expression_text(node: Tree) -> str:
    """Write an expression."""
    return _write(node)[0]


def _write(node: Tree) -> tuple[str, int]:
    """Return the text of an expression and how tightly its operator binds."""
    ((kind, inside),) = node.items()
    if kind in _CHAINS:
        level = _CHAINS[kind]
        return f"{_operand(inside['left'], level)} {kind} {_operand(inside['right'], level + 1)}", level
    if kind in _RELATIONS:
        return f"{_operand(inside['left'], _SUM)} {kind} {_operand(inside['right'], _SUM)}", _RELATION
    if kind in _METHODS:
        return f"{_operand(inside['left'], _PRIMARY)}.{kind}({expression_text(inside['right'])})", _PRIMARY
    writer = _WRITERS.get(kind)
    return writer(inside) if writer else _call(kind, inside)


def _operand(node: Tree, least: int) -> str:
    text, level = _write(node)
    return text if level >= least else f"({text})"


def _value(inside: Tree) -> tuple[str, int]:
    if isinstance(inside, bool):
        return str(inside).lower(), _PRIMARY
    if isinstance(inside, int):
        return str(inside), _PRIMARY if inside >= 0 else _UNARY
    if isinstance(inside, str):
        return cedar_string(inside), _PRIMARY
    return uid_text(inside), _PRIMARY


def _not(inside: Tree) -> tuple[str, int]:
    return f"!{_operand(inside['arg'], _PRIMARY)}", _UNARY


def _minus(inside: Tree) -> tuple[str, int]:
    # In brackets even for a number: `-5` is a literal, not a negation.
    return f"-({expression_text(inside['arg'])})", _UNARY


def _attribute(inside: Tree) -> tuple[str, int]:
    name = inside["attr"]
    access = f".{name}" if _is_plain(name) else f"[{cedar_string(name)}]"
    return _operand(inside["left"], _PRIMARY) + access, _PRIMARY


def _has(inside: Tree) -> tuple[str, int]:
    name = inside["attr"]
    return f"{_operand(inside['left'], _SUM)} has {name if _is_plain(name) else cedar_string(name)}", _RELATION


def _like(inside: Tree) -> tuple[str, int]:
    parts = (
        "*" if one == "Wildcard" else cedar_string(one["Literal"])[1:-1].replace("*", "\\*")
        for one in inside["pattern"]
    )
    return f'{_operand(inside["left"], _SUM)} like "{"".join(parts)}"', _RELATION


def _is(inside: Tree) -> tuple[str, int]:
    within = f" in {_operand(inside['in'], _SUM)}" if "in" in inside else ""
    return f"{_operand(inside['left'], _SUM)} is {inside['entity_type']}{within}", _RELATION


def _if(inside: Tree) -> tuple[str, int]:
    test, then, other = (expression_text(inside[part]) for part in ("if", "then", "else"))
    return f"if {test} then {then} else {other}", 0


def _set(inside: Tree) -> tuple[str, int]:
    return f"[{', '.join(map(expression_text, inside))}]", _PRIMARY


def _record(inside: Tree) -> tuple[str, int]:
    fields = (f"{cedar_string(name)}: {expression_text(value)}" for name, value in inside.items())
    return f"{{{', '.join(fields)}}}", _PRIMARY


def _is_empty(inside: Tree) -> tuple[str, int]:
    return f"{_operand(inside['arg'], _PRIMARY)}.isEmpty()", _PRIMARY


def _call(kind: str, inside: Tree) -> tuple[str, int]:
    """Write an extension call: a constructor, or a method of its first argument."""
    if kind in _CONSTRUCTORS:
        return f"{kind}({', '.join(map(expression_text, inside))})", _PRIMARY
    first, *others = inside
    return f"{_operand(first, _PRIMARY)}.{kind}({', '.join(map(expression_text, others))})", _PRIMARY


def uid_text(uid: Tree) -> str:
    """Write the uid of an entity."""
    bare = uid.get("__entity", uid)
    return f"{bare['type']}::{cedar_string(bare['id'])}"


def _is_plain(name: str) -> bool:
    return bool(_PLAIN.match(name)) and name not in _RESERVED


_WRITERS: Mapping[str, Callable[[Tree], tuple[str, int]]] = {
    "Value": _value,
    "Var": lambda inside: (inside, _PRIMARY),
    "!": _not,
    "neg": _minus,
    ".": _attribute,
    "has": _has,
    "like": _like,
    "is": _is,
    "if-then-else": _if,
    "Set": _set,
    "Record": _record,
    "isEmpty": _is_empty,
}
