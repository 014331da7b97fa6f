"""The part of the demonstration that a person plays in the browser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pdp.cli.demobrowser import TOOLS, approve_in_the_browser
from pdp.client import AsyncClient
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import ONE_OF_EACH_ROLE, RunningServer, running_server

_POLICIES = """
@id("git/reads") permit (principal, action, resource) unless { action == Action::"git/git_reset" };
"""
_REPOSITORY = {"repo_path": "/srv/notes"}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """Return a server whose tools are those of the demonstration."""
    names = [name.partition("/")[2] for name in TOOLS]
    files = bundle_files(
        policies={"git": _POLICIES},
        tools={"git": [tool(name, {"repo_path": {"type": "string"}}) for name in names]},
        overlays={"git": "risk: read_only\n"},
        directory="users: {alice: {}}\nagents: {coder: {ceiling: ['git/*']}}\n",
    )
    with running_server(files, callers=ONE_OF_EACH_ROLE) as running:
        yield running


def played(server: RunningServer, command: list[str], answer: Callable[[str], None]) -> list[str]:
    """Return what is said to a person who answers it."""
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        answer(text)

    async def play() -> None:
        async with AsyncClient(server.address, token=server.token("pep"), plaintext=True) as pep:
            await approve_in_the_browser(pep, command, _REPOSITORY, say)

    asyncio.run(play())
    return said


def test_the_agent_works_from_the_approval_to_the_revocation(server: RunningServer) -> None:
    """Each new answer is said once; the first call after the revocation is denied, and ends it."""
    approver = server.client("approver")

    def answer(text: str) -> None:
        if text.startswith("ses_"):
            shown = approver.get_session(text.partition(" ")[0])
            approver.approve_session(shown.session_id, request_digest=shown.request_digest)
        if text.startswith("git/git_reset"):
            approver.revoke_sessions(user="alice", reason="seen enough")

    waits, approved, *calls = played(server, ["sleep", "600"], answer)

    assert "waits in the browser" in waits
    assert approved.startswith("approved: ")
    assert [
        "git/git_status: allow, permit",
        "git/git_log: allow, permit",
        "git/git_reset: deny, default_deny",
        "git/git_status: deny, session_revoked",
    ] == calls


def test_a_refusal_ends_it(server: RunningServer) -> None:
    """With what the person said."""
    approver = server.client("approver")

    def answer(text: str) -> None:
        if text.startswith("ses_"):
            approver.deny_session(text.partition(" ")[0], reason="not today")

    assert "not today" in played(server, ["sleep", "600"], answer)[-1]


def test_without_a_console_it_does_not_wait(server: RunningServer, tmp_path: Path) -> None:
    """When the console ends, for example because it cannot listen, so does this, and the request with it."""
    told = tmp_path / "told"

    played(server, ["sh", "-c", f"until [ -e {told} ]; do sleep 0.02; done"], lambda _: told.touch())

    assert [] == list(server.client("approver").list_sessions(state="requested"))
