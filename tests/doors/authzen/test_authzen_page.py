"""The page about the door shows questions and answers as they are."""

from __future__ import annotations

import json
from pathlib import Path

from tests.doors.authzen.gateway import EVALUATION, door
from tests.machinery.pages import blocks
from tests.machinery.servers.scripted import ScriptedServer


def test_the_page_shows_what_is_asked_and_answered(project_root: Path) -> None:
    """The question is one about the tool and the arguments that it names, and the answer has what the page shows."""
    page = project_root / "pdp" / "doors" / "AUTHZEN.md"
    (question,), (answer,) = blocks(page, "json question"), blocks(page, "json answer")
    scripted = ScriptedServer()
    with door(None, "pdps_secret", address=scripted.start()) as gateway:
        body = gateway.post(EVALUATION, question.encode()).json()
    scripted.stop()

    (sent,) = scripted.sent("Authorize")
    assert ("git", "git_log") == (sent.call.server, sent.call.tool)
    assert json.loads(question)["context"]["arguments"] == json.loads(sent.call.arguments_json)
    assert json.loads(answer)["decision"] is body["decision"]
    assert json.loads(answer)["context"].keys() == body["context"].keys()
