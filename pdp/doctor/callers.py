"""Check who may call: the file of callers, its tokens, what it says of doors, and approvers as users."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pdp.doctor.files import token_files
from pdp.doctor.finding import Deployment, Finding, fine, problem, warning
from pdp.errors import ConfigurationError
from pdp.identity.callers import Callers, KnownCallers
from pdp.identity.callersfile import digest_in
from pdp.model import AT_EACH_CALL, Role
from pdp.policy.bundle import Bundle
from pdp.policy.policysource import PolicySource
from pdp.policy.schema import APPROVE_CALL, APPROVE_SESSION

_CHECK: Final = "callers"
_SOON_SECONDS: Final = 14 * 86400.0
# A condition that names the principal.
_ABOUT_APPROVER = re.compile(r"\b(when|unless)\b.*\bprincipal\b", re.DOTALL)


def callers(deployment: Deployment) -> Iterator[Finding]:
    """Check the file of callers, and that each token in its folder has a caller."""
    settings = deployment.settings
    file = settings.callers_file
    if not settings.callers.file and not Path(settings.data_dir).is_dir():
        return
    if not settings.callers.file and not file.exists():
        yield warning(_CHECK, f"`{file}` does not exist", "`pdp init` or the next `pdp serve` creates new callers")
        return
    try:
        known = KnownCallers(file, development=settings.only_this_machine).current
    except ConfigurationError as error:
        yield problem(_CHECK, str(error), "fix the file: without it the server does not start")
        return
    found = [*_stray(deployment, known), *_unprovable(deployment, known), *_ending(known, deployment)]
    yield from found or [fine(_CHECK, f"`{file}` can be used")]


def approvers(deployment: Deployment, bundle: Bundle) -> Iterator[Finding]:
    """List approvers that no policy can identify as users.

    A rule against approving one's own session compares ids. A caller that is known by a group has no fixed id, and
    development callers are no real users.
    """
    comparing = [policy.id for policy in bundle.policies.values() if _compares_approver_and_user(policy)]
    try:
        known = KnownCallers(deployment.settings.callers_file, development=True).current
    except ConfigurationError:
        return  # the check of callers reports it
    people = [*(one.caller for one in known.by_token.values()), *known.by_jwt_subject.values()]
    ids = {one.id for one in people if Role.APPROVER in one.roles and one.authenticated_at != AT_EACH_CALL}
    unknown = sorted(one for one in ids if ("User", one) not in bundle.directory.entities)
    if comparing and unknown:
        names = ", ".join(f"`{one}`" for one in unknown)
        found = f"no user of the directory has the id of these approvers: {names}; `{comparing[0]}` compares the two"
        remedy = (
            "give caller and user the same id: otherwise the rule never applies, and they may approve for themselves"
        )
        yield warning("policies", found, remedy)


def unseeing(callers_file: Path, caller_id: str) -> Finding:
    """Return whether the entry of a door that sees no results says so."""
    try:
        known = KnownCallers(callers_file, development=True).current
    except ConfigurationError as error:
        remedy = "run this where the server's callers are; anywhere else, `pdp whoami` with the door's token shows it"
        return warning(_CHECK, f"the entry of the door is not looked at: {error}", remedy)
    entries = (
        *(one.caller for one in known.by_token.values()),
        *known.by_spiffe_id.values(),
        *known.by_jwt_subject.values(),
        *known.by_jwt_group.values(),
    )
    entry = next((one for one in entries if one.id == caller_id), None)
    if entry is None:
        return warning(_CHECK, f"there is no caller `{caller_id}`", "name the caller as which the door asks: --caller")
    if entry.sees_results:
        found = f"the entry of `{caller_id}` does not say that the door sees no results"
        remedy = "set `sees_results: false`: else calls that must be reported are charged before they are denied"
        return warning(_CHECK, found, remedy)
    return fine(_CHECK, f"the entry of `{caller_id}` says that the door sees no results")


def _compares_approver_and_user(policy: PolicySource) -> bool:
    about_approval = policy.actions is None or not {APPROVE_SESSION, APPROVE_CALL}.isdisjoint(policy.actions)
    reads_user = policy.reads is None or "context.user" in policy.reads
    return about_approval and reads_user and _ABOUT_APPROVER.search(policy.text) is not None


def _stray(deployment: Deployment, known: Callers) -> Iterator[Finding]:
    for path in token_files(deployment):
        if bytes.fromhex(digest_in(path)) not in known.by_token:
            yield warning(_CHECK, f"`{path}` holds no token of a caller", "remove it, or give its digest to a caller")


def _unprovable(deployment: Deployment, known: Callers) -> Iterator[Finding]:
    settings = deployment.settings
    for able, names, what, setting in (
        (settings.server.tls_client_roots, known.by_spiffe_id, "a SPIFFE id", "server.tls_client_roots"),
        (settings.jwt.issuer, known.by_jwt_subject, "a subject", "jwt.issuer"),
        (settings.jwt.groups_claim, known.by_jwt_group, "a group", "jwt.groups_claim"),
    ):
        if names and not able:
            some = f"callers with {what}, such as `{next(iter(names.values())).id}`, cannot call"
            yield warning(_CHECK, some, f"set `{setting}`")


def _ending(known: Callers, deployment: Deployment) -> Iterator[Finding]:
    ends: dict[str, float] = {}
    for one in known.by_token.values():
        ends[one.caller.id] = max(one.ends_at, ends.get(one.caller.id, 0.0))
    now = deployment.clock.now().wall_at
    for caller_id, end in ends.items():
        if end - now < _SOON_SECONDS:
            verb = "expired" if end <= now else "expires"
            day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(end))
            yield warning(_CHECK, f"the token of `{caller_id}` {verb} on {day}", f"`pdp caller rotate {caller_id}`")
