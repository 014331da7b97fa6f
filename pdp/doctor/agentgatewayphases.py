"""Which requests and results agentgateway asks about: the phase that its `methods` give to each method of MCP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pdp.doctor.finding import Finding, problem, warning

# Any method that nobody has thought of.
_UNKNOWN: Final = "unknown/method"
_REQUEST, _RESPONSE = frozenset({"request", "full"}), frozenset({"response", "full"})
_EXACT, _BEGIN, _END, _ALL, _NONE = 4, 3, 2, 1, 0


def phase_of(method: str, methods: Mapping[Any, Any]) -> str:
    """Return the phase of a method: of the pattern that says most about it, `off` where none fits.

    An exact name comes before `tools/*`, that before `*/list`, and that before `*`; of two the longer one counts.
    """
    fitting = [name for name in sorted(map(str, methods)) if _fits(name, method)]
    if not fitting:
        return "off"
    return str(methods[max(fitting, key=lambda name: (_kind(name), len(name)))])


def phases(check: str, methods: Mapping[Any, Any], *, names_requests: bool) -> Iterator[Finding]:
    """Yield what is not asked about. `names_requests` says that the door takes results for seen."""
    for name in sorted(map(str, methods)):
        if _kind(name) == _NONE:
            yield problem(check, f"`{name}` in `methods` fits no method", "write a method, `tools/*`, `*/list` or `*`")
    for method in ("tools/call", "prompts/get", "resources/read"):
        phase, remedy = phase_of(method, methods), f"set `{method}: full`"
        if phase not in _REQUEST:
            yield problem(check, f"`{method}` is not asked about before it runs", remedy)
        elif names_requests and phase != "full":
            yield problem(
                check,
                f"results of `{method}` are not shown, and the door relies on it: what must be redacted is not",
                remedy,
            )
    if phase_of("tools/list", methods) not in _RESPONSE:
        yield problem(check, "lists of tools are not shown, and so not filtered", "set `tools/list: full`")
    for method in ("completion/complete", "resources/subscribe"):
        if phase_of(method, methods) not in _RESPONSE:
            yield problem(
                check,
                f"`{method}` may not be asked about before it runs, and its results are not shown either",
                f'set `{method}: response`, or `"*": full`: the door withholds them',
            )
    if phase_of(_UNKNOWN, methods) not in _REQUEST:
        yield warning(check, "a method that `methods` does not name goes on unasked", 'set `"*": full`')


def _fits(pattern: str, method: str) -> bool:
    kind = _kind(pattern)
    if kind == _BEGIN:
        return method.startswith(pattern[:-1])
    if kind == _END:
        return method.endswith(pattern[1:])
    return kind == _ALL or pattern == method


def _kind(pattern: str) -> int:
    """Return how much a pattern says."""
    if pattern.count("*") > 1 or not pattern:
        return _NONE
    if pattern == "*":
        return _ALL
    if pattern.endswith("*"):
        return _BEGIN
    if pattern.startswith("*"):
        return _END
    return _NONE if "*" in pattern else _EXACT
