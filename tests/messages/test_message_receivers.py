"""The file of receivers: what it may say, and that its secrets are secret."""

from __future__ import annotations

from pathlib import Path

import pytest

import pdp.messages
from pdp.errors import ConfigurationError
from pdp.messages.receivers import Form, read_receivers
from pdp.sessions.outbox import OutboxEvent, Topic
from tests.machinery.messagereceiver import SECRET, secret_text
from tests.machinery.pages import blocks

PAGE = Path(pdp.messages.__file__).with_name("README.md")
GOOD = """\
on-call:
  form: json
  url_file: on-call.url
  secret_file: on-call.secret
  events: [session.requested, access.requested]
  tenants: [payments]
team:
  form: chat
  url_file: on-call.url
  private_hosts: [chat.internal]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with the file of a URL and of a secret."""
    secret_text(tmp_path / "on-call.url", "https://example.org/hook?token=hidden")
    secret_text(tmp_path / "on-call.secret", SECRET)
    return tmp_path


def written(folder: Path, text: str) -> Path:
    """Write a file of receivers."""
    path = folder / "receivers.yaml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return path


def test_a_file_is_read(folder: Path) -> None:
    """Paths are relative to it; what is left out has its default."""
    first, second = read_receivers(written(folder, GOOD))

    assert (first.name, first.form, [*first.tenants]) == ("on-call", Form.JSON, ["payments"])
    assert first.events == {Topic.SESSION_REQUESTED, Topic.ACCESS_REQUESTED}
    assert first.url() == "https://example.org/hook?token=hidden"
    assert len(first.secrets()) == 1
    assert (second.form, [*second.tenants], second.events) == (Form.CHAT, ["default"], frozenset(Topic))
    assert ([*second.private_hosts], second.secrets()) == (["chat.internal"], ())


def test_the_page_shows_a_file_that_is_read(folder: Path) -> None:
    """With one receiver of each form."""
    for name in ("team-chat.url", "on-call.url"):
        secret_text(folder / name, "https://example.org/hook")
    (text,) = blocks(PAGE, "yaml receivers")

    assert [one.form for one in read_receivers(written(folder, text))] == list(Form)


@pytest.mark.parametrize(
    ("topic", "tenant", "wanted"),
    [
        (Topic.SESSION_REQUESTED, "payments", True),
        (Topic.SESSION_REQUESTED, "default", False),
        (Topic.SESSION_REVOKED, "payments", False),
        (Topic.MESSAGES_MISSED, "", True),
        (Topic.SESSION_REQUESTED, "", True),
        (Topic.FREEZE_SET, "", False),
    ],
)
def test_a_receiver_is_told_of_its_events_in_its_tenants(
    folder: Path,
    topic: Topic,
    tenant: str,
    wanted: bool,  # noqa: FBT001 - a column
) -> None:
    """And of none of another tenant; what has no tenant concerns each, and a gap all."""
    receiver, _ = read_receivers(written(folder, GOOD))

    assert wanted == receiver.wants(OutboxEvent(id="evt_1", topic=topic, at=1.0, tenant=tenant))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no receiver"),
        ("x: 1", ":1: `x` must be a mapping"),
        ("Ops team: {form: chat, url_file: on-call.url}", "the name of a receiver must match"),
        ("x: {form: chta, url_file: on-call.url}", "`form` of `x` must be one of `json`, `chat`"),
        ("x: {form: chat}", "`x` needs `url_file`"),
        ("x: {form: json, url_file: on-call.url}", "`x` needs `secret_file`"),
        ("x: {form: chat, url_file: on-call.url, secret_file: on-call.secret}", "chats check no signature"),
        ("x: {form: chat, url_file: 7}", "`url_file` of `x` must be the path of a file"),
        ("x: {form: chat, url_fil: on-call.url}", "unknown key: `url_fil`; did you mean `url_file`?"),
        ("x: {form: chat, url_file: on-call.url, events: session.requested}", "`events` of `x` must be a list"),
        ("x: {form: chat, url_file: on-call.url, tenants: []}", "`tenants` of `x` must be a list that is not empty"),
        ("x: {form: chat, url_file: on-call.url, events: [session.revoke]}", "did you mean `session.revoked`?"),
        ("x: {form: chat, url_file: on-call.url, tenants: [a b]}", "`tenants` of `x` must hold texts that match"),
        ("x: {form: chat, url_file: on-call.url, private_hosts: [10.0.0.0/8]}", "`private_hosts` of `x` must hold"),
        ("x: {form: chat, url_file: missing.url}", "cannot read"),
    ],
)
def test_a_wrong_file_is_refused(folder: Path, text: str, problem: str) -> None:
    """With its line, and the nearest known word."""
    with pytest.raises(ConfigurationError) as refused:
        read_receivers(written(folder, text))

    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://example.org/hidden", "is reached over the network and needs `https://`"),
        ("ftp://example.org/hidden", "must hold one https URL"),
        ("https://user:hidden@example.org/", "must hold one https URL"),
        ("https://example.org/hidden#x", "must hold one https URL"),
        ("https://example.org/hidden https://example.org/hidden", "must hold one https URL"),
        ("https://[hidden/", "must hold one https URL"),
        ("", "must hold one https URL"),
    ],
)
def test_a_wrong_url_is_refused_without_being_quoted(folder: Path, url: str, problem: str) -> None:
    """It can be a secret."""
    secret_text(folder / "on-call.url", url)
    with pytest.raises(ConfigurationError) as refused:
        read_receivers(written(folder, GOOD))

    assert problem in str(refused.value)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("name", ["on-call.url", "on-call.secret"])
@pytest.mark.parametrize("mode", [0o644, 0o620, 0o606])
def test_a_secret_that_others_can_read_is_refused(folder: Path, name: str, mode: int) -> None:
    """Each of the two files is one."""
    (folder / name).chmod(mode)

    with pytest.raises(ConfigurationError, match="others can"):
        read_receivers(written(folder, GOOD))
