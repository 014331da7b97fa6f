"""Change the file of callers: make, replace and remove tokens, while comments stay and a server can read the file."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pdp.errors import BundleError, ConfigurationError, reason_of
from pdp.foundation.files import replacing, sync_folder
from pdp.foundation.yamltext import Section, load_section
from pdp.identity.callers import CALLERS_FILE, callers_of, read_private
from pdp.model import Role

TOKENS_FOLDER = "tokens"

_HEADER = "# Who may call, by the SHA-256 of a bearer token. The tokens are in `tokens/`."
_DEVELOPMENT = "# For development on this machine alone: a server that others can reach refuses these."
# Shorter tokens can be guessed, and longer ones do not fit into the metadata of a call.
_GIVEN_TOKEN = re.compile(r"[\x21-\x7e]{32,8192}")
_BY_HAND = "this command cannot change a file of this form: change it by hand"

_ROLES = frozenset(role.value for role in Role)

Entry = Mapping[str, object]


def init_callers(folder: Path, *, development: bool = False) -> Path:
    """Create a caller with a random token for each role. Return the file for `TokenAuthenticator`.

    Tokens go to `tokens/<caller>.token` (mode 0600 in a folder of mode 0700), digests to `callers.yaml`.
    Raise `ConfigurationError` when there are callers already.
    """
    callers_file, tokens = folder / CALLERS_FILE, folder / TOKENS_FOLDER
    if callers_file.exists():
        raise ConfigurationError(f"callers exist already: `{callers_file}`")
    lines = [_HEADER, *([_DEVELOPMENT] if development else [])]
    for role in Role:
        token = new_token()
        write_token(tokens / f"{role.value}.token", token)
        entry = {"token_sha256": digest_of(token), "roles": [role.value], "tenant": "default"}
        lines += _block(role.value, entry | ({"development": True} if development else {}))
    # Written last, so that an interrupted run can start again.
    _replace(callers_file, "\n".join(lines) + "\n")
    return callers_file


def new_token() -> str:
    """Return a new bearer token of 256 random bits."""
    return "pdpt_" + secrets.token_urlsafe(32)


def digest_of(token: str) -> str:
    """Return the form of a token in a file of callers: its SHA-256 in hex."""
    return hashlib.sha256(token.encode("ascii")).hexdigest()


def digest_in(path: Path) -> str:
    """Return the digest of the token in a file; empty when there is no readable token."""
    try:
        return digest_of(read_token(path))
    except ConfigurationError:
        return ""


def read_token(path: Path) -> str:
    """Return the token that is alone in a file. Raise `ConfigurationError` when there is no readable token."""
    try:
        token = path.read_bytes().decode("ascii", "replace").strip()
    except OSError as error:
        raise ConfigurationError(f"cannot read `{path}`: {reason_of(error)}") from None
    if not _GIVEN_TOKEN.fullmatch(token):
        raise ConfigurationError(f"`{path}` holds no token: 32 or more printable characters without spaces")
    return token


def write_token(path: Path, token: str) -> None:
    """Write a token atomically, readable by its owner alone. Raise `ConfigurationError` when that fails."""
    try:
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, parents=True)
        if path.parent.name == TOKENS_FOLDER:
            path.parent.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"cannot write `{path.parent}`: {reason_of(error)}") from None
    _replace(path, token + "\n", secret=True)


class CallersFile:
    """The entries of a file of callers, opened by `editing`. An entry is a mapping as in the file.

    A change leaves everything else as it is, comments too. The result is parsed by the server's own reader before it is
    written: a change that would produce another file than intended raises `ConfigurationError`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = ""
        self._section = Section(str(path), 1)
        if path.exists():
            self._section = read_private(path, "anyone could become a caller")
            self._text = path.read_text(encoding="utf-8")

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Return the entries by the ids of their callers."""
        return self._section

    def add(self, caller_id: str, entry: Entry) -> None:
        """Add a caller at the end."""
        text = self._text or f"{_HEADER}\n"
        text += "" if text.endswith("\n") else "\n"
        self._become(text + "\n".join(_block(caller_id, entry)) + "\n", {**self._section, caller_id: entry})

    def replace(self, caller_id: str, entry: Entry) -> None:
        """Give a caller another entry."""
        self._become(self._with(caller_id, entry), {**self._section, caller_id: entry})

    def remove(self, caller_id: str) -> None:
        """Remove a caller. Raise `ConfigurationError` for the last one: no server starts without callers."""
        if len(self._section) == 1:
            raise ConfigurationError(f"`{caller_id}` is the only caller, and no server starts without one")
        left = {one: entry for one, entry in self._section.items() if one != caller_id}
        self._become(self._with(caller_id, None), left)

    def write(self) -> None:
        """Replace the file in one step, with its former mode and group."""
        _replace(self._path, self._text)

    def _with(self, caller_id: str, entry: Entry | None) -> str:
        """Return the text with another entry for a caller, or without it."""
        lines = self._text.splitlines()
        first = self._section.lines[caller_id] - 1
        following = [line - 1 for line in self._section.lines.values() if line - 1 > first]
        end = min(following, default=len(lines))
        # A comment right above the next entry belongs to that entry.
        while end > first + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
            end -= 1
        block = [] if entry is None else _changed(lines[first:end], first, self._section[caller_id], caller_id, entry)
        return "\n".join([*lines[:first], *block, *lines[end:]]) + "\n"

    def _become(self, text: str, entries: Mapping[str, Entry]) -> None:
        try:
            section = load_section(str(self._path), text.encode("utf-8"), times_as_text=True)
        except BundleError:
            raise ConfigurationError(f"`{self._path}`: {_BY_HAND}") from None
        if section != entries:
            raise ConfigurationError(f"`{self._path}`: {_BY_HAND}")
        callers_of(section, development=True)
        self._text, self._section = text, section


@contextmanager
def editing(path: Path) -> Iterator[CallersFile]:
    """Lock a file of callers against other commands. Raise `ConfigurationError`; the caller calls `write`."""
    target = path.resolve()  # a link stays one
    try:
        # Lock the folder, because the file is replaced.
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"cannot read `{target.parent}`: {reason_of(error)}; run `pdp init`") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield CallersFile(target)
    finally:
        os.close(folder)


def _changed(lines: list[str], first: int, before: Section, caller_id: str, entry: Entry) -> list[str]:
    """Return the lines of an entry with its changes, each key on its line. Rewrite a one-line entry.

    `first` is the number of lines before the entry.
    """
    if set(before.lines.values()) & {first + 1} or len(set(before.lines.values())) < len(before.lines):
        return _block(caller_id, entry)
    positions = {name: line - 1 - first for name, line in before.lines.items()}
    indent = (
        " " * (len(lines[positions["roles"]]) - len(lines[positions["roles"]].lstrip()))
        if "roles" in positions
        else "  "
    )
    kept: list[str | None] = list(lines)
    for name in set(before) | set(entry):
        if name in before and name not in entry:
            kept[positions[name]] = None
        elif name in positions and before[name] != entry[name]:
            kept[positions[name]] = f"{indent}{name}: {_scalar(entry[name])}"
    added = [f"{indent}{name}: {_scalar(value)}" for name, value in entry.items() if name not in before]
    return [line for line in kept if line is not None] + added


def _block(caller_id: str, entry: Entry) -> list[str]:
    return [f"{_key(caller_id)}:", *(f"  {name}: {_scalar(value)}" for name, value in entry.items())]


def _key(caller_id: str) -> str:
    """Return an id as a key, in quotes where YAML would read something else, such as a number."""
    try:
        plain = caller_id in load_section("", f"{caller_id}: {{}}".encode())
    except BundleError:
        plain = False
    return caller_id if plain else f"'{caller_id}'"


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_listed, value))}]"
    return _quoted(value)


def _listed(value: object) -> str:
    """Return an entry of a list; names of roles need no quotes, and ids could read as numbers."""
    return value if isinstance(value, str) and value in _ROLES else _quoted(value)


def _quoted(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _replace(path: Path, text: str, *, secret: bool = False) -> None:
    """Write a file in one step and sync it to disk, with the mode and group of the former file.

    A user who can write to it gains every caller, so `go-w`; a new or secret file is its owner's alone.
    """
    try:
        before = path.stat() if path.exists() else None
        with replacing(path) as file:
            if before is not None and not secret:
                # Platforms give the server access to a file of root by its group.
                os.fchown(file.fileno(), -1, before.st_gid)
                os.fchmod(file.fileno(), before.st_mode & 0o755)
            file.write(text.encode("utf-8"))
        sync_folder(path.parent)
    except OSError as error:
        raise ConfigurationError(f"cannot write `{path}`: {reason_of(error)}") from None
