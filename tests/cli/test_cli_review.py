"""What an approver sees on a terminal: who, why and how long, the dangerous tools, and no forged line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.machinery.terminal import on_terminal

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
# A requester who writes lines of its own: runs of blanks that wrap onto the next line, and a line break.
FORGED = (
    "Read the history" + " " * 64 + "asked for  time/get_current_time" + " " * 40 + "duration  5m\nasked for  nothing"
)
UNUSUAL = "unusual: `coder` is new to `alice`"
PROGRAM = """
from google.protobuf.duration_pb2 import Duration
from pdp.cli.sessions.review import print_review
from pdp.v1.session_pb2 import ReviewedTool, ReviewSessionResponse, ScopedTool, Session, SessionState, Unusual

def tool(name, risk, visibility, *opened_by, groups=(), by=(), left_out=0, uses=""):
    return ReviewedTool(
        tool=ScopedTool(
            server="github", tool=name, risk=risk, groups=groups, connection_kind=uses, connection_scopes=["repo"]
        ),
        visibility=visibility,
        opened_by=opened_by,
        policy_ids=by,
        policies_left_out=left_out,
    )

print_review(
    ReviewSessionResponse(
        session=Session(
            session_id="ses_1",
            state=SessionState.SESSION_STATE_REQUESTED,
            user="alice",
            agent="coder",
            purpose={purpose!r},
            tool_patterns=["github/*"],
            duration=Duration(seconds=1800),
            opened_by="gateway",
            grants=["may-merge"],
        ),
        tools=[
            *(tool(f"read_{{n}}", "read_only", 3, by=["github/read"]) for n in range({count})),
            tool("write", "mutating", 2, groups=["critical", "leaves"], by=["a", "b", "c", "d"], left_out=2),
            tool("drop", "destructive", 2, uses="github"),
            tool("burn", "destructive", 1, "may-burn", by=["guardrails/fire"]),
        ],
        known_grants=["may-burn", "may-merge"],
        unusual=[Unusual(rule="new_agent", sentence={unusual!r})],
    ),
)
"""


def coloured(folder: Path, *, columns: int = 80, purpose: str = "Read the history", count: int = 3, **env: str) -> str:
    """Return what the terminal gets."""
    return on_terminal(
        PROGRAM.format(purpose=purpose, count=count, unusual=UNUSUAL[9:]), folder, columns=columns, environ=env
    )


def shown(folder: Path, *, columns: int = 80, purpose: str = "Read the history", count: int = 3) -> str:
    """Return what the approver sees, without colours."""
    return ESCAPE.sub("", coloured(folder, columns=columns, purpose=purpose, count=count))


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("count", [3, 150])
def test_summary_comes_first_and_last(tmp_path: Path, columns: int, count: int) -> None:
    """Who, why, how long, how many tools of each risk and what is unusual appear above the question."""
    lines = shown(tmp_path, columns=columns, count=count).splitlines()

    summary = [
        "coder for alice, 30m, asked by gateway:",
        "  Read the history",
        f"{count + 3} tools: 2 destructive, 1 mutating, {count} read_only; never allowed: 1",
    ]
    assert summary == lines[:3]
    assert [*summary, UNUSUAL] == lines[-4:]
    assert max(map(len, lines)) <= columns


def test_dangerous_tools_come_first(tmp_path: Path) -> None:
    """Destructive tools that the policies allow come first, then those that a grant would open, then the others.

    A tool's further groups are beside its name, and the first policies that deny or may deny its calls.
    """
    listed = [line for line in shown(tmp_path).splitlines() if "github/" in line and "asked for" not in line]

    assert [
        "destructive  depends github/drop  uses github: repo",
        "destructive  never   github/burn  by guardrails/fire  opened by may-burn",
        "mutating     depends github/write  in critical, leaves  by a b c and 3 more",
        *(f"read_only    always  github/read_{n}" for n in range(3)),
    ] == listed


def test_long_lists_go_through_the_pager(tmp_path: Path) -> None:
    """What the pager showed is gone when it ends, so the destructive tools are printed after it."""
    lines = shown(tmp_path, count=150).splitlines()

    rest = lines.index("(and the 151 other tools that were shown before)")
    burn = "destructive  never   github/burn  by guardrails/fire  opened by may-burn"
    assert ["destructive  depends github/drop  uses github: repo", burn] == lines[rest + 1 : rest + 3]


@pytest.mark.parametrize(("own", "less"), [("", "FRX"), ("S", "S")])
def test_a_list_that_fits_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, less: str) -> None:
    """The pager is told so, unless the approver has told it something else. The pager of this test prints what."""
    monkeypatch.delenv("LESS", raising=False)
    if own:
        monkeypatch.setenv("LESS", own)

    assert f"\nLESS={less}\n" in coloured(tmp_path, count=30, PAGER="env")


def test_no_requester_draws_a_line(tmp_path: Path) -> None:
    """Blanks and line breaks of a purpose cannot make a line that looks like a field."""
    lines = shown(tmp_path, purpose=FORGED).splitlines()

    assert ["asked for     github/*"] == [line for line in lines if line.startswith("asked for")]
    assert ["duration      30m"] == [line for line in lines if line.startswith("duration")]


def test_grants_to_give_and_to_know_are_shown(tmp_path: Path) -> None:
    """The approver sees what is about to be given, and what there is."""
    lines = shown(tmp_path).splitlines()

    assert "grants        may-merge" in lines
    assert "grants known  may-burn may-merge" in lines


def test_destructive_is_in_colour(tmp_path: Path) -> None:
    """On a terminal it is red, and with `NO_COLOR` nothing has a colour."""
    with_colour, without = coloured(tmp_path), coloured(tmp_path, NO_COLOR="1")

    assert "\x1b[1;31m2 destructive\x1b[0m" in with_colour
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", without)
    assert ESCAPE.sub("", with_colour) == ESCAPE.sub("", without)
