"""`pdp signals list`, `apply` and `dismiss`: what came, and what a person says to what is held."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import click

from pdp.cli.asking import require_quiet, require_yes
from pdp.cli.options import json_option
from pdp.cli.output import moment_text, print_json, print_table
from pdp.cli.signals.options import settings_option
from pdp.errors import PDPError, WrongStateError
from pdp.foundation.ownership import local_user
from pdp.observer import EventKind
from pdp.signals.applying import event_of
from pdp.signals.serving import STORE_FILE, opened_record
from pdp.signals.settings import read_settings
from pdp.signals.store import SignalStore
from pdp.signals.words import OPEN, Signal, State

_MOST: Final = 10_000

ids_argument = click.argument("signal_ids", metavar="SIGNAL...", nargs=-1, required=True)
yes_option = click.option("--yes", is_flag=True, help="Do it without asking.")


@click.command("list", epilog="Example:  pdp signals list --held")
@click.option("--held", is_flag=True, help="Only those that wait for a person.")
@settings_option
@json_option
def list_(*, file: str, held: bool, as_json: bool) -> None:
    """List the signals that came, oldest first: whom they still name, and what was done.

    Reads the file of signals; the receiver may run meanwhile. At most 10,000 signals are listed.
    """
    with _store(file) as store:
        found = store.signals(*((State.HELD,) if held else ()), limit=_MOST)
    if as_json:
        print_json([_plain(one) for one in found])
        return
    columns = ("signal", "received", "transmitter", "event", "state", "still names", "done")
    print_table(columns, [_row(one) for one in found])


@click.command(epilog="Example:  pdp signals apply sig_ab2c")
@ids_argument
@yes_option
@settings_option
@json_option
def apply(*, file: str, signal_ids: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Have held signals carried out, without the bounds of their transmitters.

    The receiver does it within some seconds, or when it starts. The record says on whose word.
    """
    require_quiet(as_json=as_json, yes=yes)
    with _store(file) as store:
        found = [_held(store, one, "carried out") for one in signal_ids]
        if not yes:
            named = sum(len(one.targets) for one in found)
            require_yes(f"revoke the sessions of {named} that these name?", done="applied", does="applies")
        _answer(store, found, State.WAITING, EventKind.SIGNAL_RELEASED, file)
    _print(found, "applied", as_json=as_json)


@click.command(epilog='Example:  pdp signals dismiss sig_ab2c --reason "a test of the provider"')
@ids_argument
@click.option("--reason", required=True, help="The reason, for the record.")
@yes_option
@settings_option
@json_option
def dismiss(*, file: str, signal_ids: tuple[str, ...], reason: str, yes: bool, as_json: bool) -> None:
    """Dismiss held signals: they are not carried out. What was revoked already stays revoked."""
    require_quiet(as_json=as_json, yes=yes)
    with _store(file) as store:
        found = [_held(store, one, "dismissed") for one in signal_ids]
        if not yes:
            require_yes(f"dismiss {len(found)}?", done="dismissed", does="dismisses")
        _answer(store, found, State.DISMISSED, EventKind.SIGNAL_DISMISSED, file, reason=reason)
    _print(found, "dismissed", as_json=as_json)


@contextmanager
def _store(file: str) -> Iterator[SignalStore]:
    path = read_settings(Path(file)).data_dir / STORE_FILE
    if not path.exists():
        raise PDPError(f"there is no `{path}` yet: the receiver has not run")
    with closing(SignalStore(path)) as store:
        yield store


def _held(store: SignalStore, signal_id: str, done: str) -> Signal:
    found = store.signal(signal_id)
    if found.state is not State.HELD:
        raise WrongStateError(f"`{signal_id}` is {found.state}, so it cannot be {done}: only what is held can")
    return found


def _answer(
    store: SignalStore, found: list[Signal], state: State, kind: EventKind, file: str, reason: str = ""
) -> None:
    by, folder = local_user(), read_settings(Path(file)).data_dir
    with opened_record(folder) as record:
        for one in found:
            answered = replace(one, state=state, by=by)
            if not store.change(answered, before=State.HELD):
                raise WrongStateError(f"`{one.id}` was answered by somebody else")
            record.event(event_of(kind, answered, at=time.time(), reason=reason))
        problem = record.status().problem if record.failures else ""
    if problem:
        raise PDPError(f"it is done, but the record could not be written: {problem}")


def _print(found: list[Signal], done: str, *, as_json: bool) -> None:
    if as_json:
        print_json({done: [one.id for one in found]})
        return
    for one in found:
        click.echo(f"{done}  {one.id}")


def _row(signal: Signal) -> tuple[str, ...]:
    return (
        signal.id,
        moment_text(signal.received_at),
        signal.transmitter,
        signal.event,
        signal.state,
        ", ".join(one.text for one in signal.targets) if signal.state in OPEN else "",
        signal.outcomes[-1] if signal.outcomes else "",
    )


def _plain(signal: Signal) -> dict[str, Any]:
    return {
        "signal_id": signal.id,
        "transmitter": signal.transmitter,
        "token_id": signal.token_id,
        "event": signal.event,
        "issued_at": moment_text(signal.issued_at),
        "received_at": moment_text(signal.received_at),
        "state": signal.state,
        "targets": [one.text for one in signal.targets],
        "outcomes": list(signal.outcomes),
        "by": signal.by,
    }
