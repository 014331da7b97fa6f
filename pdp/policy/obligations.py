"""What policies ask of a gateway: `@obligation` on permits, and what `@advice` on forbids tells the agent.

An `@obligation` holds the inside of a YAML mapping: `redact_result: {fields: ['[].email']}, notice: {text: …}`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pdp.errors import BundleError
from pdp.foundation.nearest import hint, nearest
from pdp.foundation.obligations import KNOWN, parameter_problem
from pdp.foundation.yamltext import Section, load_section
from pdp.limits import MOST_OBLIGATIONS
from pdp.model import Obligation

OBLIGATION, ADVICE = "obligation", "advice"

_PARAMETER_BYTES = 4096
_ADVICE_CHARACTERS = 512
# Reading YAML takes long; this is room for all parameters, names and blanks.
_MOST_CHARACTERS = 2 * MOST_OBLIGATIONS * _PARAMETER_BYTES
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
    if ADVICE not in annotations:
        return ""
    text = annotations[ADVICE] or ""
    if text.strip() and text.isprintable() and len(text) <= _ADVICE_CHARACTERS:
        return text
    raise AnnotationError(f"`@advice` must be one printable line of at most {_ADVICE_CHARACTERS} characters")


def slips(annotations: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
    """Yield each annotation whose name is almost `obligation` or `advice`, with that name."""
    for name in annotations:
        near = nearest(name.lower(), (OBLIGATION, ADVICE), alike=_ALIKE)
        if near and name != near:
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
