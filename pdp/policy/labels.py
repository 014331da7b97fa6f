"""The labels of a bundle: what each means, and whether it may make a policy more permissive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pdp.errors import Problem
from pdp.foundation.yamltext import Section
from pdp.policy.declared import declarations


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One label: a mark on a session that is only ever added.

    When it `widens`, policies may permit more because of it; then only a request can set it, where the approver sees
    it. Otherwise `pdp check` proves that no policy permits more because of it, and gateways may add it at any time.
    """

    meaning: str
    widens: bool = False


def read_labels(manifest: Section, problems: list[Problem]) -> Mapping[str, Label]:
    """Read `labels: {NAME: {meaning: …, widens: false}}` of a manifest; append problems to `problems`."""
    found = declarations(manifest, "labels", "a label", problems, ("meaning", "widens"))
    return {name: _label(name, said, problems) for name, said in found.items()}


def _label(name: str, said: Section, problems: list[Problem]) -> Label:
    widens = said.get("widens", False)
    if not isinstance(widens, bool):
        problems.append(said.problem(f"`{name}`: `widens` must be true or false", "widens"))
    return Label(meaning=str(said.get("meaning")), widens=widens is True)
