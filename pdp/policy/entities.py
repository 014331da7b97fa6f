"""The entities of sessions as the engine takes them, and the memory of those that were parsed, bounded in bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple, Self

import cedarpy

from pdp.foundation.bounded import Bounded
from pdp.model import Session
from pdp.policy.directory import Uid

# What the entities of sessions may take: by themselves, and with what the calls of an action add.
MOST_SESSION_BYTES, MOST_ACTION_BYTES = 16 * 1024 * 1024, 32 * 1024 * 1024
_MOST_KEPT = 4096

# What the entities of a session take, measured: by themselves, and for each byte of their text, in the engine and here.
_SESSION_BYTES, _BYTES_PER_BYTE = 4096, 16
# What stands beside them for one action, and for each entity the place in a table.
_ACTION_BYTES, _PLACE_BYTES = 2048, 160


class SessionContent(NamedTuple):
    """All that the entities of a session are made of, so that those which were parsed are found by it.

    `speaker` is a further user who asks about the session, such as an approver; empty for none.
    """

    id: str
    user: str
    purpose: str
    tenant: str
    environment: str
    opened_by: str
    depth: int
    labels: tuple[str, ...]
    grants: tuple[str, ...]
    entities_json: str
    attributes_json: str
    speaker: str

    @classmethod
    def of(cls, session: Session, speaker: str) -> Self:
        """Return what policies can see of a session."""
        return cls._make((*_OF_SESSION(session), speaker))


_OF_SESSION = attrgetter(*SessionContent._fields[:-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEntities:
    """The entities of one session, parsed: user, agent, session, grants and all that these reach.

    `weight` is about how many bytes they take.
    """

    handle: cedarpy.Entities
    entities: Mapping[Uid, Mapping[str, Any]]
    weight: int

    @classmethod
    def parsed(cls, entities: Mapping[Uid, Mapping[str, Any]], schema: cedarpy.Schema) -> Self:
        """Parse entities. Raise `ValueError` when they do not fit the schema."""
        text = json.dumps([*entities.values()])
        handle = cedarpy.Entities.from_json_str(text, schema)
        return cls(handle=handle, entities=entities, weight=_SESSION_BYTES + _BYTES_PER_BYTE * len(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceEntities:
    """What all calls of one action in one session share, parsed: the session's entities, and those of the action.

    `entities` holds what was parsed, by uid; `session` what the session knows of it.
    """

    session: SessionEntities
    handle: cedarpy.Entities
    entities: Mapping[Uid, Mapping[str, Any]]

    @property
    def weight(self) -> int:
        """Return about how many bytes this keeps in memory: a session's entities stay with it."""
        return self.session.weight + _ACTION_BYTES + _PLACE_BYTES * len(self.entities)


class EntityMemory:
    """What was parsed for sessions, by the bundle and the content that it is a function of: bundles may share one.

    `of_sessions` holds the entities of sessions, `of_actions` the same with what the calls of one action add.
    """

    def __init__(self) -> None:
        weigh = attrgetter("weight")
        self.of_sessions: Bounded[SessionEntities] = Bounded(_MOST_KEPT, most_bytes=MOST_SESSION_BYTES, weigh=weigh)
        self.of_actions: Bounded[SliceEntities] = Bounded(_MOST_KEPT, most_bytes=MOST_ACTION_BYTES, weigh=weigh)
