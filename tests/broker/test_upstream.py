"""The secret of a connection goes to its scheme, host and port, and to nothing that only looks like them."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from pdp.broker.upstream import ForeignTargetError, Upstream, UpstreamError
from pdp.foundation.egress import Egress, NotAskedError

ORIGINS = [
    ("https://api.example.com", "api.example.com", 443),
    ("https://api.example.com:443", "api.example.com", 443),
    ("https://api.example.com:8443", "api.example.com", 8443),
    ("https://xn--bcher-kva.example", "xn--bcher-kva.example", 443),
    ("https://10.1.2.3", "10.1.2.3", 443),
    ("https://[2001:db8::1]:8443", "2001:db8::1", 8443),
    ("http://127.0.0.1:9000", "127.0.0.1", 9000),
    ("http://localhost", "localhost", 80),
]
NO_ORIGINS = [
    "https://API.example.com",
    "https://api.example.com.",
    "https://api.example.com..",
    "https://.example.com",
    "https://api.example.com/",
    "https://api.example.com/v1",
    "https://api.example.com?x",
    "https://api.example.com#x",
    "https://me@api.example.com",
    "https://me:secret@api.example.com",
    "https://[api.example.com]",
    "https://[api.example.com",
    "https://api.example.com]",
    "https://b\u00fccher.example",
    "https://api\u3002example.com",
    "https://api.example.com:",
    "https://api.example.com:0",
    "https://api.example.com:0443",
    "https://api.example.com:65536",
    "https://api.example.com:443:443",
    "https://api_x.example.com",
    "https://-api.example.com",
    "https://api.example.com\n",
    "https://api.example.com\\@evil.example",
    "https://127.1",
    "https://0x7f.1",
    "https://0x7f000001",
    "https://2130706433",
    "https://0177.0.0.1",
    "https://127.0.0.01",
    "https://api.example.0x1",
    "https://[::ffff:127.0.0.1]",
    "https://[::ffff:7f00:1]",
    "https://[2002:7f00:1::]",
    "https://[2001:0:7f00:1::]",
    "https://[0:0:0:0:0:0:0:1]",
    "https://[2001:DB8::1]",
    "https://[fe80::1%25eth0]",
    "http://api.example.com",
    "ftp://api.example.com",
    "HTTPS://api.example.com",
    "//api.example.com",
    "api.example.com",
    "https:///",
    "https:/api.example.com",
    "",
]
# What by-passed the lists of other proxies, beside the connection's `https://api.example.com`.
FOREIGN = [
    *("https://api.example.com./x", "https://API.example.com/x", "https://[api.example.com]/x"),
    *("https://api.example.com@evil.example/x", "https://evil.example/x", "https://me@api.example.com/x"),
    *("https://api.example.com.evil.example/x", "https://api.example.comx", "https://api.example.com:80/x"),
    *("https://api.example.com:443@evil.example/x", "https://api.example.com:4430/x", "https://api.example.com:"),
    *(
        "https://api.example.com\\x",
        "https://api.example.com#x",
        "https://api.example.com%2f",
        "http://api.example.com/",
    ),
    *("https:api.example.com/x", "https:///api.example.com/x", " https://api.example.com/x", "//evil.example/x"),
    *(
        "https://b\u00fccher.example/",
        "https://api\uff0eexample.com/x",
        "https://0x7f.1/x",
        "https://[::ffff:127.0.0.1]/x",
    ),
    *("*", "", "x", "api.example.com:443", "?x", "javascript:x"),
]
PATHS = [
    *(
        "/../x",
        "/x/..",
        "/./x",
        "/x/%2e%2e/y",
        "/x/%2E./y",
        "/x/..%2fy",
        "/x/%2e%2e%5cy",
        "/x/%252e%252e/y",
        "/..;a=b/x",
    ),
    *(
        "//evil.example/x",
        "/%2fevil.example",
        "/%2f%2fevil.example",
        "/x y",
        "/x\ty",
        "/x\r\nHost: evil.example",
        "/x\\y",
    ),
    *("/x#y", "/x%", "/x%2", "/x%zz", "/x%00", "/x%0d%0aHost:", "/\u00e9", "/x?y#z", "/x?y z", "/" + "x" * 9000),
]


@pytest.mark.parametrize(("text", "host", "port"), ORIGINS)
def test_an_origin_is_read_in_its_one_spelling(text: str, host: str, port: int) -> None:
    """What is read is written again as it was, without the default port."""
    read = Upstream.read(text)

    assert (host, port) == (read.host, read.port)
    assert read.origin == text.removesuffix(":443")


@pytest.mark.parametrize("text", NO_ORIGINS)
def test_another_spelling_of_an_origin_is_refused(text: str) -> None:
    """With one printable line that says what to write."""
    with pytest.raises(UpstreamError) as refused:
        Upstream.read(text)

    assert str(refused.value).isprintable()


@pytest.mark.parametrize("url", FOREIGN)
def test_a_request_to_another_host_is_refused(url: str) -> None:
    """However much its host looks like that of the connection."""
    with pytest.raises(ForeignTargetError):
        Upstream.read("https://api.example.com").target_of(url)


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_servers_read_in_several_ways_is_refused(path: str) -> None:
    """It could leave the paths that the connection allows."""
    with pytest.raises(ForeignTargetError):
        Upstream.read("https://api.example.com").target_of(f"https://api.example.com{path}")


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://api.example.com", "/"),
        ("https://api.example.com?q=1", "/?q=1"),
        ("https://api.example.com:443/x/y?q=%20..", "/x/y?q=%20.."),
        ("/projects/a%2Fb/issues", "/projects/a%2Fb/issues"),
        ("/x/...?u=https://evil.example/", "/x/...?u=https://evil.example/"),
    ],
)
def test_a_request_to_the_upstream_keeps_its_path(url: str, target: str) -> None:
    """Byte for byte: what was checked is what is sent."""
    assert target == Upstream.read("https://api.example.com").target_of(url)


@pytest.mark.parametrize("later", [["10.1.2.3"], ["93.184.216.34", "10.1.2.3"], ["::ffff:169.254.169.254"]])
def test_a_name_that_leads_to_a_private_address_is_not_asked(later: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when a public address comes beside it: a resolver that changes its answer gains nothing."""
    dialled: list[Any] = []

    def resolved(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in later]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(socket.socket, "connect", lambda _, where: dialled.append(where))
    egress = Egress("https://api.example.com/x", private_hosts=())

    with pytest.raises(NotAskedError, match="is at the private address"):
        egress.ask("GET", {}, lambda answer: answer.status)

    assert [] == dialled


def test_a_name_is_resolved_once_and_the_checked_address_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second answer of the resolver would be a private address; nobody asks for it."""
    answers = [["93.184.216.34"], ["10.1.2.3"]]
    dialled: list[str] = []

    def resolved(host: str, _: object, *, flags: int = 0, **__: object) -> list[tuple[object, ...]]:
        # An address is no question to anybody.
        found = [host] if flags & socket.AI_NUMERICHOST else answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in found]

    def connect(_: socket.socket, where: tuple[str, int]) -> None:
        dialled.append(where[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(socket.socket, "connect", connect)
    egress = Egress("https://api.example.com/x", private_hosts=())

    with pytest.raises(Exception, match="cannot be reached"):
        egress.ask("GET", {}, lambda answer: answer.status)

    assert (["93.184.216.34"], [["10.1.2.3"]]) == (dialled, answers)
