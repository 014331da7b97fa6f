"""A process of another user of the machine gets nothing from the proxy over HTTP, and nothing of what it knows."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.client import AsyncClient
from pdp.doors.tasks import Task
from pdp.doors.wish import Wish
from pdp.testing.inprocess import RunningServer
from tests.doors.mcp.conversation import MODERN, STATED
from tests.doors.mcp.webprocess import web_door
from tests.doors.mcp.webworld import HANDLE, SECRET, behind, private_file, world

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.doors,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a process as another user"),
]

# Becomes another user, reads each file, and sends each request; prints what came of it. The interpreter can be where
# only its owner may go, so that all modules are imported before.
_STRANGER = """
import encodings.idna, json, os, pwd, sys, urllib.request
nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)
files, url, body, headers = json.loads(sys.argv[1])
seen = {"files": {}, "answers": []}
for file in files:
    try:
        with open(file, "rb") as opened:
            seen["files"][file] = "read" if opened.read(1) else "empty"
    except OSError as error:
        seen["files"][file] = type(error).__name__
for more in headers:
    request = urllib.request.Request(url, body.encode(), more)
    with urllib.request.urlopen(request) as answer:
        seen["answers"].append(answer.read().decode())
print(json.dumps(seen))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that every user of the machine can enter."""
    made = Path(tempfile.mkdtemp(prefix="pdp-strangers-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


async def test_another_user_of_the_machine_gets_nothing(desk_pdp: RunningServer, folder: Path) -> None:
    """Neither by the port, nor by the files of handles and tokens, nor from the proxy's process."""
    (folder / "told").write_text("to everybody", encoding="ascii")
    handle_file, headers_file = folder / "handle", private_file(folder, f"Authorization: Bearer {SECRET}")
    async with (
        world(desk_pdp) as here,
        behind(here.desk, here.server.streamable_http_app()) as upstream,
        web_door(desk_pdp, "desk", upstream, folder, "--headers-file", str(headers_file)) as door,
        AsyncClient(desk_pdp.address, token=desk_pdp.token("pep"), plaintext=True) as client,
    ):
        way = ("--address", desk_pdp.address, "--token-file", str(folder / "token"), "--plaintext")
        words = ("--user", "alice", "--agent", "coder", "--purpose", "x", "--tool", "desk/*")
        asked = await asyncio.to_thread(
            CliRunner().invoke, root, ["session", "request", *words, "--handle-file", str(handle_file), *way]
        )
        assert 0 == asked.exit_code, asked.output
        wish = Wish(user="alice", agent="coder", purpose="x", tools=("desk/*",))
        task = Task(folder / "tasks", "shared", wish)
        await task.join(client)
        process = Path(f"/proc/{door.process.pid}")
        secret = [handle_file, headers_file, folder / "token", task.handle_file, task.members_file]
        secret += [process / name for name in ("environ", "mem", "maps", "fd/0", "io", "stack")]
        seen = await _stranger(door.last_word, [folder / "told", *secret])
        await task.leave(client)

        assert "read" == seen["files"].pop(str(folder / "told"))
        assert dict.fromkeys(map(str, secret), "PermissionError") == seen["files"]
        assert [True, True] == ["isError" in answer and "handle" in answer for answer in seen["answers"]]
        assert ({}, {}) == (here.desk.headers, here.desk.ran)


async def _stranger(url: str, files: list[Path]) -> Any:
    """Have a process of another user read files and call a tool; return what came of it."""
    params = {"name": "echo", "arguments": {"text": "x"}, "_meta": STATED}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = {
        "content-type": "application/json",
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call",
        "mcp-name": "echo",
    }
    plan = [[str(file) for file in files], url, body, [headers, {**headers, HANDLE: "pdps_" + "x" * 43}]]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-c", _STRANGER, json.dumps(plan)),
        cwd="/",
        env={},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return json.loads(output)
