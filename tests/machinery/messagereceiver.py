"""A receiver of messages over HTTP that keeps what it gets, and misbehaves in the way that a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pdp.messages.receivers import Form, Receiver
from pdp.messages.sending import Post
from tests.machinery.webserver import serving

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of the specification's example
# How long a message is held at most: longer than any test.
HELD_SECONDS = 600.0
# What sends to a receiver for as long: on a busy machine it must not give up what was taken.
PATIENT_POST = partial(Post, step_seconds=HELD_SECONDS, whole_seconds=HELD_SECONDS)


class HTTPReceiver(ThreadingHTTPServer):
    """Answers each message with `status`; while `held` is set, not before `let_go`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status = 204
        self.answer_headers: dict[str, str] = {}
        self.held = False
        self.let_go = threading.Event()
        self.taken: list[tuple[Mapping[str, str], bytes]] = []
        self.tried: list[str] = []
        # The status for messages about one session or request.
        self.status_of: dict[str, int] = {}

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.server_address[1]}/hook?token=hidden"

    @property
    def stories(self) -> list[tuple[str, list[str]]]:
        """Return the type and the ids of each message that was taken."""
        return [(one["type"], one["data"]["ids"]) for one in self.messages]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Return the messages that were taken."""
        return [json.loads(body) for _, body in self.taken]


class _Answer(BaseHTTPRequestHandler):
    server: HTTPReceiver

    def do_POST(self) -> None:
        """Take the message."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tried.append(self.path)
        if self.server.held:
            self.server.let_go.wait(HELD_SECONDS)
        ids = json.loads(body).get("data", {}).get("ids") or [""]
        status = self.server.status_of.get(ids[0], self.server.status)
        if status < 300:
            self.server.taken.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(status)
        for name, value in self.server.answer_headers.items():
            self.send_header(name, value)
        self.end_headers()

    do_GET = do_POST  # noqa: N815 - the name that the base class calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def http_receiver() -> Iterator[HTTPReceiver]:
    """Run a receiver."""
    server = HTTPReceiver()
    with serving(server, server.let_go):
        yield server


def make_receiver(folder: Path, url: str, *, form: Form = Form.JSON, secret: str = SECRET, **more: Any) -> Receiver:
    """Return a receiver with its files."""
    name = more.pop("name", "on-call")
    url_file = secret_text(folder / f"{name}.url", url)
    secret_file = secret_text(folder / f"{name}.secret", secret) if form is Form.JSON else None
    return Receiver(name=name, form=form, url_file=url_file, secret_file=secret_file, **more)


def secret_text(path: Path, text: str) -> Path:
    """Write a file that only its owner can read."""
    path.write_text(text + "\n", encoding="utf-8")
    path.chmod(0o600)
    return path
