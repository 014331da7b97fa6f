"""Where the server listens: with TLS, on a Unix socket, or, when configured, in plain text on loopback."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from pdp.errors import CannotListenError, ConfigurationError
from pdp.foundation.loopback import host_and_port, is_loopback_address
from pdp.serving.certificates import ServerCertificates, TLSFiles

_UNIX = "unix:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """An address to listen on: `host:port`, `[v6]:port` (port 0: any free one) or `unix:PATH`.

    A port needs TLS. On loopback `plaintext` allows a port without it; no setting does for an address others can reach.
    Raise `ConfigurationError` for another form, and for a port without TLS.
    """

    address: str
    tls: TLSFiles | None = None
    plaintext: bool = False

    def __post_init__(self) -> None:
        if self.address.startswith(f"{_UNIX}@"):
            raise ConfigurationError(
                f"`{self.address}` is an abstract socket: it has no file, so any user of this machine could connect; "
                "write `unix:PATH`"
            )
        if self.socket is None and host_and_port(self.address) is None:
            raise ConfigurationError(f"`{self.address}` is not an address; write `host:port` or `unix:PATH`")
        if self.tls is not None or self.socket is not None:
            return
        if not is_loopback_address(self.address):
            raise ConfigurationError(f"others can reach `{self.address}`: it needs TLS; set a key and a certificate")
        if not self.plaintext:
            raise ConfigurationError(
                f"others can impersonate the server on `{self.address}`: it needs TLS, or `plaintext`"
            )

    @property
    def socket(self) -> Path | None:
        """Return the path of a Unix socket, or None for another address."""
        if not self.address.startswith(_UNIX) or self.address == _UNIX:
            return None
        return Path(self.address.removeprefix(_UNIX).removeprefix("//"))

    @property
    def file(self) -> tuple[int, int] | None:
        """Return what tells the file of a Unix socket from others at its path; None where there is none."""
        try:
            found = self.socket.lstat() if self.socket else None
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found else None

    def remove(self, file: tuple[int, int] | None) -> None:
        """Remove the file that a Unix socket was bound to. The server that replaces this one may have its own there."""
        if self.socket is not None and file and self.file == file:
            self.socket.unlink(missing_ok=True)

    def bind(self, server: Any) -> int:  # noqa: ANN401 - gRPC has no types
        """Bind a gRPC server; return its port (1 for a Unix socket). Raise `CannotListenError` when it cannot."""
        try:
            return self._bind(server, self.address) if self.socket is None else self._bind_socket(server, self.socket)
        except (RuntimeError, OSError):
            raise CannotListenError(f"cannot listen on `{self.address}`: is it in use, or not allowed?") from None

    def _bind(self, server: Any, address: str) -> int:  # noqa: ANN401 - gRPC has no types
        if self.tls is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, ServerCertificates(self.tls).credentials()))

    def _bind_socket(self, server: Any, path: Path) -> int:  # noqa: ANN401 - gRPC has no types
        if path.exists() and not path.is_socket():
            raise FileExistsError(path)
        # A server that ends removes the path that gRPC has bound, also when that is the socket of the next one.
        draft = path.with_name(f".{token_hex(2)}")
        # A socket must never be open to others, not even for the moment between its creation and a chmod.
        before = os.umask(0o177)
        try:
            port = self._bind(server, f"{_UNIX}{draft}")
        finally:
            os.umask(before)
        draft.replace(path)
        return port
