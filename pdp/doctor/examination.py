"""The list of checks, in the order in which a server needs their subjects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from pdp.doctor.callers import callers
from pdp.doctor.certificate import certificate
from pdp.doctor.credentials import deny_list, token_issuer
from pdp.doctor.diskspace import disk_space
from pdp.doctor.files import data_folder, keys, secrets
from pdp.doctor.finding import Deployment, Finding, Level, problem
from pdp.doctor.listening import address, serves_here
from pdp.doctor.machine import boot_clock, engine, libraries, threads
from pdp.doctor.messagecheck import messages
from pdp.doctor.policies import policies
from pdp.doctor.receivers import receivers
from pdp.doctor.recordcheck import record, record_ends
from pdp.doctor.storecheck import store
from pdp.starting import ADDRESS, unmet

Check = Callable[[Deployment], Iterator[Finding]]

_CHECKS: Final[Mapping[str, Check]] = {
    "libraries": libraries,
    "sqlite": engine,
    "threads": threads,
    "clock": boot_clock,
    "data folder": data_folder,
    "secrets": secrets,
    "callers": callers,
    "deny-list": deny_list,
    "token issuer": token_issuer,
    "keys": keys,
    "tls": certificate,
    "policies": policies,
    "store": store,
    "record": record,
    "disk space": disk_space,
    "record ends": record_ends,
    "messages": messages,
    "telemetry": receivers,
    ADDRESS: address,
}


def _with_needs(name: str, check: Check) -> Check:
    """Return the check with the unmet needs of a start: the two agree on refusals."""

    def check_with_needs(deployment: Deployment) -> Iterator[Finding]:
        found = list(check(deployment))
        lacking = list(unmet(deployment.settings, check=name, port_held=serves_here(deployment)))
        if not lacking:
            yield from found
        elif any(one.level is Level.PROBLEM for one in found):
            settings = ", ".join(one.settings for one in lacking)
            yield from (_with_setting_names(one, settings) for one in found)
        else:
            yield from (one for one in found if one.level is not Level.OK)
            yield from (problem(name, one.problem, one.need.remedy) for one in lacking)

    return check_with_needs


def _with_setting_names(one: Finding, settings: str) -> Finding:
    """Return the finding; a problem names its settings."""
    if one.level is not Level.PROBLEM or settings in one.found + one.remedy:
        return one
    return replace(one, remedy=f"{one.remedy} ({settings})")


CHECKS: Final[Mapping[str, Check]] = {name: _with_needs(name, check) for name, check in _CHECKS.items()}


def examine(deployment: Deployment) -> Iterator[Finding]:
    """Yield the findings of every check: at least one each, if its subject exists.

    Nothing is changed, but each receiver of telemetry gets one empty request, and the URL of keys one fetch.
    """
    for check in CHECKS.values():
        yield from check(deployment)
