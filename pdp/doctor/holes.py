"""A hole in the configuration of a gateway: how it shows, and what closes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pdp.doctor.finding import Finding, Level, fine, problem
from pdp.doctor.gatewayfile import Node


class Rule(NamedTuple):
    """One hole: how it shows in a part of the configuration, how bad it is, and what closes it."""

    shows: Callable[[Node], bool]
    level: Level
    found: str
    remedy: str


def on(name: str) -> Callable[[Node], bool]:
    """Return whether a part sets this field to anything but false."""
    return lambda node: node.get(name, False) is not False


def held(check: str, node: Node, rules: Iterable[Rule], well: str) -> Iterator[Finding]:
    """Yield a finding for each hole that shows in a part, or that there is none."""
    found = [
        Finding(check=check, level=rule.level, found=rule.found, remedy=rule.remedy)
        for rule in rules
        if rule.shows(node)
    ]
    yield from found or [fine(check, well)]


def without_tls(check: str, address: object, remedy: str) -> Finding:
    """Return the finding that a door beyond loopback is asked in plain text."""
    return problem(
        check, f"the door at `{address}` is asked without TLS: anyone on the way could allow everything", remedy
    )
