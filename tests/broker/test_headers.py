"""Only named headers pass, and those that speak for somebody, or of another place, never."""

from __future__ import annotations

import pytest

from pdp.broker.headers import HeadersError, never_passes, of_answer, of_request, with_secret
from pdp.broker.scrubbing import Scrubber

NEVER = [
    *("Authorization", "Cookie", "Host", "Forwarded", "X-Forwarded-For", "X-Forwarded", "Proxy-Authorization"),
    *("Proxy-Connection", "Connection", "TE", "Transfer-Encoding", "Upgrade", "Content-Length", "Accept-Encoding"),
    *("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL", "Expect"),
    *("PDP-Call-Token", "Set-Cookie", "Via", "X-Real-IP", "Content-Encoding", "Alt-Svc", "Clear-Site-Data", "a b", ""),
    # Parts of an answer: the secret could be cut in two.
    *("Range", "If-Range", "Content-Range", "Accept-Ranges"),
]


@pytest.mark.parametrize("name", NEVER)
def test_a_header_of_the_caller_that_speaks_for_somebody_is_dropped(name: str) -> None:
    """Also when the settings name it, in either direction."""
    assert never_passes(name.lower())
    assert {"accept": "a"} == of_request([(name, "x"), ("Accept", "a")], [name.lower()], "authorization")
    assert [] == of_answer([(name, "x")], [name.lower()], Scrubber(b"long enough"))


def test_only_named_headers_pass() -> None:
    """The usual ones, and what the settings add, but not the one in which the secret is sent."""
    raw = [("Content-Type", "a/b"), ("X-Api-Key", "mine"), ("X-Version", "2"), ("X-Other", "no")]

    assert {"content-type": "a/b", "x-version": "2"} == of_request(raw, ["x-version", "x-api-key"], "X-Api-Key")
    assert [("content-type", "a/b"), ("x-version", "2")] == of_answer(raw, ["x-version"], Scrubber(b"long enough"))


def test_a_header_that_is_there_twice_or_cannot_be_sent_is_refused() -> None:
    """Servers take either of two, and a line break begins another header."""
    for raw in ([("Accept", "a"), ("accept", "b")], [("Accept", "a\r\nHost: evil")], [("Accept", "\u00e9")]):
        with pytest.raises(HeadersError, match="`accept`"):
            of_request(raw, [], "authorization")
    with pytest.raises(HeadersError, match="more than 64 headers"):
        of_request([("x", "y")] * 65, [], "authorization")


def test_a_secret_in_a_header_of_the_answer_is_masked() -> None:
    """Headers echo secrets, too."""
    raw = [("WWW-Authenticate", 'Bearer error="bad s3cr3t-value"'), ("Location", "/x?t=s3cr3t-value")]

    shown = of_answer(raw, [], Scrubber(b"s3cr3t-value"))

    assert [("www-authenticate", 'Bearer error="bad ***"'), ("location", "/x?t=***")] == shown


@pytest.mark.parametrize("secret", [b"", b" a", b"a\n", b"a\r\nHost: evil", "\u00e9".encode(), b"a\x00"])
def test_a_secret_that_no_header_can_hold_is_not_sent(secret: bytes) -> None:
    """The message does not show it."""
    with pytest.raises(HeadersError, match="not a line of printable ASCII"):
        with_secret("Authorization", "Bearer", secret)
