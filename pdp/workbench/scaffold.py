"""Create the files of a new bundle for one tool server: starting policies, and tests that they pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pdp.errors import BundleError, Problem
from pdp.foundation.yamltext import flow_text
from pdp.policy.tools.catalogue import Tool, load_catalogue, tool_definitions
from pdp.policy.tools.importing import catalogue_file, propose_overlay
from pdp.workbench.samples import sample_arguments

EXAMPLE_SERVER = "notes"
# A link to `policies/` in a checkout, and a folder in a package.
_EXAMPLE = Path(__file__).parent.parent / "example"

# Where the list of files in the bundle's README says what each is for.
_COLUMN = len("schema.cedarschema    ")

_CALLS = {"read_only": "read", "mutating": "change", "destructive": "destroy"}


# What the rules of the example need from overlays, and a new bundle does not have yet.
_NOT_YET = {
    "untrusted/changes-where-named": "unknown-provenance: no overlay says yet which results to trust",
    "untrusted/critical-asks": "never-matches: no tool is in the group yet",
    "untrusted/confidential-stays": "never-matches: no tool is in the group yet",
}


def example_definitions() -> Sequence[Mapping[str, Any]]:
    """Return the tools of a server that exists only in examples."""
    return tool_definitions(_template("notes.tools.json").encode("utf-8"))


def example_bundle() -> dict[str, bytes]:
    """Return the files of the shipped example bundle: a path to its content."""
    found = (path for path in _EXAMPLE.rglob("*") if path.is_file())
    return {path.relative_to(_EXAMPLE).as_posix(): path.read_bytes() for path in found}


def scaffold(server: str, definitions: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Return the files of a new bundle: a path to its content.

    It has permits, guardrails and tests for each risk group of the server's tools. Raise `BundleError` when a catalogue
    cannot hold the definitions, or the server's name is one of the bundle's own files.
    """
    stem = server.lower()
    if stem in ("guardrails", "sessions", "untrusted"):
        raise BundleError((Problem("", 0, f"`{stem}.cedar` is taken, so rename the server `{server}`"),))
    catalogue = {f"tools/{server}.json": catalogue_file(definitions)}
    load_catalogue(catalogue)  # report problems of the definitions before anything is proposed
    catalogue[f"tools/{server}.yaml"] = propose_overlay(server, definitions).encode("utf-8")
    tools = [tool for _, tool in sorted(load_catalogue(catalogue).tools.items())]
    if not tools:
        raise BundleError((Problem("", 0, f"the server `{server}` has no tools"),))
    risks: set[str] = {tool.risk for tool in tools}
    words = {"server": server, "stem": stem, "file": f"{stem}.cedar".ljust(_COLUMN), "changing": _changing(risks)}
    texts = {
        "README.md": _filled(["README.md"], words),
        "bundle.yaml": _filled(["bundle.yaml"], words),
        "schema.cedarschema": _filled(["schema.cedarschema"], words),
        "directory.yaml": _filled(["directory.yaml"], words),
        "sessions.cedar": _filled(["sessions.cedar"], words),
        "guardrails.cedar": _filled(_guardrails(risks), words),
        f"{stem}.cedar": _filled(_permits(risks), words),
        f"tests/{stem}_test.yaml": _tests(tools, words),
    }
    return {**{name: text.encode("utf-8") for name, text in texts.items()}, **_untrusted(risks), **catalogue}


def _permits(risks: set[str]) -> list[str]:
    read = ["permit_read.cedar"] * ("read_only" in risks)
    return ["permits.cedar", *read, *["permit_change.cedar"] * bool(risks - {"read_only"})]


def _guardrails(risks: set[str]) -> list[str]:
    # A policy about a risk group without tools could never match, and strict validation refuses it.
    destructive = ["guardrail_destructive.cedar"] * ("destructive" in risks)
    return ["guardrails.cedar", *destructive]


def _untrusted(risks: set[str]) -> dict[str, bytes]:
    """Return the rules for sessions that have read what strangers wrote; none for a server that only reads."""
    if not risks - {"read_only"}:
        return {}
    text = (_EXAMPLE / "untrusted.cedar").read_text(encoding="utf-8")
    for rule, why in _NOT_YET.items():
        text = text.replace(f'@id("{rule}")\n', f'@id("{rule}")\n@allow("{why}")\n')
    return {"untrusted.cedar": text.encode("utf-8")}


def _changing(risks: set[str]) -> str:
    groups = [f'Action::"{risk}"' for risk in ("mutating", "destructive") if risk in risks]
    return groups[0] if len(groups) == 1 else f"[{', '.join(groups)}]"


def _tests(tools: Iterable[Tool], words: Mapping[str, str]) -> str:
    """Write the test file: for each risk group, a call of its first tool.

    The tool is the first whose arguments can be generated.
    """
    calls: dict[str, str] = {}
    for tool in tools:
        if tool.risk not in calls and (arguments := sample_arguments(tool)) is not None:
            call = f"{{tool: {flow_text(tool.action)}, arguments: {flow_text(arguments)}}}"
            calls[tool.risk] = f"  {_CALLS[tool.risk]}: {call}"
    groups = [risk for risk in _CALLS if risk in calls]
    parts = ["test.yaml", *["test_states.yaml"] * bool(groups), *(f"test_{risk}.yaml" for risk in groups)]
    listed = "\n" + "\n".join(calls[risk] for risk in groups) if groups else " {}"
    first = _CALLS[groups[0]] if groups else ""
    return _filled(parts, {**words, "calls": listed, "first": first})


def _filled(names: Sequence[str], words: Mapping[str, str]) -> str:
    text = "".join(map(_template, names))
    for name, word in words.items():
        text = text.replace("{{" + name + "}}", word)
    return text


def _template(name: str) -> str:
    return files("pdp.workbench").joinpath("templates", name).read_text(encoding="utf-8")
