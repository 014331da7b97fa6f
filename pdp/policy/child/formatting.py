"""Lay out policy text as Cedar's own formatter does. Runs in a child process like every parse of policy text.

The formatter lays out one policy at a time. This module lays out the text between policies: comments stay where they
are, and there is one empty line between policies. The tree and comments of a policy are compared before and after: a
layout that would change them is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import cedarpy

from pdp.errors import BundleError, Problem, UnsafePolicyError
from pdp.limits import Limits
from pdp.policy.safety import PolicyText, scan

COLUMNS = 120
INDENT = 2

_COMMENT_OR_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|//[^\n\r]*', re.DOTALL)
_READ_ERROR = "this policy cannot be parsed; `pdp check` says why"
_LAYOUT_ERROR = "the layout would change the meaning; put comments above the policy and keep line ends out of strings"


def format_files(job: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out policy files.

    `job` holds `files` (path to text) and `limits` (fields of `Limits`). Return `{"files": {path: text}}` with every
    file, or `{"problems": […]}` with the fields of `Problem`, one for each policy that cannot be laid out.
    """
    limits = Limits(**job["limits"])
    files: dict[str, str] = {}
    problems: list[Problem] = []
    for path, text in job["files"].items():
        try:
            files[path] = format_text(path, text, limits)
        except BundleError as error:
            problems += error.problems
    return {"problems": [problem.as_json() for problem in problems]} if problems else {"files": files}


def format_text(path: str, text: str, limits: Limits) -> str:
    """Lay out the text of one file; raise `BundleError` naming each policy that cannot be read or laid out."""
    lines = re.sub(r"\r\n?", "\n", text)
    try:
        policies = scan(lines, limits)
    except UnsafePolicyError as error:
        raise BundleError((Problem(path, error.line, str(error)),)) from None
    problems: list[Problem] = []
    laid_out = [_policy(path, policy, problems) for policy in policies]
    if problems:
        raise BundleError(tuple(problems))
    result = _joined(laid_out, list(_gaps(lines, policies)))
    # INVARIANT: the result has the same meaning as the text, whatever the formatter does.
    if _meaning(text) != _meaning(result):
        raise BundleError((Problem(path, 0, _LAYOUT_ERROR),))
    return result


def _policy(path: str, policy: PolicyText, problems: list[Problem]) -> str:
    before = _meaning(policy.text)
    if before is None:
        problems.append(Problem(path, policy.line, _READ_ERROR))
        return policy.text
    try:
        after = cedarpy.format_policies(policy.text, COLUMNS, INDENT).strip()
    except ValueError:
        after = ""
    if before != _meaning(after):
        problems.append(Problem(path, policy.line, _LAYOUT_ERROR))
    return after


def _meaning(text: str) -> tuple[Any, list[str]] | None:
    """Return the meaning of policy text, its tree and its comments; None when it is not valid."""
    try:
        tree = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError:
        return None
    found = (match.group() for match in _COMMENT_OR_STRING.finditer(text))
    return tree, [one.rstrip() for one in found if one.startswith("//")]


def _gaps(text: str, policies: tuple[PolicyText, ...]) -> Iterator[str]:
    """Yield the text before, between and after the policies: blanks and comments."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    end = 0
    for policy in policies:
        begin = starts[policy.line - 1] + policy.column - 1
        yield text[end:begin]
        end = begin + len(policy.text)
    yield f"{text[end:]}\n"


def _joined(policies: list[str], gaps: list[str]) -> str:
    """Return the text of a file: an empty line between policies, comments where they were."""
    text = _comments_above(gaps[0])
    for number, policy in enumerate(policies, 1):
        behind, _, below = gaps[number].partition("\n")
        text += policy + f" {behind.strip()}".rstrip() + "\n\n" + _comments_above(below)
    return f"{text.rstrip()}\n" if text.strip() else ""


def _comments_above(gap: str) -> str:
    """Return the lines of a gap without leading empty lines or two empty lines in a row."""
    lines: list[str] = []
    for line in (line.strip() for line in gap.split("\n")[:-1]):
        if line or (lines and lines[-1]):
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)
