"""`pdp explain`: the answer for people and for scripts, from a folder and from a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pdp.testing.bundles import tool
from tests.cli.conftest import Run
from tests.machinery.servers.commandline import Server, write_bundle

SUPPOSED = ("--user", "alice", "--agent", "coder")
WRITE = ("explain", "--tool", "files/write")

DENIED = """\
denied: no permit matched; the nearest is `files/write-when-granted` (files.cedar:5): \
`context.session in Grant::"writing"` (files.cedar:6) does not hold

a supposed session, alice with coder: deny default_deny
✗ permit files/write-when-granted  files.cedar:5
    ✓ action == Action::"files/write"        files.cedar:6:20
    ✗ context.session in Grant::"writing"    files.cedar:6:70

✓ holds   ✗ does not hold   ! cannot be evaluated   · not reached
"""


def test_a_folder_is_asked(run: Run, policies: Path) -> None:
    """With `--policies` no server is needed: the sentence first, then each policy with its conditions."""
    done = run(*WRITE, *SUPPOSED, "--policies", str(policies))

    assert (0, "") == (done.exit_code, done.stderr)
    assert DENIED.split() == done.stdout.split()


OVERFLOW = """
@id("files/guarded")
permit (principal == User::"bob", action == Action::"files/read", resource)
when { context.input has n && context.input.n == 1 };

@id("files/overflow")
forbid (principal, action == Action::"files/read", resource)
when { context.session.depth - 9223372036854775807 - 2 < 0 && true };
"""


def test_every_kind_of_value_is_shown(run: Run, tmp_path: Path) -> None:
    """What was not reached says what it would be, an error says which, and what decided comes first."""
    read = tool("read", {"path": {"type": "string"}, "n": {"type": "integer"}}, ["path"])
    write_bundle(tmp_path / "p", policies={"files": OVERFLOW}, tools={"files": [read]}, overlays={})

    done = run("explain", "--tool", "files/read", "--arguments", '{"path": "/"}', *SUPPOSED, "--policies", "p")

    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert (
        "denied: `files/overflow` (files.cedar:6) could not be evaluated: overflow in "
        "`context.session.depth - 9223372036854775807 - 2 < 0` (files.cedar:8)"
    ) == lines[0]
    assert [
        "! forbid files/overflow files.cedar:6 decides",
        '✓ action == Action::"files/read" files.cedar:7:20',
        "! context.session.depth - 9223372036854775807 - 2 < 0 files.cedar:8:8 overflow",
        "· true files.cedar:8:63 not reached; it holds",
        "✗ permit files/guarded files.cedar:2",
        '✗ principal == User::"bob" files.cedar:3:9',
        '· action == Action::"files/read" files.cedar:3:35 not reached; it holds',
        "· context.input has n files.cedar:4:8 not reached; it does not hold either",
        "· context.input.n == 1 files.cedar:4:31 not reached; it depends on an earlier condition",
    ] == lines[3:-2]


def test_what_policies_cannot_see_of_the_call_is_said(run: Run, tmp_path: Path) -> None:
    """Below the answer are the opaque arguments of this call; a call without them has no such line."""
    read = tool("read", {"path": {"type": "string"}, "n": {"type": "integer"}, "ratio": {"type": "number"}}, ["path"])
    write_bundle(tmp_path / "p", policies={"files": OVERFLOW}, tools={"files": [read]}, overlays={})
    words = ("explain", "--tool", "files/read", *SUPPOSED, "--policies", "p", "--arguments")

    blind = run(*words, '{"path": "/", "ratio": 0.5}')
    seeing = run(*words, '{"path": "/"}')
    as_json = run(*words, '{"path": "/", "ratio": 0.5}', "--json")

    assert "policies cannot see `ratio`" == blind.stdout.splitlines()[1]
    assert "cannot see" not in seeing.stdout
    assert ["ratio"] == json.loads(as_json.stdout)["opaque"]


def test_each_target_is_shown_with_its_source(run: Run, tmp_path: Path) -> None:
    """Below the answer are the paths of targets and links, and where their names come from; never a value."""
    read = tool("read", {"path": {"type": "string"}, "to": {"type": "array"}}, ["path"])
    overlays = {"files": "{tools: {read: {targets: [to], text: [path]}}}"}
    write_bundle(tmp_path / "p", policies={"files": OVERFLOW}, tools={"files": [read]}, overlays=overlays)
    words = ("explain", "--tool", "files/read", *SUPPOSED, "--purpose", "write to bob@x.com", "--policies", "p")
    arguments = '{"path": "see www.evil.com", "to": ["bob@x.com", "eve@x.com"]}'

    shown = run(*words, "--arguments", arguments)
    as_json = run(*words, "--arguments", arguments, "--json")

    expected = [("to[0]", "named"), ("to[1]", "unseen"), ("path", "unseen")]
    assert [f"target `{path}` is {word}" for path, word in expected] == shown.stdout.splitlines()[2:5]
    assert [{"path": path, "provenance": word} for path, word in expected] == json.loads(as_json.stdout)["targets"]
    assert "eve@" not in shown.stdout + as_json.stdout


OBLIGING = """
@id("files/alice")
@obligation("redact_result: {fields: ['[].email']}, notice: {text: Customer data.}")
permit (principal == User::"alice", action == Action::"files/read", resource);

@id("files/no-secrets")
@advice("Read the summary.")
forbid (principal, action == Action::"files/read", resource)
when { context.input.path == "/secret" };
"""


def test_obligations_and_advice_are_shown(run: Run, tmp_path: Path) -> None:
    """What an allow would ask of the gateway, and what a deny would tell the agent."""
    read = tool("read", {"path": {"type": "string"}}, ["path"])
    write_bundle(tmp_path / "p", policies={"files": OBLIGING}, tools={"files": [read]}, overlays={})
    words = ("explain", "--tool", "files/read", *SUPPOSED, "--policies", "p", "--arguments")

    allowed, denied = run(*words, '{"path": "/"}'), run(*words, '{"path": "/secret"}')
    as_json = json.loads(run(*words, '{"path": "/"}', "--json").stdout)

    assert [
        'obligation notice {"text":"Customer data."}',
        'obligation redact_result {"fields":["[].email"]}',
    ] == allowed.stdout.splitlines()[1:3]
    assert "advice Read the summary." == denied.stdout.splitlines()[1]
    assert "obligation" not in denied.stdout
    assert [
        {"id": "notice", "parameters": {"text": "Customer data."}},
        {"id": "redact_result", "parameters": {"fields": ["[].email"]}},
    ] == as_json["obligations"]
    assert [] == as_json["advice"]
    assert ["Read the summary."] == json.loads(run(*words, '{"path": "/secret"}', "--json").stdout)["advice"]


def test_grants_are_supposed(run: Run, policies: Path) -> None:
    """`--grant` supposes what an approver would give, and JSON says which policy decided."""
    done = run(*WRITE, *SUPPOSED, "--grant", "writing", "--policies", str(policies), "--json")

    found = json.loads(done.stdout)
    assert ("allow", "permit") == (found["outcome"], found["basis"])
    (policy,) = found["sessions"][0]["policies"]
    assert ("files/write-when-granted", True, "true") == (policy["policy_id"], policy["determining"], policy["value"])
    assert ["action", "when"] == [one["kind"] for one in policy["conditions"]]


def test_terms_are_supposed(run: Run, policies: Path) -> None:
    """Of a hypothetical session, as of one that is requested."""
    fine = run(*WRITE, *SUPPOSED, "--terms", '{"ticket": "OPS-1"}', "--policies", str(policies))
    wrong = run(*WRITE, *SUPPOSED, "--terms", '{"tickt": "OPS-1"}', "--policies", str(policies))

    assert 0 == fine.exit_code
    assert 2 == wrong.exit_code
    assert "error: `--terms`: `$`: unknown term: `tickt`; did you mean `ticket`?" in wrong.stderr


def test_a_server_is_asked_about_a_session(ask: Run) -> None:
    """By the public id of a session, with the author's token; what the gate refuses says why."""
    requested = ask(
        "session", "request", *SUPPOSED, "--purpose", "see", "--tool", "files/read", "--handle-file", "handle"
    ).stdout.strip()

    done = ask("explain", "--session", requested, "--tool", "files/read", "--arguments", "-", stdin='{"path": "/a"}')

    assert (0, "") == (done.exit_code, done.stderr)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"denied: session `{requested}` has waited for approval since ")
    assert f"session {requested}, alice with coder: the policies would say allow permit" == lines[2]


def test_a_gateway_is_not_answered(ask: Run, server: Server) -> None:
    """The gateway's token opens sessions, and no explanations."""
    done = ask(*WRITE, *SUPPOSED, "--token-file", str(server.folder / ".pdp/tokens/pep.token"))

    assert 2 == done.exit_code
    assert "permission_denied: `pep` may not call `pdp.v1.PolicyService/Explain`" in done.stderr


# (words, what the error says)
WRONG = [
    (("--tool", "write", *SUPPOSED), "`--tool` must be written `server/tool`: `write`"),
    (("--tool", "files/write"), "pass either --session, or --user and --agent"),
    (("--tool", "files/write", "--user", "alice"), "pass either --session, or --user and --agent"),
    (("--tool", "files/write", "--session", "ses_a", *SUPPOSED), "pass either --session"),
    (("--tool", "files/write", "--session", "ses_a", "--policies", "."), "a folder has no sessions"),
    (("--tool", "files/write", *SUPPOSED, "--at", "noon"), "`--at` is not a time such as"),
    (("--tool", "files/write", *SUPPOSED, "--at", "0001-01-01"), "`--at` must be within the years 1971 to 9998"),
    (("--tool", "files/write", "--user", "x", "--agent", "coder", "--policies", "policies"), "`x` is not in the"),
    (("--tool", "files/write", *SUPPOSED, "--policies", "policies", "--facts", "[]"), "error: `facts_json`: "),
]


@pytest.mark.parametrize(("words", "expected"), WRONG)
@pytest.mark.usefixtures("policies")
def test_what_cannot_be_asked_is_one_line(run: Run, words: tuple[str, ...], expected: str) -> None:
    """A question without an answer ends with 2 and a line that says what to fix."""
    done = run("explain", *words)

    assert 2 == done.exit_code
    assert expected in done.stderr
    assert 1 == done.stderr.count("\n")
