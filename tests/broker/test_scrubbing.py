"""What an upstream echoes of a secret does not reach the caller, wherever a stream is cut."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote

import pytest

from pdp.broker.scrubbing import MASK, Scrubber

SECRET = b'ghp_s3cr/t+k\xc3\xa9y"?=='
TEXT = SECRET.decode()
ECHOES = {
    "raw": SECRET,
    "base64": b64encode(SECRET),
    "Basic": b64encode(b"me:" + SECRET),
    "Basic of a longer name": b64encode(b"user:" + SECRET),
    "base64url": urlsafe_b64encode(b"x" + SECRET),
    "percent": quote(SECRET, safe="").encode(),
    "percent in lower case": quote(SECRET, safe="")
    .replace("%2B", "%2b")
    .replace("%C3%A9", "%c3%a9")
    .replace("%2F", "%2f")
    .replace("%3F", "%3f")
    .replace("%3D", "%3d")
    .encode(),
    "percent of all": "".join(f"%{byte:02x}" for byte in SECRET).encode(),
    "hex": SECRET.hex().encode(),
    "HEX": SECRET.hex().upper().encode(),
    "JSON": json.dumps({"token": TEXT}).encode(),
    "JSON with escaped slashes": json.dumps(TEXT).replace("/", "\\/").encode(),
    "escapes of all": "".join(f"\\u{ord(letter):04x}" for letter in TEXT).encode(),
    "ESCAPES of all": "".join(f"\\u{ord(letter):04X}" for letter in TEXT).encode(),
    "HTML": TEXT.replace('"', "&quot;").encode(),
    "UTF-16": TEXT.encode("utf-16-le"),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_an_echo_is_masked_wherever_the_stream_is_cut(echo: bytes) -> None:
    """Split at every byte, and byte by byte, the answer is the same; of the secret there is nothing in it."""
    answer = b"data: before " + echo + b" after " + echo
    whole = Scrubber(SECRET).whole(answer)

    assert MASK in whole
    # In base64 up to two letters at either end also depend on what is beside the secret.
    assert len(whole) < len(answer) - 2 * (len(SECRET) - 4)
    cuts = [(answer[:at], answer[at:]) for at in range(len(answer) + 1)]
    for pieces in (*cuts, tuple(bytes([byte]) for byte in answer)):
        scrubber = Scrubber(SECRET)
        assert whole == b"".join([*map(scrubber.feed, pieces), scrubber.end()])


def test_what_cannot_begin_the_secret_is_handed_on_at_once() -> None:
    """An event of a stream does not wait for the next one; only an end that may begin the secret does."""
    scrubber = Scrubber(SECRET)

    assert b"data: done\n\n" == scrubber.feed(b"data: done\n\n")
    assert b"data: " == scrubber.feed(b"data: ghp_")
    assert b"ghp_x" == scrubber.feed(b"x")
    assert b"data: " == scrubber.feed(b"data: ghp_s3")
    assert b"ghp_s3" == scrubber.end()


def test_the_password_inside_of_a_basic_credential_is_masked() -> None:
    """What is sent as `Basic` is echoed as name and password by some servers."""
    scrubber = Scrubber(b64encode(b"me:correct horse"))

    assert b"you are me with " + MASK == scrubber.whole(b"you are me with correct horse")


@pytest.mark.parametrize("echo", [rb"a\\b\u0026c+\u003cd\u003e\"e'f", rb"a\\b\u0026c\u002B\u003Cd\u003E\u0022e\u0027f"])
def test_a_secret_is_masked_as_the_encoders_of_go_and_of_net_write_it(echo: bytes) -> None:
    """Both escape letters that JSON has not to escape, such as the `+` of base64."""
    assert b'{"error":"***"}' == Scrubber(b"a\\b&c+<d>\"e'f").whole(b'{"error":"' + echo + b'"}')


def test_a_form_inside_of_another_does_not_open_it() -> None:
    """A secret that repeats itself is masked as a whole, also when its end comes later."""
    secret = b"abababab"
    for at in range(len(secret) + 3):
        scrubber, answer = Scrubber(secret), b"xab" + secret
        assert (
            Scrubber(secret).whole(answer) == scrubber.feed(answer[:at]) + scrubber.feed(answer[at:]) + scrubber.end()
        )


def test_short_secrets_are_left_alone() -> None:
    """A word of a few letters occurs by chance."""
    assert b"a pin: 1234" == Scrubber(b"1234").whole(b"a pin: 1234")
