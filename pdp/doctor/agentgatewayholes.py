"""Name each hole in a configuration of agentgateway through which a request or a result passes unasked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pdp.doctor.agentgatewayphases import phases
from pdp.doctor.finding import Finding, Level, fine, problem, warning
from pdp.doctor.gatewayfile import Node, part, parts, read_configuration
from pdp.doctor.holes import Rule, held, without_tls
from pdp.errors import ConfigurationError
from pdp.foundation.loopback import is_loopback_address

_HANDLE: Final = "x-pdp-session"
_EXCHANGE, _SESSION = "pdp_exchange", "pdp_session"
_NAMING: Final = f'default(mcpGuardrails.{_EXCHANGE}, "")'
# `backendTLS`, as it is read.
_TLS: Final = "backend_t_l_s"
# How long the door itself waits for the PDP, and a little more.
_LEAST_SECONDS: Final = 2.5
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}


def examine_agentgateway(path: Path) -> Iterator[Finding]:
    """Yield the findings about a configuration of agentgateway, from a file."""
    try:
        document = read_configuration(path)
    except ConfigurationError as error:
        yield problem("file", str(error), "name the configuration that agentgateway starts with")
        return
    backends = list(_backends(document, covered=False))
    if not backends:
        yield problem("file", "there are no targets of MCP, so nothing is asked about", "name another file")
    for guardrails in _all(document, "mcp_guardrails"):
        yield from _guardrails(guardrails)
    for backend, covered in backends:
        yield from _targets(parts(backend, "targets"), covered=covered)
    yield from _elsewhere(document)


def _guardrails(guardrails: Any) -> Iterator[Finding]:  # noqa: ANN401 - any YAML value
    processors = parts(guardrails, "processors")
    remote = [one for one in processors if one.get("kind") == "remote"]
    ours = [one for one in remote if {_EXCHANGE, _SESSION} & part(one, "metadata").keys()] or remote[:1]
    if len(ours) != 1:
        yield problem(
            "guardrails", "no processor is the door, or two are", "have one of `kind: remote` with its `host`"
        )
        return
    (door,) = ours
    check = f"processor {door.get('host', '')}".strip()
    metadata = part(door, "metadata")
    found = [
        *(one for one in held(check, door, _RULES, "") if one.level is not Level.OK),
        *phases(check, part(door, "methods"), names_requests=_EXCHANGE in metadata),
        *_handle(check, door),
        *_address(check, door),
    ]
    yield from found or [fine(check, "every request is asked about, and every result is shown")]
    for one in processors[processors.index(door) + 1 :]:
        yield warning(
            check,
            f"a processor of `kind: {one.get('kind', '')}` comes after it, and can change what was asked about",
            "have the door last, unless that processor changes nothing",
        )


def _handle(check: str, door: Node) -> Iterator[Finding]:
    allowed, disallowed = (_names(part(door, "request_headers").get(one)) for one in ("allowed", "disallowed"))
    shown = _HANDLE not in disallowed and (not allowed or _HANDLE in allowed)
    if not shown and _SESSION not in part(door, "metadata"):
        yield problem(
            check,
            "the door does not see the handle of a session: it denies everything",
            f"show it the header `{_HANDLE}` by `requestHeaders`",
        )
    if not allowed and "authorization" not in disallowed:
        yield warning(
            check,
            "the door sees the agent's `authorization`, which it does not need",
            "set `requestHeaders: {disallowed: [authorization, cookie]}`",
        )


def _address(check: str, door: Node) -> Iterator[Finding]:
    if "host" not in door:
        remedy = "see that only this machine, or TLS, is between the gateway and the door"
        yield warning(check, "the address of the door stands elsewhere, and is not looked at", remedy)
        return
    host, port = str(door["host"]), door.get("port")
    address = host if port is None else f"{host}:{port}"
    if (
        not is_loopback_address(address)
        and "backend_tls" not in part(door, "policies")
        and "backendTLS" not in part(door, "policies")
    ):
        yield without_tls(check, address, "give the processor `policies.backendTLS`, with a certificate of its own")


def _seconds(node: Node) -> float | None:
    found = part(node, "policies", "http").get("request_timeout")
    match = _DURATION.fullmatch(str(found))
    return float(match[1]) * _UNITS[match[2]] if match else None


_RULES: Final = (
    Rule(
        lambda door: door.get("failure_mode", "failClosed") != "failClosed",
        Level.PROBLEM,
        "`failureMode` sends every request on while the door is away",
        "set `failureMode: failClosed`",
    ),
    Rule(
        lambda door: _EXCHANGE not in part(door, "metadata"),
        Level.WARNING,
        "the gateway does not name a request again when it asks about its result: calls are denied whose results must "
        "be redacted, bounded or reported, and other results are withheld",
        f"set `metadata: {{{_EXCHANGE}: '{_NAMING}'}}`",
    ),
    Rule(
        lambda door: (
            f"mcpGuardrails.{_EXCHANGE}" not in str(part(door, "metadata").get(_EXCHANGE, f"mcpGuardrails.{_EXCHANGE}"))
        ),
        Level.PROBLEM,
        f"`{_EXCHANGE}` is not what the door has called the request: every result is withheld",
        f"set it to `{_NAMING}`",
    ),
    Rule(
        lambda door: _seconds(door) is None,
        Level.WARNING,
        "no `requestTimeout`: each request waits 10 seconds for a door that hangs",
        "set `policies: {http: {requestTimeout: 3s}}` at the processor",
    ),
    Rule(
        lambda door: (_seconds(door) or _LEAST_SECONDS) < _LEAST_SECONDS,
        Level.WARNING,
        "`requestTimeout` ends before the door answers that the policy decision point is slow",
        "set it to 3s or more",
    ),
)


def _backends(node: Any, *, covered: bool) -> Iterator[tuple[Node, bool]]:  # noqa: ANN401 - any YAML value
    """Yield whatever has targets of MCP, and whether guardrails are there or around it."""
    if isinstance(node, list):
        for one in node:
            yield from _backends(one, covered=covered)
    if isinstance(node, dict):
        covered = covered or "mcp_guardrails" in part(node, "policies")
        for name, value in node.items():
            if name == "mcp" and parts(value, "targets"):
                yield value, covered or "mcp_guardrails" in part(value, "policies")
            else:
                yield from _backends(value, covered=covered)


def _targets(targets: list[Node], *, covered: bool) -> Iterator[Finding]:
    for target in targets:
        check = f"target {target.get('name', '')}".strip()
        found = []
        if not covered:
            found.append(
                problem(check, "no `mcpGuardrails` is there or around it: nothing is asked about", "add the processor")
            )
        removed = _names(part(target, "policies", "request_header_modifier").get("remove"))
        if "stdio" not in target and _HANDLE not in removed:
            found.append(
                warning(
                    check,
                    "the secret handle reaches the server with what is not asked about, such as notifications",
                    f"set `policies: {{requestHeaderModifier: {{remove: [{_HANDLE}]}}}}` at the target",
                )
            )
        if len(targets) > 1 and "_" in str(target.get("name", "")):
            found.append(
                problem(check, "tools of merged targets cannot be told apart by a name with `_`", "rename the target")
            )
        yield from found or [fine(check, "asked about, and sees no handle")]


def _elsewhere(document: Node) -> Iterator[Finding]:
    for name in ("logging", "access_log", "tracing"):
        if any(_HANDLE in str(one).lower() for one in _all(document, name)):
            yield problem(f"`{name}`", "it holds the secret handles of sessions", f"take `{_HANDLE}` out")
    for name, shown, does in (
        ("cache", "cache", "an answer that is kept outlives a revocation"),
        ("request_mirror", "requestMirror", "another server gets calls, too, also those that are denied"),
        ("retry", "retry", "a call that was allowed once can run again unasked"),
    ):
        if any(True for _ in _all(document, name)):
            yield warning(f"`{shown}`", does, "take it out for routes of MCP")


def _all(value: Any, name: str) -> Iterator[Any]:  # noqa: ANN401 - any YAML value
    """Yield every value of this name, wherever it is."""
    if isinstance(value, dict):
        if name in value:
            yield value[name]
        for one in value.values():
            yield from _all(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from _all(one, name)


def _names(value: Any) -> frozenset[str]:  # noqa: ANN401 - any YAML value
    return frozenset(str(one).lower() for one in value) if isinstance(value, list) else frozenset()
