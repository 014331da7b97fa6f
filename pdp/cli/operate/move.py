"""`pdp store move`: bring all that the session store holds to a store of another kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

import click

from pdp.app.record import open_record, record_key
from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_json, print_table
from pdp.clock import SystemClock
from pdp.config.settings import Settings
from pdp.errors import ConfigurationError, PDPError
from pdp.foundation.counting import counted
from pdp.foundation.ownership import local_user
from pdp.messages.sqlitequeue import SQLiteMessageQueue
from pdp.observer import Event, EventKind
from pdp.record import DecisionLog
from pdp.sessions.moving import Half, StoreSide, move, required
from pdp.sessions.sqlitemoving import SQLiteSide
from pdp.starting import conninfo_in

_SESSIONS: Final = f"{Half.SESSIONS.value}.sessions"


@click.command("move", epilog="Example:  pdp store move --to postgres --postgres-file /etc/pdp/postgres")
@click.option("--to", "kind", type=click.Choice(["postgres", "sqlite"]), required=True, help="Where it is to be.")
@click.option(
    "--postgres-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the connection string of PostgreSQL.  [sessions.postgres_file]",
)
@click.option("--preview", is_flag=True, help="Only count what would be moved; a server may run meanwhile.")
@json_option
@with_settings("data_dir")
def move_(*, settings: Settings, kind: str, postgres_file: Path | None, preview: bool, as_json: bool) -> None:
    """Move the session store and the session history between SQLite and PostgreSQL, while no server runs.

    Everything comes along: live sessions go on. The store that is left is set aside before servers can start on the
    other, and says where its sessions are to a server that starts on it. If the command is interrupted, run it again.
    Afterwards set `sessions.store`.
    """
    with ExitStack() as opened:
        if preview:
            source, target = opened.enter_context(_sides(settings, kind, postgres_file, known_revision=0))
            required(source, target)
            _print(source, target, _counted(source), preview=True, as_json=as_json)
            return
        clock = SystemClock()
        # Opened first: a move that cannot be recorded is not made.
        log = open_record(settings, key=record_key(settings), clock=clock)
        opened.callback(log.close)
        revision = log.store_revision
        source, target = opened.enter_context(_sides(settings, kind, postgres_file, known_revision=revision))
        mark = move(source, target, now=clock.now(), step=lambda done: click.echo(done, err=True))
        if kind == "sqlite":
            _bring_messages(settings, conninfo_in(_file(settings, postgres_file)))
        rows = _counted(target)
        facts = {"from": source.name, "to": target.name, "move": mark.id, "sessions": str(rows[_SESSIONS])}
        _record(log, Event(kind=EventKind.STORE_MOVED, at=clock.now().wall_at, caller_id=local_user(), facts=facts))
        target.forget_move()
    _print(source, target, rows, preview=False, as_json=as_json)


@contextmanager
def _sides(
    settings: Settings, kind: str, postgres_file: Path | None, *, known_revision: int
) -> Iterator[tuple[StoreSide, StoreSide]]:
    from pdp.sessions.postgresmoving import PostgresSide  # noqa: PLC0415 - an extra brings its driver

    conninfo = conninfo_in(_file(settings, postgres_file))
    sqlite = SQLiteSide(settings.sessions_file, settings.history_file, known_revision=known_revision)
    with closing(PostgresSide(conninfo, known_revision=known_revision)) as postgres:
        yield (sqlite, postgres) if kind == "postgres" else (postgres, sqlite)


def _file(settings: Settings, postgres_file: Path | None) -> Path:
    path = postgres_file or (Path(settings.sessions.postgres_file) if settings.sessions.postgres_file else None)
    if path is None:
        raise ConfigurationError("name the file with the connection string: `--postgres-file`")
    return path


def _bring_messages(settings: Settings, conninfo: str) -> None:
    """Move the messages that wait, and dead ones. The other way a server does it when it starts."""
    from pdp.messages.postgresqueue import PostgresMessageQueue  # noqa: PLC0415 - an extra brings its driver

    with closing(PostgresMessageQueue(conninfo)) as queue, closing(SQLiteMessageQueue(settings.messages_file)) as file:
        file.receive(queue)


def _counted(side: StoreSide) -> dict[str, int]:
    with side.reading() as content:
        return {f"{table.half.value}.{table.name}": content.count(table) for table in content.tables()}


def _record(log: DecisionLog, event: Event) -> None:
    log.event(event)
    if log.failures:
        raise PDPError(
            f"the store is moved, but the decision log could not be written: {log.status().problem}; run the command "
            "again, so that it says so"
        )


def _print(source: StoreSide, target: StoreSide, rows: dict[str, int], *, preview: bool, as_json: bool) -> None:
    if as_json:
        print_json({"from": source.name, "to": target.name, "moved": not preview, "rows": rows})
    elif preview:
        print_table(("table", "rows"), [(name, str(count)) for name, count in rows.items()])
    else:
        click.echo(f"moved {counted(rows[_SESSIONS], 'session')} and all else from `{source.name}` to `{target.name}`")
        click.echo(
            "set `sessions.store`, then start the server; remove what was left when you no longer need it", err=True
        )
