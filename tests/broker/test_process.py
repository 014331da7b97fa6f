"""The process `pdp-broker serve`: what it was told survives its sudden end, and its secret is nowhere but upstream."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote_plus

import grpc
import pytest

from pdp.broker.opening import make_broker, opened_vault
from pdp.broker.serving import USES_FILE
from pdp.broker.v1 import broker_pb2, broker_pb2_grpc
from pdp.broker.words import ClientAuth, TokenSource
from pdp.calltokens.claims import HEADER, MOST_SECONDS
from pdp.calltokens.uses import FileUses
from pdp.client import CallTokenRequest
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import RunningServer, running_server
from tests.broker.notes import AUDIENCE, CALLERS, FILES, ISSUER, RULES, opened_session
from tests.broker.worlds import Upstream, connection_to, upstream_here
from tests.machinery.servers.running import PATIENCE

CANARY = "canary/4f1c9e-7b2d~0a63"
# The command, with a server that may take long to answer: on a busy machine a late answer would be a refusal.
COMMAND = f"from pdp.broker import cli, serving; serving._CHECK_SECONDS = {PATIENCE}; cli.main()"


@dataclass
class Site:
    """A broker's folder with a connection and its secret, and the server that it asks."""

    server: RunningServer
    clock: FakeClock
    upstream: Upstream
    folder: Path
    tokens: list[str] = field(default_factory=list)

    def token(self) -> str:
        """Return the call token of a call that was allowed now."""
        self.clock.step_wall(time.time() - self.clock.now().wall_at)
        _, handle = opened_session(self.server)
        client, wanted = self.server.client("gateway"), CallTokenRequest(audience=AUDIENCE)
        answer = client.authorize(handle, "notes", "read", {"path": "n"}, call_tokens=(wanted,))
        self.tokens.append(answer.call_tokens[0].token)
        return self.tokens[-1]

    @contextmanager
    def broker(self) -> Iterator[subprocess.Popen[str]]:
        """Run a broker, and provide it once it listens."""
        with (self.folder / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "serve", "--settings", str(self.folder / "broker.yaml")],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.folder,
                env={**os.environ, "OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none"},
            )
            try:
                self._await(process.stdout)
                yield process
            finally:
                process.terminate()
                said, _ = process.communicate(timeout=PATIENCE)
                log.write(said)

    @contextmanager
    def connected(self, source: TokenSource | None) -> Iterator[None]:
        """Let the connection get access tokens, with its secret as that of a client."""
        former = self._replace(source)
        try:
            yield
        finally:
            self._replace(former)

    def held(self) -> list[bytes]:
        """Return the content of all files."""
        return [path.read_bytes() for path in self.folder.rglob("*") if path.is_file()]

    def _replace(self, source: TokenSource | None) -> TokenSource | None:
        with opened_vault(self.folder, lambda _: None) as vault:
            former = vault.remove("github-1", by="test")
            vault.add(replace(former, source=source), by="test")
            vault.put("github-1", CANARY.encode(), by="test")
        return former.source

    def call(self, token: str) -> Any:
        """Call over the socket, as another process of this machine."""
        request = broker_pb2.CallRequest(call_token=token, server="notes", tool="read", arguments_json=b'{"path":"n"}')
        with grpc.insecure_channel(f"unix:{self.folder}/calls.sock") as channel:
            stub = broker_pb2_grpc.BrokerServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
            return stub.Call(request, timeout=PATIENCE)

    def _await(self, out: IO[str] | None) -> None:
        assert out is not None
        lines = [out.readline() for _ in range(2)]
        assert all(line.startswith("listening for ") for line in lines), (self.folder / "log").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Share a folder and a server; each test runs a broker of its own."""
    folder, clock = tmp_path_factory.mktemp("broker"), FakeClock(time.time())
    with (
        upstream_here() as upstream,
        running_server(
            FILES, callers=CALLERS, call_token_issuer=ISSUER, call_token_seconds=MOST_SECONDS, clock=clock
        ) as server,
    ):
        make_broker(folder)
        # What was used before the memory of uses began is not known, so younger tokens alone are good.
        FileUses(folder / USES_FILE, wall=lambda: time.time() - 60).close()
        with opened_vault(folder, lambda _: None) as vault:
            vault.add(connection_to(upstream, tenant="default", compartment=""), by="test")
            vault.put("github-1", CANARY.encode(), by="test")
        files = {
            "rules.yaml": RULES,
            "token": server.token("broker"),
            "broker.yaml": f"""
issuer: {ISSUER}
audience: {AUDIENCE}
calls: unix:calls.sock
http: unix:http.sock
pdp: {{address: "{server.address}", token_file: token, plaintext: true}}
""",
        }
        for name, text in files.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o600)
        yield Site(server, clock, upstream, folder)


def shown(places: list[bytes], *secrets: str) -> list[tuple[bytes, bytes]]:
    """Return which secrets are in which places, in whatever form."""
    plain = [one.encode() for one in secrets]
    forms = [form for one in plain for form in (one, b64encode(one), one.hex().encode(), quote_plus(one).encode())]
    return [(where[:40], form) for where in places for form in forms if form in where]


def test_a_token_that_was_used_stays_used_after_a_sudden_end(site: Site) -> None:
    """Also when the process was killed right after the use; and a crash leaves no core file."""
    with site.broker() as process:
        token = site.token()
        assert 200 == site.call(token).status
        assert "0" == _limit(process.pid)
        process.send_signal(signal.SIGABRT)
        assert -signal.SIGABRT == process.wait(PATIENCE)
    with site.broker() as process:
        with pytest.raises(grpc.RpcError) as refused:
            site.call(token)
        process.kill()
        process.wait(PATIENCE)

    assert "call token refused: used before" == refused.value.details()
    assert [] == list(site.folder.glob("core*"))


def test_the_secret_is_nowhere_but_at_the_upstream(site: Site) -> None:
    """Not in an answer, the log, a trace, the record or a file, in no form; call tokens neither."""
    echo = f'{{"you sent":"{CANARY}","basic":"{b64encode(CANARY.encode()).decode()}"}}'.encode()
    before = site.upstream.pieces
    site.upstream.got.clear()
    try:
        with site.broker():
            site.upstream.pieces = lambda: iter([echo[:20], echo[20:]])
            answer = site.call(site.token())
            site.upstream.status = 302
            with pytest.raises(grpc.RpcError) as failed:
                site.call(site.token())
            with pytest.raises(grpc.RpcError):
                site.call(site.token()[:-4] + "AAAA")
    finally:
        site.upstream.status, site.upstream.pieces = 200, before

    assert f"Bearer {CANARY}" == site.upstream.got[0][2]["authorization"]
    assert b'{"you sent":"***"' == answer.body[:17]
    held = site.held()
    assert [] == shown([answer.SerializeToString(), str(failed.value).encode(), *held], CANARY, *site.tokens)
    assert b'"kind":"calltoken.used"' in b"".join(held)
    assert "use_secret" in (site.folder / "log").read_text()


def test_an_access_token_is_nowhere_but_at_the_upstream(site: Site) -> None:
    """And the secret of the client, with which it was got, nowhere but at the token endpoint."""
    token = "t0ken/5e08c1-9a4f~7d26"  # noqa: S105 - a canary
    said = json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": 600}).encode()
    site.upstream.got.clear()
    with upstream_here() as provider:
        provider.pieces = lambda: iter([said])
        source = TokenSource(endpoint=f"{provider.origin}/token", client_id="broker", auth=ClientAuth.POST)
        with site.connected(source), site.broker():
            answers = [site.call(site.token()), site.call(site.token())]

        assert [True] == [quote_plus(CANARY).encode() in body for *_, body in provider.got]
    assert [f"Bearer {token}"] * 2 == [headers["authorization"] for _, _, headers, _ in site.upstream.got]
    held = site.held()
    assert [] == shown([*(one.SerializeToString() for one in answers), *held], token, CANARY, *site.tokens)
    assert 1 == b"".join(held).count(b'"kind":"connection.refreshed"')


def test_a_server_over_pipes_works_without_its_key(site: Site) -> None:
    """It has a placeholder, and what it asks its base URL for is sent with the secret; it never sees a call token."""
    site.upstream.got.clear()
    command = [
        *(sys.executable, "-m", "pdp.broker.cli", "stdio", "--server", "notes"),
        *(
            "--broker",
            f"unix:{site.folder}/http.sock",
            "--key-variable",
            "NOTES_KEY",
            "--url-variable",
            "NOTES_URL=/v1",
        ),
        *("--", sys.executable, str(Path(__file__).with_name("overpipes.py"))),
    ]
    with site.broker():
        params = {"name": "read", "arguments": {"path": "n"}, "_meta": {HEADER: site.token(), "other": 1}}
        lines = [
            {"jsonrpc": "2.0", "id": 1, "method": "initialize"},
            {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params},
            {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": params},
            {"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {**params, "_meta": {}}},
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PDP_ADDRESS": "x"}
        )
        assert process.stdin
        assert process.stdout
        for line in lines:
            process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()
        answers = {one["id"]: one for one in (json.loads(process.stdout.readline()) for _ in lines)}
        process.stdin.close()
        assert 0 == process.wait(PATIENCE)
        process.stdout.close()

    result = answers[2]["result"]
    assert {"seen": []} == answers[1]["result"]
    assert ('{"done":true}', {"other": 1}) == (result["content"][0]["text"], result["meta"])
    assert result["key"].startswith("pdp-placeholder-")
    assert "used before" in answers[3]["result"]["content"][0]["text"]
    assert "no call token" in answers[4]["error"]["message"]
    ((_, path, headers, _),) = site.upstream.got
    assert ("/v1/n", f"Bearer {CANARY}") == (path, headers["authorization"])


@pytest.mark.parametrize(("said", "program"), [(5, "input(); input()"), (0, "print('x' * 5 * 2**20); input()")])
def test_a_message_over_pipes_that_is_too_long_ends_the_server(tmp_path: Path, said: int, program: str) -> None:
    """Whichever side it comes from: otherwise its client would wait for ever."""
    with socket.socket(socket.AF_UNIX) as broker:
        broker.bind(str(tmp_path / "s"))
        where = ("--broker", f"unix:{tmp_path}/s", "--key-variable", "K", "--url-variable", "U")
        command = [sys.executable, "-m", "pdp.broker.cli", "stdio", "--server", "notes", *where]
        with subprocess.Popen(
            [*command, "--", sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin
            assert process.stderr
            with suppress(BrokenPipeError):
                process.stdin.write(b"x" * said * 2**20)
                process.stdin.flush()
            try:
                status = process.wait(PATIENCE)
            finally:
                process.kill()
            assert (2, True) == (status, b"a message has more than 4194304 bytes" in process.stderr.read())


def _limit(pid: int) -> str:
    """Return the largest core file that a process may write."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return next(line.split()[4] for line in limits.splitlines() if line.startswith("Max core file size"))
