"""What policies ask of others: `@obligation` of a gateway, `@step_up` of a person, and `@advice` tells the agent.

An `@obligation` holds the inside of a YAML mapping: `redact_result: {fields: ['[].email']}, notice: {text: …}`. It is
on permits, all others are on forbids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pdp.errors import BundleError
from pdp.foundation.nearest import hint, nearest
from pdp.foundation.obligations import KNOWN, parameter_problem
from pdp.foundation.yamltext import Section, load_section
from pdp.limits import MOST_OBLIGATIONS
from pdp.model import Obligation

OBLIGATION, ADVICE, STEP_UP, STEP_UP_RUN = "obligation", "advice", "step_up", "step_up_run"

_PARAMETER_BYTES = 4096
_LINE_CHARACTERS = 512
# Calls that one answer of a person can cover.
_RUN = re.compile(r"[1-9][0-9]?\Z")
_LEAST_RUN, _MOST_RUN = 2, 20
# Reading YAML takes long; this is room for all parameters, names and blanks.
_MOST_CHARACTERS = 2 * MOST_OBLIGATIONS * _PARAMETER_BYTES
_NAMES = (OBLIGATION, ADVICE, STEP_UP, STEP_UP_RUN)
# A key that is as near to one of ours is a slip: Cedar takes any annotation, so nothing else would tell.
_ALIKE = 0.75


class AnnotationError(ValueError):
    """An annotation that a bundle must not load with: show its author the message."""


def read_obligations(annotations: Mapping[str, str | None], declared: Mapping[str, str]) -> tuple[Obligation, ...]:
    """Return the obligations of a policy, sorted. `declared` are those that the bundle declares.

    Raise `AnnotationError`.
    """
    text = annotations.get(OBLIGATION, "")
    if OBLIGATION not in annotations:
        return ()
    said = _mapping(text or "")
    if not said:
        raise AnnotationError("`@obligation` names no obligation")
    if len(said) > MOST_OBLIGATIONS:
        raise AnnotationError(f"`@obligation` names more than {MOST_OBLIGATIONS} obligations")
    return tuple(sorted(_obligation(name, parameters, declared) for name, parameters in said.items()))


def read_advice(annotations: Mapping[str, str | None]) -> str:
    """Return the advice of a policy; empty without one. Raise `AnnotationError`."""
    return _line(annotations, ADVICE)


def read_step_up(annotations: Mapping[str, str | None]) -> str:
    """Return what a policy asks a person; empty when no person can lift it. Raise `AnnotationError`."""
    return _line(annotations, STEP_UP)


def read_step_up_run(annotations: Mapping[str, str | None]) -> int:
    """Return how many calls one answer of a person can cover, 0 when it covers only one. Raise `AnnotationError`."""
    if STEP_UP_RUN not in annotations:
        return 0
    text = annotations[STEP_UP_RUN] or ""
    if not _RUN.match(text) or not _LEAST_RUN <= int(text) <= _MOST_RUN:
        raise AnnotationError(f"`@step_up_run` must be a number of calls from {_LEAST_RUN} to {_MOST_RUN}")
    if STEP_UP not in annotations:
        raise AnnotationError("`@step_up_run` needs `@step_up` beside it")
    return int(text)


def _line(annotations: Mapping[str, str | None], name: str) -> str:
    if name not in annotations:
        return ""
    text = annotations[name] or ""
    if text.strip() and text.isprintable() and len(text) <= _LINE_CHARACTERS:
        return text
    raise AnnotationError(f"`@{name}` must be one printable line of at most {_LINE_CHARACTERS} characters")


def slips(annotations: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
    """Yield each annotation whose name is almost one of ours, with that name."""
    for name in annotations:
        near = nearest(name.lower(), _NAMES, alike=_ALIKE)
        if near and name not in _NAMES:
            yield name, near


def _mapping(text: str) -> Section:
    if len(text) > _MOST_CHARACTERS:
        raise AnnotationError(f"`@obligation` is longer than {_MOST_CHARACTERS} characters")
    try:
        # The bracket is on a line of its own, so that no comment hides it.
        return load_section("", f"{{{text}\n}}".encode())
    except (BundleError, UnicodeEncodeError) as error:
        why = error.problems[0].message if isinstance(error, BundleError) else "not UTF-8"
        raise AnnotationError(f"`@obligation` must read `NAME: {{…}}, NAME: {{…}}`: {why}") from None


def _obligation(name: str, parameters: object, declared: Mapping[str, str]) -> Obligation:
    if name not in KNOWN and name not in declared:
        raise AnnotationError(f"unknown obligation: `{name}`{hint(name, [*KNOWN, *declared]) or _declare(name)}")
    found = {} if parameters is None else parameters
    if not isinstance(found, dict):
        raise AnnotationError(f"`{name}`: its parameters must be a mapping")
    problem = parameter_problem(name, found) if name in KNOWN else ""
    if problem:
        raise AnnotationError(f"`{name}`: {problem}")
    return Obligation(name, _json(name, found))


def _declare(name: str) -> str:
    return f"; if the gateway knows it, declare it in `bundle.yaml`: `obligations: {{{name}: {{meaning: …}}}}`"


def parameters_json(parameters: Mapping[str, Any]) -> str:
    """Write parameters in the one form that obligations have. Raise `ValueError` for what is no JSON."""
    return json.dumps(parameters, separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False)


def _json(name: str, parameters: Mapping[str, Any]) -> str:
    try:
        text = parameters_json(parameters)
        size = len(text.encode("utf-8"))
    except ValueError:
        raise AnnotationError(f"`{name}`: its parameters must be JSON values; numbers must be finite") from None
    if size > _PARAMETER_BYTES:
        raise AnnotationError(f"`{name}`: its parameters are larger than {_PARAMETER_BYTES} bytes")
    return text
