"""A bundle of any size in which the call that is measured always meets the same policies."""

from __future__ import annotations

from collections.abc import Iterable

from pdp.testing.bundles import bundle_files, tool

# So many of the policies, where there are as many, are about the tool that is called: `t0` of the server `s0`.
OWN = 10
_SERVERS = 10


def growth_files(policies: int, tools: int) -> dict[str, bytes]:
    """Return a bundle: a permit and nine forbids about the tool that is called, and the rest about the others, evenly.

    The forbids read an argument, and match nothing. Without other tools, all policies are about the one.
    """
    listed: dict[str, list[dict[str, object]]] = {}
    for number in range(tools):
        server = _server(number)
        listed.setdefault(server, []).append(tool(f"t{number}", {"path": {"type": "string"}}, ["path"]))
    texts = dict.fromkeys(listed, "")
    for number, about in enumerate(_abouts(policies, tools)):
        texts[_server(about)] += _policy(about, number)
    ceiling = ", ".join(f'"{server}/*"' for server in listed)
    return bundle_files(
        policies={server: text for server, text in texts.items() if text},
        tools=listed,
        overlays=dict.fromkeys(listed, "risk: read_only\n"),
        directory=f"users: {{alice: {{}}}}\nagents: {{worker: {{ceiling: [{ceiling}]}}}}",
    )


def _abouts(policies: int, tools: int) -> Iterable[int]:
    """Yield for each policy the number of the tool that it is about."""
    for number in range(policies):
        yield 0 if number < OWN or tools == 1 else 1 + (number - OWN) % (tools - 1)


def _server(tool_number: int) -> str:
    return f"s{tool_number % _SERVERS}"


def _policy(tool_number: int, number: int) -> str:
    server = _server(tool_number)
    scope = f'principal, action == Action::"{server}/t{tool_number}", resource'
    head = f'@id("{server}/p{number}")'
    if number == 0:
        return f"{head} permit ({scope});\n"
    return f'{head} forbid ({scope}) when {{ context.input.path like "/never{number}*" }};\n'
