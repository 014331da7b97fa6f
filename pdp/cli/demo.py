"""The demonstration: a short agent task on real MCP servers, decided call by call. Run by `make demo`."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import click
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pdp.cli.demobrowser import approve_in_the_browser
from pdp.client import Answer, AsyncClient, DefinitionDigests, PDPClientError, definition_digests
from pdp.testing.otlp import OTLPReceiver, attributes_of

SERVERS = {"git": "mcp_server_git", "time": "mcp_server_time"}
SCOPE = ("git/git_status", "git/git_log", "git/git_add", "git/git_commit", "git/git_reset", "time/get_current_time")
_PLAIN_WIDTH = 160
_WIDE = 120
_RESULT_CHARACTERS = 48
_LISTENING = re.compile(r"listening on (\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call of the agent's task."""

    server: str
    tool: str
    arguments: Mapping[str, Any]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """The folders of the demonstration, which are removed at the end."""

    policies: Path
    data: Path
    repository: Path


@click.command(help="A short agent task, decided call by call.")
@click.option(
    "--console/--no-console", "browser", default=None, help="Approve a session in the browser, too. [asks, if it can]"
)
def main(*, browser: bool | None) -> None:
    """Run the demonstration, and exit with 1 unless every call was decided as expected."""
    console = Console()
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    with tempfile.TemporaryDirectory(prefix="pdp-demo-") as folder, OTLPReceiver() as receiver:
        folders = _prepare(Path(folder))
        with _server(folders, receiver.endpoint) as address:
            console.print(f"[bold]1[/] the PDP listens on {address}, with its embedded defaults")
            answers = asyncio.run(_task(console, folders, address))
            if _wanted(console) if browser is None else browser:
                # Ctrl-C ends this part alone.
                with suppress(KeyboardInterrupt):
                    asyncio.run(_in_the_browser(console, folders, address))
        # The server has ended and sent its trace.
        _show_trace(console, receiver, answers)
    following = "next: `Install` and `By hand` in README.md"
    console.print(f"[bold]9[/] all {len(answers)} calls were decided as expected; {following}")


def _wanted(console: Console) -> bool:
    if not (console.is_terminal and sys.stdin.isatty()):
        console.print("[bold]7[/] with `make demo CONSOLE=yes` you approve and revoke a session in the browser")
        return False
    return click.confirm("Be the approver now: approve a session in the browser, and revoke it there?", default=True)


async def _in_the_browser(console: Console, folders: Folders, address: str) -> None:
    console.print("[bold]7[/] your turn, until you revoke the session; Ctrl-C goes on")
    command = [sys.executable, "-m", "pdp.cli", "console", "--open"]
    command += ["--address", address, "--data-dir", str(folders.data)]
    async with _client(folders, address, "pep") as pep:
        arguments = {"repo_path": str(folders.repository)}
        await approve_in_the_browser(pep, command, arguments, lambda text: console.print(f"  {text}", markup=False))


def _client(folders: Folders, address: str, role: str) -> AsyncClient:
    return AsyncClient(address, token_file=folders.data / "tokens" / f"{role}.token", data_dir=folders.data)


async def _task(console: Console, folders: Folders, address: str) -> list[Answer]:
    async with AsyncExitStack() as opened:
        tools = {name: await opened.enter_async_context(_mcp_server(module)) for name, module in SERVERS.items()}
        pep, approver, author = [
            await opened.enter_async_context(_client(folders, address, name)) for name in ("pep", "approver", "author")
        ]
        digests = await _import_tools(console, folders, author, tools)
        opened_session = await pep.request_session(
            user="alice", agent="coder", purpose="Tidy the notes and commit them", tools=SCOPE
        )
        session = opened_session.session
        console.print(f"[bold]3[/] the gateway asks for a session: {session.session_id}, {len(session.tools)} tools")
        try:
            await pep.approve_session(session.session_id, request_digest=session.request_digest)
        except PDPClientError as error:
            console.print(f"[bold]4[/] the gateway's own token cannot approve it: {error}")
        else:
            raise SystemExit("the gateway could approve its own session")
        shown = await approver.get_session(session.session_id)
        await approver.approve_session(session.session_id, request_digest=shown.request_digest)
        console.print("[bold]5[/] the approver looks at it and approves exactly what was shown")
        held = pep.attach(opened_session.session_handle, session_id=session.session_id, definitions=digests)
        rows = []
        for step in _steps(folders):
            answer = await held.authorize(step.server, step.tool, step.arguments)
            rows.append((step, answer, await _execute(tools, step) if answer else "not executed"))
        revoked = asyncio.create_task(approver.revoke_sessions(session_id=session.session_id, reason="demonstration"))
        # The agent goes on working; the first call after the acknowledged revocation is denied.
        await revoked
        last = Step(
            server="git", tool="git_status", arguments={"repo_path": str(folders.repository)}, note="after revoking"
        )
        answer = await held.authorize(last.server, last.tool, last.arguments)
        rows.append((last, answer, await _execute(tools, last) if answer else "not executed"))
        console.print("[bold]6[/] the agent works; before its last call the approver revokes the session")
        console.print(_table(rows, wide=console.width >= _WIDE))
        _require_expected([row[1] for row in rows])
        return [row[1] for row in rows]


def _steps(folders: Folders) -> list[Step]:
    repository = {"repo_path": str(folders.repository)}
    return [
        Step(server="git", tool="git_status", arguments=repository, note="read"),
        Step(server="git", tool="git_status", arguments=repository, note="the same read"),
        Step(server="time", tool="get_current_time", arguments={"timezone": "UTC"}, note="another server"),
        Step(server="git", tool="git_add", arguments={**repository, "files": ["notes.txt"]}, note="write in scope"),
        Step(server="git", tool="git_commit", arguments={**repository, "message": "Tidy"}, note="write in scope"),
        Step(
            server="git",
            tool="git_create_branch",
            arguments={**repository, "branch_name": "spare"},
            note="write outside the scope",
        ),
        Step(server="git", tool="git_push", arguments=repository, note="no such tool"),
        Step(server="git", tool="git_log", arguments={**repository, "max_count": "3"}, note="wrong type"),
        Step(server="git", tool="git_reset", arguments=repository, note="destructive"),
        Step(server="git", tool="git_log", arguments={**repository, "max_count": 3}, note="read"),
    ]


_EXPECTED = (
    "permit",
    "permit",
    "permit",
    "permit",
    "permit",
    "out_of_scope",
    "unknown_tool",
    "invalid_arguments",
    "forbid",
    "permit",
    "session_revoked",
)


def _require_expected(answers: list[Answer]) -> None:
    found = tuple(answer.basis for answer in answers)
    if found != _EXPECTED:
        raise SystemExit(f"the demonstration did not go as expected: {found}")


def _prepare(folder: Path) -> Folders:
    folders = Folders(policies=folder / "policies", data=folder / "data", repository=folder / "notes")
    shutil.copytree(Path("policies"), folders.policies)
    folders.repository.mkdir()
    (folders.repository / "notes.txt").write_text("first\n", encoding="utf-8")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "First"]):
        identity = ["-c", "user.name=Alice", "-c", "user.email=alice@example.com"]
        subprocess.run(["git", *identity, *command], cwd=folders.repository, check=True)  # noqa: S603, S607 - fixed words
    (folders.repository / "notes.txt").write_text("first\nsecond\n", encoding="utf-8")
    return folders


@contextmanager
def _server(folders: Folders, telemetry: str) -> Iterator[str]:
    command = [sys.executable, "-m", "pdp.cli", "serve", "--server-address", "127.0.0.1:0", "--server-workers", "1"]
    command += ["--data-dir", str(folders.data), "--policies-folder", str(folders.policies)]
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": telemetry, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    # The server's log is not part of the demonstration, unless it does not start.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)  # noqa: S603 - our own words
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.communicate(timeout=30)


def _address(process: subprocess.Popen[str], log: TextIO) -> str:
    for line in process.stdout or ():
        if match := _LISTENING.search(line):
            return match.group(1)
    process.wait()
    log.seek(0)
    raise SystemExit(f"the server did not start:\n{log.read()}")


@asynccontextmanager
async def _mcp_server(module: str) -> AsyncIterator[ClientSession]:
    parameters = StdioServerParameters(command=sys.executable, args=["-m", module])
    # The log of the MCP servers is not part of the demonstration.
    silent = cast("TextIO", subprocess.DEVNULL)  # the process accepts it; the signature does not say so
    async with stdio_client(parameters, errlog=silent) as pipes, ClientSession(*pipes) as session:
        await session.initialize()
        yield session


async def _import_tools(
    console: Console, folders: Folders, author: AsyncClient, tools: Mapping[str, ClientSession]
) -> DefinitionDigests:
    """Import the tools of the live servers as `pdp tools import` does, and reload."""
    digests: dict[tuple[str, str], str] = {}
    for name, session in tools.items():
        listed = await session.list_tools()
        digests |= definition_digests(name, listed)
        answer = listed.model_dump_json(by_alias=True, exclude_none=True)
        command = [sys.executable, "-m", "pdp.cli", "tools", "import", name, "-", "--policies", str(folders.policies)]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        await process.communicate(answer.encode("utf-8"))
        if process.returncode:
            raise SystemExit(f"`{' '.join(command[2:])}` failed")
    reloaded = await author.reload_bundle()
    console.print(
        f"[bold]2[/] live tools of {', '.join(tools)} are imported; the bundle has {reloaded.bundle.tool_count} tools "
        f"and {len(reloaded.bundle.policies)} policies: {reloaded.bundle.version[:19]}…"
    )
    return digests


async def _execute(tools: Mapping[str, ClientSession], step: Step) -> str:
    result = await tools[step.server].call_tool(step.tool, dict(step.arguments))
    text = "\n".join(part.text for part in result.content if part.type == "text")
    return " ".join(text.split())[:_RESULT_CHARACTERS]


def _table(rows: list[tuple[Step, Answer, str]], *, wide: bool) -> Table:
    """Return the calls as a table; if it is wide, with the output of the tools."""
    table = Table(title="every call, decided before it is made")
    for heading in ("call", "outcome", "basis and policies", "cache"):
        table.add_column(heading, overflow="fold")
    table.add_column("µs", justify="right")
    if wide:
        table.add_column("what the tool said", overflow="fold")
    for step, answer, result in rows:
        table.add_row(
            f"{step.server}/{step.tool}\n  {step.note}",
            f"[{'green' if answer else 'red'}]{answer.outcome.value}[/]",
            "\n".join((answer.basis, *answer.policies)),
            answer.cache_result,
            f"{answer.duration_us:.0f}",
            *([Text(result)] if wide else []),
        )
    return table


def _show_trace(console: Console, receiver: OTLPReceiver, answers: list[Answer]) -> None:
    denied = next(answer for answer in answers if answer.basis == "forbid")
    receiver.wait_for(lambda: any(span.span_id.hex() == denied.span_id for span in receiver.spans))
    span = next(span for span in receiver.spans if span.span_id.hex() == denied.span_id)
    console.print(f"[bold]8[/] the trace of the denied `git_reset`, as an OTLP receiver got it: {denied.trace_id}")
    table = Table(title=f"span {span.name}, {(span.end_time_unix_nano - span.start_time_unix_nano) / 1000:.0f} µs")
    table.add_column("attribute")
    table.add_column("value", overflow="fold")
    for name, value in sorted(attributes_of(span).items()):
        table.add_row(name, ", ".join(map(str, value)) if isinstance(value, tuple) else str(value))
    console.print(table)


if __name__ == "__main__":
    main()
