"""SQLite's files with a journal of all that it asks of the disk. Nothing is synced for real."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import apsw

from tests.proofs.power.platter import Journal

_NAME = "pdp-test-journal"
# SQLite's own code syncs the folder with the first sync of these.
_WITH_THEIR_NAME = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL


@contextmanager
def journaled(folder: Path, files: Mapping[str, bytes] | None = None) -> Iterator[Journal]:
    """Have SQLite write a journal of what it asks for below a folder, for as long as the `with` block runs.

    `files` are on the disk already: the journal begins with them.
    """
    journal, link = Journal.of(files or {}), os.link

    def linked(old: Path, new: Path) -> None:
        link(old, new)
        journal.named(_name(folder, new), journal.names[_name(folder, old)])

    usual = apsw.vfs_names()[0]
    vfs = _VFS(folder, journal, usual)
    apsw.set_default_vfs(_NAME)
    try:
        # A new store gets its name by these two, past SQLite.
        with (
            patch("pdp.sessions.database.os.link", linked),
            patch("pdp.sessions.database.sync_folder", lambda _: journal.synced_names()),
        ):
            yield journal
    finally:
        apsw.set_default_vfs(usual)
        vfs.unregister()


class _VFS(apsw.VFS):
    def __init__(self, folder: Path, journal: Journal, base: str) -> None:
        self._folder, self._journal, self._base = folder, journal, base
        super().__init__(_NAME, base)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "")
        opened = _File(self._base, name, flags)
        if path.is_relative_to(self._folder):
            opened.journal, opened.file = self._journal, self._journal.opened(_name(self._folder, path))
            opened.syncs_names = bool(flags[0] & apsw.SQLITE_OPEN_CREATE and flags[0] & _WITH_THEIR_NAME)
        return opened

    def xDelete(self, name: str, sync_folder: bool) -> None:  # noqa: FBT001, N802 - SQLite's signature
        super().xDelete(name, False)  # noqa: FBT003 - SQLite's signature
        self._journal.unnamed(_name(self._folder, Path(name)))
        if sync_folder:
            self._journal.synced_names()


class _File(apsw.VFSFile):
    journal: Journal | None = None
    file = -1
    syncs_names = False

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        super().xWrite(data, offset)
        if self.journal is not None:
            self.journal.wrote(self.file, offset, bytes(data))

    def xTruncate(self, size: int) -> None:  # noqa: N802 - SQLite's name
        super().xTruncate(size)
        if self.journal is not None:
            self.journal.truncated(self.file, size)

    def xSync(self, _: int) -> None:  # noqa: N802 - SQLite's name
        if self.journal is not None:
            self.journal.synced(self.file)
            if self.syncs_names:
                self.journal.synced_names()
                self.syncs_names = False


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
