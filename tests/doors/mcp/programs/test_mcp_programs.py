"""Real servers and clients see the same with the proxy as without it, but for the table of differences."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import running_server
from tests.doors.commands import PDP
from tests.doors.mcp import toolserver
from tests.doors.mcp.programs import pythonclient, tap
from tests.doors.mcp.programs.differences import CLIENT, OWN, SERVER, seen
from tests.doors.mcp.programs.installed import METHODS, NODE, ROOT

pytestmark = pytest.mark.doors

PATIENCE = 120
AT_ONE_TIME = 3
TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A real server: how it is started in a folder, what is asked of it, and the tool that is hidden."""

    command: Callable[[Path], list[str]]
    steps: Callable[[Path], list[tuple[str, dict[str, Any]]]]
    hidden: str


def _call(name: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    return "tools/call", {"name": name, "arguments": arguments}


def _repository(folder: Path) -> Path:
    """Return a repository with one commit."""
    repository = folder / "repository"
    if not repository.exists():
        repository.mkdir()
        (repository / "a.txt").write_text("é\n", encoding="utf-8")
        who = {"NAME": "a", "EMAIL": "a@example.com", "DATE": "2026-01-01T00:00:00Z"}
        environment = {f"GIT_{role}_{name}": value for role in ("AUTHOR", "COMMITTER") for name, value in who.items()}
        for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "first é"]):
            subprocess.run(["git", *words], cwd=repository, env={**os.environ, **environment}, check=True)
    return repository


def _node(name: str) -> str:
    program = NODE / "node_modules" / ".bin" / name
    if not program.exists():
        pytest.fail("the programs of npm are absent: run `make doors`")
    return str(program)


def _python(name: str) -> str:
    return str(Path(sys.executable).parent / name)


SERVERS = {
    "everything": Server(
        command=lambda _: [_node("mcp-server-everything")],
        steps=lambda _: [
            ("tools/list", {}),
            _call("echo", message="é \u202e \U0001f600 \u0000"),
            _call("get-sum", a=1, b=2.5),
            _call("get-structured-content", location="New York"),
            _call("get-annotated-message", messageType="error", includeImage=True),
            _call("get-tiny-image"),
            _call("trigger-long-running-operation", duration=0.2, steps=2),
            ("resources/list", {}),
            ("resources/read", {"uri": "demo://resource/static/document/features.md"}),
            ("resources/read", {"uri": "demo://nothing"}),
            ("prompts/list", {}),
            ("prompts/get", {"name": "args-prompt", "arguments": {"city": "Zürich"}}),
            (
                "completion/complete",
                {
                    "ref": {"type": "ref/prompt", "name": "completable-prompt"},
                    "argument": {"name": "department", "value": "E"},
                },
            ),
        ],
        hidden="get-env",
    ),
    "filesystem": Server(
        command=lambda folder: [_node("mcp-server-filesystem"), str(_repository(folder))],
        steps=lambda folder: [
            ("tools/list", {}),
            _call("list_directory", path=str(_repository(folder))),
            _call("read_text_file", path=str(_repository(folder) / "a.txt")),
            _call("read_text_file", path="/etc/passwd"),
            _call("write_file", path=str(_repository(folder) / "b.txt"), content="é"),
        ],
        hidden="move_file",
    ),
    "git": Server(
        command=lambda folder: [_python("mcp-server-git"), "--repository", str(_repository(folder))],
        steps=lambda folder: [
            ("tools/list", {}),
            _call("git_status", repo_path=str(_repository(folder))),
            _call("git_log", repo_path=str(_repository(folder)), max_count=1),
            _call("git_show", repo_path=str(_repository(folder)), revision="no such revision"),
        ],
        hidden="git_reset",
    ),
    "time": Server(
        command=lambda _: [_python("mcp-server-time"), "--local-timezone", "UTC"],
        steps=lambda _: [
            ("tools/list", {}),
            _call("convert_time", source_timezone="Europe/Zurich", time="12:00", target_timezone="Asia/Tokyo"),
        ],
        hidden="get_current_time",
    ),
    # Its list of tools may be kept long by everyone, which those of the others say of none.
    "small": Server(
        command=lambda folder: [sys.executable, "-m", toolserver.__name__, str(folder / "lines")],
        steps=lambda _: [("tools/list", {}), _call("read", path="é")],
        hidden="hidden",
    ),
}
CLIENTS = ("python auto", "python legacy", "sdk1", "sdk2")
# Each client with the server that can do most, and each server with a client of each era where it speaks both.
PAIRS = (
    *((client, "everything") for client in CLIENTS),
    ("sdk1", "filesystem"),
    ("python auto", "git"),
    ("sdk2", "git"),
    ("python auto", "time"),
    ("python auto", "small"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What both sides of one conversation have seen, and what the client has made of it."""

    to_client: list[bytes]
    from_client: list[bytes]
    to_server: list[bytes]
    told: Any


def play(client: str, steps: Any, command: list[str], folder: Path, proxy: list[str]) -> Run:
    """Have a client talk to a server; `proxy` is the command before the server's, or empty."""
    folder.mkdir()
    inner = [sys.executable, tap.__file__, str(folder / "server"), *command]
    whole = [sys.executable, tap.__file__, str(folder / "client"), *proxy, *inner]
    name, _, mode = client.partition(" ")
    plan = json.dumps({"command": whole, "mode": mode, "steps": steps})
    if name == "python":
        program, where = [sys.executable, pythonclient.__file__], folder
    else:
        program, where = ["node", f"{name}.mjs"], NODE
    done = subprocess.run(
        [*program, plan],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert 0 == done.returncode, done.stderr.decode()
    read = {side: (folder / side).read_bytes().splitlines() for side in ("client.in", "client.out", "server.in")}
    return Run(
        to_client=read["client.out"],
        from_client=read["client.in"],
        to_server=read["server.in"],
        told=json.loads(done.stdout.splitlines()[-1]),
    )


@contextmanager
def allowing(catalogue: dict[str, list[dict[str, Any]]], folder: Path) -> Iterator[Callable[[str], list[str]]]:
    """Serve a PDP that allows every call of these tools but those that are hidden.

    Yields what returns the proxy's command before a server.
    """
    hidden = ", ".join(f'Action::"{name}/{SERVERS[name].hidden}"' for name in catalogue)
    ceiling = [f"{name}/*" for name in catalogue]
    files = bundle_files(
        policies={
            "it": '@id("it/all")\npermit (principal, action, resource);\n'
            f'@id("it/hidden")\nforbid (principal, action in [{hidden}], resource);\n'
        },
        tools={name: [*listed, *METHODS] for name, listed in catalogue.items()},
        directory=f"users: {{alice: {{}}, approver: {{}}}}\nagents: {{coder: {{ceiling: {json.dumps(ceiling)}}}}}\n",
        labels=("tainted",),
    )
    with running_server(files) as server:
        opened = server.client("pep").request_session(user="alice", agent="coder", purpose="to test", tools=ceiling)
        server.client("approver").approve_session(
            opened.session.session_id, request_digest=opened.session.request_digest
        )
        for name, text in (("token", server.token("pep")), ("handle", opened.session_handle)):
            (folder / name).write_text(text, encoding="ascii")
            (folder / name).chmod(0o600)

        def before(name: str) -> list[str]:
            return [
                *(*PDP, "mcp", "--server", name, "--address", server.address, "--plaintext"),
                *("--token-file", str(folder / "token"), "--session-handle-file", str(folder / "handle"), "--"),
            ]

        yield before


def compared(direct: Run, proxied: Run, hidden: str) -> set[str]:
    """Assert that two runs differ as the table says, and nothing else; return the rows that were needed."""
    used: set[str] = set()
    wanted: list[Any] = []
    for one in seen(direct.to_client, direct.from_client):
        value = json.loads(one.line)
        for row in CLIENT:
            before = json.dumps(value)
            if row.fits(one):
                row.change(value, hidden)
                used |= {row.what} if json.dumps(value) != before else set()
        # The very bytes, unless a row has changed them.
        wanted.append(one.line if value == one.value else value)
    found = [line if line in wanted else json.loads(line) for line in proxied.to_client]
    assert sorted(map(repr, wanted)) == sorted(map(repr, found))
    assert _answered(direct.to_client) == _answered(proxied.to_client)

    own = [line for line in proxied.to_server if str(json.loads(line).get("id", "")).startswith(OWN)]
    assert ["tools/list"] * len(own) == [json.loads(line)["method"] for line in own]
    used |= {SERVER} if own else set()
    assert direct.from_client == proxied.from_client
    assert direct.to_server == [line for line in proxied.to_server if line not in own]
    return used


def _answered(lines: list[bytes]) -> list[Any]:
    return [value["id"] for value in map(json.loads, lines) if "method" not in value]


def test_clients_and_servers_see_the_same(tmp_path: Path) -> None:
    """In every pair of programs, and each row of the table is needed."""
    if shutil.which("node") is None:
        pytest.fail("node is absent")

    def run(pair: tuple[str, str], way: str, proxy: list[str]) -> Run:
        folder = tmp_path / way / " ".join(pair)
        (folder / "work").mkdir(parents=True)
        # Both ways work in a folder of the same name, since servers name it.
        work = tmp_path / "work" / " ".join(pair)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        server = SERVERS[pair[1]]
        return play(pair[0], server.steps(work), server.command(work), folder / "lines", proxy)

    with ThreadPoolExecutor(AT_ONE_TIME) as pool:
        direct = list(pool.map(lambda pair: run(pair, "direct", []), PAIRS))
        catalogue = {name: _tools(one) for (_, name), one in zip(PAIRS, direct, strict=True)}
        with allowing(catalogue, tmp_path) as before:

            def proxied_like(pair: tuple[str, str], one: Run) -> Run:
                # A client that gives an answer up on a slow machine asks otherwise than before: then all of it is anew.
                for number in range(TRIES):
                    other = run(pair, f"proxied {number}", before(pair[1]))
                    if other.from_client == one.from_client:
                        break
                return other

            proxied = list(pool.map(proxied_like, PAIRS, direct))

    used: set[str] = set()
    for (_, name), one, other in zip(PAIRS, direct, proxied, strict=True):
        assert any(tool["name"] == SERVERS[name].hidden for tool in catalogue[name])
        used |= compared(one, other, SERVERS[name].hidden)
        assert _called(name, one, tmp_path) == _called(name, other, tmp_path)
    assert {row.what for row in CLIENT} | {SERVER} == used


def _tools(run: Run) -> list[dict[str, Any]]:
    """Return the server's list of tools."""
    listed = next(one for one in seen(run.to_client, run.from_client) if one.asked == "tools/list")
    tools: list[dict[str, Any]] = listed.value["result"]["tools"]
    return tools


def _called(name: str, run: Run, folder: Path) -> list[Any]:
    """Return what the client has made of the answers to its calls."""
    steps = SERVERS[name].steps(folder)
    return [one for one, (method, _) in zip(run.told[-len(steps) :], steps, strict=True) if method == "tools/call"]


# To the greeting, to what is smuggled or its cover, and to the last ping.
_ANSWERS = 3
GREETING = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "small", "version": "1"}}


def smuggled(command: list[str], tool: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Hide a call in a ping, between carriage returns, and ping again; return the answers."""
    call = {"jsonrpc": "2.0", "id": "hidden", "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
    lines = [
        json.dumps({"jsonrpc": "2.0", "id": "greeting", "method": "initialize", "params": GREETING}),
        json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        f'{{"jsonrpc":"2.0","id":"outer","method":"ping","params":{{"x":[\r{json.dumps(call)}\r]}}}}',
        json.dumps({"jsonrpc": "2.0", "id": "last", "method": "ping"}),
    ]
    seen: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join([*lines, ""]).encode())
        process.stdin.flush()
        while len(seen) < _ANSWERS:
            seen.append(json.loads(process.stdout.readline()))
        process.stdin.close()
    return seen


def test_no_call_is_smuggled_past_the_proxy(tmp_path: Path) -> None:
    """A real server on Python runs a call between carriage returns; with the proxy it never gets the line."""
    command, arguments = SERVERS["time"].command(tmp_path), {"timezone": "UTC"}
    tools = [tool("get_current_time", {"timezone": {"type": "string"}}, ["timezone"])]

    direct = smuggled(command, "get_current_time", arguments)
    with allowing({"time": tools}, tmp_path) as before:
        proxied = smuggled([*before("time"), *command], "get_current_time", arguments)

    assert {"greeting", "hidden", "last"} == {one["id"] for one in direct}
    found = {one["id"]: one for one in proxied}
    assert {"greeting", "outer", "last"} == found.keys()
    assert "a carriage return within a line" == found["outer"]["error"]["message"]
