"""Lints about the catalogue: tools that cannot be called, are partly unchecked, have no risk group or look alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from pdp.errors import Problem
from pdp.policy.contents import SCHEMA
from pdp.policy.lint.lookalikes import twins
from pdp.policy.tools.catalogue import Catalogue, Tool

_MOST_NAMED = 3
_LONGEST_PATTERN = 60
_MOST_UNNAMED = 8


def unusable_tools(catalogue: Catalogue) -> Iterator[Problem]:
    """Find tools whose every call is denied."""
    for tool in catalogue.tools.values():
        if tool.unusable:
            message = f"every call of `{tool.action}` is denied: {tool.unusable}"
            yield _problem(tool, message, "ask the operator of the server to correct it, then import the tools again")


def unchecked_patterns(catalogue: Catalogue) -> Iterator[Problem]:
    """Find tools whose schema holds patterns that arguments are not checked against."""
    for tool in catalogue.tools.values():
        patterns = tool.check.unchecked if tool.check else ()
        if patterns:
            named = ", ".join(f"`{one[:_LONGEST_PATTERN]}`" for one in patterns[:_MOST_NAMED])
            more = f" and {len(patterns) - _MOST_NAMED} more" if len(patterns) > _MOST_NAMED else ""
            yield _problem(
                tool,
                f"arguments of `{tool.action}` are not checked against {named}{more}",
                "these patterns cannot be matched in linear time and little memory; use a policy for what matters",
            )


def further_parameters(catalogue: Catalogue) -> Iterator[Problem]:
    """Find tools whose schema accepts undeclared parameters while the overlay does not decide about them."""
    for tool in catalogue.tools.values():
        if tool.input.declares_more and tool.input.open is None:
            yield _problem(
                tool,
                f"the schema of `{tool.action}` takes undeclared parameters; a call with one is denied",
                "say `open: false` in the overlay to keep it so, or `open: true` to let them pass: then policies see "
                'only that `context.opaque.contains("*")`',
            )


def twin_names(catalogue: Catalogue) -> Iterator[Problem]:
    """Find tools of one server, and parameters of one tool, whose names people cannot tell apart."""
    by_server: dict[str, list[Tool]] = {}
    for tool in catalogue.tools.values():
        by_server.setdefault(tool.server, []).append(tool)
        for one, other in twins(parameter.name for parameter in tool.input.parameters):
            message = f"two parameters of `{tool.action}` look alike: `{one!a}` and `{other!a}`"
            yield _problem(tool, message, "ask the operator of the server; a rule about one does not cover the other")
    for tools in by_server.values():
        for one, other in twins(tool.name for tool in tools):
            message = f"two tools look alike: `{one!a}` and `{other!a}`"
            yield _problem(
                tools[0], message, "ask the operator of the server; an approver cannot tell which one is meant"
            )


def unnamed_tools(catalogue: Catalogue) -> Iterator[Problem]:
    """Find tools without a risk group in an overlay: they are destructive, whatever their server says."""
    for server in catalogue.servers:
        names = sorted(tool.name for tool in catalogue.tools.values() if tool.server == server and not tool.named)
        if names:
            shown = ", ".join(f"`{name}`" for name in names[:_MOST_UNNAMED])
            more = f" and {len(names) - _MOST_UNNAMED} more" if len(names) > _MOST_UNNAMED else ""
            file = f"tools/{server}.yaml"
            yield Problem(
                file,
                0,
                f"no risk group is given for {shown}{more}; without one a tool counts as destructive, whatever its "
                "server says",
                help=f"add `tools: {{{names[0]}: {{risk: …}}}}` to `{file}`: `read_only`, `mutating` or `destructive`",
            )


def unsummed(catalogue: Catalogue, terms: Collection[str]) -> Iterator[Problem]:
    """Find a term that limits a sum to which no tool adds anything."""
    if "max_sum" in terms and not any(tool.sums for tool in catalogue.tools.values()):
        yield Problem(
            SCHEMA,
            0,
            "the schema declares the term `max_sum`, and no tool adds to a sum: it limits nothing",
            help="name the parameter that is added up in the overlay of each tool that counts: `sums: amount`",
        )


# By code; `pdp tools import` reports the same before there are policies.
CATALOGUE_LINTS: Mapping[str, Callable[[Catalogue], Iterator[Problem]]] = {
    "unusable-tool": unusable_tools,
    "unchecked-pattern": unchecked_patterns,
    "further-parameters": further_parameters,
    "twin-names": twin_names,
}


def _problem(tool: Tool, message: str, what_to_do: str) -> Problem:
    return Problem(f"tools/{tool.server}.json", 0, message, help=what_to_do)
