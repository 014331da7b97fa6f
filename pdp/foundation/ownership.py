"""Check who can change a file: other users of the machine must not be able to change what is trusted.

Windows has no owners and modes that could be asked for. There, a file is one's own in the user's profile folder, which
Windows makes for this user and administrators alone.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pdp.errors import ConfigurationError, reason_of

# Not on Windows.
_HAS_OWNERS = hasattr(os, "geteuid")
_ROOT = 0
# Smaller ids are system accounts, by the convention of all distributions.
_FIRST_PERSON = 1000
# The same limit as in Linux.
_MOST_LINKS = 40
_ACCESS_LIST = "system.posix_acl_access"


def require_own(path: Path, danger: str) -> None:
    """Raise `ConfigurationError` unless only this user and root can change what is at a path.

    Raise `OSError` when it is missing. As in sshd: the file or folder, every folder above it and every link on the
    way must belong to this user or root, and no other user may write to them. `danger` is what could happen
    otherwise. Two cases are as safe: a folder with the sticky bit, such as `/tmp`, where all users can write and
    each entry stays its owner's; and a group that has this user alone.
    """
    if not _HAS_OWNERS:
        _require_in_profile(path, danger)
        return
    for step in _way_to(path):
        if problem := _problem(step):
            where = "" if step.path == path else f", on the way to `{path}`"
            raise ConfigurationError(f"{problem}{where}: {danger}; {_remedy(step)}")


def require_own_socket(path: Path, danger: str) -> None:
    """Raise `ConfigurationError` unless only this user and root can put a socket there.

    Raise `OSError` without a folder. A socket goes when its server ends, so for its folder the sticky bit does not
    help: another user could put one there. Where files have no owners, each socket is refused.
    """
    if not _HAS_OWNERS:
        raise ConfigurationError(f"nothing on this system says who can put a socket at `{path}`: {danger}; use TLS")
    require_own(path if path.exists() else path.parent, danger)
    folder = path.resolve().parent
    step = _Step(folder, folder.lstat())
    if _others_may_write(step):
        raise ConfigurationError(
            f"others can put a socket into `{folder}`: {danger}; use a folder to which only you can write"
        )


def read_own(path: Path, danger: str, *, most: int = -1) -> bytes:
    """Return a file's content, or its first `most` bytes. Raise `ConfigurationError`, also when it cannot be read."""
    try:
        require_own(path, danger)
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise ConfigurationError(f"cannot read `{path}`: {reason_of(error)}") from None


def read_secret(path: Path, danger: str, *, most: int) -> str:
    """Return the text of a file that holds a secret, at most `most` bytes. Raise `ConfigurationError`.

    Beyond what `read_own` asks, no other user may read it, see `is_exposed`.
    """
    content = read_own(path, danger, most=most)
    if is_exposed(path.stat()):
        raise ConfigurationError(f"others can read `{path}`, which holds a secret; `chmod go=` it")
    return content.decode("utf-8", "replace")


def is_exposed(status: os.stat_result) -> bool:
    """Say whether others than its owner can read or change a secret.

    A group may read a file of root: services that do not run as root get their secrets so. Where files have no owners,
    nothing is found here, and what `require_own` demands keeps them from others.
    """
    if not _HAS_OWNERS:
        return False
    group = status.st_mode & stat.S_IRWXG
    exposed_to_group = bool(group & ~stat.S_IRGRP) or bool(group and status.st_uid != _ROOT)
    return bool(status.st_mode & stat.S_IRWXO) or exposed_to_group


def user_name(user_id: int) -> str:
    """Return the name of a user, or the number of one without a name."""
    import pwd  # noqa: PLC0415 - not every system has it

    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


def local_user() -> str:
    """Return who runs this process, as a record names somebody whom no server knows."""
    return f"local:{user_name(os.geteuid())}"


def _require_in_profile(path: Path, danger: str) -> None:
    """Raise `ConfigurationError` unless a path, and what is there, are in the profile folder."""
    home = Path.home().resolve()
    target = path.resolve(strict=True)
    # Another user must not be able to turn a link on the way round. Windows drops `..` before it follows links.
    named = Path(os.path.normpath(path.absolute()))
    for place in (named, target):
        if not place.is_relative_to(home):
            raise ConfigurationError(f"others may be able to write to `{place}`: {danger}; move it into `{home}`")


class _Step(NamedTuple):
    """One step to a path: a folder, a link or, at the end, the target."""

    path: Path
    status: os.stat_result


def _way_to(path: Path) -> Iterator[_Step]:
    """Yield the steps to a path, from the root on, in the order in which the system resolves it."""
    ahead = [*reversed(path.absolute().parts)]
    reached, links = Path(ahead.pop()), 0
    yield _Step(reached, reached.lstat())
    while ahead:
        part = ahead.pop()
        # INVARIANT: `reached` holds no links, so `..` is the folder above.
        here = reached.parent if part == ".." else reached / part
        status = here.lstat()
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            ahead += reversed(here.readlink().parts)
            yield _Step(here, status)
        else:
            reached = here
            # The file itself keeps the name that the caller gave.
            yield _Step(reached if ahead or links else path, status)


def _problem(step: _Step) -> str:
    owner, mode = step.status.st_uid, step.status.st_mode
    if owner not in (_ROOT, os.geteuid()):
        return f"`{step.path}` belongs to {user_name(owner)}"
    # Reading a device, such as `/dev/null`, does not return what was written to it.
    if stat.S_ISLNK(mode) or stat.S_ISCHR(mode) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
        return ""
    return f"others can write to `{step.path}`" if _others_may_write(step) else ""


def _others_may_write(step: _Step) -> bool:
    mode = step.status.st_mode
    return bool(mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not _is_alone(step)))


def _remedy(step: _Step) -> str:
    if step.status.st_uid in (_ROOT, os.geteuid()):
        return "`chmod go-w` it"
    if os.geteuid() == _ROOT:
        return f"run as {user_name(step.status.st_uid)}, or give it to root"
    return f"it must belong to root or {user_name(os.geteuid())}"


def _is_alone(step: _Step) -> bool:
    """Say whether this user is alone in the group that can write.

    Most systems give each user a group of the same name. In a container neither may have a name; then the group must be
    that of this process.
    """
    if _has_access_list(step.path):
        # Then the group bits are only an upper limit for the users in the list.
        return False
    import grp  # noqa: PLC0415 - not every system has it
    import pwd  # noqa: PLC0415 - the same

    user, root, number = user_name(os.geteuid()), user_name(_ROOT), step.status.st_gid
    # A group lists its added members, not the users whose primary group it is. On some systems accounts such as `sync`
    # have root's group as primary; no person logs in as one of these.
    system = range(_FIRST_PERSON if number == _ROOT else 0)
    members = {one.pw_name for one in pwd.getpwall() if one.pw_gid == number and one.pw_uid not in system}
    try:
        group = grp.getgrgid(number)
    except KeyError:
        return number == os.getegid() and user == str(os.geteuid()) and members <= {root}
    return group.gr_name in (user, root) and members.union(group.gr_mem) <= {user, root}


def _has_access_list(path: Path) -> bool:
    try:
        return _ACCESS_LIST in os.listxattr(path)
    except OSError as error:
        # A file system without access lists has none; after any other error, there may be one.
        return error.errno != errno.ENOTSUP
