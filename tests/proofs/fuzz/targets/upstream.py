"""An origin and the URL of a request: refused in one line, or other readers of URLs find the same host and path."""

from __future__ import annotations

import posixpath
import socket
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

import httpcore2

from pdp.broker.upstream import ForeignTargetError, Upstream, UpstreamError

WORDS = (
    *("https://", "http://", "api.example.com", "evil.example", "localhost", "127.0.0.1", "0x7f.1", "2130706433"),
    *(
        "[::1]",
        "[::ffff:127.0.0.1]",
        "xn--",
        ":443",
        ":80",
        "@",
        ".",
        "..",
        "/",
        "//",
        "\\",
        "%2e",
        "%2f",
        "%25",
        "%00",
    ),
    *(";", "#", "?", "\n", "\r\nHost: ", "\u3002", "\uff0e"),
)
_ORIGIN = b"https://api.example.com\n"
# The spellings that by-passed the lists of other proxies are rows of tests/broker/test_upstream.py too.
SEEDS = (
    _ORIGIN + b"https://api.example.com:443/x/y?q=1",
    _ORIGIN + b"https://api.example.com./x",
    _ORIGIN + b"https://API.example.com/x",
    _ORIGIN + b"https://[api.example.com]/x",
    _ORIGIN + b"https://api.example.com@evil.example/x",
    _ORIGIN + b"https://api.example.com:443@evil.example/x",
    _ORIGIN + b"https://api.example.com\\@evil.example/x",
    _ORIGIN + "https://api\uff0eexample.com/x".encode(),
    _ORIGIN + b"//evil.example/x",
    _ORIGIN + b"/v1/%2e%2e/x",
    _ORIGIN + b"/v1/..;/x",
    _ORIGIN + b"/%2f%2fevil.example",
    b"https://0x7f.1\nhttps://0x7f.1/x",
    b"http://127.0.0.1:80\nhttp://127.0.0.1/x",
    b"https://[2001:db8::1]:8443\nhttps://[2001:db8::1]:8443?x",
    b"https://[::ffff:127.0.0.1]\n/x",
    "https://b\u00fccher.example\n/x".encode(),
)


def run(data: bytes) -> None:
    """Read a line with an origin, and the URL of a request."""
    origin, _, url = data.decode("utf-8", "replace").partition("\n")
    try:
        upstream = Upstream.read(origin)
    except UpstreamError as error:
        assert str(error).isprintable(), "a problem that is not one printable line"
        return
    _same_place(upstream, urlsplit(upstream.origin).hostname or "", urlsplit(upstream.origin).port)
    assert Upstream.read(upstream.origin) == upstream, "an origin with two spellings"
    _no_hidden_address(upstream.host)
    try:
        target = upstream.target_of(url)
    except ForeignTargetError as error:
        assert str(error).isprintable(), "a refusal that is not one printable line"
        return
    if not url.startswith("/"):
        _same_place(upstream, urlsplit(url).hostname or "", urlsplit(url).port)
        seen = httpcore2.URL(url)
        _same_place(upstream, seen.host.decode().strip("[]"), seen.port)
    for path in (
        target.partition("?")[0],
        unquote(target.partition("?")[0]),
        unquote(unquote(target.partition("?")[0])),
    ):
        # The library keeps a slash at the end of none but the root.
        plain = posixpath.normpath(path.replace("\\", "/"))
        assert plain.count("/") <= path.count("/") + path.count("\\"), "a path that grows"
        assert ".." not in path.replace("\\", "/").split("/"), "a path that leaves its folder"
        assert not path.startswith("//"), "a path that another reader takes for a host"
    assert urlsplit(f"https://h{target}").netloc == "h", "a target that is part of the host"


def _same_place(upstream: Upstream, host: str, port: int | None) -> None:
    default = {"https": 443, "http": 80}[upstream.scheme]
    assert (upstream.host, upstream.port) == (host, port or default), "another reader finds another place"


def _no_hidden_address(host: str) -> None:
    """Assert that a host that a resolver takes for an address is written as that address is."""
    try:
        packed = socket.inet_aton(host)
    except OSError:
        return
    assert str(ip_address(packed)) == host, "an address in another form"
