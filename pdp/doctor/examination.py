"""The list of checks, in the order in which a server needs what they are about."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from pdp.doctor.certificate import certificate
from pdp.doctor.files import callers, data_folder, keys, secrets
from pdp.doctor.finding import Deployment, Finding
from pdp.doctor.machine import boot_clock, engine, libraries, threads
from pdp.doctor.policies import policies
from pdp.doctor.receivers import receivers
from pdp.doctor.recordcheck import record, record_ends, room
from pdp.doctor.storecheck import store

Check = Callable[[Deployment], Iterator[Finding]]

CHECKS: Final[Mapping[str, Check]] = {
    "libraries": libraries,
    "sqlite": engine,
    "threads": threads,
    "clock": boot_clock,
    "data folder": data_folder,
    "secrets": secrets,
    "callers": callers,
    "keys": keys,
    "tls": certificate,
    "policies": policies,
    "store": store,
    "record": record,
    "room": room,
    "record ends": record_ends,
    "telemetry": receivers,
}


def examine(deployment: Deployment) -> Iterator[Finding]:
    """Yield what every check finds: at least one finding each, unless it has nothing to look at.

    Nothing is changed, but that telemetry's receivers get one empty request each.
    """
    for check in CHECKS.values():
        yield from check(deployment)
