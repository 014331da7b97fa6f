"""Examine a broker: is everything that it needs present, sound and private? No secret is opened."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from pdp.broker.checkouts.sweeping import OVERDUE_SECONDS
from pdp.broker.opening import RECORD_FOLDER, opened_checkouts, opened_people, opened_vault
from pdp.broker.providers.choosing import KEYS_FOLDER
from pdp.broker.rules import read_rules
from pdp.broker.settings import UNIX, BrokerSettings, read_settings
from pdp.broker.vault import Vault
from pdp.broker.words import ConsentState
from pdp.client import Client, PermissionDeniedError
from pdp.errors import PDPError
from pdp.foundation.findings import Doubt, Finding, findings_of
from pdp.foundation.ownership import is_exposed, require_own, require_own_socket
from pdp.observer import EventKind
from pdp.record.fields import facts_of, number_of, text_of
from pdp.record.keys import DIGEST_KEY_FILE, PUBLIC_KEY_FILE, SIGNING_KEY_FILE, PublicKeys
from pdp.record.reader import read_records
from pdp.record.verify import verify

_DANGER: Final = "anyone could change what the broker does"
_ASKING_SECONDS: Final = 2.0
_STARTING_SECONDS: Final = 30.0
_ISOLATE: Final = "from pdp.foundation.isolation import keep_secrets_here; print(*keep_secrets_here(), sep='\\n')"

# Of connections that need somebody, so many are named.
_MOST_NAMED: Final = 20
_NEEDS: Final = {
    ConsentState.NEEDS_PERSON: "must be connected again by that person: its tokens are lost, or count no longer",
    ConsentState.ENDING: "is being disconnected; if it stays so, disconnect it again",
}

# Yields what is well or in doubt, and raises what is not.
Check = Callable[[BrokerSettings], Iterator[str | Doubt]]


def examine(file: Path) -> Iterator[Finding]:
    """Yield what is found about the broker of a file of settings, each check for itself."""
    try:
        settings = read_settings(file)
    except (PDPError, OSError) as error:
        yield from (Finding(check="settings", level="problem", found=line) for line in str(error).splitlines())
        return
    yield Finding(check="settings", level="ok", found=f"`{file}` is valid")
    checks: tuple[tuple[str, Check], ...] = (
        ("rules", _rules),
        ("files", _files),
        ("secrets", _secrets),
        ("people", _people),
        ("checkouts", _checkouts),
        ("record", _record),
        ("server", _server),
        ("addresses", _addresses),
    )
    for name, check in checks:
        yield from findings_of(name, partial(check, settings))
    lacking = _not_granted()
    yield from (Finding(check="memory", level="warning", found=line) for line in lacking)
    if not lacking:
        yield Finding(check="memory", level="ok", found="no core file is written, and it is not swapped out")


def _not_granted() -> list[str]:
    """Return what the system does not grant to a process of this user; one of its own, since it cannot be undone."""
    words = [sys.executable, "-I", "-c", _ISOLATE]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_STARTING_SECONDS)  # noqa: S603 - this interpreter
    if done.returncode:
        return ["cannot be examined: no other process of this interpreter could be started"]
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


def _rules(settings: BrokerSettings) -> Iterator[str]:
    yield f"for {len(read_rules(settings.rules))} tool servers"


def _files(settings: BrokerSettings) -> Iterator[str]:
    folder = settings.data_dir
    require_own(folder, _DANGER)
    held = [folder / SIGNING_KEY_FILE, folder / DIGEST_KEY_FILE]
    held += [path for name in (KEYS_FOLDER, "store") for path in (folder / name).rglob("*") if path.is_file()]
    if exposed := [path for path in held if is_exposed(path.stat())]:
        raise PDPError("\n".join(f"others can read `{path}`: make it readable by its owner alone" for path in exposed))
    yield f"{len(held)} files are for their owner alone"


def _secrets(settings: BrokerSettings) -> Iterator[str]:
    with opened_vault(settings.data_dir, lambda _: None) as vault:
        vault.check()
        yield "the store opens, and the key provider answers"
        if problems := list(_not_latest(vault, settings.data_dir / RECORD_FOLDER)):
            raise PDPError("\n".join(problems))
        yield f"the secrets of {len(vault.connections())} connections are those that the record names last"


def _people(settings: BrokerSettings) -> Iterator[str | Doubt]:
    """Look how people's connections are doing, as their own pages say it. No token is opened."""
    with (
        opened_vault(settings.data_dir, lambda _: None) as vault,
        opened_people(settings.data_dir, vault, lambda _: None) as people,
    ):
        states = {one: people.standing(one).state for one in vault.connections() if one.is_consented}
    needing = [(one, _NEEDS[state]) for one, state in states.items() if state in _NEEDS]
    for one, need in needing[:_MOST_NAMED]:
        yield Doubt(f"`{one.id}` of `{one.owner}` {need}")
    if len(needing) > _MOST_NAMED:
        yield Doubt(f"and {len(needing) - _MOST_NAMED} more: see `pdp-broker connection list`")
    yield f"connections of people that can be used: {len(states) - len(needing)}"


def _checkouts(settings: BrokerSettings) -> Iterator[str]:
    with opened_checkouts(settings.data_dir) as store:
        counts, looks = store.counts(time.time() - OVERDUE_SECONDS), store.looks()
    problems = []
    if counts.overdue:
        problems.append(
            f"overdue credentials: {counts.overdue}; is the broker running? See `pdp-broker checkout sweep`"
        )
    if counts.failed:
        problems.append(f"credentials that could not be ended: {counts.failed}; see `pdp-broker checkout list`")
    problems += [f"`{one.connection_id}`: its roles cannot be seen: {one.problem}" for one in looks if one.problem]
    problems += [
        f"`{one.connection_id}` has roles that no checkout here names, {one.orphans} of them: of "
        "another broker, or from before the store was restored; each is dropped once it is over"
        for one in looks
        if one.orphans
    ]
    if problems:
        raise PDPError("\n".join(problems))
    yield f"credentials that are out: {counts.out}; none is overdue"


def _not_latest(vault: Vault, record: Path) -> Iterator[str]:
    """Yield each secret that is another one than the record names last: then somebody has replaced the store."""
    latest = _recorded(record) if record.exists() else {}
    for one in vault.connections():
        stored = vault.version(one.id)
        present = (stored.version, stored.digest) if stored else (0, "")
        if present != latest.get(one.id, present):
            yield (
                f"`{one.id}` has version {present[0]} of its secret, and the record names another version "
                f"{latest[one.id][0]} last: somebody has replaced or changed the store; put the secret again"
            )


def _recorded(record: Path) -> dict[str, tuple[int, str]]:
    """Return version and digest of the last secret of each connection, by the record."""
    latest: dict[str, tuple[int, str]] = {}
    for located in read_records(record):
        kind, facts = located.record.get("kind"), facts_of(located.record)
        if kind in (EventKind.SECRET_STORED, EventKind.SECRET_ROTATED):
            found = number_of(facts, "version"), text_of(facts, "digest")
            latest[text_of(facts, "connection")] = max(found, latest.get(text_of(facts, "connection"), (0, "")))
        elif kind == EventKind.CONNECTION_REMOVED:
            latest.pop(text_of(facts, "connection"), None)
        elif kind == EventKind.TENANT_SHREDDED:
            for connection in facts.get("connections", ()):
                latest.pop(connection, None)
    return latest


def _record(settings: BrokerSettings) -> Iterator[str]:
    folder = settings.data_dir / RECORD_FOLDER
    report = verify(folder, PublicKeys.load([settings.data_dir / PUBLIC_KEY_FILE]))
    if report.findings:
        raise PDPError(f"it is not intact: {report.findings[0]}; see `pdp audit verify`")
    yield f"{report.records} records are intact"


def _server(settings: BrokerSettings) -> Iterator[str]:
    pdp = settings.pdp
    with Client(pdp.address, management_timeout=_ASKING_SECONDS, **pdp.options) as client:
        # No token is good, but only a caller with the role `broker` is told so.
        try:
            client.check_call_token("none")
        except PermissionDeniedError as error:
            raise PDPError(f"{error}: `pdp` of the settings must name a caller with the role `broker`") from None
        yield f"`{pdp.address}` answers, and this broker may check call tokens there"


def _addresses(settings: BrokerSettings) -> Iterator[str]:
    for name, address in (("calls", settings.calls), ("http", settings.http)):
        if address.startswith(UNIX):
            require_own_socket(Path(address.removeprefix(UNIX)), "it would get call tokens and requests")
            yield f"{name}: only this user can put a socket at `{address}`"
        elif address and settings.tls is not None:
            for path in (settings.tls.key, settings.tls.certificate, settings.tls.client_roots):
                path.read_bytes()
            if is_exposed(settings.tls.key.stat()):
                raise PDPError(f"others can read `{settings.tls.key}`: make it readable by its owner alone")
            yield f"{name}: `{address}` has its key and certificates"
