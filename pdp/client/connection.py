"""The server's address and identity; a token goes to no other server, and never unencrypted beyond this machine."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import grpc

from pdp.client.diagnosis import Diagnosis
from pdp.client.errors import PDPClientError, describe
from pdp.errors import ConfigurationError
from pdp.foundation.loopback import is_loopback
from pdp.foundation.ownership import read_own, require_own_socket

DEFAULT_ADDRESS = "127.0.0.1:50151"
DEFAULT_DATA_DIR = ".pdp"
ASK_TOGETHER_VARIABLE = "PDP_ASK_TOGETHER"
# `pdp init` creates it in the data folder; a server on loopback is verified with it.
LOCAL_ROOTS = Path("tls") / "ca.pem"

_HOST_AND_PORT = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^\[\]:/,]+)):(?P<port>[0-9]{1,5})")
_UNIX = "unix:"
# The threads that would read the answers, and those that hold locks, exist only in the other process.
FORKED = "the client belongs to the process that made it; make another one after a fork"
_IMPOSTOR = "another process could impersonate the server, and receive tokens and handles"
_TOKEN = re.compile(r"[\x21-\x7e]+")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")

_OPTIONS = (
    # The client must find a restarted server within seconds; gRPC's own bound is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # The environment and the name service must not redirect or reconfigure the connection to the decision point.
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    # Each client has its own connection, so that several clients reach several of the workers behind one port.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An address with its credentials. Without `credentials` the connection is in plain text.

    `token` is called for each call. `diagnosis` explains why a connection failed. `process` is the one that made it,
    and no other may use it.
    """

    address: str
    token: Callable[[], str] = field(default=lambda: "", repr=False)
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    diagnosis: Diagnosis
    process: int = field(default_factory=os.getpid)

    @classmethod
    def to(
        cls,
        address: str | None,
        *,
        token: str | Callable[[], str] | None = None,
        token_file: str | Path | None = None,
        tls: bool | str | Path = False,
        tls_certificate: str | Path | None = None,
        tls_key: str | Path | None = None,
        data_dir: str | Path | None = None,
        plaintext: bool = False,
    ) -> Connection:
        """Return the connection to an address.

        None as address means `PDP_ADDRESS` or else `127.0.0.1:50151`.
        Without `tls` a server on loopback is verified with `tls/ca.pem` in `data_dir`, `PDP_DATA_DIR` or else `.pdp`,
        and a server behind a `unix:` address by its path, where only this user and root can create a socket. Raise
        `ConfigurationError` for a wrong address, token or certificate, for files and sockets that others could have
        created, and for plain text beyond loopback.
        """
        address = address or os.environ.get("PDP_ADDRESS") or DEFAULT_ADDRESS
        if address.startswith(("http://", "https://")):
            raise ConfigurationError(f"address `{address}` is a URL: leave out what is before and behind `host:port`")
        _require_fitting(tls, tls_certificate, tls_key, plaintext=plaintext)
        known = Path(data_dir or os.environ.get("PDP_DATA_DIR") or DEFAULT_DATA_DIR) / LOCAL_ROOTS
        if tls is not False:
            credentials = _credentials(tls, tls_certificate, tls_key)
            roots = "the root certificates of the system" if tls is True else f"`{tls}`"
        elif plaintext or address.startswith(_UNIX):
            _require_this_machine(address)
            credentials, roots = None, ""
        else:
            credentials, roots = _local_credentials(address, known), f"`{known}`"
        return cls(
            address=address,
            token=_token(token, token_file),
            credentials=credentials,
            diagnosis=Diagnosis(address=address, roots=roots, presents_certificate=tls_certificate is not None),
        )

    def describe(self, error: BaseException) -> str:
        """Return one line about a failure of a call over this connection."""
        return describe(error, self.diagnosis)

    def at(self, address: str) -> Connection:
        """Return the connection to another address of the server, with its credentials.

        Raise `ConfigurationError` for a port when this is a socket, because no certificate is known then. The caller
        must check the owner of a socket.
        """
        if address.startswith(_UNIX):
            return replace(
                self, address=address, credentials=None, diagnosis=replace(self.diagnosis, address=address, roots="")
            )
        if self.address.startswith(_UNIX):
            raise ConfigurationError(f"address `{address}` is not a socket, and `{self.address}` is one: {_IMPOSTOR}")
        if self.credentials is None:
            _require_this_machine(address)
        return replace(self, address=address, diagnosis=replace(self.diagnosis, address=address))

    def open(self, transport: ModuleType) -> Any:  # noqa: ANN401 - gRPC has no types, and each transport a channel of its own
        """Return a new channel of `grpc` or of `grpc.aio`.

        Raise `PDPClientError` in a process that was forked since, and `ConfigurationError` in one that was forked after
        it had used `grpc.aio`.
        """
        self._require_own_process()
        _require_no_fork(transport)
        if self.credentials is None:
            return transport.insecure_channel(self.address, options=_OPTIONS)
        return transport.secure_channel(self.address, self.credentials, options=_OPTIONS)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata that says who makes a call. Raise `PDPClientError` in a process that was forked since."""
        self._require_own_process()
        token = self.token()
        return (("authorization", f"Bearer {token}"),) if token else ()

    @property
    def forked(self) -> bool:
        """Say whether this process was forked from the one that made the connection."""
        return os.getpid() != self.process

    def _require_own_process(self) -> None:
        if self.forked:
            raise PDPClientError(FORKED)


# The process that has used `grpc.aio` first.
_asyncio_process: list[int] = []


def _require_no_fork(transport: ModuleType) -> None:
    """Raise `ConfigurationError` where gRPC would wait forever for a thread that only the other process has."""
    if any(process != os.getpid() for process in _asyncio_process):
        raise ConfigurationError(
            "this process was forked from one that had made an `AsyncClient`, and gRPC does not work after that: "
            "start it anew (`spawn`), or fork before the first `AsyncClient`"
        )
    if transport is grpc.aio and not _asyncio_process:
        _asyncio_process.append(os.getpid())


def trace_headers(traceparent: str, tracestate: str) -> tuple[tuple[str, str], ...]:
    """Return the trace headers of a call, without malformed ones: a trace never affects a decision."""
    if not _TRACEPARENT.fullmatch(traceparent):
        return ()
    ours = ("traceparent", traceparent)
    return (ours, ("tracestate", tracestate)) if _TRACESTATE.fullmatch(tracestate) else (ours,)


def asks_together(chosen: bool | None) -> bool:  # noqa: FBT001 - the setting's own value
    """Say whether callers that share a client ask together.

    None means `PDP_ASK_TOGETHER` or else true. Raise `ConfigurationError` for a variable that is neither `true` nor
    `false`.
    """
    if chosen is not None:
        return chosen
    text = os.environ.get(ASK_TOGETHER_VARIABLE) or "true"
    if text not in ("true", "false"):
        raise ConfigurationError(f"`{ASK_TOGETHER_VARIABLE}` must be `true` or `false`, not `{text}`")
    return text == "true"


def checked_timeout(name: str, seconds: float) -> float:
    """Return a timeout; `ConfigurationError` unless it is positive and finite."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise ConfigurationError(f"`{name}` is not a positive number of seconds: `{seconds}`")
    return seconds


def _require_this_machine(address: str) -> None:
    """Raise `ConfigurationError` unless plain text stays on this machine."""
    if not address.startswith(_UNIX):
        if not _is_loopback(address):
            raise _elsewhere(address)
        return
    path = Path(address.removeprefix(_UNIX).removeprefix("//"))
    if path.name.startswith("@"):
        raise ConfigurationError(f"address `{address}` has no file: {_IMPOSTOR}; use a socket in a folder")
    # INVARIANT: where only this user and root can create a socket, each later connection reaches one of theirs too.
    try:
        require_own_socket(path, _IMPOSTOR)
    except OSError as error:
        raise ConfigurationError(f"cannot check `{path}`: {(error.strerror or 'input failed').lower()}") from None


def _local_credentials(address: str, roots: Path) -> grpc.ChannelCredentials:
    if not _is_loopback(address):
        raise _elsewhere(address)
    try:
        return grpc.ssl_channel_credentials(root_certificates=read_own(roots, _IMPOSTOR))
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}; the client verifies a server on loopback with this file, which `pdp init` writes into the data "
            "folder: name the folder (`data_dir=`, `--data-dir`), or a copy of the file (`tls=`, `--tls-roots`)"
        ) from None


def _elsewhere(address: str) -> ConfigurationError:
    return ConfigurationError(
        f"address `{address}` is not a loopback `host:port` or `unix:` address: a server elsewhere is known by root "
        "certificates (`tls=`, `--tls-roots`), and plain text must not leave this machine"
    )


def _is_loopback(address: str) -> bool:
    match = _HOST_AND_PORT.fullmatch(address)
    return match is not None and is_loopback(match["six"] or match["host"])


def _require_fitting(
    tls: bool | str | Path,  # noqa: FBT001 - the setting's own values
    certificate: str | Path | None,
    key: str | Path | None,
    *,
    plaintext: bool,
) -> None:
    if (certificate is None) is not (key is None):
        raise ConfigurationError("`tls_certificate` and `tls_key` must be set together")
    if certificate is not None and tls is False:
        raise ConfigurationError(
            "`tls_certificate` needs `tls` (`--tls-roots`): the root certificates that verify the server"
        )
    if plaintext and tls is not False:
        raise ConfigurationError("`plaintext` and `tls` (`--tls-roots`) cannot be combined")


def _credentials(
    tls: Literal[True] | str | Path,
    certificate: str | Path | None,
    key: str | Path | None,
) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=None if tls is True else _pem(tls, "CERTIFICATE"),
        private_key=None if key is None else _pem(key, "PRIVATE KEY"),
        certificate_chain=None if certificate is None else _pem(certificate, "CERTIFICATE"),
    )


def _token(token: str | Callable[[], str] | None, token_file: str | Path | None) -> Callable[[], str]:
    if token is not None and token_file is not None:
        raise ConfigurationError("`token` and `token_file` cannot be combined")
    if token_file is not None:
        return TokenFile(Path(token_file)).token
    if callable(token):
        return lambda: _checked_token(token())
    fixed = "" if token is None else _checked_token(token)
    return lambda: fixed


class TokenFile:
    """A token in a file, which is read again when the file has changed. Safe to use from many threads.

    While the file cannot be read or holds no token, as during a renewal, the old token stays in use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # INVARIANT: the token was read after the file had this state, so a later change is noticed.
        self._read = (self._state(), _token_in(path))

    def token(self) -> str:
        """Return the token that the file holds now."""
        state, token = self._read
        now = self._state()
        if now is not None and now != state:
            try:
                token = _token_in(self._path)
            except ConfigurationError:
                return token
            self._read = (now, token)
        return token

    def _state(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def _token_in(path: Path) -> str:
    return _checked_token(_read(path).decode("ascii", "replace").strip(), where=f" in `{path}`")


def _checked_token(token: object, *, where: str = "") -> str:
    if not isinstance(token, str):
        raise ConfigurationError(f"the token{where} is no text")
    if not _TOKEN.fullmatch(token):
        raise ConfigurationError(f"the token{where} is empty or holds characters other than visible ASCII")
    return token


def _pem(path: str | Path, kind: str) -> bytes:
    """Return a file of this kind. Of another one gRPC would only say that nothing answers."""
    content = _read(path)
    if f"{kind}-----".encode() not in content:
        raise ConfigurationError(f"`{path}` holds no {kind.lower()} in PEM")
    return content


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read `{path}`: {(error.strerror or 'input failed').lower()}") from error
