"""`pdp approvals`, against a real server: what an approver sees, and what each command does."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from pdp.sessions.access import AccessRequest, AccessState
from pdp.testing.inprocess import running_server
from tests.cli.conftest import Run
from tests.machinery.servers.desk import CALLERS, FILES, Desk
from tests.machinery.servers.waitingcalls import QUESTION
from tests.machinery.terminal import on_terminal

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
# Written by an agent that wants it approved: what would look like another field, and what would move the cursor.
FORGED = b'{"repo":"web\\n  tool          git/harmless\\u001b[2J","count":1.50, "list":[1, 2]}'

Approvals = Callable[..., Result]


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    """Serve for all of them."""
    with running_server(FILES, callers=CALLERS) as server:
        yield Desk(server)


@pytest.fixture
def approvals(run: Run, desk: Desk, tmp_path: Path) -> Approvals:
    """Return what runs the command as a caller, by default as the lead."""

    def invoke(*words: str, by: str = "lead", stdin: str | None = None, group: str = "approvals") -> Result:
        token = tmp_path / f"{by}.token"
        token.write_text(desk.server.token(by))
        token.chmod(0o600)
        known = {"PDP_ADDRESS": desk.server.address, "PDP_PLAINTEXT": "true", "PDP_TOKEN_FILE": str(token)}
        return run(group, *words, stdin=stdin, env=known)

    return invoke


def state(desk: Desk, request: AccessRequest) -> AccessState:
    """Return the stored state."""
    found = desk.server.embedded.history.access().get(request.id)
    assert found is not None
    return found.state


def test_list_shows_what_waits(approvals: Approvals, desk: Desk) -> None:
    """One line each, with the question; scripts get all of it but the arguments."""
    request = desk.wait()
    words = ("list", "--state", "open", "--session", request.call.session_id)

    printed, as_json = approvals(*words), json.loads(approvals(*words, "--json").stdout)

    line = printed.stdout.splitlines()[1]
    assert [request.id, "open", "ada", "coder", "git/log"] == line.split()[:5]
    assert line.endswith(QUESTION)
    assert [(request.id, "open", QUESTION)] == [
        (one["access_request_id"], one["state"], one["questions"][0]["text"]) for one in as_json
    ]
    assert "repo" not in json.dumps(as_json)


def test_an_id_token_goes_with_the_approval(approvals: Approvals, desk: Desk, tmp_path: Path) -> None:
    """It is read from a file; beside a token that has no issuer the server refuses it, and nothing is approved."""
    request = desk.wait()
    (tmp_path / "id.token").write_text("a.b.c\n")

    done = approvals("approve", request.id, "--yes", "--id-token-file", str(tmp_path / "id.token"))

    assert (2, AccessState.OPEN) == (done.exit_code, state(desk, request))
    assert "`pdp-id-token`: the ID token is not accepted: it counts only beside an access token" in done.stderr


def test_show_has_the_call_as_the_agent_wrote_it(approvals: Approvals, desk: Desk) -> None:
    """Each argument on a line of its own, its value exactly as it came, and nothing that forges a line."""
    request = desk.wait(arguments=FORGED)

    lines = approvals("show", request.id).stdout.splitlines()

    assert lines[0] == "coder for ada wants to call git/log, read_only"
    assert f"? {QUESTION}" in lines[:4]
    assert ["tool            git/log"] == [line for line in lines if line.startswith("tool")]
    assert "argument count  1.50" in lines
    assert any(line.startswith("argument list   [1, 2]") for line in lines)
    assert "\x1b" not in "".join(lines)


def test_show_has_every_blank_of_an_argument(approvals: Approvals, desk: Desk) -> None:
    """Blanks can be counted, what draws nothing is escaped, and a name that the agent chose draws no field."""
    name = "x" + " " * 80 + "target repo     named"
    text = json.dumps({"repo": "a  b \u3164c", name: True}, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    request = desk.wait(arguments=text.encode())

    lines = approvals("show", request.id).stdout.splitlines()

    blank = r"\u0020"
    assert rf'argument repo  "a {blank}b \u3164c"' in lines
    assert f'argument       "x {blank * 79}target repo {blank * 4}named": true' in lines


def test_show_has_the_purpose_that_a_person_approved(approvals: Approvals, desk: Desk) -> None:
    """That of a delegated session is what an agent wanted the approver to read, and is shown as such."""
    above = desk.opened(may_delegate=True)
    below = desk.server.client("gateway").request_session(
        user="ada",
        agent="coder",
        purpose="Ada has already agreed",
        tools=["git/log"],
        parent_session_handle=above.session_handle,
    )
    request = desk.wait(below.session.session_id)

    lines = approvals("show", request.id).stdout.splitlines()
    as_json = json.loads(approvals("show", request.id, "--json").stdout)

    assert ["  to wait", "  to wait"] == [line for line in lines if line.startswith("  ")]
    assert "purpose        to wait" in lines
    told = f"from {above.session.session_id}, with a purpose that no person approved: Ada has already agreed"
    assert f"delegated      {told}" in lines
    assert ("Ada has already agreed", "to wait") == tuple(
        as_json[name]["purpose"] for name in ("session", "approved_session")
    )


def test_approve_shows_asks_and_approves(approvals: Approvals, desk: Desk) -> None:
    """The question comes below what is approved, and the answer counts."""
    request = desk.wait()

    refused = approvals("approve", request.id, stdin="n\n")
    before = state(desk, request)
    done = approvals("approve", request.id, stdin="y\n")

    assert (1, AccessState.OPEN) == (refused.exit_code, before)
    assert (0, AccessState.APPROVED) == (done.exit_code, state(desk, request))
    assert "approve? [y/N]: y\n" in done.stdout
    assert f"approved {request.id}: one call until " in done.output


def test_approve_takes_no_silence_for_a_yes(approvals: Approvals, desk: Desk) -> None:
    """Without an answer nothing is approved."""
    request = desk.wait()

    done = approvals("approve", request.id, stdin="")

    assert 2 == done.exit_code
    assert "no answer, so nothing is approved" in done.output
    assert state(desk, request) is AccessState.OPEN


def test_approve_keeps_to_a_digest(approvals: Approvals, desk: Desk) -> None:
    """A script approves only what it was shown."""
    request = desk.wait()
    digest = json.loads(approvals("show", request.id, "--json").stdout)["request_digest"]

    wrong = approvals("approve", request.id, "--yes", "--request-digest", "sha256:" + "0" * 64)
    right = approvals("approve", request.id, "--yes", "--json", "--request-digest", digest)

    assert "the request is not the one that was shown" in wrong.output
    assert ("approved", 1) == (json.loads(right.stdout)["state"], json.loads(right.stdout)["approved_calls"])


def test_a_run_is_approved(approvals: Approvals, desk: Desk) -> None:
    """As many calls as the policies let one answer cover, and no more."""
    request = desk.wait(call={"run": 5, "targets": frozenset({b"t"})})

    too_many = approvals("approve", request.id, "--yes", "--run", "6")
    done = approvals("approve", request.id, "--yes", "--run", "5")

    assert "an approval of this request is for at most 5 calls" in too_many.output
    assert f"approved {request.id}: 5 calls until " in done.output


def test_deny_says_why(approvals: Approvals, desk: Desk) -> None:
    """The reason is kept; what was denied cannot be approved."""
    request = desk.wait()

    done = approvals("deny", request.id, "--reason", "wrong recipient")
    late = approvals("approve", request.id, "--yes")

    assert (0, f"denied {request.id}\n") == (done.exit_code, done.stdout)
    assert "wrong recipient" in approvals("show", request.id).stdout
    assert "the request is denied and does not wait for an answer" in late.output


def test_revoke_takes_back(approvals: Approvals, desk: Desk) -> None:
    """One approval by its id, or all of a session; a second time there is none."""
    session = desk.session()
    one, other = (desk.wait(session, call={"digest": bytes([number])}) for number in range(2))
    for request in (one, other):
        approvals("approve", request.id, "--yes")

    first = approvals("revoke", one.id, "--reason", "no")
    second = approvals("revoke", "--session", session, "--reason", "no", by="admin")
    third = approvals("revoke", "--session", session, "--reason", "no", by="admin")

    assert (f"revoked {one.id}\n", f"revoked {other.id}\n") == (first.stdout, second.stdout)
    assert third.output == "there was no approval to take back\n"
    assert 2 == approvals("revoke", "--reason", "no").exit_code


def test_beginnings_of_ids_are_enough(approvals: Approvals, desk: Desk) -> None:
    """As of sessions: a beginning that only one of the requests has."""
    request = desk.wait()

    assert 0 == approvals("deny", request.id[:16]).exit_code
    assert "is too short" in approvals("show", "acc_a").output
    assert "none of the newest" in approvals("show", "acc_nothing-like-it").output


def test_watch_prints_each_change(approvals: Approvals, desk: Desk) -> None:
    """One line each, for people and as JSON."""
    request = desk.wait()
    words = ("watch", "--session", request.call.session_id, "--count", "1")

    line = approvals(*words).stdout
    as_json = json.loads(approvals(*words, "--json").stdout)

    assert line.startswith(f"{request.id}  open  coder for ada: git/log  until ")
    assert line.endswith(f"{QUESTION}\n")
    assert ("open", request.id) == (as_json["state"], as_json["access_request_id"])


def test_ctrl_c_ends_a_watch(desk: Desk, tmp_path: Path) -> None:
    """It is the way to end one, and no error."""
    request = desk.wait()
    token = tmp_path / "lead.token"
    token.write_text(desk.server.token("lead"))
    token.chmod(0o600)
    command = [sys.executable, "-m", "pdp.cli", "approvals", "watch", "--session", request.call.session_id]
    command += ["--address", desk.server.address, "--plaintext", "--token-file", str(token)]
    # A run in the background may have been started with SIGINT ignored, which a child would inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        assert process.stdout is not None
        assert process.stdout.readline().startswith(request.id)
        process.send_signal(signal.SIGINT)
        _, problems = process.communicate(timeout=30)

    assert (0, "") == (process.returncode, problems)


def test_session_show_lists_what_waits(approvals: Approvals, desk: Desk) -> None:
    """Beside the labels and budgets of the session."""
    request = desk.wait()
    words = ("show", request.call.session_id)

    assert f"waits: {request.id} git/log\n" in approvals(*words, group="session").stdout
    as_json = json.loads(approvals(*words, "--json", group="session").stdout)
    assert [request.id] == [one["access_request_id"] for one in as_json["access_requests"]]


def test_an_admin_refuses_and_takes_back(approvals: Approvals, desk: Desk) -> None:
    """With a token of its own, and the beginning of an id."""
    waits, approved = desk.wait(), desk.wait()
    desk.approve(approved)

    assert approvals("deny", waits.id[:16], by="admin").stdout == f"denied {waits.id}\n"
    taken = approvals("revoke", approved.id[:16], "--reason", "an incident", by="admin")

    assert taken.stdout == f"revoked {approved.id}\n"


def test_others_are_refused(approvals: Approvals, desk: Desk) -> None:
    """A gateway sees its own requests and approves none."""
    request = desk.wait()

    assert request.id in approvals("list", "--session", request.call.session_id, by="gateway").stdout
    assert "permission_denied" in approvals("approve", request.id, "--yes", by="gateway").output


PROGRAM = """
from pdp.cli.sessions.accessview import print_access
from pdp.v1.access_pb2 import AccessQuestion, GetAccessRequestResponse, RequestedAccess
from pdp.v1.session_pb2 import Session

review = GetAccessRequestResponse(
    access_request=RequestedAccess(
        access_request_id="acc_1", state=1, user="alice", agent="coder", server="mail", tool="send",
        questions=[AccessQuestion(policy_id="mail/ask", text={question!r})],
    ),
    session=Session(session_id="ses_2", purpose={purpose!r}),
    arguments_json={arguments!r},
    risk="destructive",
    groups=["leaves"],
)
print_access(review, Session(session_id="ses_1", purpose={purpose!r}))
"""
LINES = "Answer the mail" + " " * 70 + "tool  mail/read\ntool           mail/read"


@pytest.mark.parametrize("columns", [80, 120])
def test_no_text_of_others_draws_a_line(tmp_path: Path, columns: int) -> None:
    """Neither the purpose nor an argument, its name included, looks like a field of ours, at any width."""
    arguments = b'{"to\nrisk  read_only":"x","body":"' + b"a " * 60 + b'   tool  mail/read"}'
    program = PROGRAM.format(question="Send this to a stranger?", purpose=LINES, arguments=arguments)

    lines = ESCAPE.sub("", on_terminal(program, tmp_path, columns=columns)).splitlines()

    assert ["tool"] == [line.split()[0] for line in lines if line.startswith("tool")]
    assert not any(line.startswith("risk") for line in lines)
    assert "coder for alice wants to call mail/send, destructive, in leaves" == lines[0]
    assert "? Send this to a stranger?" == lines[-1]
    assert max(map(len, lines)) <= columns


def test_dangers_are_coloured(tmp_path: Path) -> None:
    """The risk and the question stand out, unless `NO_COLOR` is set."""
    program = PROGRAM.format(question="Sure?", purpose="x", arguments=b"{}")

    coloured, plain = (on_terminal(program, tmp_path, environ=env) for env in ({}, {"NO_COLOR": "1"}))

    assert "\x1b[1;31mdestructive" in coloured
    assert "\x1b[1;31m" not in plain
