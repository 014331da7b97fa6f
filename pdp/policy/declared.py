"""Read what a manifest declares by name, each with its meaning: labels, groups of actions, obligations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pdp.errors import Problem
from pdp.foundation.obligations import KNOWN
from pdp.foundation.yamltext import Section
from pdp.policy.tools.overlay import RISKS

_NAME_CHARACTERS = 128
_MEANING_CHARACTERS = 512
# The server name of the PDP's own actions.
_RESERVED_GROUP = "pdp"


def declarations(
    manifest: Section, key: str, what: str, problems: list[Problem], fields: Iterable[str] = ("meaning",)
) -> Mapping[str, Section]:
    """Read `KEY: {NAME: {meaning: …}}` of a manifest; append problems to `problems`.

    `what` is the word for one declaration, with its article; `fields` are the keys that one may have.
    """
    declared = manifest.get(key, Section(manifest.file, manifest.line))
    if not isinstance(declared, Section):
        problems.append(manifest.problem(f"`{key}` must be a mapping of names, each with its `meaning`", key))
        return {}
    found: dict[str, Section] = {}
    for name, said in declared.items():
        if not name.isprintable() or " " in name or not 0 < len(name) <= _NAME_CHARACTERS:
            message = f"{what} must be printable, without blanks, and at most {_NAME_CHARACTERS} characters long"
            problems.append(declared.problem(message, name))
        elif not isinstance(said, Section):
            problems.append(declared.problem(f"`{name}` must be a mapping with its `meaning`", name))
        else:
            problems += said.unknown_keys(fields)
            problems += _meaning_problems(name, what.rpartition(" ")[2], said)
            found[name] = said
    return found


def read_groups(manifest: Section, problems: list[Problem]) -> Mapping[str, str]:
    """Read `groups: {NAME: {meaning: …}}`, the further groups of actions, as meanings by name.

    Policies name a group as an action, so it must not have the name of an action or of a risk group.
    """
    found = declarations(manifest, "groups", "a group", problems)
    for name in found:
        declared: Section = manifest["groups"]
        if name in RISKS:
            problems.append(declared.problem(f"`{name}` is a risk group; choose another name", name))
        elif name == _RESERVED_GROUP:
            problems.append(declared.problem(f"the name `{name}` is reserved", name))
        elif "/" in name:
            problems.append(
                declared.problem(f"`{name}`: the name of a group must not hold `/`, as a tool's does", name)
            )
    return {name: str(said.get("meaning")) for name, said in found.items()}


def read_obligations(manifest: Section, problems: list[Problem]) -> Mapping[str, str]:
    """Read `obligations: {NAME: {meaning: …}}`, which gateways know and the product does not, as meanings by name."""
    found = declarations(manifest, "obligations", "an obligation", problems)
    for name in found:
        if name in KNOWN:
            declared: Section = manifest["obligations"]
            problems.append(declared.problem(f"`{name}` is known already; choose another name", name))
    return {name: str(said.get("meaning")) for name, said in found.items()}


def _meaning_problems(name: str, what: str, said: Section) -> list[Problem]:
    meaning = said.get("meaning")
    if isinstance(meaning, str) and meaning.isprintable() and 0 < len(meaning) <= _MEANING_CHARACTERS:
        return []
    return [said.problem(f"`{name}`: `meaning` must say in one line what the {what} means", "meaning")]
