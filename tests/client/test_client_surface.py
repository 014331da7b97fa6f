"""Both clients offer the same, and neither needs the engine or a tracing library."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

import pdp.client
from pdp.client import Answer, CallToken, NotFoundError, ToolCallDenied, ToolCallStopped, ToolResultWithheld
from pdp.doors.admissions import Refusal
from pdp.doors.core import DenyLoopError
from pdp.model import Outcome

PAIRS = [
    (pdp.client.Client, pdp.client.AsyncClient),
    (pdp.client.ClientSession, pdp.client.AsyncClientSession),
    (pdp.client.AuthorizationStream, pdp.client.AsyncAuthorizationStream),
]


def _surface(kind: type) -> dict[str, list[tuple[Any, ...]]]:
    """Return each public method's parameters: name, kind and default."""
    found = {}
    for name, member in inspect.getmembers(kind, callable):
        if name == "__init__" or not name.startswith("_"):
            parameters = inspect.signature(member).parameters.values()
            # The defaults of `sleep` are what differs: one blocks, the other is awaited.
            found[name] = [(p.name, p.kind, None if p.name == "sleep" else p.default) for p in parameters]
    return found


@pytest.mark.parametrize(("threaded", "awaited"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_clients_have_the_same_methods(threaded: type, awaited: type) -> None:
    """Names, parameters and defaults are the same."""
    start = "start"
    ours = {name: [p for p in found if p[0] != start] for name, found in _surface(threaded).items()}
    theirs = {name: [p for p in found if p[0] != start] for name, found in _surface(awaited).items()}

    assert ours == theirs
    assert len(ours) > 2


@pytest.mark.parametrize(("threaded", "awaited"), PAIRS, ids=lambda kind: kind.__name__)
def test_both_clients_are_documented_alike(threaded: type, awaited: type) -> None:
    """Every public method says the same in both, in the words of its own kind."""
    for name in _surface(threaded):
        if name == "__init__":
            continue
        ours, theirs = inspect.getdoc(getattr(threaded, name)), inspect.getdoc(getattr(awaited, name))
        assert ours
        assert theirs
        if name not in ("guard", "stream"):  # what opens a stream and what can be guarded differs
            assert theirs.replace("AsyncClient", "Client") == ours


def _sent(error: Exception) -> Any:
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - of this process


SECRET = "sesame"  # noqa: S105 - a word to look for
ALLOWED = Answer(
    outcome=Outcome.ALLOW,
    basis="permit",
    server="git",
    tool="log",
    request_id="r",
    outcome_token=SECRET,
    call_tokens=(CallToken(audience="a", token=SECRET),),
)
RAISED = [
    ToolCallDenied(replace(ALLOWED, outcome=Outcome.DENY, policies=("git/log",), advice=("ask",))),
    ToolCallStopped(ALLOWED, "its session is over"),
    ToolResultWithheld(ALLOWED, "it is too large", detail="more"),
    NotFoundError("no such session", grpc.StatusCode.NOT_FOUND, "NO_SESSION", 3.0),
    DenyLoopError(Refusal(text="denied")),
]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, _sent])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_reaches_another_process(error: Exception, again: Callable[[Exception], Exception]) -> None:
    """As it was raised: a pool whose worker raised what cannot be read again would break, or wait for ever."""
    arrived: Any = again(error)

    assert (type(error), str(error)) == (type(arrived), str(arrived))
    assert getattr(error, "why", "") == getattr(arrived, "why", "")
    assert getattr(error, "reason", "") == getattr(arrived, "reason", "")


@pytest.mark.parametrize("error", RAISED[:3], ids=lambda error: type(error).__name__)
def test_an_error_takes_no_secret_to_another_process(error: Exception) -> None:
    """Only the process that has asked reports what came of the call, and makes it."""
    sent = pickle.dumps(error)
    arrived: Any = _sent(error)

    assert SECRET.encode() not in sent
    assert (error.answer.basis, error.answer.policies) == (arrived.answer.basis, arrived.answer.policies)  # type: ignore[attr-defined]


def test_every_public_name_exists() -> None:
    """`__all__` promises nothing that is missing."""
    assert [name for name in pdp.client.__all__ if not hasattr(pdp.client, name)] == []
    assert pdp.client.__all__ == sorted(
        pdp.client.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name)
    )


def test_the_client_needs_neither_engine_nor_tracing() -> None:
    """It imports and asks with both blocked, and imports nothing of the server's layers."""
    program = """
import sys
for name in ("cedarpy", "opentelemetry", "mcp", "apsw", "cachetools", "yaml"):
    sys.modules[name] = None
from pdp.client import Client
with Client("127.0.0.1:9", timeout=0.2, sleep=lambda _: None, plaintext=True) as client:
    assert not client.authorize("pdps_x", "files", "read").allowed
ours = {name.split(".")[1] for name in sys.modules if name.startswith("pdp.")}
print(sorted(ours))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert done.stderr == ""
    ours = ["client", "clock", "errors", "foundation", "limits", "model", "quickvalues", "v1"]
    assert done.stdout.strip() == str(ours)
