"""`pdp authorize`: obligations that are not met are a deny, and a call can wait for a person."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from pdp.model import Role
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import RunningServer, running_server
from tests.cli.conftest import Run

POLICY = """
@id("files/read")
@obligation("redact_result: {fields: ['[].email']}, notice: {text: Customer data.}")
permit (principal == User::"alice", action == Action::"files/read", resource);
@id("files/write")
permit (principal == User::"alice", action == Action::"files/write", resource);
@id("files/asks")
@step_up("Write it?")
forbid (principal, action == Action::"files/write", resource);
"""
FILES = bundle_files(
    policies={"files": POLICY},
    tools={"files": [tool("read"), tool("write")]},
    directory="users: {alice: {}}\nagents: {coder: {ceiling: ['files/*']}}\n",
    overlays={"files": "risk: read_only"},
)


LISTED = [
    {"id": "notice", "parameters": {"text": "Customer data."}},
    {"id": "redact_result", "parameters": {"fields": ["[].email"]}},
]


def test_obligations_are_a_deny_until_they_are_known(run: Run) -> None:
    """A script that only looks at the exit code overlooks none; it sees all that it does not know."""
    with running_server(FILES) as server:
        words, env = _asking(server, "read")
        met = ("--known-obligation", "notice", "--known-obligation", "redact_result")

        overlooked, half = run(*words, env=env), run(*words, *met[:2], env=env)
        unmet = run(*words, "--json", env=env)
        allowed, as_json = run(*words, *met, env=env), run(*words, *met, "--json", env=env)

    assert [1, 1, 1, 0, 0] == [one.exit_code for one in (overlooked, unmet, half, allowed, as_json)]
    assert "deny  error  files/read" == overlooked.stdout.splitlines()[0]
    assert "unknown obligations: `notice`, `redact_result`\n" in overlooked.stdout
    assert 'notice {"text":"Customer data."}; redact_result {"fields":["[].email"]}' in overlooked.stdout
    assert "unknown obligation: `redact_result`\n" in half.stdout
    assert ([], LISTED) == tuple(json.loads(unmet.stdout)[name] for name in ("obligations", "unmet_obligations"))
    assert "allow  permit  files/read" == allowed.stdout.splitlines()[0]
    assert 'notice {"text":"Customer data."}; redact_result {"fields":["[].email"]}' in allowed.stdout
    assert LISTED == json.loads(as_json.stdout)["obligations"]
    assert [] == json.loads(as_json.stdout)["unmet_obligations"]


def test_a_call_waits_for_a_person(run: Run) -> None:
    """It says at once what waits, so that somebody can answer, and goes on with the answer."""
    with running_server(FILES) as server:
        words, env = _asking(server, "write")
        approver = server.client(Role.APPROVER.value)

        def answer() -> None:
            waits = next(approver.watch_access_requests()).access_request_id
            approver.approve_call(waits, request_digest=approver.get_access_request(waits).request_digest)

        person = threading.Thread(target=answer)
        person.start()
        done = run(*words, "--wait", "1m", env=env)
        person.join()
        (used,) = approver.list_access_requests()
        unanswered = run(*words, "--wait", "1s", env=env)

    assert (0, "allow  permit  files/write") == (done.exit_code, done.stdout.splitlines()[0])
    assert f"waits for a person; next: pdp approvals approve {used.access_request_id}\n" == done.stderr
    assert 1 == unanswered.exit_code
    assert "no person has answered within 1 s" in unanswered.stdout


def _asking(server: RunningServer, name: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Open a session, and return the words and the environment of a question about a tool."""
    token = Path("token")
    token.write_text(server.token(Role.PEP.value), encoding="ascii")
    token.chmod(0o600)
    opened = server.client(Role.PEP.value).request_session(
        user="alice", agent="coder", purpose="see", tools=["files/*"]
    )
    server.client(Role.APPROVER.value).approve_session(
        opened.session.session_id, request_digest=opened.session.request_digest
    )
    words = ("authorize", "files", name, "--address", server.address, "--plaintext", "--token-file", "token")
    return words, {"PDP_SESSION_HANDLE": opened.session_handle}
