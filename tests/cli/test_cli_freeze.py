"""`pdp freeze`: a real server stops all calls of a tenant, and two others lift that, or one without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.machinery.servers.commandline import start_server, stop_server

READ = ("files", "read", '{"path": "/a"}')
WANTED = ("--user", "alice", "--agent", "coder", "--purpose", "x", "--tool", "files/*")
ADMIN = ("--token-file", ".pdp/tokens/admin.token")
SECOND = ("--token-file", ".pdp/tokens/second.token")


def test_a_tenant_is_frozen_until_two_others_lift_it(run: Run, policies: Path) -> None:
    """The next call is denied, and allowed when two others have confirmed; the record names all three."""
    run("init", "--development")
    assert 0 == run("caller", "add", "second", "--role", "approver").exit_code
    server = start_server(policies.parent)
    env = {"PDP_ADDRESS": server.address}

    def ask(*words: str) -> Any:
        return run(*words, env=env)

    session_id = ask("session", "request", *WANTED, "--handle-file", "handle").stdout.strip()
    ask("session", "approve", session_id, "--yes")
    preview = ask("freeze", "set", "--tenant", "default", "--preview").stdout
    set_ = ask("freeze", "set", "--tenant", "default", "--reason", "acts strangely")
    freeze_id = set_.stdout.strip().rpartition(" ")[2]
    denied = ask("authorize", "--session-handle-file", "handle", *READ)
    refused = ask("session", "request", *WANTED, "--handle-file", "other")
    listed = ask("session", "list")
    no = run("freeze", "lift", freeze_id, *ADMIN, env=env, stdin="n\n")
    unanswered = run("freeze", "lift", freeze_id, *ADMIN, env=env, stdin="")
    own = ask("freeze", "lift", freeze_id, "--yes")
    before = json.loads(ask("freeze", "list", "--json").stdout)
    first = ask("freeze", "lift", freeze_id, "--yes", "--json", *ADMIN)
    waiting = json.loads(ask("freeze", "list", "--json").stdout)
    second = run("freeze", "lift", freeze_id[:12], *SECOND, env=env, stdin="y\n")
    allowed = ask("authorize", "--session-handle-file", "handle", *READ)
    everything = ask("freeze", "set", "--all-tenants", "--reason", "the network")
    online = ask("freeze", "lift", "--offline")
    stop_server(server)
    offline = ask("freeze", "lift", "--offline", "--json")
    again = ask("freeze", "lift", "--offline")

    assert ("would stop 1 session\n", f"froze default: {freeze_id}\n") == (preview, set_.stdout)
    assert (1, True) == (denied.exit_code, denied.stdout.startswith("deny  frozen"))
    assert (2, True) == (refused.exit_code, "default` is frozen" in refused.stderr)
    assert listed.stderr.startswith("frozen: default since ")
    assert (1, True, True) == (no.exit_code, "acts strangely" in no.stdout, no.stdout.endswith("lift? [y/N]: n\n"))
    assert (2, "error: no answer, so nothing is lifted; `--yes` lifts without asking") == (
        unanswered.exit_code,
        unanswered.stderr.splitlines()[-1],
    )
    assert (2, True) == (own.exit_code, "`approver` has set this freeze" in own.stderr)
    assert [""] == [one["confirmed_by"] for one in before]
    assert not json.loads(first.stdout)["lifted"]
    assert [("admin", "acts strangely")] == [(one["confirmed_by"], one["reason"]) for one in waiting]
    assert (0, True) == (second.exit_code, second.stdout.endswith(f"lift? [y/N]: y\nlifted {freeze_id}\n"))
    assert (0, True) == (allowed.exit_code, allowed.stdout.startswith("allow"))
    assert everything.stdout.startswith("froze all tenants: frz_")
    assert (2, True) == (online.exit_code, "a server uses the session store" in online.stderr)
    assert (0, {"lifted": True, "freeze": None}) == (offline.exit_code, json.loads(offline.stdout))
    assert (2, "error: nothing is frozen\n") == (again.exit_code, again.stderr)
    told = [record for record in records() if record["kind"].startswith("freeze.")]
    assert [
        ("freeze.set", "approver"),
        ("freeze.lift_confirmed", "admin"),
        ("freeze.lifted", "second"),
        ("freeze.set", "operator"),
        ("freeze.lifted", "freeze-lift"),
    ] == [(record["kind"], record["caller_id"]) for record in told]
    assert ("default", "acts strangely", "admin") == (
        told[2]["tenant"],
        told[2]["facts"]["reason"],
        told[2]["facts"]["confirmed_by"],
    )
    assert "machine_user" in told[4]["facts"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("set", "--tenant", "a"), "pass either --reason or --preview"),
        (("set", "--reason", "x"), "pass either --tenant or --all-tenants"),
        (("set", "--reason", "x", "--tenant", "a", "--all-tenants"), "pass either --tenant or --all-tenants"),
        (("lift", "frz_1", "--json"), "--json needs --yes, because it asks no question"),
    ],
)
def test_what_is_meant_must_be_said(run: Run, words: tuple[str, ...], message: str) -> None:
    """Nobody freezes or lifts more than they meant."""
    done = run("freeze", *words)

    assert (2, f"error: {message}\n") == (done.exit_code, done.stderr)


def records() -> list[dict[str, Any]]:
    """Return all records of the decision log, by time."""
    lines = [line for path in Path(".pdp/record").glob("*.jsonl") for line in path.read_bytes().splitlines()]
    return sorted(map(json.loads, lines), key=lambda record: str(record["time"]))
