"""The labels of a bundle: what each means, and whether it may make a policy more permissive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pdp.errors import Problem
from pdp.foundation.yamltext import Section

_LABEL_CHARACTERS = 128
_MEANING_CHARACTERS = 512


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
    declared = manifest.get("labels", Section(manifest.file, manifest.line))
    if not isinstance(declared, Section):
        problems.append(manifest.problem("`labels` must be a mapping of names, each with its `meaning`", "labels"))
        return {}
    found: dict[str, Label] = {}
    for name, said in declared.items():
        if not name.isprintable() or " " in name or not 0 < len(name) <= _LABEL_CHARACTERS:
            problems.append(
                declared.problem("a label must be printable, without blanks, and at most 128 characters long", name)
            )
        elif not isinstance(said, Section):
            problems.append(declared.problem(f"`{name}` must be a mapping with its `meaning`", name))
        else:
            found[name] = _label(name, said, problems)
    return found


def _label(name: str, said: Section, problems: list[Problem]) -> Label:
    problems += said.unknown_keys(("meaning", "widens"))
    meaning, widens = said.get("meaning"), said.get("widens", False)
    if not isinstance(meaning, str) or not meaning.isprintable() or not 0 < len(meaning) <= _MEANING_CHARACTERS:
        problems.append(said.problem(f"`{name}`: `meaning` must say in one line what the label means", "meaning"))
    if not isinstance(widens, bool):
        problems.append(said.problem(f"`{name}`: `widens` must be true or false", "widens"))
    return Label(meaning=str(meaning), widens=widens is True)
