"""Keep keys in a folder, each wrapped by a root key that is there, too: the provider for one machine.

Whoever reads the folder can open what the store holds, so its backups are kept apart from those of the store.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final, Protocol

from pdp.broker.providers import required_id
from pdp.broker.sealing.aead import KEY_BYTES, decrypted, encrypted, new_key
from pdp.broker.words import ProviderUnavailableError, SealBrokenError, UnknownKeyError
from pdp.errors import ConfigurationError, WrongStateError, reason_of
from pdp.foundation.files import make_folder, new_file, replacing, sync_folder
from pdp.foundation.jsontext import canonical
from pdp.foundation.ownership import is_exposed, read_own

_DANGER: Final = "anyone could choose the keys of secrets"
_PURPOSE: Final = "pdp-broker/kek/v1"
_ROOT_PREFIX, _KEK_SUFFIX = "root-", ".kek"
_ROOT_ID_DIGITS: Final = 16
# Of a file here; a longer one is not ours.
_MOST_BYTES: Final = 64 * 1024


class Cover(Protocol):
    """How a root key rests in its file."""

    def cover(self, root: bytes) -> bytes:
        """Return what the file holds."""
        ...

    def uncover(self, content: bytes) -> bytes:
        """Return the root key. Raise `ConfigurationError` when that cannot be done."""
        ...


class Plain:
    """The root key as it is, in a file that only its owner reads."""

    def cover(self, root: bytes) -> bytes:
        """Return what the file holds."""
        return root

    def uncover(self, content: bytes) -> bytes:
        """Return the root key."""
        return content


class FileProvider:
    """The keys of a folder. Each is a file, and opens under one of the roots; new ones are wrapped by the latest root.

    The roots are read when the provider is opened, the other keys at each use: a destroyed one is gone for all
    processes at once. Raise `ConfigurationError` when the folder has no root, or others can read it.
    """

    def __init__(self, folder: Path, cover: Cover | None = None) -> None:
        self._folder, self._cover = folder, cover or Plain()
        self._held = _hold(folder)
        try:
            self._roots = self._read_roots()
        except BaseException:
            self.close()
            raise

    @classmethod
    def initialize(cls, folder: Path, cover: Cover | None = None) -> bool:
        """Create the folder with a first root unless it has one. Say whether it was created."""
        make_folder(folder, sync_folder)
        if any(folder.glob(f"{_ROOT_PREFIX}*")):
            return False
        _write_root(folder, new_key(), 1, cover or Plain())
        return True

    def create(self, kek_id: str) -> None:
        """Create a random key."""
        _write_new(self._path(kek_id), self._wrapped(kek_id, new_key()))

    def wrap(self, kek_id: str, key: bytes, associated: bytes) -> bytes:
        """Return a key, sealed with its associated data."""
        return encrypted(self._key(kek_id), key, associated)

    def unwrap(self, kek_id: str, wrapped: bytes, associated: bytes) -> bytes:
        """Return a key that was wrapped."""
        return decrypted(self._key(kek_id), wrapped, associated)

    def destroy(self, kek_id: str) -> None:
        """Remove the file of a key."""
        self._path(kek_id).unlink(missing_ok=True)
        sync_folder(self._folder)

    def check(self) -> None:
        """Look whether the folder can still be read."""
        self._read_roots()

    def close(self) -> None:
        """Let others replace the root."""
        os.close(self._held)

    def replace_root(self) -> None:
        """Wrap all keys by a new root, and remove the others: copies of the folder from before open no secret any more.

        Raise `WrongStateError` while another process uses the folder. When it was interrupted, call it again.
        """
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WrongStateError(f"another process uses the keys in `{self._folder}`: stop the broker first") from None
        number = 1 + max(map(_number_of, self._roots), default=0)
        root_id = _write_root(self._folder, root := new_key(), number, self._cover)
        former, self._roots = self._roots, {**self._roots, root_id: root}
        for path in sorted(self._folder.glob(f"*{_KEK_SUFFIX}")):
            content = self._wrapped(path.stem, self._key(path.stem))
            with replacing(path) as file:
                file.write(content)
        sync_folder(self._folder)
        for one in former:
            (self._folder / one).unlink()
        sync_folder(self._folder)
        self._roots = {root_id: root}

    def _wrapped(self, kek_id: str, key: bytes) -> bytes:
        root_id = max(self._roots, key=_number_of)
        return f"{root_id}\n".encode() + encrypted(self._roots[root_id], key, _associated(kek_id))

    def _key(self, kek_id: str) -> bytes:
        try:
            content = self._path(kek_id).read_bytes()
        except FileNotFoundError:
            raise UnknownKeyError(f"the provider has no key `{kek_id}`") from None
        except OSError as error:
            raise ProviderUnavailableError(f"cannot read the key `{kek_id}`: {reason_of(error)}") from None
        root_id, _, wrapped = content.partition(b"\n")
        root = self._roots.get(root_id.decode("ascii", "replace"))
        if root is None:
            raise UnknownKeyError(f"the root that wraps the key `{kek_id}` is not in `{self._folder}`")
        try:
            return decrypted(root, wrapped, _associated(kek_id))
        except SealBrokenError:
            raise SealBrokenError(f"the file of the key `{kek_id}` was changed, or belongs to another one") from None

    def _path(self, kek_id: str) -> Path:
        return self._folder / f"{required_id(kek_id)}{_KEK_SUFFIX}"

    def _read_roots(self) -> Mapping[str, bytes]:
        paths = sorted(self._folder.glob(f"{_ROOT_PREFIX}*"))
        if not paths:
            raise ConfigurationError(f"there is no root key in `{self._folder}`; run `pdp-broker init`")
        return {path.name: self._read_root(path) for path in paths}

    def _read_root(self, path: Path) -> bytes:
        content = read_own(path, _DANGER, most=_MOST_BYTES)
        if is_exposed(path.stat()):
            raise ConfigurationError(f"others can read `{path}`, which holds a root key; `chmod go=` it")
        root = self._cover.uncover(content)
        if len(root) != KEY_BYTES or _root_id(root, _number_of(path.name)) != path.name:
            raise ConfigurationError(f"`{path}` does not hold the root key that it is named after")
        return root


def _hold(folder: Path) -> int:
    """Open a folder of keys, and keep others from replacing its root."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(f"cannot open the folder of keys `{folder}`: {reason_of(error)}") from None
    try:
        fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise ProviderUnavailableError(f"the root key in `{folder}` is being replaced: try again") from None
    return held


def _write_root(folder: Path, root: bytes, number: int, cover: Cover) -> str:
    root_id = _root_id(root, number)
    _write_new(folder / root_id, cover.cover(root))
    return root_id


def _write_new(path: Path, content: bytes) -> None:
    """Write a new file, and return when neither it nor its name can be lost."""
    with new_file(path) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _root_id(root: bytes, number: int) -> str:
    """Return the name of a root: its number and a digest, from which nobody finds 256 random bits."""
    return f"{_ROOT_PREFIX}{number}-{sha256(root).hexdigest()[:_ROOT_ID_DIGITS]}"


def _number_of(root_id: str) -> int:
    number = root_id.removeprefix(_ROOT_PREFIX).partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _associated(kek_id: str) -> bytes:
    return canonical([_PURPOSE, kek_id])
