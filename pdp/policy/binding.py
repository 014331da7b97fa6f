"""Ask the engine one question by the inner function of its binding.

The public `cedarpy.is_authorized` copies the request, makes four objects of an answer and looks names up in an
enumeration: an eighth of what a question takes. `_internal` is private, so the version is bounded in `pyproject.toml`,
and a test holds every answer against that of the public function.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import cedarpy
from cedarpy import _internal

# How an error begins; the group is the place of the policy in its set.
ERRING_POLICY = re.compile(r"\Aerror while evaluating policy `policy(\d+)`")
NO_ENTITIES = cedarpy.Entities.from_json_str("[]")


class Answer(NamedTuple):
    """The engine's answer: what it decided, the places of the policies that say so in their set, and the errors.

    `decided` is False for a request that does not fit the schema. An error quotes values: do not show it.
    """

    decided: bool
    allowed: bool
    decisive: frozenset[int]
    errors: tuple[str, ...]


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
    (text,) = _internal.is_authorized_batch([request], policies, entities._inner, schema, False)  # noqa: SLF001, FBT003
    found = json.loads(text)
    decision, diagnostics = found["decision"], found["diagnostics"]
    return Answer(
        decided=decision in ("Allow", "Deny"),
        allowed=decision == "Allow",
        decisive=frozenset([int(reason.removeprefix("policy")) for reason in diagnostics.get("reason", ())]),
        errors=tuple(diagnostics["errors"]),
    )
