"""`pdp authorize` and obligations: what is not met is a deny, what is met is shown."""

from __future__ import annotations

import json
from pathlib import Path

from pdp.model import Role
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import running_server
from tests.cli.conftest import Run

POLICY = """
@id("files/read")
@obligation("redact_result: {fields: ['[].email']}, notice: {text: Customer data.}")
permit (principal == User::"alice", action == Action::"files/read", resource);
"""
FILES = bundle_files(
    policies={"files": POLICY},
    tools={"files": [tool("read")]},
    directory="users: {alice: {}}\nagents: {coder: {ceiling: ['files/*']}}\n",
    overlays={"files": "risk: read_only"},
)


LISTED = [
    {"id": "notice", "parameters": {"text": "Customer data."}},
    {"id": "redact_result", "parameters": {"fields": ["[].email"]}},
]


def test_obligations_are_a_deny_until_they_are_known(run: Run, tmp_path: Path) -> None:
    """A script that only looks at the exit code overlooks none; it sees all that it does not know."""
    with running_server(FILES) as server:
        (tmp_path / "token").write_text(server.token(Role.PEP.value), encoding="ascii")
        (tmp_path / "token").chmod(0o600)
        opened = server.client(Role.PEP.value).request_session(
            user="alice", agent="coder", purpose="see", tools=["files/*"]
        )
        server.client(Role.APPROVER.value).approve_session(
            opened.session.session_id, request_digest=opened.session.request_digest
        )
        words = ("authorize", "files", "read", "--address", server.address, "--plaintext", "--token-file", "token")
        env = {"PDP_SESSION_HANDLE": opened.session_handle}
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
