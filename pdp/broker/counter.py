"""What people meet of a broker: what they ask it about connections, and where providers send them back to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pdp.broker import connectioncalls, exposurecalls
from pdp.broker.admitting import Record
from pdp.broker.callback import PATH, Callback
from pdp.broker.connectioncalls import ConnectionFace
from pdp.broker.exposurecalls import ExposureFace
from pdp.broker.oauth.connecting import Connecting
from pdp.broker.oauth.people import People
from pdp.broker.oauth.severing import Severing
from pdp.broker.opening import opened_flows
from pdp.broker.persons import persons_of
from pdp.broker.settings import BrokerSettings
from pdp.broker.vault import Vault
from pdp.clock import SystemClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """What people ask, as the handlers of services by their names, and where they come back to."""

    services: Mapping[str, Mapping[str, Any]]
    callback: Callback


@contextmanager
def opened_counter(settings: BrokerSettings, vault: Vault, people: People, record: Record) -> Iterator[Counter | None]:
    """Provide what people meet; None where the settings have no `people`."""
    if settings.people is None:
        yield None
        return
    with opened_flows(settings.data_dir) as flows, persons_of(settings.pdp) as persons:
        back = f"{settings.people.url}{PATH}"
        connecting = Connecting(vault, flows, people, record.event, SystemClock(), back)
        severing = Severing(vault, people.consents, record.event, SystemClock())
        connections = ConnectionFace(
            persons=persons, vault=vault, people=people, connecting=connecting, severing=severing
        )
        exposure = ExposureFace(persons=persons, folder=settings.data_dir)
        services = {connectioncalls.SERVICE: connections.handlers, exposurecalls.SERVICE: exposure.handlers}
        yield Counter(services=services, callback=Callback(connecting, settings.people.console))
