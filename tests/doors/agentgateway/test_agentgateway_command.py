"""`pdp door agentgateway`, as a process of its own."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from pdp.testing.inprocess import RunningServer
from pdp.testing.otlp import OTLPReceiver
from tests.doors.agentgateway.desk import DeskTarget
from tests.doors.agentgateway.gateway import Gateway
from tests.doors.commands import PDP, environment_of_door, mistaken
from tests.doors.conformance import opened

LISTEN = ("--listen", "127.0.0.1:0")
PATIENCE = 60.0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "missing option '--listen'"),
        (LISTEN, "no target has an entry, so each request would be denied: pass --target TARGET=SERVER"),
        ((*LISTEN, "--target", "git"), "not a target and its server in the catalogue, such as `git=git`: `git`"),
        ((*LISTEN, "--target", "a=b=c"), "not a target and its server"),
        ((*LISTEN, "--target", "a=b", "--target", "a=c"), "the target `a` has two entries"),
        ((*LISTEN, "--target", "a=b", "--pass", "tools/call"), "'tools/call' is not one of"),
        (("--listen", "0.0.0.0:0", "--target", "a=b", "--token-file", "token"), "others can reach `0.0.0.0:0`"),
    ],
)
def test_a_mistake_is_one_line(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the option, or what to do."""
    done = mistaken("agentgateway", words, tmp_path, monkeypatch)

    assert 2 == done.exit_code
    assert says in done.stderr


def test_the_command_answers_a_gateway(server: RunningServer, receiver: OTLPReceiver, tmp_path: Path) -> None:
    """It says where it listens, and ends with 0; it prints no secret."""
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(server.token("pep"))
    _, handle = opened(server)
    desk = DeskTarget()
    process = subprocess.Popen(
        [
            *(*PDP, "door", "agentgateway", *LISTEN, "--target", "desk=desk"),
            *("--unseen-errors", "--address", server.address, "--plaintext", "--token-file", token),
        ],
        env=environment_of_door(receiver),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    with Gateway(said.split()[-1], {"desk": desk}) as gateway:
        told = [gateway.call(handle, "note", {"text": "hello"}), gateway.call(handle, "closed")]
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=PATIENCE)

    assert "serving agentgateway at 127.0.0.1:" in said
    assert [True, False] == ["result" in one for one in told]
    assert ["note"] == desk.calls
    assert 0 == process.returncode
    assert "tools/call note" in [span.name for span in receiver.spans]
    assert "pdp-agentgateway" == receiver.resource["service.name"]
    for secret in (handle, server.token("pep"), "hello"):
        assert secret not in said + rest
