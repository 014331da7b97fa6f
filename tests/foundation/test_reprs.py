"""What holds a secret does not show it: a value's `repr` gets into logs and error reports by itself."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from pdp.broker import proxy
from pdp.cli.doors.piping import PipeProxy
from pdp.client.operations import Operation
from pdp.doctor.finding import Deployment
from pdp.doors.authzen.replies import Reply
from pdp.doors.authzen.verdicts import Verdict
from pdp.doors.mcp import listing
from pdp.doors.mcp.messages import Message
from pdp.doors.tasks import Joined
from pdp.foundation.sealing import Sealed
from pdp.serving.certificates import Material
from pdp.telemetry import settings
from pdp.v1.session_pb2 import Session
from pdp.workbench import stage

# Each with the fields that hold a handle, a token, a key, or an environment in which one can be.
HOLDERS: dict[Any, set[str]] = {
    Deployment: {"environ"},
    Joined: {"handle"},
    Material: {"key"},
    Message: {"text", "value"},
    Operation: {"request", "metadata"},
    PipeProxy: {"environment"},
    Reply: {"body"},
    Sealed: {"key"},
    Verdict: {"context"},
    listing._Listing: {"headers"},
    proxy._Request: {"headers", "body"},
    settings._Variables: {"environ"},
    stage._Opened: {"handle"},
}


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda one: one.__name__)
def test_a_secret_is_not_shown(holder: Any) -> None:
    """Not by what shows all other fields."""
    assert HOLDERS[holder] == {one.name for one in fields(holder) if not one.repr}


def test_the_session_of_a_task_is_shown_without_its_handle() -> None:
    """Its id stays."""
    joined = Joined("pdps_canary", Session(session_id="ses_1"), "https://pdp.example")

    assert "pdps_canary" not in repr(joined)
    assert "ses_1" in repr(joined)
