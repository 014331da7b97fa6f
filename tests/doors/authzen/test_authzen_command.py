"""`pdp door authzen`, as a process of its own."""

from __future__ import annotations

import signal
import ssl
import subprocess
import time
from pathlib import Path
from unittest.mock import patch

import httpx2
import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.serving.localtls import CERTIFICATE_FILE, KEY_FILE, TLS_FOLDER, write_local_certificate
from pdp.testing.inprocess import RunningServer
from pdp.testing.otlp import OTLPReceiver
from tests.doors.authzen.gateway import Gateway, opened
from tests.doors.commands import PDP, environment_of_door

LISTEN = ("--listen", "127.0.0.1:0")
PATIENCE = 60.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "missing option '--listen'"),
        (("--listen", "nowhere"), "not an address such as `127.0.0.1:8080`"),
        (("--listen", "0.0.0.0:0"), "others can reach `0.0.0.0:0`: it needs a certificate and its key"),
        ((*LISTEN, "--listen-tls-key", "x"), "a certificate needs its key, and a key its certificate"),
        ((*LISTEN, "--public-url", "http://pdp.example.org"), "--public-url must be https"),
        ((*LISTEN, "--public-url", "https://pdp.example.org/tenant"), "--public-url must be https"),
        ((*LISTEN, "--public-url", "https://me@pdp.example.org"), "--public-url must be https"),
        (
            (*LISTEN, "--object", "record"),
            "not a type of objects with parameters, such as `record=id,status`: `record`",
        ),
        ((*LISTEN, "--object", "tool=id"), "not a type of objects with parameters"),
        ((*LISTEN, "--object", "record=id,"), "not a type of objects with parameters"),
        ((*LISTEN, "--object", "record=id", "--object", "record=name"), "the type `record` has two rules"),
        ((*LISTEN, "--own-caller"), "no token"),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """It names the option, or what to do."""
    # The memory of the tests stays readable.
    with patch("pdp.cli.doors.serving.keep_memory_private"):
        done = CliRunner().invoke(root, ["door", "authzen", "--data-dir", str(tmp_path), "--plaintext", *words])

    assert 2 == done.exit_code
    assert says in done.stderr


def test_the_command_serves_until_it_is_stopped(server: RunningServer, receiver: OTLPReceiver, tmp_path: Path) -> None:
    """Under TLS it says where it listens, passes the caller's token on, and ends with 0; it prints no secret."""
    write_local_certificate(tmp_path, now=time.time())
    certificate, key = (tmp_path / TLS_FOLDER / name for name in (CERTIFICATE_FILE, KEY_FILE))
    _, handle = opened(server, "desk/*")
    token = server.token("pep")
    process = subprocess.Popen(
        [
            *(*PDP, "door", "authzen", *LISTEN),
            *("--listen-tls-certificate", str(certificate), "--listen-tls-key", str(key)),
            *("--address", server.address, "--plaintext"),
        ],
        env=environment_of_door(receiver),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    url = said.split()[-1]
    trusting = ssl.create_default_context(cafile=tmp_path / TLS_FOLDER / "ca.pem")
    with Gateway(url, token, handle) as gateway:
        gateway.http.close()
        gateway.http = httpx2.Client(base_url=url, timeout=PATIENCE, verify=trusting)
        gateway.call("desk/note", {"text": "hello"})
        found = gateway.get("/.well-known/authzen-configuration").json()
        unknown = gateway.post("/access/v1/evaluation", {}, authorization="Bearer sesame-sesame")
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=PATIENCE)

    assert url.startswith("https://127.0.0.1:")
    assert [("desk/note", {"text": "hello"})] == gateway.ran
    assert url == found["policy_decision_point"]
    assert 400 == unknown.status_code
    assert 0 == process.returncode
    assert "execute_tool note" in [span.name for span in receiver.spans]
    assert "pdp-authzen" == receiver.resource["service.name"]
    for secret in (handle, token, "hello", "sesame-sesame"):
        assert secret not in said + rest
