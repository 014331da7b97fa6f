"""Examine a receiver of signals: is everything that it needs present, sound and private? Nothing is revoked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Final

from pdp.client import Client
from pdp.clock import SystemClock
from pdp.errors import PDPError
from pdp.foundation.findings import Finding, findings_of
from pdp.foundation.loopback import host_and_port, is_loopback
from pdp.foundation.ownership import is_exposed, require_own
from pdp.messages.receivers import read_receivers
from pdp.model import Role
from pdp.record.keys import PUBLIC_KEY_FILE, PublicKeys
from pdp.record.reader import read_records
from pdp.record.verify import verify
from pdp.sessions.outbox import Topic
from pdp.signals.serving import RECORD_FOLDER, STORE_FILE, source_of
from pdp.signals.settings import DANGER, Sender, SignalSettings, read_settings
from pdp.signals.store import SignalStore
from pdp.signals.words import State

_ASKING_SECONDS: Final = 5.0
_MOST: Final = 10_000


def examine(file: Path) -> Iterator[Finding]:
    """Yield what is found about the receiver of a file of settings, each check for itself."""
    try:
        settings = read_settings(file)
    except (PDPError, OSError) as error:
        yield from (Finding(check="settings", level="problem", found=line) for line in str(error).splitlines())
        return
    yield Finding(check="settings", level="ok", found=f"`{file}` is valid")
    for name, check in (
        ("listen", _listen),
        ("record", _record),
        ("server", _server),
        ("broker", _broker),
        ("receivers", _receivers),
    ):
        yield from findings_of(name, partial(check, settings))
    for one in settings.senders.values():
        yield from findings_of(one.name, partial(_sender, one, settings))
        if one.preview:
            yield Finding(check=one.name, level="warning", found="`preview` is on: its signals revoke nothing")
        elif one.authorization_file is None:
            found = "without `authorization_file` anyone who finds the address can use up its rate"
            yield Finding(check=one.name, level="warning", found=found)
    yield from _signals(settings)


def _listen(settings: SignalSettings) -> Iterator[str]:
    found = host_and_port(settings.listen)
    if found is None:
        raise PDPError(f"`{settings.listen}` is not an address such as `127.0.0.1:8447`")
    if settings.key is not None and settings.certificate is not None:
        settings.certificate.read_bytes()
        if is_exposed(settings.key.stat()):
            raise PDPError(f"others can read `{settings.key}`: make it readable by its owner alone")
        yield f"`{settings.listen}` has its key and certificate"
    elif is_loopback(found[0]):
        yield f"`{settings.listen}` is on this machine alone: what stands before it has TLS"
    else:
        raise PDPError(f"others can reach `{settings.listen}`: it needs `tls`")


def _record(settings: SignalSettings) -> Iterator[str]:
    folder = settings.data_dir
    require_own(folder, DANGER)
    if not (folder / RECORD_FOLDER).exists():
        yield "there is no record yet: the receiver has not run"
        return
    report = verify(folder / RECORD_FOLDER, PublicKeys.load([folder / PUBLIC_KEY_FILE]))
    if report.findings:
        raise PDPError(f"it is not intact: {report.findings[0]}; see `pdp audit verify`")
    yield f"{report.records} records are intact"


def _server(settings: SignalSettings) -> Iterator[str]:
    pdp = settings.pdp
    with Client(pdp.address, management_timeout=_ASKING_SECONDS, **pdp.options) as client:
        caller = client.get_caller()
    if list(caller.roles) != [Role.REVOKER.value]:
        raise PDPError(f"`{caller.caller_id}` must have the role `revoker` and no other: see `pdp caller add`")
    tenants = {tenant for one in settings.senders.values() for tenant in one.tenants}
    if foreign := sorted(tenants - {*caller.tenants}):
        raise PDPError(f"`{caller.caller_id}` does not act for the tenant `{foreign[0]}`, which the settings name")
    yield f"`{pdp.address}` knows it as `{caller.caller_id}`, a revoker of {', '.join(sorted(caller.tenants))}"


def _broker(settings: SignalSettings) -> Iterator[str]:
    if settings.broker_record is not None:
        next(iter(read_records(settings.broker_record)), None)
        yield f"the record in `{settings.broker_record}` can be read"


def _receivers(settings: SignalSettings) -> Iterator[str]:
    if settings.receivers_file is not None:
        told = [one.name for one in read_receivers(settings.receivers_file) if Topic.SIGNAL_HELD in one.events]
        yield f"of held signals are told: {', '.join(told) or 'none'}"


def _sender(sender: Sender, settings: SignalSettings) -> Iterator[str]:
    keys = source_of(sender, settings, SystemClock(), time.monotonic).reader.keys
    with closing(keys):
        keys.load()
        yield f"{len(keys.current())} keys can be read"


def _signals(settings: SignalSettings) -> Iterator[Finding]:
    path = settings.data_dir / STORE_FILE
    if not path.exists():
        return
    try:
        with closing(SignalStore(path)) as store:
            open_ = {state: len(store.signals(state, limit=_MOST)) for state in (State.WAITING, State.HELD)}
    except PDPError as error:
        yield Finding(check="signals", level="problem", found=str(error))
        return
    if open_[State.HELD]:
        found = f"{open_[State.HELD]} signals wait for a person: see `pdp signals list --held`"
        yield Finding(check="signals", level="warning", found=found)
    if open_[State.WAITING]:
        found = f"{open_[State.WAITING]} signals are not carried out yet"
        yield Finding(check="signals", level="warning", found=found)
