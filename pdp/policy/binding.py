"""Ask the engine one question by the inner function of its binding.

The public `cedarpy.is_authorized` copies the request, reads the text of each answer, makes four objects of it and looks
names up in an enumeration: a sixth of what a question takes. `_internal` is private, so the version is bounded in
`pyproject.toml`, and a test holds every answer against that of the public function.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import cedarpy
from cedarpy import _internal

from pdp.foundation.quickcaches import SmallCache

# How an error begins; the group is the place of the policy in its set.
ERRING_POLICY = re.compile(r"\Aerror while evaluating policy `policy(\d+)`")
NO_ENTITIES = cedarpy.Entities.from_json_str("[]")

# What the engine says of its own work.
_METRICS = ',"metrics":{'
_NUMBERS = re.compile(r'[a-z_":0-9,]*\}\}')
# The answers that are remembered of the policies of one slice, and the longest text of one.
_MOST_KNOWN, _LONGEST_KNOWN = 8, 1024


class Answer(NamedTuple):
    """The engine's answer: what it decided, the places of the policies that say so in their set, and the errors.

    `decided` is False for a request that does not fit the schema. An error quotes values: do not show it.
    """

    decided: bool
    allowed: bool
    decisive: frozenset[int]
    errors: tuple[str, ...]


class Policies:
    """Policies that the engine has parsed, and the last answers about them.

    Few texts say all that a few policies answer, but for how long it took, and reading one takes a tenth of a question.
    """

    __slots__ = ("_known", "_parsed")

    def __init__(self, parsed: cedarpy.PolicySet) -> None:
        self._parsed = parsed
        self._known: SmallCache[str, Answer] = SmallCache(_MOST_KNOWN)

    def ask(self, request: dict[str, Any], entities: cedarpy.Entities, schema: cedarpy.Schema | None = None) -> Answer:
        """Return the engine's answer, as `answer_of` does. Raises what that raises."""
        text = _asked(request, self._parsed, entities, schema)
        said = _without_metrics(text)
        known = self._known.get(said)
        if known is not None:
            return known
        answer = _read(text)
        # Errors quote values, which differ from call to call.
        return self._known.keep(said, answer) if 0 < len(said) <= _LONGEST_KNOWN and not answer.errors else answer


def answer_of(
    request: dict[str, Any],
    policies: cedarpy.PolicySet,
    entities: cedarpy.Entities,
    schema: cedarpy.Schema | None = None,
) -> Answer:
    """Return the engine's answer. `request` holds uids as objects, and the context as a text in Cedar's JSON.

    With `schema` the request must fit it; without, the context is read as it stands, and only values that say so are
    entities or of an extension. Raise `ValueError` for what the engine cannot read.
    """
    return _read(_asked(request, policies, entities, schema))


def _asked(
    request: dict[str, Any], policies: cedarpy.PolicySet, entities: cedarpy.Entities, schema: cedarpy.Schema | None
) -> str:
    text: str = _internal.is_authorized(request, policies, entities._inner, schema, False)  # noqa: SLF001, FBT003
    return text


def _without_metrics(text: str) -> str:
    """Return an answer's text up to its metrics; empty unless these come last and hold nothing but numbers."""
    place = text.rfind(_METRICS)
    return text[:place] if place > 0 and _NUMBERS.fullmatch(text, place + len(_METRICS)) else ""


def _read(text: str) -> Answer:
    found = json.loads(text)
    decision, diagnostics = found["decision"], found["diagnostics"]
    return Answer(
        decided=decision in ("Allow", "Deny"),
        allowed=decision == "Allow",
        decisive=frozenset([int(reason.removeprefix("policy")) for reason in diagnostics.get("reason", ())]),
        errors=tuple(diagnostics["errors"]),
    )
