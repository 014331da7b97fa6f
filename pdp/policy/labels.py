"""The labels of a bundle: what each means, and whether it may make a policy more permissive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pdp.errors import Problem
from pdp.foundation.yamltext import Section
from pdp.policy.declared import declarations

# What a declaration can choose, with the defaults.
_CHOICES = {"widens": False, "reported": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One label: a mark on a session that is only ever added.

    When it `widens`, policies may permit more because of it; then only a request can set it, where the approver sees
    it. Otherwise `pdp check` proves that no policy permits more because of it, and gateways may add it at any time. It
    comes with a report of what came of a call only if it can be `reported`.
    """

    meaning: str
    widens: bool = False
    reported: bool = True


def read_labels(manifest: Section, problems: list[Problem]) -> Mapping[str, Label]:
    """Read `labels: {NAME: {meaning: …, widens: false, reported: true}}` of a manifest.

    Append problems to `problems`.
    """
    found = declarations(manifest, "labels", "a label", problems, ("meaning", *_CHOICES))
    return {name: _label(name, said, problems) for name, said in found.items()}


def _label(name: str, said: Section, problems: list[Problem]) -> Label:
    chosen = {choice: said.get(choice, default) for choice, default in _CHOICES.items()}
    problems += [
        said.problem(f"`{name}`: `{choice}` must be true or false", choice)
        for choice, value in chosen.items()
        if not isinstance(value, bool)
    ]
    return Label(meaning=str(said.get("meaning")), **{choice: value is True for choice, value in chosen.items()})
