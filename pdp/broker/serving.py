"""Run a broker: what it is made of, where it listens, and its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from pdp.broker.admitting import Admission, Record
from pdp.broker.calls import CallFace
from pdp.broker.calls import serving as serving_calls
from pdp.broker.checkouts.desk import CheckoutDesk
from pdp.broker.checkouts.following import Heard, SessionsFollowed
from pdp.broker.checkouts.holding import Holder
from pdp.broker.checkouts.issuing import Issuer
from pdp.broker.checkouts.making import Maker
from pdp.broker.checkouts.sessiontokens import SessionTokens
from pdp.broker.checkouts.sweeping import OVERDUE_SECONDS, Sweeper
from pdp.broker.counter import Counter
from pdp.broker.oauth.people import People
from pdp.broker.oauth.tokens import AccessTokens
from pdp.broker.proxy import ProxyFace
from pdp.broker.rules import read_rules
from pdp.broker.settings import UNIX, BrokerSettings
from pdp.broker.store.checkouts import CheckoutStore
from pdp.broker.underway import UnderWay
from pdp.broker.using import Broker
from pdp.calltokens.uses import FileUses
from pdp.calltokens.verifying import PublishedKeys, Verifier
from pdp.client import AsyncClient, Client
from pdp.client.calltokens import fetch_keys, live_check, session_end
from pdp.clock import SystemClock
from pdp.errors import StoreUnavailableError
from pdp.foundation.repeating import Repeater
from pdp.observer import DoorObserver
from pdp.serving.certificates import TLSFiles
from pdp.serving.listener import Listener
from pdp.serving.weblistener import Listener as WebListener
from pdp.serving.weblistener import SocketListener, serve

_LOG = logging.getLogger("pdp.broker")

USES_FILE: Final = "uses"
# A live check that takes longer is a refusal.
_CHECK_SECONDS: Final = 2.0
# What is due without anybody's word, such as the end of a login, is ended so late.
_SWEEP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a broker is made of."""

    broker: Broker
    desk: CheckoutDesk
    checkouts: CheckoutStore
    sweeper: Sweeper
    sweeps: Repeater
    heard: Heard
    wall: Callable[[], float]


@contextmanager
def assembled(
    settings: BrokerSettings,
    vault: Holder,
    checkouts: CheckoutStore,
    record: Record,
    *,
    people: People | None = None,
    wall: Callable[[], float] = time.time,
) -> Iterator[Parts]:
    """Provide a broker that asks the server of its settings, and release what it holds.

    `people` opens connections of people.
    """
    with ExitStack() as opened:
        uses = FileUses(settings.data_dir / USES_FILE, wall=wall)
        opened.callback(uses.close)
        pdp = settings.pdp
        client = opened.enter_context(Client(pdp.address, management_timeout=_CHECK_SECONDS, **pdp.options))
        keys, heard, under_way = PublishedKeys(fetch_keys(client)), Heard(), UnderWay(wall)
        verifier = Verifier(
            issuer=settings.issuer,
            audience=settings.audience,
            keys=keys,
            uses=uses,
            live=live_check(client, lambda: heard.revision, under_way.lives_until),
            wall=wall,
        )
        admission = Admission(
            rules=read_rules(settings.rules),
            verifier=verifier,
            keys=keys,
            connections=AccessTokens(vault, record.event, SystemClock(), people),
            record=record,
            wall=wall,
        )
        issuer = Issuer(vault)
        sweeper = Sweeper(checkouts, vault, issuer, observe=record.event, wall=wall)

        def turn() -> None:
            if people is not None:
                people.settle()
            sweeper.turn()

        sweeps = opened.enter_context(Repeater("broker-sweep", turn, every=_SWEEP_SECONDS))
        maker = Maker(
            admission,
            checkouts,
            issuer,
            keeper=vault,
            session_end=session_end(client),
            wake=sweeps.wake,
            bounds=settings.checkouts,
        )
        yield Parts(
            broker=Broker(admission, SessionTokens(admission, maker, checkouts, SystemClock()), under_way),
            desk=CheckoutDesk(admission, maker),
            checkouts=checkouts,
            sweeper=sweeper,
            sweeps=sweeps,
            heard=heard,
            wall=wall,
        )


async def serve_until(
    stopped: asyncio.Event,
    settings: BrokerSettings,
    parts: Parts,
    *,
    observer: DoorObserver | None,
    listening: Callable[[str], object],
    counter: Counter | None = None,
) -> None:
    """Answer at the addresses of the settings until it is stopped. `listening` is told of each address that is open.

    `counter` is what people meet.
    """
    if observer is not None:
        observer.watch_checkouts(partial(_counted, parts))
    pdp = settings.pdp
    async with AsyncClient(pdp.address, **pdp.options) as client:
        followed = SessionsFollowed(
            client,
            parts.checkouts,
            wake=parts.sweeps.wake,
            wall=parts.wall,
            heard=parts.heard,
            under_way=parts.broker.under_way,
            end_unnoted=parts.sweeper.end_unnoted,
        )
        following = asyncio.ensure_future(followed.follow())
        await _serve([asyncio.ensure_future(stopped.wait()), following], settings, parts, observer, listening, counter)


async def _serve(
    running: list[asyncio.Future[Any]],
    settings: BrokerSettings,
    parts: Parts,
    observer: DoorObserver | None,
    listening: Callable[[str], object],
    counter: Counter | None,
) -> None:
    """Answer until one of what is running is over."""
    with ExitStack() as opened:
        if settings.calls:
            face = CallFace(parts.broker, parts.desk, observer=observer)
            services = counter.services if counter else {}
            port = opened.enter_context(serving_calls(face, _listener(settings.calls, settings), services))
            listening(f"calls at {_with_port(settings.calls, port)}")
        if settings.http:
            proxy, listener = ProxyFace(parts.broker, observer=observer), _web_listener(settings.http, settings)
            opened.callback(proxy.close)
            opened.enter_context(listener)
            running.append(asyncio.ensure_future(serve(proxy, listener, close_streams=True)))
            listening(f"requests at {_with_port(settings.http, listener.port)}")
        if counter and counter.callback and settings.people:
            back = opened.enter_context(_open_listener(settings.people.listen, settings))
            running.append(asyncio.ensure_future(serve(counter.callback, back)))
            listening(f"browsers at {_with_port(settings.people.listen, back.port)}")
        done, left = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for task in done:
            task.result()


def _counted(parts: Parts) -> Mapping[str, int]:
    """Return how many credentials are out, by state; nothing while that cannot be told."""
    try:
        counts, looks = parts.checkouts.counts(parts.wall() - OVERDUE_SECONDS), parts.checkouts.looks()
    except StoreUnavailableError:
        return {}
    return {**counts._asdict(), "orphan": sum(one.orphans for one in looks)}


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


def _open_listener(address: str, settings: BrokerSettings) -> WebListener:
    """Return the port of browsers, which have no certificates."""
    tls = settings.tls
    return WebListener(address, certificate=tls.certificate, key=tls.key) if tls else WebListener(address)


def _with_port(address: str, port: int) -> str:
    """Return an address with the port that is open, for one that left it to the system."""
    return address if address.startswith(UNIX) else f"{address.rpartition(':')[0]}:{port}"
