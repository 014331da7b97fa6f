"""The source of answers about the record: a folder of the log, or a server. Both answer alike."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click

from pdp.audit.coverage import NOTHING_LACKING, Coverage, Lacking
from pdp.audit.follow import Follower
from pdp.audit.index import FILE_NAME, Progress
from pdp.audit.search import Search
from pdp.audit.searchable import SearchableRecord
from pdp.audit.values import Approval, Filter, Found, PlannedSession, Selector, Touch
from pdp.cli.audit.remote import ServerSource
from pdp.cli.audit.view import lacking_lines
from pdp.cli.connection import connect
from pdp.cli.options import ConnectionOptions, connection_options, path_of, with_settings
from pdp.cli.root import NO
from pdp.config.settings import Settings
from pdp.errors import NotFoundError, UnavailableError
from pdp.foundation.extras import missing
from pdp.model import Role
from pdp.sessions.notedheads import NotedHeads

C = TypeVar("C", bound=Callable[..., Any])

_MOST_PLANNED = 1_000_000
_MOST_TOUCHED = 10_000
_LARGE_BYTES = 64 * 1024 * 1024


class Source(Protocol):
    """Answers questions about the record. Raise `PDPError` when there is no answer."""

    @property
    def lacking(self) -> Lacking:
        """Return what the answers so far lack."""
        ...

    def show(self, decision_id: str) -> list[Found]:
        """Return the records of a decision, in order of time."""
        ...

    def records(self, which: Filter) -> Iterator[Found]:
        """Yield records in order of time."""
        ...

    def approvals(self, subject: str) -> list[Approval]:
        """Return the approvals of a session or a decision's session, and those above it."""
        ...

    def touched(self, which: Filter) -> Iterator[Touch]:
        """Yield the tools and resources that were reached or tried."""
        ...

    def plan(self, selector: Selector) -> Iterator[PlannedSession]:
        """Yield the live sessions to revoke."""
        ...

    def start(self) -> list[Found]:
        """Return the last records, and start after them for `poll`."""
        ...

    def poll(self) -> list[Found]:
        """Return the records since."""
        ...


class FolderSource:
    """Answers from the files of the log. When the index cannot be written, from a temporary one.

    `shared` is a folder with copies of other machines, and `coverage` knows what there should be.
    """

    def __init__(
        self, folder: Path, index_file: Path | None, opened: ExitStack, *, shared: Path | None, coverage: Coverage
    ) -> None:
        if not folder.is_dir():
            raise click.UsageError(f"there is no record in `{folder}`; pass --record DIR, or --server")
        if index_file is None and not _can_write(folder):
            temporary = opened.enter_context(tempfile.TemporaryDirectory(prefix="pdp-"))
            index_file = Path(temporary) / FILE_NAME
            click.echo(
                "cannot write an index into the folder of the record; a temporary one is used, --index FILE keeps one",
                err=True,
            )
        self._searchable = SearchableRecord(folder, shared=shared, index_file=index_file, on_progress=_say)
        self._follower = Follower(folder, *([shared] if shared else []))
        self._coverage, self._lacking = coverage, NOTHING_LACKING
        opened.callback(self._searchable.close)

    @property
    def lacking(self) -> Lacking:
        """Return what the answers so far lack."""
        return self._lacking

    def show(self, decision_id: str) -> list[Found]:
        """Return the records of a decision, in order of time."""
        return self._search().show(decision_id)

    def records(self, which: Filter) -> Iterator[Found]:
        """Yield records in order of time."""
        return self._search().all(which)

    def approvals(self, subject: str) -> list[Approval]:
        """Return the approvals of a session or a decision's session, and those above it."""
        return self._search().approvals(subject, now_at=time.time())

    def touched(self, which: Filter) -> Iterator[Touch]:
        """Yield the tools and resources that were reached or tried."""
        search, after = self._search(), None
        while found := search.touched(which, limit=_MOST_TOUCHED, after=after):
            yield from found
            after = (found[-1].server, found[-1].tool, found[-1].resource_type, found[-1].resource_id)

    def plan(self, selector: Selector) -> Iterator[PlannedSession]:
        """Yield the live sessions to revoke."""
        yield from self._search().plan(selector, now_at=time.time(), limit=_MOST_PLANNED)

    def start(self) -> list[Found]:
        """Return the last records, and start after them for `poll`."""
        return self._follower.start()

    def poll(self) -> list[Found]:
        """Return the records since."""
        return self._follower.poll()

    def _search(self) -> Search:
        # In this order: what is there by then is in the answer.
        self._lacking = self._lacking.with_(self._coverage.lacking())
        return self._searchable.search()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """The way of a command to the server: its settings, and the options of a connection."""

    settings: Settings
    connection: ConnectionOptions

    @contextmanager
    def client(self, role: Role) -> Iterator[Any]:
        """Open a client with the token that was passed, or else with the role's."""
        with connect(role, self.settings, self.connection) as client:
            yield client


def with_source(function: C) -> Callable[..., Any]:
    """Offer the source to ask, and pass it as `source`.

    An id that is unknown there ends the command with exit code 1.
    """

    @with_source_and_reach
    @wraps(function)
    def command(*args: Any, reach: Reach, **given: Any) -> Any:  # noqa: ANN401, ARG001 - a command's own parameters
        return function(*args, **given)

    return command


def with_source_and_reach(function: C) -> Callable[..., Any]:
    """Offer the options of `with_source`, and also pass `reach` for the server."""

    @click.option("--record", metavar="DIR", help="The folder of the record. [record.folder]")
    @click.option("--index", "index_file", metavar="FILE", help="The file of its index. [record.index_file]")
    @click.option("--server", "remote", is_flag=True, help="Ask the server instead of reading files.")
    @connection_options(Role.AUDITOR)
    @with_settings("data_dir")
    @wraps(function)
    def command(
        *args: Any,  # noqa: ANN401 - a command's own parameters
        settings: Settings,
        record: str | None,
        index_file: str | None,
        remote: bool,
        connection: ConnectionOptions,
        **given: Any,  # noqa: ANN401 - the same
    ) -> Any:  # noqa: ANN401 - the same
        if remote and (record or index_file):
            raise click.UsageError("--server cannot be combined with --record or --index")
        reach = Reach(settings=settings, connection=connection)
        with ExitStack() as opened:
            source: Source
            if remote:
                source = ServerSource(opened.enter_context(reach.client(Role.AUDITOR)))
            else:
                source = _folder_source(settings, path_of(record), path_of(index_file), opened)
            try:
                return function(*args, source=source, reach=reach, **given)
            except NotFoundError as error:
                click.echo(f"error: {error}", err=True)
                raise click.exceptions.Exit(NO) from None
            finally:
                for line in lacking_lines(source.lacking):
                    click.echo(line, err=True)

    return command


def _folder_source(settings: Settings, record: Path | None, index_file: Path | None, opened: ExitStack) -> FolderSource:
    def noted() -> NotedHeads:
        return _noted(settings)

    compared = noted if settings.sessions.store == "postgres" else None
    if record is not None:
        # The configured index, and the shared folder, are not about a copy of a record.
        return FolderSource(record, index_file, opened, shared=None, coverage=Coverage(compared, record))
    own = settings.record_folder
    return FolderSource(
        own,
        index_file or settings.record_index,
        opened,
        shared=settings.record_shared,
        coverage=Coverage(compared, *settings.record_folders, own=own),
    )


def _noted(settings: Settings) -> NotedHeads:
    from pdp.starting import heads_of  # noqa: PLC0415 - only where servers share a database

    try:
        heads = heads_of(settings)
    except ImportError as error:
        raise UnavailableError(missing(error) or str(error)) from None
    if heads is None:
        raise UnavailableError("there is no database")
    with closing(heads):
        return heads.read()


def first(found: Iterator[Found], limit: int) -> tuple[list[Found], bool]:
    """Return the first records, and whether more follow."""
    taken = list(islice(found, limit + 1))
    return taken[:limit], len(taken) > limit


def _can_write(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _say(progress: Progress) -> None:
    if sys.stderr.isatty() and progress.size > _LARGE_BYTES:
        end = "\n" if progress.complete else ""
        click.echo(f"\rindexing the record: {100 * progress.read // progress.size} %{end}", err=True, nl=False)
