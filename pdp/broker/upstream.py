"""The upstream of a connection: one scheme, host and port, to which alone its secret is sent.

An origin has one spelling here, and a request names it by that spelling or not at all. Nothing is normalised before it
is compared: a dot at the end, another case, brackets, user information and other forms of an address are other texts,
so two readers of URLs cannot disagree about what was allowed.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import unquote

from pdp.errors import one_line
from pdp.foundation.loopback import is_loopback

_PORTS: Final = {"https": 443, "http": 80}
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://(?:\[(?P<six>[0-9a-f:]+)\]|(?P<host>[a-z0-9.-]+))(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
# Resolvers read a name with such an end as an address in some form, such as `0x7f.1`.
_NUMBER_AT_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_LARGEST_PORT: Final = 65535
# What RFC 3986 allows in a path and a query, with escapes that are whole.
_TARGET = re.compile(
    r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*(?:\?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?"
)
_MOST_TARGET_BYTES: Final = 8 * 1024
_SHOWN: Final = 80
# Servers unescape once, some of them twice.
_ESCAPES: Final = 3


class UpstreamError(ValueError):
    """A text is not the origin of a connection; the message is for whoever configures it."""


class ForeignTargetError(Exception):
    """A request is not for the upstream of its connection; nothing was sent. The message holds no part of the path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One scheme, host and port. The host is in its only form: in lower case, and IPv6 without brackets."""

    scheme: str
    host: str
    port: int

    @classmethod
    def read(cls, text: str) -> Self:
        """Read an origin such as `https://api.example.com`. Raise `UpstreamError` for any other spelling of one."""
        match = _ORIGIN.fullmatch(text)
        if match is None:
            raise _problem(text, "write `https://host` or `https://host:port`, in lower case and without a path")
        scheme, port = match["scheme"], int(match["port"] or _PORTS[match["scheme"]])
        if port > _LARGEST_PORT:
            raise _problem(text, "there is no such port")
        host = _six(match["six"], text) if match["six"] else _name(match["host"], text)
        if scheme == "http" and not is_loopback(host):
            raise _problem(text, "others could read the secret on its way; only loopback may do without https")
        return cls(scheme=scheme, host=host, port=port)

    @property
    def origin(self) -> str:
        """Return the one spelling of the origin: without the port that its scheme has by default."""
        return self._authority if self.port == _PORTS[self.scheme] else f"{self._authority}:{self.port}"

    def target_of(self, url: str) -> str:
        """Return path and query of a URL that a request names. Raise `ForeignTargetError` unless it is for this origin.

        A URL that begins with `/` names no origin, and is for this one.
        """
        if url.startswith("/"):
            return required_target(url)
        for origin in (self.origin, f"{self._authority}:{self.port}"):
            rest = url.removeprefix(origin)
            if rest != url and rest[:1] in ("", "/", "?"):
                return required_target(rest if rest.startswith("/") else f"/{rest}")
        raise ForeignTargetError(f"not for `{self.origin}`, spelled as it is in the connection")

    @property
    def _authority(self) -> str:
        return f"{self.scheme}://[{self.host}]" if ":" in self.host else f"{self.scheme}://{self.host}"


def required_target(target: str) -> str:
    """Return a path with its query as it is. Raise `ForeignTargetError` for one that servers read in several ways."""
    if len(target) > _MOST_TARGET_BYTES:
        raise ForeignTargetError(f"its path is longer than {_MOST_TARGET_BYTES} bytes")
    if not _TARGET.fullmatch(target):
        raise ForeignTargetError("its path holds a character that must be escaped")
    path = target.partition("?")[0]
    for _ in range(_ESCAPES):
        # `//host/path` is another host to some clients, and `..;` is `..` to some servers.
        if any(part.partition(";")[0] in (".", "..") for part in re.split(r"[/\\]", path)) or path.startswith("//"):
            raise ForeignTargetError("its path has `.` or `..` as a part, or begins with two slashes")
        path = unquote(path, errors="replace")
        if not path.isprintable():
            raise ForeignTargetError("its path holds a control character")
    return target


def _name(host: str, text: str) -> str:
    if _NUMBER_AT_END.fullmatch(host):
        try:
            # The library takes the form with four decimal numbers alone, and none of them with a zero in front.
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise _problem(text, "an address is written as four decimal numbers") from None
    if not _NAME.fullmatch(host):
        raise _problem(text, "its host is no name of DNS in lower case, without a dot at the end")
    return host


def _six(host: str, text: str) -> str:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        raise _problem(text, "its host is no IPv6 address") from None
    if address.ipv4_mapped or address.sixtofour or address.teredo:
        raise _problem(text, "its host is an IPv4 address in another form")
    if str(address) != host:
        raise _problem(text, f"write its host as `[{address}]`")
    return host


def _problem(text: str, what: str) -> UpstreamError:
    return UpstreamError(f"`{one_line(text[:_SHOWN])}` is no origin: {what}")
