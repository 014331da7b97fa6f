"""The upstream of a connection that makes logins: a server of PostgreSQL, in one spelling."""

from __future__ import annotations

from typing import Final

from pdp.broker.upstream import Upstream, UpstreamError

_SCHEME: Final = "postgresql://"
_PORT: Final = 5432


def is_server(text: str) -> bool:
    """Say whether an upstream is a server of PostgreSQL."""
    return text.startswith(_SCHEME)


def read_server(text: str) -> tuple[str, int]:
    """Return host and port of `postgresql://host:port`. Raise `UpstreamError` for any other spelling of one."""
    rest = text.removeprefix(_SCHEME)
    # As strictly as the origin of what speaks HTTP.
    found = Upstream.read(f"https://{rest}")
    named = rest.removeprefix(f"[{found.host}]" if ":" in found.host else found.host)
    return found.host, found.port if named else _PORT


def server_text(text: str) -> str:
    """Return the one spelling of a server, with its port. Raise `UpstreamError`."""
    try:
        host, port = read_server(text)
    except UpstreamError:
        raise UpstreamError(f"`{text}` is no server: write `{_SCHEME}host` or `{_SCHEME}host:port`") from None
    return f"{_SCHEME}[{host}]:{port}" if ":" in host else f"{_SCHEME}{host}:{port}"
