"""The file of the headers with which the proxy presents itself to a server."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from pdp.doors.mcp.credentials import Credentials
from pdp.doors.mcp.messages import Message
from pdp.errors import ConfigurationError
from tests.doors.mcp.webworld import SECRET, private_file


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no headers"),
        ("Authorization Bearer x", ":1: not a line `Name: value`"),
        ("A: b\nAuthorization: Bearer\tx", ":2: not a line"),
        ("Authorization: schlüssel", "not a line"),
        ("Host: other", "the header `host` is the proxy's own"),
        ("Mcp-Name: other", "is the proxy's own"),
        ("PDP-Call-Token: other", "is the proxy's own"),
        ("A: b\na: c", ":2: the header `a` is there twice"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    """The message names the line, and never what is in it."""
    file = tmp_path / "headers"
    file.write_bytes(text.encode())
    file.chmod(0o600)

    with pytest.raises(ConfigurationError, match=says.replace("`", ".")) as refused:
        Credentials(file)
    assert "schl" not in str(refused.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """What is secret is for this user alone."""
    file = private_file(tmp_path, "A: b")
    file.chmod(0o640 if file.stat().st_uid else 0o644)

    with pytest.raises(ConfigurationError, match="others can read"):
        Credentials(file)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """A renewed token is used at once; while the file is broken, the last good one is."""
    file = private_file(tmp_path, "Authorization: Bearer first-token")
    credentials = Credentials(file)
    private_file(tmp_path, "Authorization: Bearer second-token")
    second = dict(credentials.headers())
    private_file(tmp_path, "broken")
    third = dict(credentials.headers())

    assert {"authorization": "Bearer second-token"} == second == third
    assert credentials.shown_in("the first-token")
    assert credentials.shown_in("the second-token")


@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
@pytest.mark.parametrize("form", ["as it is", "base64", "base64 for URLs", "escaped"])
def test_a_secret_is_found_in_every_form(tmp_path: Path, before: str, form: str) -> None:
    """As it is, within a longer text in base64 at any place, and behind JSON's escapes."""
    credentials = Credentials(private_file(tmp_path, f"Authorization: Bearer {SECRET}"))
    whole = f"{before}{SECRET}?>"
    text = {
        "as it is": whole,
        "base64": base64.b64encode(whole.encode()).decode(),
        "base64 for URLs": base64.urlsafe_b64encode(whole.encode()).decode(),
        "escaped": "".join(f"\\u{ord(one):04x}" for one in whole),
    }[form]
    message = Message.read(f'{{"jsonrpc":"2.0","id":1,"result":{{"a":[{{"b":"{text}"}}]}}}}'.encode())

    assert credentials.shown_by(message)


def test_a_password_is_found_by_itself(tmp_path: Path) -> None:
    """What `Basic` holds is a secret too."""
    word = base64.b64encode(b"user:correct-horse").decode()
    credentials = Credentials(private_file(tmp_path, f"Authorization: Basic {word}"))

    assert credentials.shown_in("it is correct-horse!")
    assert not credentials.shown_in("it is a horse")
