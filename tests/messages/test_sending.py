"""One attempt to send a message, to a real receiver over HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import pdp.messages
from pdp.messages.receivers import Form
from pdp.messages.sending import Attempt, Post, pause_after
from pdp.messages.signing import secrets_of, signed
from pdp.messages.sorting import Message
from pdp.sessions.outbox import OutboxEvent, Topic
from pdp.testing.waiting import wait_until
from tests.machinery.messagereceiver import SECRET, HTTPReceiver, http_receiver, make_receiver
from tests.machinery.pages import blocks
from tests.machinery.ports import free_port
from tests.machinery.servers.running import PATIENCE
from tests.machinery.webserver import web_server

MESSAGE = Message(
    id="msg_1",
    receiver="on-call",
    event=OutboxEvent(id="evt_1", topic=Topic.SESSION_REQUESTED, at=1000.0, tenant="default", ids=("ses_a",)),
)
PAGE = Path(pdp.messages.__file__).with_name("README.md")


@pytest.fixture(scope="module")
def running() -> Iterator[HTTPReceiver]:
    """Run one receiver for all tests."""
    with http_receiver() as server:
        yield server


@pytest.fixture
def server(running: HTTPReceiver) -> HTTPReceiver:
    """Give the receiver, which takes what it gets."""
    running.status, running.held, running.answer_headers = 204, False, {}
    running.taken.clear()
    running.tried.clear()
    return running


def post(folder: Path, url: str, form: Form = Form.JSON, *, whole_seconds: float = PATIENCE) -> Post:
    """Return what sends to a URL."""
    receiver = make_receiver(folder, url, form=form)
    return Post(receiver, link_to=lambda _: "", purposes=False, step_seconds=whole_seconds, whole_seconds=whole_seconds)


def test_a_message_is_sent_with_its_signature(server: HTTPReceiver, tmp_path: Path) -> None:
    """The one of the body as it was sent."""
    assert post(tmp_path, server.url).attempt(MESSAGE, at=1234.0) == Attempt(status=204)
    ((headers, body),) = server.taken

    wanted = signed("msg_1", 1234.0, body, secrets_of("", SECRET))
    assert {name: headers[name] for name in wanted} == wanted
    assert headers["content-type"] == "application/json"
    assert server.tried == ["/hook?token=hidden"]


def test_a_chat_gets_no_signature(server: HTTPReceiver, tmp_path: Path) -> None:
    """It knows no secret but its URL."""
    post(tmp_path, server.url, Form.CHAT).attempt(MESSAGE, at=1234.0)

    assert "webhook-signature" not in server.taken[0][0]


def test_a_new_secret_counts_at_once(server: HTTPReceiver, tmp_path: Path) -> None:
    """The files are read for each message."""
    sender = post(tmp_path, server.url)
    sender.attempt(MESSAGE, at=1234.0)
    (tmp_path / "on-call.secret").write_text("whsec_" + "A" * 32, encoding="utf-8")
    sender.attempt(MESSAGE, at=1234.0)
    first, second = (headers["webhook-signature"] for headers, _ in server.taken)

    assert first != second


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("status", "headers", "attempt"),
    [
        (500, {}, Attempt("answers `500`", status=500)),
        (404, {}, Attempt("answers `404`", status=404)),
        (429, {"Retry-After": "120"}, Attempt("answers `429`", 120.0, 429)),
        (503, {"Retry-After": "99999"}, Attempt("answers `503`", 3600.0, 503)),
        (503, {"Retry-After": "-1"}, Attempt("answers `503`", status=503)),
        (503, {"Retry-After": "²"}, Attempt("answers `503`", status=503)),
        (302, {"Location": "/elsewhere"}, Attempt("answers `302`, but redirects are not followed", status=302)),
    ],
)
def test_another_answer_is_a_problem(
    server: HTTPReceiver, tmp_path: Path, status: int, headers: dict[str, str], attempt: Attempt
) -> None:
    """Nothing is sent to where a redirect leads, and a pause that is asked for is bounded."""
    server.status, server.answer_headers = status, headers

    assert attempt == post(tmp_path, server.url).attempt(MESSAGE, at=1.0)
    assert server.tried == ["/hook?token=hidden"]


def test_a_slow_receiver_is_left(server: HTTPReceiver, tmp_path: Path) -> None:
    """After the time for one attempt."""
    server.held = True

    assert post(tmp_path, server.url, whole_seconds=0.2).attempt(MESSAGE, at=1.0) == Attempt("did not answer in time")


def test_a_receiver_that_is_down_is_a_problem(tmp_path: Path) -> None:
    """In words that quote no part of the URL."""
    attempt = post(tmp_path, f"http://127.0.0.1:{free_port()}/hidden").attempt(MESSAGE, at=1.0)

    assert attempt == Attempt("cannot be reached: connection refused")


def test_a_private_address_is_asked_only_when_its_host_is_listed(tmp_path: Path) -> None:
    """Over TLS as well; otherwise no connection is made."""
    receiver = make_receiver(tmp_path, f"https://127.1:{free_port()}/hidden")
    refused, tried = (
        Post(one, link_to=lambda _: "", purposes=False).attempt(MESSAGE, at=1.0).problem
        for one in (receiver, replace(receiver, private_hosts=frozenset({"127.1"})))
    )

    assert refused == "`127.1` is at the private address `127.0.0.1` and not among `private_hosts`"
    assert tried == "cannot be reached: connection refused"


def test_a_receiver_is_known_by_its_certificate(tmp_path: Path) -> None:
    """Nothing is sent to one that is not trusted; `ca_file` says which authority is."""
    with web_server(b"", tmp_path / "tls") as running:
        receiver = make_receiver(tmp_path, f"https://127.0.0.1:{running.server_address[1]}/hook")
        trusting = replace(receiver, ca_file=str(tmp_path / "tls" / "roots.pem"))
        refused, sent = (
            Post(one, link_to=lambda _: "", purposes=False).attempt(MESSAGE, at=1.0).problem
            for one in (receiver, trusting)
        )

    assert refused.startswith("has a certificate that is not trusted")
    # This server knows no POST, and says so after it was asked.
    assert sent == "answers `501`"


def test_pauses_grow_and_differ() -> None:
    """Each is at most twice the one before, and none is longer than ten minutes."""
    longest = [pause_after(failures, spread=lambda _, most: most) for failures in (1, 2, 3, 10, 10_000)]
    shortest = [pause_after(failures, spread=lambda least, _: least) for failures in (1, 2, 3, 10, 10_000)]

    assert longest == [2.0, 4.0, 8.0, 600.0, 600.0]
    assert shortest == [1.0, 2.0, 4.0, 300.0, 300.0]


def test_the_receiver_of_the_page_knows_genuine_messages(tmp_path: Path) -> None:
    """It takes what has the signature of its secret, and refuses what has another one or is old."""
    (code,) = blocks(PAGE, "python receiver")
    port = free_port()
    program = tmp_path / "receiver.py"
    program.write_text(code.replace("8080", str(port)), encoding="utf-8")
    good, now = post(tmp_path, f"http://127.0.0.1:{port}/"), time.time()
    with subprocess.Popen(
        [sys.executable, program], env={"WEBHOOK_SECRET": SECRET}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as running:
        try:
            wait_until(lambda: _listens(port))
            taken, old = good.attempt(MESSAGE, at=now), good.attempt(MESSAGE, at=now - 301)
            (tmp_path / "on-call.secret").write_text("whsec_" + "A" * 32, encoding="utf-8")
            forged = good.attempt(MESSAGE, at=now)
        finally:
            running.kill()

    assert (taken.problem, old.problem, forged.problem) == ("", "answers `401`", "answers `401`")
