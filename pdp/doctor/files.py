"""Check the data folder, the secrets in it and the keys: their owners and their readers."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pdp.doctor.finding import Deployment, Finding, fine, problem, warning
from pdp.errors import ConfigurationError, reason_of
from pdp.foundation.ownership import is_exposed, user_name
from pdp.record.keys import DIGEST_KEY_BYTES, PUBLIC_KEY_FILE, SigningKey
from pdp.serving.localtls import TLS_FOLDER

_OTHERS = stat.S_IRWXO
_GROUP = stat.S_IRWXG
_ROOT = 0


def data_folder(deployment: Deployment) -> Iterator[Finding]:
    """Check that the data folder exists, and that only its owner can use it."""
    check, folder = "data folder", Path(deployment.settings.data_dir)
    try:
        status = folder.stat()
    except FileNotFoundError:
        yield warning(check, f"`{folder}` does not exist", "`pdp init` or the first `pdp serve` creates it")
        return
    except OSError as error:
        yield problem(check, f"`{folder}`: {reason_of(error)}", "run `pdp doctor` as the user of the server")
        return
    if not stat.S_ISDIR(status.st_mode):
        yield problem(check, f"`{folder}` is not a folder", "set `data_dir` to a folder")
        return
    found = list(_data_folder_findings(check, folder, status, deployment.user_id))
    yield from found or [fine(check, f"`{folder}`, mode {_mode(status)}, of {user_name(status.st_uid)}")]


def secrets(deployment: Deployment) -> Iterator[Finding]:
    """Check that only the server's user can read tokens, keys and sessions.

    The files must also be its own.
    """
    check, owner = "secrets", _owner(deployment)
    if owner is None:
        return
    checked, found = 0, []
    for path in _secret_files(deployment):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            found.append(problem(check, f"`{path}`: {reason_of(error)}", "run `pdp doctor` as the user of the server"))
            continue
        checked += 1
        if is_exposed(status):
            remedy = f"chmod go= {path}; if others may have read it, replace it"
            found.append(problem(check, f"others can read or change `{path}`, mode {_mode(status)}", remedy))
    for path, written in _owned_files(deployment):
        status = path.stat()
        if status.st_uid != owner and (written or status.st_uid != _ROOT):
            message = f"`{path}` belongs to {user_name(status.st_uid)}, and the data folder to {user_name(owner)}"
            found.append(problem(check, message, f"chown {user_name(owner)} {path}"))
    yield from found or [fine(check, f"only their owner can read the {checked} files of tokens, keys and sessions")]


def keys(deployment: Deployment) -> Iterator[Finding]:
    """Check that the keys of the record exist, and the signing key's public half."""
    check, settings, folder = "keys", deployment.settings, Path(deployment.settings.data_dir)
    if not folder.is_dir():
        return
    digest_key, signing_key = settings.record_digest_key, settings.record_signing_key
    # One that a setting names is not made by a start, which refuses without it.
    there = digest_key.exists() or not settings.record.digest_key
    found = list(_digest_key_findings(check, digest_key)) if there else []
    if not signing_key.exists() and not settings.record.signing_key:
        remedy = "the next start creates a new one; only the public half of the old one verifies what it signed"
        found.append(warning(check, f"there is no signing key: `{signing_key}`", remedy))
    else:
        try:
            signer = SigningKey.load(signing_key)
        except ConfigurationError as error:
            remedy = "put the key back, or move it away and run `pdp init`, which creates a new one"
            found.append(problem(check, str(error), remedy))
        else:
            found += _public_half_findings(check, folder / PUBLIC_KEY_FILE, signer, settings.record.signing_key)
    yield from found or [fine(check, f"`{digest_key}` and `{signing_key}` can be used")]


def token_files(deployment: Deployment) -> list[Path]:
    """Return the files in the folder of tokens; none when it cannot be read."""
    folder = deployment.settings.tokens_folder
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
        return []
    return sorted(folder.glob("*.token"))


def _data_folder_findings(check: str, folder: Path, status: os.stat_result, user_id: int) -> Iterator[Finding]:
    if status.st_mode & (_GROUP | _OTHERS):
        yield problem(check, f"others can enter `{folder}`, mode {_mode(status)}", f"chmod 700 {folder}")
    if user_id not in (status.st_uid, _ROOT):
        message = f"`{folder}` belongs to {user_name(status.st_uid)}, and you are {user_name(user_id)}"
        yield problem(check, message, f"run as {user_name(status.st_uid)}, or chown -R {user_name(user_id)} {folder}")
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        yield problem(check, f"the file system of `{folder}` is read-only", "mount it writable: the store is there")


def _digest_key_findings(check: str, path: Path) -> Iterator[Finding]:
    try:
        length = len(path.read_bytes())
    except FileNotFoundError:
        yield warning(
            check,
            f"there is no digest key: `{path}`",
            "the next start creates a new one; digests before and after can no longer be compared",
        )
    except OSError as error:
        yield problem(check, f"`{path}`: {reason_of(error)}", "run `pdp doctor` as the user of the server")
    else:
        if length < DIGEST_KEY_BYTES:
            yield problem(check, f"`{path}` is shorter than {DIGEST_KEY_BYTES} bytes", "put the right file back")


def _public_half_findings(check: str, path: Path, signer: SigningKey, elsewhere: str) -> Iterator[Finding]:
    if elsewhere:
        return
    try:
        same = path.read_bytes() == signer.public.pem
    except OSError:
        same = False
    if not same:
        yield warning(
            check,
            f"`{path}` is not the public half of the signing key",
            "move it away, but keep it for what its own key signed, and run `pdp init`",
        )


def _secret_files(deployment: Deployment) -> Iterator[Path]:
    settings, folder = deployment.settings, Path(deployment.settings.data_dir)
    yield settings.record_digest_key
    yield settings.record_signing_key
    yield from token_files(deployment)
    for store in (settings.sessions_file, settings.history_file, settings.messages_file):
        yield from (store.with_name(store.name + suffix) for suffix in ("", "-wal", "-shm"))
    yield from sorted((folder / TLS_FOLDER).glob("*.key"))
    for named in (settings.server.tls_key, settings.policies.url_token_file, settings.sessions.postgres_file):
        if named:
            yield Path(named)


def _owned_files(deployment: Deployment) -> Iterator[tuple[Path, bool]]:
    """Yield files of the data folder and the record, and whether the server writes them."""
    settings, folder = deployment.settings, Path(deployment.settings.data_dir)
    given = (settings.callers_file, settings.record_digest_key, settings.record_signing_key)
    for path in (*given, *token_files(deployment)):
        if path.exists():
            yield path, False
    for written, pattern in (
        (folder, f"{settings.sessions_file.name}*"),
        (folder, f"{settings.history_file.name}*"),
        (folder, f"{settings.messages_file.name}*"),
        (settings.record_folder, "*"),
    ):
        if written.is_dir() and os.access(written, os.R_OK | os.X_OK):
            yield from ((path, True) for path in sorted(written.glob(pattern)) if path.is_file())


def _owner(deployment: Deployment) -> int | None:
    try:
        return Path(deployment.settings.data_dir).stat().st_uid
    except OSError:
        return None


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"
