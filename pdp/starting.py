"""The needs of a server before it starts, in one list: a start checks them, and `pdp doctor` reports them.

The store and the bundle are not in it, because opening the one and compiling the other is the start itself. Nor are
files that `pdp serve` creates when they are absent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pdp.bundlesettings import trust_of
from pdp.callersettings import denied_of, keys_of_file, tls_files_of
from pdp.clock import SystemClock
from pdp.config.settings import Settings
from pdp.errors import CannotListenError, ConfigurationError
from pdp.foundation.extras import missing
from pdp.foundation.ownership import read_own, require_own
from pdp.identity.callers import read_callers
from pdp.messagesettings import receivers_of
from pdp.record.keys import DIGEST_KEY_BYTES, PublicKeys, SigningKey
from pdp.serving.certificates import ServerCertificates
from pdp.telemetry.settings import TelemetrySettings
from pdp.workers.port import SharedPort

if TYPE_CHECKING:
    from pdp.sessions.postgresheads import PostgresHeads

_UNIX = "unix:"
_LONGEST_SOCKET = 107
_MOST_CONNECTION_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One need of a server: the `pdp doctor` check that reports it, its settings, and how to check it.

    `require` changes nothing and raises `ConfigurationError` for what keeps a server from starting.
    """

    check: str
    settings: tuple[str, ...]
    require: Callable[[Settings], object]
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmet:
    """An unmet need: which of its settings are at fault, and the problem, which names them."""

    need: Need
    settings: str
    problem: str


def unmet(settings: Settings, *, check: str = "", port_held: bool = False) -> Iterator[Unmet]:
    """Yield what keeps a server from starting; for one check of `pdp doctor`, or all.

    `port_held` says that the addresses are already ours: those of a running server, or of this worker's parent.
    """
    for need in NEEDS:
        if (check and need.check != check) or (port_held and need.check == ADDRESS):
            continue
        try:
            need.require(settings)
        except ConfigurationError as error:
            names, problem = _guilty(need, settings, str(error)), str(error)
            yield Unmet(need=need, settings=names, problem=problem if names in problem else f"{names}: {problem}")


def require(settings: Settings, *, port_held: bool = False) -> None:
    """Raise `ConfigurationError` with a line for each unmet need."""
    problems = [one.problem for one in unmet(settings, port_held=port_held)]
    if problems:
        raise ConfigurationError("\n".join(problems))


def require_record_folder(settings: Settings) -> None:
    """Raise `ConfigurationError` unless the folder of the record can be written or created."""
    folder = settings.record_folder.absolute()
    path = next(one for one in (folder, *folder.parents) if one.exists())
    if not path.is_dir():
        raise ConfigurationError(f"`{path}` is not a folder")
    if os.statvfs(path).f_flag & os.ST_RDONLY or not os.access(path, os.W_OK | os.X_OK):
        raise ConfigurationError(f"`{path}` cannot be written")


def more_keys_of(settings: Settings) -> PublicKeys:
    """Return the public keys, besides that of this machine, with which segments of the record are verified.

    Raise `ConfigurationError` when they cannot be read.
    """
    path = settings.record.public_keys
    if not path:
        return PublicKeys(())
    keys = PublicKeys.load([Path(path)])
    require_own(Path(path), "anyone could vouch for records")
    return keys


def _guilty(need: Need, settings: Settings, problem: str) -> str:
    """Return the settings that a problem is about: of several, those whose values it quotes."""
    quoted = [name for name in need.settings if f"`{_value(settings, name)}`" in problem]
    return ", ".join(f"`{name}`" for name in quoted or need.settings)


def _value(settings: Settings, name: str) -> object:
    section, _, last = name.rpartition(".")
    return getattr(getattr(settings, section) if section else settings, last)


def _require_digest_key(settings: Settings) -> None:
    path = settings.record_digest_key
    if not settings.record.digest_key and not path.exists():
        return
    key = read_own(path, "anyone could choose the key of digests")
    if len(key) < DIGEST_KEY_BYTES:
        raise ConfigurationError(f"`{path}` is shorter than {DIGEST_KEY_BYTES} bytes")


def _require_signing_key(settings: Settings) -> None:
    if settings.record.signing_key or settings.record_signing_key.exists():
        SigningKey.load(settings.record_signing_key)


def _require_callers(settings: Settings) -> None:
    if settings.callers.file or settings.callers_file.exists():
        read_callers(settings.callers_file, development=settings.only_this_machine)


def _require_certificate(settings: Settings) -> None:
    files = tls_files_of(settings)
    made_at_the_start = settings.makes_certificate and not (files and files.certificate.exists() and files.key.exists())
    if files is not None and not made_at_the_start:
        ServerCertificates(files).credentials()


def telemetry_of(settings: Settings) -> TelemetrySettings:
    """Return where telemetry goes. Raise `ConfigurationError` for variables that cannot work."""
    chosen = settings.telemetry.exporter
    return TelemetrySettings.from_environment(os.environ, exporter="" if chosen == "auto" else chosen)


def postgres_of(settings: Settings) -> str:
    """Return the connection string of PostgreSQL; empty with another store. Raise `ConfigurationError`."""
    return conninfo_in(Path(settings.sessions.postgres_file)) if settings.sessions.postgres_file else ""


def heads_of(settings: Settings) -> PostgresHeads | None:
    """Return where servers note how far their records reach; None unless they share PostgreSQL.

    Raise `ConfigurationError`.
    """
    if settings.sessions.store != "postgres":
        return None
    from pdp.sessions.postgresheads import PostgresHeads  # noqa: PLC0415 - an extra brings its driver

    return PostgresHeads(postgres_of(settings))


def conninfo_in(path: Path) -> str:
    """Return the connection string that a file holds. Raise `ConfigurationError`."""
    text = read_own(path, "anyone could put another store in its place", most=_MOST_CONNECTION_BYTES)
    try:
        found = text.decode().strip()
    except UnicodeDecodeError:
        found = ""
    if not found or "\n" in found:
        raise ConfigurationError(f"`{path}` must hold one line: a connection string of PostgreSQL")
    return found


def _require_address(settings: Settings) -> None:
    _require_free(settings.server.address)


def _require_control_address(settings: Settings) -> None:
    address = settings.control_address
    if not address.startswith(_UNIX):
        _require_free(address)
        return
    # The start can create the folder.
    _socket_path(address)


def _socket_path(address: str) -> str:
    path = address.removeprefix(_UNIX).removeprefix("//")
    if len(os.fsencode(path)) > _LONGEST_SOCKET:
        raise ConfigurationError(f"`{path}` is longer than {_LONGEST_SOCKET} bytes, the most for the path of a socket")
    return path


def _require_free(address: str) -> None:
    if not address.startswith(_UNIX):
        SharedPort(address).close()
        return
    folder = Path(_socket_path(address)).absolute().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise CannotListenError(f"cannot listen on `{address}`: `{folder}` is not a folder that can be written")


def _require_listener(settings: Settings) -> None:
    if settings.server.listener == "loop":
        try:
            import_module("ngh2")
        except ImportError as error:
            raise ConfigurationError(missing(error) or str(error)) from None


def _require_metrics_address(settings: Settings) -> None:
    if settings.telemetry.scraped is not None:
        SharedPort(settings.telemetry.prometheus_address).close()


ADDRESS = "address"
NEEDS: tuple[Need, ...] = (
    Need(
        check="libraries",
        settings=("server.listener",),
        require=_require_listener,
        remedy="install the extra, or set `grpc`",
    ),
    Need(check="keys", settings=("record.digest_key",), require=_require_digest_key, remedy="put the right file back"),
    Need(
        check="keys",
        settings=("record.signing_key",),
        require=_require_signing_key,
        remedy="put the key back, or move it away and run `pdp init`, which makes a new one",
    ),
    Need(
        check="record",
        settings=("record.public_keys",),
        require=more_keys_of,
        remedy="put the public keys of the other machines there, in PEM (`record-signing.pub.pem` of each `data_dir`)",
    ),
    Need(
        check="callers",
        settings=("callers.file",),
        require=_require_callers,
        remedy="fix the file: without it the server does not start",
    ),
    Need(
        check="deny-list",
        settings=("callers.denied_file",),
        require=denied_of,
        remedy="put the file there, empty if nothing is denied, and let only its owner write to it",
    ),
    Need(
        check="token issuer",
        settings=("jwt.keys_file",),
        require=lambda settings: keys_of_file(settings.jwt, SystemClock()) if settings.jwt.keys_file else None,
        remedy="put the issuer's public keys there, as a JWKS to which only its owner can write",
    ),
    Need(
        check="tls",
        settings=("server.tls_certificate", "server.tls_key", "server.tls_client_roots"),
        require=_require_certificate,
        remedy="put the certificate, key and authorities there, in PEM, and let the server's user read them",
    ),
    Need(
        check="policies",
        settings=("policies.public_keys",),
        require=trust_of,
        remedy="put the public keys there, in PEM",
    ),
    Need(
        check="store",
        settings=("sessions.postgres_file",),
        require=postgres_of,
        remedy="put the connection string there, and let only the server's user read it",
    ),
    Need(
        check="record",
        settings=("record.folder",),
        require=require_record_folder,
        remedy="let the server's user write there, or set another folder",
    ),
    Need(
        check="messages",
        settings=("messages.receivers_file",),
        require=receivers_of,
        remedy="fix the file and those that it names: without it the server does not start",
    ),
    Need(
        check="telemetry",
        settings=("telemetry.exporter",),
        require=telemetry_of,
        remedy="fix the variable, or set `telemetry.exporter`",
    ),
    Need(
        check=ADDRESS,
        settings=("server.address",),
        require=_require_address,
        remedy="stop what listens there (`ss -ltnp`), or set another address",
    ),
    Need(
        check=ADDRESS,
        settings=("server.control_address",),
        require=_require_control_address,
        remedy="stop what listens there (`ss -ltnp`), or set another address",
    ),
    Need(
        check=ADDRESS,
        settings=("telemetry.prometheus_address",),
        require=_require_metrics_address,
        remedy="stop what listens there (`ss -ltnp`), or set another address",
    ),
)
