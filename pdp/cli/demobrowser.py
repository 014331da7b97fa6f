"""The part of the demonstration that a person plays: they approve a session in the browser, and revoke it there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pdp.client import AsyncClient, AsyncClientSession, SessionNotApprovedError

PURPOSE = "Look what changed in the notes, and undo it"
TOOLS = ("git/git_status", "git/git_log", "git/git_reset")
_WAIT_SECONDS = 600.0
_PAUSE_SECONDS = 0.5
# Whoever approves less leaves some calls out of the scope; these say that no call will be allowed again.
_OVER = frozenset({"session_revoked", "session_ended", "session_expired"})


async def approve_in_the_browser(
    pep: AsyncClient, command: Sequence[str], arguments: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Have a person approve a session, and ask about calls in it until they revoke it.

    `command` is `pdp console --open` for this server: when it ends, so does this. `arguments` fit each of `TOOLS`.
    """
    process = await asyncio.create_subprocess_exec(*command)
    agent = asyncio.ensure_future(_work(pep, arguments, say))
    closed = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait((agent, closed), return_when=asyncio.FIRST_COMPLETED)
    finally:
        agent.cancel()
        with suppress(ProcessLookupError):
            process.terminate()
        await asyncio.gather(agent, closed, return_exceptions=True)
    if not agent.cancelled():
        agent.result()


async def _work(pep: AsyncClient, arguments: Mapping[str, Any], say: Callable[[str], None]) -> None:
    try:
        async with pep.session(
            user="alice",
            agent="coder",
            purpose=PURPOSE,
            tools=TOOLS,
            wait=_WAIT_SECONDS,
            announce=lambda session: say(f"{session.session_id} waits in the browser: read it, and approve it or less"),
        ) as held:
            say("approved: the agent works; open `Now` in the browser, and revoke the session")
            await _call(held, arguments, say)
    except SessionNotApprovedError as error:
        say(f"no call is allowed: {error}")


async def _call(held: AsyncClientSession, arguments: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Ask about each tool again and again, and say each answer that is a new one, until the session is over."""
    said: dict[str, str] = {}
    while True:
        for name in TOOLS:
            server, _, tool = name.partition("/")
            answer = await held.authorize(server, tool, arguments)
            told = f"{answer.outcome.value}, {answer.basis}"
            if said.get(name) != told:
                say(f"{name}: {told}")
            said[name] = told
            if answer.basis in _OVER:
                return
        await asyncio.sleep(_PAUSE_SECONDS)
