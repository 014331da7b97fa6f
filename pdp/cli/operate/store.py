"""`pdp store`: back up the session store while servers use it, restore a backup, check the store, and move it."""

from __future__ import annotations

from pathlib import Path

import click

from pdp.app.record import open_record, record_key
from pdp.cli.groups import Group
from pdp.cli.operate.forget import forget_
from pdp.cli.operate.move import move_
from pdp.cli.options import json_option, with_settings
from pdp.cli.output import moment_text, print_fields, print_json, progress
from pdp.cli.root import NO
from pdp.clock import Instant, SystemClock, utc_text
from pdp.config.settings import Settings
from pdp.errors import ConfigurationError, PDPError
from pdp.foundation.counting import counted
from pdp.observer import Event, EventKind
from pdp.sessions.care import StoreReport, backup, inspect
from pdp.sessions.database import SCHEMA_VERSION
from pdp.sessions.restoring import BY, Restored, restore
from pdp.starting import postgres_of

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(cls=Group)
def store() -> None:
    """Back up, restore, check and move the session store, and forget a person."""


@store.command("backup", epilog="Example:  pdp store backup /backups/pdp-monday.sqlite")
@click.argument("file", type=_FILE)
@json_option
@with_settings("data_dir")
def backup_(*, settings: Settings, file: Path, as_json: bool) -> None:
    """Copy the session store, as it is now, to a new file.

    A server may run meanwhile. The copy is verified before the file appears, and only its owner can read it. It holds
    no handles, but everything else about sessions, and policies: protect it like the store itself.
    """
    with progress(f"copying the session store to {file}"):
        report = backup(_stored(settings), file)
    if as_json:
        print_json(_plain(file, report))
        return
    click.echo(f"wrote `{file}`: {_counted(report)}, as of {_time(report)}")


@store.command("restore", epilog="Example:  pdp store restore /backups/pdp-monday.sqlite")
@click.argument("file", type=_FILE, required=False)
@click.option(
    "--keep-sessions",
    is_flag=True,
    help="Keep sessions live that are live in the backup, although some may have been revoked since.",
)
@json_option
@with_settings("data_dir")
def restore_(*, settings: Settings, file: Path | None, keep_sessions: bool, as_json: bool) -> None:
    """Replace the session store with a backup, while no server runs.

    A backup does not know which sessions were ended or revoked after it was made. So all sessions that are live in it
    are revoked, unless you pass --keep-sessions. The previous store is kept beside the new one, and the decision log
    records the restore.

    With `sessions.store: postgres` the database is restored by its own means first. Then, without a FILE, this does the
    same with what is live in it.
    """
    path, clock = _restored(settings, file), SystemClock()
    # Opened first: a restore that cannot be recorded is not done.
    log = open_record(settings, key=record_key(settings), clock=clock)
    try:
        now = clock.now()
        with progress("restoring the session store"):
            done = _restore(settings, file, now, keep_sessions=keep_sessions, known_revision=log.store_revision)
        for event in _events(done, now.wall_at, keep_sessions=keep_sessions):
            log.event(event)
    finally:
        log.close()
    if as_json:
        replaced, revoked = str(done.replaced or ""), [session.id for session in done.revoked]
        print_json({**_plain(path, done.backup), "replaced": replaced, "revoked": revoked})
    else:
        _print_restored(path, done, keep_sessions=keep_sessions)
    if log.failures:
        raise PDPError(f"the store is restored, but the decision log could not be written: {log.status().problem}")


@store.command(epilog="Example:  pdp store check")
@click.argument("file", type=_FILE, required=False)
@json_option
@with_settings("data_dir")
def check(*, settings: Settings, file: Path | None, as_json: bool) -> None:
    """Check that the session store or a backup is sound, and show what it holds.

    Reads all of it and changes nothing; a server may run meanwhile. Exit code 0: sound. 1: damaged, or newer than this
    program. 2: it cannot be read.
    """
    path = file or _stored(settings)
    with progress(f"reading {path}"):
        report = inspect(path)
    if as_json:
        print_json(_plain(path, report))
    else:
        print_fields(_fields(path, report))
    if report.damage or report.newer:
        raise click.exceptions.Exit(NO)


store.add_command(forget_)
store.add_command(move_)


def _print_restored(path: Path, done: Restored, *, keep_sessions: bool) -> None:
    click.echo(f"restored `{path}`: {_counted(done.backup)}, as of {_time(done.backup)}")
    if done.replaced:
        click.echo(f"the previous store is `{done.replaced}`")
    if keep_sessions:
        click.echo("sessions that were live stay live: revoke again what was revoked since", err=True)
    else:
        click.echo(
            f"revoked {len(done.revoked)} live sessions: what was revoked since the backup is not known", err=True
        )


def _restored(settings: Settings, file: Path | None) -> Path:
    """Return what the store is called. Raise `ConfigurationError` when there is a file too many, or none."""
    if settings.sessions.store != "postgres":
        path = _stored(settings)
        if file is None:
            raise ConfigurationError("name the backup to restore")
        return path
    if file is not None:
        raise ConfigurationError(
            "`sessions.store` is `postgres`: restore its database by its own means, then name no file"
        )
    return Path(settings.sessions.postgres_file)


def _restore(
    settings: Settings, file: Path | None, now: Instant, *, keep_sessions: bool, known_revision: int
) -> Restored:
    if file is not None:
        path = settings.sessions_file
        return restore(file, path, now=now, keep_sessions=keep_sessions, known_revision=known_revision)
    from pdp.sessions.postgresrestoring import accept  # noqa: PLC0415 - an extra brings its driver

    return accept(
        postgres_of(settings),
        now=now,
        keep_sessions=keep_sessions,
        known_revision=known_revision,
        file=settings.acknowledged_file,
    )


def _stored(settings: Settings) -> Path:
    if settings.sessions.store != "sqlite":
        raise ConfigurationError(f"`sessions.store` is `{settings.sessions.store}`: there is no session store file")
    return settings.sessions_file


def _events(done: Restored, at: float, *, keep_sessions: bool) -> list[Event]:
    facts = {
        "as_of": utc_text(done.backup.high_water_at),
        "schema": str(done.backup.schema_version),
        "sessions_kept": "true" if keep_sessions else "",
        "sessions_revoked": str(len(done.revoked)),
    }
    revoked = [
        Event.of_session(EventKind.SESSION_REVOKED, session, at=at, caller_id=BY, facts={"reason": session.reason})
        for session in done.revoked
    ]
    return [
        Event(kind=EventKind.STORE_RESTORED, at=at, caller_id=BY, facts={k: v for k, v in facts.items() if v}),
        *revoked,
    ]


def _counted(report: StoreReport) -> str:
    counts = [f"{count} {state.value}" for state, count in report.sessions.items() if count]
    return counted(sum(report.sessions.values()), "session") + (f" ({', '.join(counts)})" if counts else "")


def _state(report: StoreReport) -> str:
    if report.newer:
        return f"newer than this program, which knows {SCHEMA_VERSION}: upgrade the program"
    if report.damage:
        return "damaged; restore a backup"
    return "sound; the next server that starts will upgrade it" if report.older else "sound"


def _fields(path: Path, report: StoreReport) -> list[tuple[str, str]]:
    known = not (report.newer or report.damage)
    return [
        ("store", str(path)),
        ("state", _state(report)),
        ("schema", str(report.schema_version)),
        ("sessions", _counted(report) if known else ""),
        ("revision", str(report.revision) if known else ""),
        ("last write", _time(report) if known else ""),
        ("bundle", report.bundle_version),
        *(("damage", one) for one in report.damage),
    ]


def _plain(path: Path, report: StoreReport) -> dict[str, object]:
    return {
        "store": str(path),
        "sound": not report.damage and not report.newer,
        "schema": report.schema_version,
        "known_schema": SCHEMA_VERSION,
        "damage": list(report.damage),
        "sessions": {state.value: count for state, count in report.sessions.items()},
        "revision": report.revision,
        "last_write_time": _time(report),
        "bundle_version": report.bundle_version,
    }


def _time(report: StoreReport) -> str:
    # A newly created store has no writes yet.
    return moment_text(report.high_water_at) or "never"
