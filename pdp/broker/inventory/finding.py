"""Look for secrets in files, folders and the environments of processes: what each is, who holds it, who can read it.

The value of a secret leaves this module in no form; two finds of one secret have the same number.
"""

from __future__ import annotations

import grp
import os
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from pdp.broker.inventory.shapes import OTHER, Shape, bare, kind_of, recognised
from pdp.broker.inventory.texts import UnreadableError, named_texts
from pdp.broker.upstream import Upstream, UpstreamError
from pdp.foundation.ownership import user_name

_MOST_BYTES: Final = 4 * 1024 * 1024
_MOST_ENTRIES: Final = 200_000
# Where clients of MCP keep the servers that they start, and where tools keep keys.
_NAMES: Final = frozenset(
    {
        *("mcp.json", ".mcp.json", "mcp_config.json", "mcp_settings.json", "cline_mcp_settings.json", ".claude.json"),
        *("claude_desktop_config.json", "librechat.yaml", ".env", ".envrc"),
    }
)
# They have other things in them too, so they count in the folders of these programs alone.
_NAMES_WITHIN: Final = frozenset(
    {
        *(
            (".vscode", "settings.json"),
            (".gemini", "settings.json"),
            (".zed", "settings.json"),
            ("zed", "settings.json"),
        ),
        *(
            (".codex", "config.toml"),
            (".continue", "config.yaml"),
            ("goose", "config.yaml"),
            (".claude", "settings.json"),
        ),
        (".claude", "settings.local.json"),
    }
)
_NEVER_INTO: Final = frozenset({"node_modules", ".git", ".venv", "venv", "__pycache__", "site-packages"})
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    """A secret in a place. `number` is that of the secret: equal secrets have one number.

    `place` is where in the file it is. `user` owns the file or process. `since` is unix seconds: since when it has
    been there at least. `readers` says who can read it. In a git working tree it may be in the history as well.
    """

    number: int
    shape: Shape
    file: Path
    place: str
    user: str
    since: float
    readers: str
    in_git: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What is the same for all finds of a file; `place` follows that of each."""

    user: str
    since: float
    readers: str
    in_git: bool = False
    place: str = ""


@dataclass(slots=True)
class Inventory:
    """What was found, how many files were read, and which could not be, with the reason."""

    finds: list[Find] = field(default_factory=list)
    read: int = 0
    unread: dict[Path, str] = field(default_factory=dict)


def take_inventory(paths: Iterable[Path], *, processes: bool = False) -> Inventory:
    """Look through files, folders and, with `processes`, the environment of each process that may be read.

    A file that is named is read whatever it is called; in a folder, those are whose names are known.
    """
    found = Inventory()
    numbers: dict[str, int] = {}
    every = (file for path in paths for file in _files(path, found))
    for file in dict.fromkeys([*every, *(_environments() if processes else ())]):
        try:
            found.finds += _finds(file, numbers)
            found.read += 1
        except (OSError, UnreadableError) as error:
            # An environment that cannot be read is another user's, or its process has ended.
            if not _is_environment(file):
                found.unread[file] = (error.strerror or "not readable") if isinstance(error, OSError) else str(error)
    return found


def _finds(file: Path, numbers: dict[str, int]) -> list[Find]:
    recognisable = [
        (numbers.setdefault(bare(text.value), len(numbers) + 1), _at(shape, text.url), text.place)
        for text in named_texts(file, _content(file))
        if (shape := recognised(text.name, text.value))
    ]
    if not recognisable:
        return []
    held = _held(file)
    return [
        Find(
            number=number,
            shape=shape,
            file=file,
            place=f"{place}{held.place}",
            user=held.user,
            since=held.since,
            readers=held.readers,
            in_git=held.in_git,
        )
        for number, shape, place in recognisable
    ]


def _files(path: Path, found: Inventory) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    seen = 0
    for folder, inside, names in os.walk(path, onerror=lambda error: _note(error, found)):
        seen += len(names) + len(inside)
        if seen > _MOST_ENTRIES:
            found.unread[Path(folder)] = f"more than {_MOST_ENTRIES} files and folders; name a smaller folder"
            return
        inside[:] = sorted(set(inside) - _NEVER_INTO)
        yield from (Path(folder, name) for name in sorted(names) if _is_known(Path(folder).name, name))


def _note(error: OSError, found: Inventory) -> None:
    found.unread[Path(error.filename)] = error.strerror or "not readable"


def _is_known(folder: str, name: str) -> bool:
    return name in _NAMES or name.startswith(".env.") or name.endswith(".env") or (folder, name) in _NAMES_WITHIN


def _environments() -> Iterator[Path]:
    processes = (int(one.name) for one in _PROC.iterdir() if one.name.isdigit())
    yield from (_PROC / str(process) / "environ" for process in sorted(processes) if process != os.getpid())


def _is_environment(file: Path) -> bool:
    return file.name == "environ" and _PROC in file.parents


def _content(file: Path) -> bytes:
    # Never waits: a pipe has no end.
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise UnreadableError("not a file")
        content = opened.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise UnreadableError(f"more than {_MOST_BYTES} bytes")
    return content


def _at(shape: Shape, url: str) -> Shape:
    """Return a shape with the upstream at which its file uses it, if that says so."""
    if not url or shape.uncovered:
        return shape
    scheme, _, rest = url.partition("://")
    try:
        upstream = Upstream.read(f"{scheme}://{rest.partition('/')[0]}")
    except UpstreamError:
        return shape
    kind = kind_of(upstream.host) if shape.kind == OTHER else shape.kind
    return replace(shape, kind=kind, upstream=upstream.origin)


def _held(file: Path) -> _Held:
    status = file.stat()
    user = user_name(status.st_uid)
    if _is_environment(file):
        name = (file.parent / "comm").read_text(errors="replace").strip()
        readers = f"each process of {user}, and what it starts"
        return _Held(user=user, since=_started(file.parent), readers=readers, place=f" of `{name}`")
    resolved = file.resolve()
    return _Held(
        user=user,
        since=status.st_mtime,
        readers=_readers(resolved, status, user),
        in_git=any((folder / ".git").exists() for folder in resolved.parents),
    )


def _started(process: Path) -> float:
    """Return when a process began. Source: proc(5), field 22 of `stat`, in ticks since the start of the machine."""
    ticks = int((process / "stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def _readers(file: Path, status: os.stat_result, user: str) -> str:
    """Say who can read a file, by its mode and those of the folders above it. Access lists are not looked at."""
    folders = [folder.stat() for folder in file.parents]
    if status.st_mode & stat.S_IROTH and all(one.st_mode & stat.S_IXOTH for one in folders):
        return "everyone on this machine"
    if status.st_mode & stat.S_IRGRP and all(one.st_mode & (stat.S_IXGRP | stat.S_IXOTH) for one in folders):
        return f"{user}, and the group `{_group(status.st_gid)}`"
    return f"{user} alone"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
