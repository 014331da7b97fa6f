"""Where the server is and how to speak to it; a token never travels in clear beyond this machine."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc

from pdp.errors import ConfigurationError

DEFAULT_ADDRESS = "127.0.0.1:50151"

_HOST_AND_PORT = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^\[\]:/,]+)):(?P<port>[0-9]{1,5})")
_UNIX = ("unix:", "unix-abstract:")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")

_OPTIONS = (
    # A restarted server must be found again in seconds; gRPC's own bound is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # What the environment or the name service says must not redirect or reconfigure the way to the decision point.
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """An address with what is needed to speak to it. Without `credentials` the connection is in plain text."""

    address: str
    token: str = field(default="", repr=False)
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)

    @classmethod
    def to(
        cls,
        address: str | None,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        tls: bool | str | Path = False,
    ) -> Connection:
        """Return the connection to an address; None means `PDP_ADDRESS` or else `127.0.0.1:50151`.

        Raise `ConfigurationError` for a wrong address or token, and for plain text beyond loopback.
        """
        address = address or os.environ.get("PDP_ADDRESS") or DEFAULT_ADDRESS
        credentials = _credentials(tls)
        if credentials is None and not _is_local(address):
            raise ConfigurationError(
                f"address `{address}` is not a loopback `host:port` or `unix:` address: "
                "plain text does not leave this machine; use TLS (`tls=`, `--tls-roots`)"
            )
        return cls(address=address, token=_token(token, token_file), credentials=credentials)

    def open(self, transport: ModuleType) -> Any:  # noqa: ANN401 - gRPC has no types, and each transport a channel of its own
        """Return a new channel of `grpc` or of `grpc.aio`."""
        if self.credentials is None:
            return transport.insecure_channel(self.address, options=_OPTIONS)
        return transport.secure_channel(self.address, self.credentials, options=_OPTIONS)

    def metadata(self, traceparent: str = "", tracestate: str = "") -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call. Malformed trace headers are left out: a trace decides nothing."""
        pairs = [("authorization", f"Bearer {self.token}")] if self.token else []
        if _TRACEPARENT.fullmatch(traceparent):
            pairs.append(("traceparent", traceparent))
            if _TRACESTATE.fullmatch(tracestate):
                pairs.append(("tracestate", tracestate))
        return tuple(pairs)


def checked_timeout(name: str, seconds: float) -> float:
    """Return a bound on the wait for an answer. Raise `ConfigurationError` unless it is positive and finite."""
    if not (math.isfinite(seconds) and seconds > 0):
        raise ConfigurationError(f"`{name}` is not a positive number of seconds: `{seconds}`")
    return seconds


def _is_local(address: str) -> bool:
    if address.startswith(_UNIX):
        return True
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None:
        return False
    host = match["six"] or match["host"]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _credentials(tls: bool | str | Path) -> grpc.ChannelCredentials | None:  # noqa: FBT001 - the setting's own values
    if tls is False:
        return None
    if tls is True:
        return grpc.ssl_channel_credentials()
    return grpc.ssl_channel_credentials(root_certificates=_read(tls))


def _token(token: str | None, token_file: str | Path | None) -> str:
    if token is not None and token_file is not None:
        raise ConfigurationError("`token` and `token_file` exclude each other")
    if token_file is not None:
        token = _read(token_file).decode("ascii", "replace").strip()
    if token is None:
        return ""
    if not _TOKEN.fullmatch(token):
        where = "" if token_file is None else f" in `{token_file}`"
        raise ConfigurationError(f"the token{where} is empty or holds characters other than visible ASCII")
    return token


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read `{path}`: {(error.strerror or 'input failed').lower()}") from error
