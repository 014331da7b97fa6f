"""`pdp door envoy`, as a process of its own."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import grpc
import pytest

from pdp.testing.inprocess import RunningServer
from pdp.testing.otlp import OTLPReceiver
from tests.doors.commands import PDP, environment_of_door, mistaken
from tests.doors.envoy.asker import Asker, call, opened
from tests.machinery.credentials.authority import Authority

LISTEN = ("--listen", "127.0.0.1:0")
PATIENCE = 60.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "missing option '--listen'"),
        (("--listen", "nowhere", "--token-file", "token"), "not an address such as `127.0.0.1:9191`"),
        (("--listen", "0.0.0.0:0", "--token-file", "token"), "others can reach `0.0.0.0:0`: it needs a certificate"),
        ((*LISTEN, "--listen-tls-key", "x"), "TLS needs three files"),
        ((*LISTEN, "--listen-tls-key", "x", "--listen-tls-certificate", "y"), "TLS needs three files"),
        ((*LISTEN, "--pass", "tools/call"), "'tools/call' is not one of"),
        (LISTEN, "no token"),
    ],
)
def test_a_mistake_is_one_line(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the option, or what to do."""
    done = mistaken("envoy", words, tmp_path, monkeypatch)

    assert 2 == done.exit_code
    assert says in done.stderr


def test_the_command_knows_envoy_by_its_certificate(
    server: RunningServer, receiver: OTLPReceiver, tmp_path: Path
) -> None:
    """It says where it listens, answers nobody without a certificate, and ends with 0; it prints no secret."""
    authority = Authority()
    own = authority.files(tmp_path)
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(server.token("pep"))
    _, handle = opened(server)
    process = subprocess.Popen(
        [
            *(*PDP, "door", "envoy", *LISTEN),
            *("--listen-tls-certificate", own.certificate, "--listen-tls-key", own.key),
            *("--listen-tls-clients", str(own.client_roots)),
            *("--address", server.address, "--plaintext", "--token-file", token),
        ],
        env=environment_of_door(receiver),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    address = said.split()[-1]
    known = authority.caller("spiffe://example.org/envoy").credentials(authority.roots)
    options = (("grpc.ssl_target_name_override", "localhost"),)
    with Asker(address, handle, {"server": "desk"}, grpc.secure_channel(address, known, options)) as asker:
        asker.post(call("note", {"text": "hello"}))
    unknown = grpc.secure_channel(address, grpc.ssl_channel_credentials(authority.roots), options)
    with Asker(address, handle, {"server": "desk"}, unknown) as stranger, pytest.raises(grpc.RpcError):
        stranger.post(call("note"))
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=PATIENCE)

    assert "serving Envoy at 127.0.0.1:" in said
    assert [call("note", {"text": "hello"})] == asker.ran
    assert [] == stranger.ran
    assert 0 == process.returncode
    assert "tools/call note" in [span.name for span in receiver.spans]
    assert "pdp-envoy" == receiver.resource["service.name"]
    for secret in (handle, server.token("pep"), "hello"):
        assert secret not in said + rest
