"""`pdp store forget`: remove what is kept of one person, and say what stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

from pdp.app.record import open_record, record_key
from pdp.audit.index import FILE_NAME
from pdp.audit.indexfile import remove_index
from pdp.cli.asking import require_quiet, require_yes
from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_json, print_table, progress
from pdp.clock import SystemClock, no_earlier
from pdp.config.settings import Settings
from pdp.errors import ConfigurationError, PDPError
from pdp.foundation.counting import counted
from pdp.foundation.ownership import local_user
from pdp.foundation.places import Fate, Place, gone, staying
from pdp.foundation.yamltext import load_section
from pdp.messages.sqlitequeue import SQLiteMessageQueue
from pdp.observer import Event, EventKind
from pdp.record.naming import Named, naming
from pdp.sessions.care import inspect
from pdp.sessions.forgetting import forget

_IN_POSTGRES = (
    "`sessions.store` is `postgres`: bring the store to SQLite with `pdp store move`, forget there, and move it back; "
    "see `One person` in RETENTION.md"
)
_NOT_ALL = "what was delivered or exported, backups and logs are elsewhere: see RETENTION.md"


@click.command("forget", epilog="Example:  pdp store forget alice@example.org --apply")
@click.argument("user")
@click.option("--tenant", default="default", show_default=True, metavar="NAME", help="The tenant of the person.")
@click.option("--apply", is_flag=True, help="Remove it, while no server runs. [only say what would be removed]")
@click.option("--yes", is_flag=True, help="Apply without asking.")
@json_option
@with_settings("data_dir")
def forget_(*, settings: Settings, user: str, tenant: str, apply: bool, yes: bool, as_json: bool) -> None:
    """Remove what the server keeps of a person who has no live session, and say per place what stays, and why.

    Removed are their sessions, requests for calls, budgets and messages; the files are rewritten, so that nothing of
    these is left in them. The record stays as it is, because each line is bound to the one before: its oldest segments
    go as a whole. That somebody was forgotten is recorded without their id. For connections there is `pdp-broker
    forget`.
    """
    if settings.sessions.store == "postgres":
        raise ConfigurationError(_IN_POSTGRES)
    if settings.sessions.store != "sqlite":
        raise ConfigurationError(f"`sessions.store` is `{settings.sessions.store}`: there is no session store file")
    if apply:
        require_quiet(as_json=as_json, yes=yes)
    clock = SystemClock()
    with progress("looking through the record"):
        named = naming(settings.record_folder, user, tenant=tenant)
    if apply and not yes:
        require_yes(f"remove what is kept of `{user}`?", done="removed", does="removes")
    # The store's own time: with a clock that was put back, a session that is over would look live.
    now = no_earlier(clock.now(), inspect(settings.sessions_file).high_water_at)
    places = [
        *forget(
            settings.sessions_file, settings.history_file, tenant=tenant, user=user, now_at=now.wall_at, apply=apply
        ),
        *_elsewhere(settings, user, tenant, named, apply=apply),
    ]
    if apply:
        _record(settings, clock, tenant, places)
    if as_json:
        print_json({"places": [asdict(one) for one in places]})
        return
    print_table(("place", "entries", "", "why"), [(one.where, str(one.found), one.fate, one.why) for one in places])
    click.echo(_NOT_ALL, err=True)


def _elsewhere(settings: Settings, user: str, tenant: str, named: Named, *, apply: bool) -> Iterator[Place]:
    """Yield what becomes of what is not in the stores."""
    if settings.messages_file.exists():
        with closing(SQLiteMessageQueue(settings.messages_file)) as queue:
            count = queue.forget_person(user, tenant=tenant, apply=apply)
        yield gone(f"{settings.messages_file.name}: messages", count, apply=apply)
    until = f", the last at {named.last[:19]}Z" if named.last else ""
    why = f"in {counted(named.segments, 'segment')}{until}: remove these, the oldest first" if named.records else ""
    yield staying("record", named.records, why)
    index = Path(settings.record.index_file) if settings.record.index_file else settings.record_folder / FILE_NAME
    if index.exists() and named.records:
        yield staying(index.name, 1, "it follows the record: forget again when these segments are gone")
    elif index.exists():
        if apply:
            remove_index(index)
        yield gone(index.name, 1, apply=apply, why="the next question makes it anew")
    yield staying("callers", _callers(settings.callers_file, user), "`pdp caller remove` takes an entry out")


def _callers(file: Path, user: str) -> int:
    return int(file.exists() and user in load_section(str(file), file.read_bytes(), times_as_text=True))


def _record(settings: Settings, clock: SystemClock, tenant: str, places: list[Place]) -> None:
    removed = {one.where: str(one.found) for one in places if one.fate is Fate.REMOVED and one.found}
    log = open_record(settings, key=record_key(settings), clock=clock)
    try:
        event = Event(
            kind=EventKind.PERSON_FORGOTTEN,
            at=clock.now().wall_at,
            caller_id=local_user(),
            tenant=tenant,
            lists={"removed": tuple(f"{where}: {found}" for where, found in sorted(removed.items()))},
        )
        log.event(event)
    finally:
        log.close()
    if log.failures:
        raise PDPError(f"it is removed, but the decision log could not be written: {log.status().problem}")
