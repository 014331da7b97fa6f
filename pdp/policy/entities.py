"""The entities of sessions, parsed by the engine, and the memory that keeps them, bounded in bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple, Self

import cedarpy

from pdp.foundation.lrucache import LRUCache
from pdp.model import Session
from pdp.policy.directory import Uid

# Bounds in bytes: for the entities of sessions, and for those with what the calls of an action add.
MOST_SESSION_BYTES, MOST_ACTION_BYTES = 16 * 1024 * 1024, 32 * 1024 * 1024
_MOST_KEPT = 4096

# Measured bytes for the entities of a session: a fixed part, and for each byte of text, in the engine and in Python.
_SESSION_BYTES, _BYTES_PER_BYTE = 4096, 16
# Measured bytes that one action adds, and for each entity its entry in a table.
_ACTION_BYTES, _PLACE_BYTES = 2048, 160


class SessionContent(NamedTuple):
    """Everything that the entities of a session depend on: the key of the parsed entities.

    `speaker` is another user who asks about the session, for example an approver, and `speaker_groups` are the groups
    that their token puts them in; both are empty for none.
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
    user_attributes_json: str
    terms_json: str
    user_groups: tuple[str, ...]
    speaker: str = ""
    speaker_groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, session: Session, speaker: str = "", speaker_groups: tuple[str, ...] = ()) -> Self:
        """Return the content of a session that policies can see."""
        return cls._make((*_OF_SESSION(session), speaker, speaker_groups))


_OF_SESSION = attrgetter(*SessionContent._fields[:-2])


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEntities:
    """The entities of one session, parsed: user, agent, session, grants and all that these reach.

    `weight` is their approximate size in bytes.
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
    """The parsed entities that all calls of one action in one session share.

    `entities` holds all of them by uid; `session` holds those of the session.
    """

    session: SessionEntities
    handle: cedarpy.Entities
    entities: Mapping[Uid, Mapping[str, Any]]

    @property
    def weight(self) -> int:
        """Return the approximate bytes that this keeps in memory, the session's entities included."""
        return self.session.weight + _ACTION_BYTES + _PLACE_BYTES * len(self.entities)


class EntityMemory:
    """The parsed entities of sessions, by bundle and content. Bundles may share one memory.

    `of_sessions` holds the entities of sessions, `of_actions` the same with what the calls of one action add.
    """

    def __init__(self) -> None:
        weigh = attrgetter("weight")
        self.of_sessions: LRUCache[SessionEntities] = LRUCache(_MOST_KEPT, most_bytes=MOST_SESSION_BYTES, weigh=weigh)
        self.of_actions: LRUCache[SliceEntities] = LRUCache(_MOST_KEPT, most_bytes=MOST_ACTION_BYTES, weigh=weigh)
