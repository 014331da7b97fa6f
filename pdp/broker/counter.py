"""What people meet of a broker: what they ask it, and where providers send them back to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pdp.broker import connectioncalls, exposurecalls, secretcalls
from pdp.broker.admitting import Record
from pdp.broker.callback import PATH, Callback
from pdp.broker.checkouts.sweeping import Sweeper
from pdp.broker.connectioncalls import ConnectionFace
from pdp.broker.exposurecalls import ExposureFace
from pdp.broker.oauth.connecting import Connecting
from pdp.broker.oauth.people import People
from pdp.broker.oauth.severing import Severing
from pdp.broker.opening import opened_flows
from pdp.broker.persons import persons_of
from pdp.broker.replacing import Replacing
from pdp.broker.secretcalls import SecretFace
from pdp.broker.settings import BrokerSettings
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.vault import Vault
from pdp.clock import SystemClock


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """What people ask, as the handlers of services by their names, and where they come back to.

    `callback` is None where nobody connects.
    """

    services: Mapping[str, Mapping[str, Any]]
    callback: Callback | None


@contextmanager
def opened_counter(
    settings: BrokerSettings,
    vault: Vault,
    people: People,
    record: Record,
    *,
    checkouts: CheckoutStore,
    sweeper: Sweeper,
) -> Iterator[Counter]:
    """Provide what people meet; they connect nothing where the settings have no `people`."""
    with ExitStack() as opened:
        persons = opened.enter_context(persons_of(settings.pdp))
        severing = Severing(vault, people, checkouts, sweeper, record.event, SystemClock())
        replacing = Replacing(vault=vault, checkouts=checkouts, sweeper=sweeper, severing=severing)
        services = {
            exposurecalls.SERVICE: ExposureFace(persons=persons, folder=settings.data_dir).handlers,
            secretcalls.SERVICE: SecretFace(persons=persons, replacing=replacing).handlers,
        }
        callback = None
        if settings.people is not None:
            flows = opened.enter_context(opened_flows(settings.data_dir))
            back = f"{settings.people.url}{PATH}"
            connecting = Connecting(vault, flows, people, severing, record.event, SystemClock(), back)
            face = ConnectionFace(persons=persons, vault=vault, people=people, connecting=connecting, severing=severing)
            services[connectioncalls.SERVICE] = face.handlers
            callback = Callback(connecting, settings.people.console)
        yield Counter(services=services, callback=callback)
