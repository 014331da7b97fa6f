"""Hears of changes at one replica after the other, maybe before they are acknowledged, and lets all clients know."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from threading import Event
from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration

from pdp.model import Role
from pdp.v1 import session_pb2
from tests.sessions.postgres.campaign.clients import Population
from tests.sessions.postgres.campaign.questions import Heard
from tests.sessions.postgres.campaign.replicas import Replica
from tests.sessions.postgres.campaign.wire import Stubs

# How long it listens to one replica, and how long it rests when that does not answer.
_SECONDS: Final = 3.0
_REST_SECONDS: Final = 0.1
_REQUEST: Final = session_pb2.WatchSessionsRequest(heartbeat=Duration(seconds=1))


class Ears:
    """Listens until `stopping`."""

    def __init__(self, replicas: Sequence[Replica], population: Population, stopping: Event) -> None:
        self._replicas = replicas
        self._population = population
        self._stopping = stopping

    def run(self) -> None:
        """Listen."""
        for replica in cycle(self._replicas):
            if self._stopping.wait(_REST_SECONDS):
                return
            stubs = Stubs.of(replica)
            try:
                self._listen(replica, stubs)
            except grpc.RpcError:
                # Its time is over, or it does not answer: to the next one.
                continue
            finally:
                stubs.channel.close()

    def _listen(self, replica: Replica, stubs: Stubs) -> None:
        metadata = replica.authorization(Role.PEP)
        for message in stubs.sessions.WatchSessions(_REQUEST, metadata=metadata, timeout=_SECONDS):
            for change in message.changes:
                self._population.hear(change.session_id, Heard(epoch=change.epoch, revision=message.revision))
