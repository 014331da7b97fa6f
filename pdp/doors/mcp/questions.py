"""What the PDP is asked about a request of a client of MCP: the tool of the catalogue, and the arguments as written."""

from __future__ import annotations

import json

from pdp.doors.mcp import answers
from pdp.doors.mcp.messages import Message
from pdp.doors.mcp.methods import ASKED, BESIDES, CHOOSING
from pdp.doors.observing import NotMadeError
from pdp.observer import CallOutcome

_SHOWN = 64


class RefusedError(NotMadeError):
    """A request does not reach the server. `answer` is what the client gets."""

    outcome = CallOutcome.REFUSED

    def __init__(self, answer: str) -> None:
        super().__init__("refused")
        self.answer = answer


def question(request: Message) -> tuple[str, bytes]:
    """Return the tool of the catalogue that a request is about, and its arguments as they are written.

    Raise `RefusedError` for a request that a server could take for another.
    """
    members = ASKED.get(request.method, ("name", "arguments"))
    unknown = request.params.keys() - BESIDES - set(members)
    if unknown := unknown | {f"_meta.{name}" for name in request.meta.keys() & CHOOSING}:
        problem = f"`params.{min(unknown)[:_SHOWN]}` is not let pass"
        raise RefusedError(answers.error(request.id, answers.INVALID_PARAMS, problem))
    if request.method in ASKED:
        parts = {name: request.part("params", name) for name in ASKED[request.method]}
        held = ",".join(f"{json.dumps(name)}:{text}" for name, text in parts.items() if text is not None)
        return request.method, f"{{{held}}}".encode()
    tool = request.params.get("name")
    problem = ""
    if not isinstance(tool, str) or not tool:
        problem = "`params.name` is not the name of a tool"
    elif tool in ASKED:
        problem = "`params.name` is the name of a method"
    elif not isinstance(request.params.get("arguments", {}), dict):
        problem = "`params.arguments` is not an object"
    if problem:
        raise RefusedError(answers.error(request.id, answers.INVALID_PARAMS, problem))
    return str(tool), (request.part("params", "arguments") or "{}").encode()
