"""The index over the log: a SQLite file beside it that is never the truth, and can be deleted at any time.

SQLite was chosen over DuckDB because several processes read and write the index at once, new records come in small
numbers, and questions are about one session, one agent, one decision: see `README.md` for the figures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from sys import getsizeof
from threading import RLock
from typing import Any, Final, Self
from zlib import crc32

import apsw

from pdp.audit.indexfile import open_index, remove_index
from pdp.audit.rows import INDEXES, INSERT, row_of
from pdp.audit.segments import Lines, mark_of, read_lines, segments_in, whole_bytes
from pdp.errors import UnavailableError
from pdp.foundation.diskroom import free_bytes
from pdp.foundation.sqlite import committing

FILE_NAME: Final = "audit-index.sqlite"

_CHUNK_BYTES = 4 * 1024 * 1024
# The names that one process remembers; it looks up others again.
_MOST_NAMES, MOST_NAME_BYTES = 500_000, 24 * 1024 * 1024
# The memory of a name besides its text.
_NAME_BYTES = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How much of the log is in the index: bytes read, bytes in total, and lines that are not records."""

    read: int
    size: int
    broken: int

    @property
    def complete(self) -> bool:
        """Say whether every complete line is in the index."""
        return self.read >= self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segment:
    id: int
    inode: int
    modified: int
    consumed: int
    mark: int


class AuditIndex:
    """The index of one folder of the log, and with `shared` of the copies in another. Safe for threads and processes.

    Without `file` it is beside the log. It does not grow when less than `keep_bytes` of its disk would be left; then it
    answers only while the log has nothing new. A file that is no index, is damaged or of another version is built
    anew. Raise `UnavailableError` when it cannot be opened or written, or is locked for too long.
    """

    def __init__(
        self, folder: Path, file: Path | None = None, *, shared: Path | None = None, keep_bytes: int = 0
    ) -> None:
        self._folders = (folder,) if shared is None else (folder, shared)
        self.folder, self._keep = folder, keep_bytes
        self.file = file or folder / FILE_NAME
        self._lock = RLock()
        self._names: dict[str, int] = {}
        self._name_bytes = 0
        self._damaged = False
        with self._explained():
            self._connection = open_index(self.file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Twice is harmless."""
        with self._lock:
            self._connection.close(force=True)

    def refresh(
        self, *, most_bytes: int | None = None, on_progress: Callable[[Progress], None] | None = None
    ) -> Progress:
        """Read new lines of the log, at most about `most_bytes`.

        A replaced segment is read again, and a removed one is dropped. `on_progress` is called now and then.
        """
        left = most_bytes
        with self._lock, self._explained():
            self._reopen_damaged()
            segments = segments_in(*self._folders)
            self._forget(segments.keys())
            for path in segments.values():
                while left is None or left > 0:
                    taken = self._take(path, _CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES))
                    if not taken:
                        break
                    left = None if left is None else left - taken
                    if on_progress is not None:
                        on_progress(self.progress())
            progress = self.progress()
            if progress.complete:
                self._connection.execute(INDEXES)
            return progress

    def progress(self) -> Progress:
        """Return how much of the log is in the index."""
        read, broken = self.rows("SELECT total(consumed), total(broken) FROM segments")[0]
        size = 0
        for path in segments_in(*self._folders).values():
            with suppress(FileNotFoundError):
                size += whole_bytes(path)
        return Progress(read=int(read), size=size, broken=int(broken))

    def rows(self, query: str, bindings: tuple[Any, ...] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._lock, self._explained():
            return self._connection.execute(query, bindings).fetchall()

    def lines(self, places: Iterable[tuple[str, int, int, int]]) -> list[bytes]:
        """Return lines of the log by segment, position, size and checksum.

        Raise `UnavailableError` when a line is not the one that was indexed.
        """
        with ExitStack() as opened:
            files: dict[str, int] = {}
            return [self._line(name, place, size, checksum, files, opened) for name, place, size, checksum in places]

    def _line(self, name: str, place: int, size: int, checksum: int, files: dict[str, int], opened: ExitStack) -> bytes:
        try:
            if name not in files:
                files[name] = os.open(self._path_of(name), os.O_RDONLY | os.O_CLOEXEC)
                opened.callback(os.close, files[name])
            line = os.pread(files[name], size, place)
        except OSError:
            line = b""
        if crc32(line) != checksum or len(line) != size:
            self._distrust(name)
            raise UnavailableError(
                f"`{name}` was changed at byte {place} after it was indexed; ask again, and run `pdp audit verify`"
            )
        return line

    def _path_of(self, name: str) -> Path:
        paths = [folder / name for folder in self._folders]
        return next((path for path in paths if path.exists()), paths[0])

    # The file itself.

    def _reopen_damaged(self) -> None:
        if self._damaged:
            self._connection.close(force=True)
            remove_index(self.file)
            self._names.clear()
            self._name_bytes = 0
            self._connection = open_index(self.file)
            self._damaged = False

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except apsw.BusyError:
            raise UnavailableError(f"the index of the record is written by another process: `{self.file}`") from None
        except (apsw.CorruptError, apsw.NotADBError):
            self._damaged = True
            raise UnavailableError(f"the index of the record is damaged and is being rebuilt: `{self.file}`") from None
        except (apsw.Error, OSError) as error:
            problem = getattr(error, "strerror", None) or str(error) or "input or output failed"
            file = getattr(error, "filename", None) or self.file
            raise UnavailableError(f"the index of the record cannot be used: `{file}`: {problem.lower()}") from None

    # Reading the log.

    def _forget(self, present: Collection[str]) -> None:
        for segment_id, name in self.rows("SELECT id, name FROM segments"):
            if name not in present:
                with self._writing():
                    self._drop(segment_id)

    def _take(self, path: Path, most_bytes: int) -> int:
        """Index the next lines of a segment in one transaction; return how many bytes.

        Return 0 at the end of the segment.
        """
        with self._writing():
            try:
                stat = path.stat()
                segment = self._trusted(path.name, path, stat)
                if segment.consumed == stat.st_size:
                    return 0
                self._require_room()
                found = read_lines(path, segment.consumed, stat.st_size, most_bytes)
                mark = mark_of(path, found.end)
            except FileNotFoundError:
                # Archived between listing and reading; the next refresh drops it.
                return 0
            broken = self._insert(segment.id, found)
            self._connection.execute(
                "UPDATE segments SET inode=?, modified=?, consumed=?, mark=?, broken=broken+? WHERE id=?",
                (stat.st_ino, stat.st_mtime_ns, found.end, mark, broken, segment.id),
            )
            return found.end - found.start

    def _require_room(self) -> None:
        # The rows of one transaction take less room than their lines in the log, even while they are written twice.
        if self._keep and free_bytes(self.file.parent) < self._keep + _CHUNK_BYTES:
            raise UnavailableError(
                f"the disk of the index of the record is nearly full, and the rest is reserved: `{self.file}`; "
                "make room, or move the index (`record.index_file`)"
            )

    def _trusted(self, name: str, path: Path, stat: os.stat_result) -> _Segment:
        """Return the stored state of a segment; none if its file was replaced since."""
        found = self.rows("SELECT id, inode, modified, consumed, mark FROM segments WHERE name = ?", (name,))
        if found:
            segment = _Segment(**dict(zip(("id", "inode", "modified", "consumed", "mark"), found[0], strict=True)))
            untouched = (segment.inode, segment.modified) == (stat.st_ino, stat.st_mtime_ns)
            rewritten = segment.inode == stat.st_ino and segment.consumed == stat.st_size and not untouched
            same = segment.consumed <= stat.st_size and mark_of(path, segment.consumed) == segment.mark
            if untouched or (same and not rewritten):
                return segment
            self._drop(segment.id)
        self._connection.execute(
            "INSERT INTO segments (name, inode, modified, consumed, mark, broken) VALUES (?, ?, ?, 0, 0, 0)",
            (name, stat.st_ino, stat.st_mtime_ns),
        )
        return _Segment(
            id=self._connection.last_insert_rowid(), inode=stat.st_ino, modified=stat.st_mtime_ns, consumed=0, mark=0
        )

    def _drop(self, segment_id: int) -> None:
        self._connection.execute(
            "DELETE FROM arguments WHERE record IN (SELECT id FROM records WHERE segment = ?)", (segment_id,)
        )
        self._connection.execute("DELETE FROM records WHERE segment = ?", (segment_id,))
        self._connection.execute("DELETE FROM segments WHERE id = ?", (segment_id,))

    def _distrust(self, name: str) -> None:
        with self._lock, self._writing():
            for (segment_id,) in self.rows("SELECT id FROM segments WHERE name = ?", (name,)):
                self._drop(segment_id)

    def _insert(self, segment_id: int, found: Lines) -> int:
        rows, broken = [], 0
        texts: set[str] = set()
        for place, line in found.placed():
            row = row_of(line)
            if row is None:
                broken += 1
                continue
            rows.append((place, row))
            texts.update(row.texts, (name for name, _ in row.arguments))
        numbers = self._numbers(texts)
        first = self.rows("SELECT coalesce(max(id), 0) + 1 FROM records")[0][0]
        self._connection.executemany(
            INSERT,
            (
                (number, segment_id, place, *row.own, *(numbers[text] for text in row.texts))
                for number, (place, row) in enumerate(rows, start=first)
            ),
        )
        self._connection.executemany(
            "INSERT INTO arguments VALUES (?, ?, ?)",
            (
                (number, numbers[name], value)
                for number, (_, row) in enumerate(rows, start=first)
                for name, value in row.arguments
                if name
            ),
        )
        return broken

    def _numbers(self, texts: Iterable[str]) -> dict[str, int | None]:
        if len(self._names) > _MOST_NAMES or self._name_bytes > MOST_NAME_BYTES:
            self._names.clear()
            self._name_bytes = 0
        unknown = [text for text in texts if text and text not in self._names]
        self._connection.executemany("INSERT OR IGNORE INTO names (text) VALUES (?)", [(text,) for text in unknown])
        new = {text: self.rows("SELECT id FROM names WHERE text = ?", (text,))[0][0] for text in unknown}
        numbers: dict[str, int | None] = {"": None}
        numbers |= {text: new.get(text) or self._names[text] for text in texts if text}
        self._learned |= new
        return numbers

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the single write lock, which other processes respect, for one transaction."""
        self._learned: dict[str, int] = {}
        self._connection.execute("BEGIN IMMEDIATE")
        with committing(self._connection):
            yield
        # INVARIANT: only what is committed is remembered.
        self._names |= self._learned
        self._name_bytes += sum(_NAME_BYTES + getsizeof(text) for text in self._learned)
