"""Run a broker: what it is made of, where it listens, and its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from pdp.broker.calls import CallFace
from pdp.broker.calls import serving as serving_calls
from pdp.broker.oauth.people import People
from pdp.broker.oauth.tokens import AccessTokens
from pdp.broker.proxy import ProxyFace
from pdp.broker.rules import read_rules
from pdp.broker.settings import UNIX, BrokerSettings
from pdp.broker.using import Broker, Connections, Record
from pdp.calltokens.uses import FileUses
from pdp.calltokens.verifying import PublishedKeys, Verifier
from pdp.client import Client
from pdp.client.calltokens import fetch_keys, live_check
from pdp.clock import SystemClock
from pdp.observer import DoorObserver
from pdp.serving.certificates import TLSFiles
from pdp.serving.listener import Listener
from pdp.serving.weblistener import Listener as WebListener
from pdp.serving.weblistener import SocketListener, serve

_LOG = logging.getLogger("pdp.broker")

USES_FILE: Final = "uses"
# A live check that takes longer is a refusal.
_CHECK_SECONDS: Final = 2.0


@contextmanager
def assembled(
    settings: BrokerSettings,
    connections: Connections,
    record: Record,
    *,
    people: People | None = None,
    wall: Callable[[], float] = time.time,
) -> Iterator[Broker]:
    """Provide a broker that asks the server of its settings, and release what it holds.

    `people` opens connections of people.
    """
    with ExitStack() as opened:
        uses = FileUses(settings.data_dir / USES_FILE, wall=wall)
        opened.callback(uses.close)
        pdp = settings.pdp
        client = opened.enter_context(Client(pdp.address, management_timeout=_CHECK_SECONDS, **pdp.options))
        keys = PublishedKeys(fetch_keys(client))
        verifier = Verifier(
            issuer=settings.issuer,
            audience=settings.audience,
            keys=keys,
            uses=uses,
            live=live_check(client),
            wall=wall,
        )
        rules = read_rules(settings.rules)
        tokens = AccessTokens(connections, record.event, SystemClock(), people)
        yield Broker(rules=rules, verifier=verifier, keys=keys, connections=tokens, record=record, wall=wall)


async def serve_until(
    stopped: asyncio.Event,
    settings: BrokerSettings,
    broker: Broker,
    *,
    observer: DoorObserver | None,
    listening: Callable[[str], object],
) -> None:
    """Answer at the addresses of the settings until it is stopped. `listening` is told of each address that is open."""
    with ExitStack() as opened:
        running: list[asyncio.Future[Any]] = [asyncio.ensure_future(stopped.wait())]
        if settings.calls:
            face = CallFace(broker, observer=observer)
            port = opened.enter_context(serving_calls(face, _listener(settings.calls, settings)))
            listening(f"calls at {_with_port(settings.calls, port)}")
        if settings.http:
            proxy, listener = ProxyFace(broker, observer=observer), _web_listener(settings.http, settings)
            opened.callback(proxy.close)
            opened.enter_context(listener)
            running.append(asyncio.ensure_future(serve(proxy, listener, close_streams=True)))
            listening(f"requests at {_with_port(settings.http, listener.port)}")
        done, left = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for task in done:
            task.result()


def _listener(address: str, settings: BrokerSettings) -> Listener:
    tls = settings.tls
    files = None if tls is None else TLSFiles(key=tls.key, certificate=tls.certificate, client_roots=tls.client_roots)
    return Listener(address=address, tls=None if address.startswith(UNIX) else files)


def _web_listener(address: str, settings: BrokerSettings) -> WebListener | SocketListener:
    tls = settings.tls
    # The settings name no port without its certificate.
    if tls is None or address.startswith(UNIX):
        return SocketListener(Path(address.removeprefix(UNIX)))
    return WebListener(address, certificate=tls.certificate, key=tls.key, client_roots=tls.client_roots)


def _with_port(address: str, port: int) -> str:
    """Return an address with the port that is open, for one that left it to the system."""
    return address if address.startswith(UNIX) else f"{address.rpartition(':')[0]}:{port}"
