"""How the entries of a session look: few lines an entry, at any width, whatever others wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pdp.audit.values import Found, Mark
from pdp.cli.audit.entries import fact_text, named, print_entries, tail_line
from pdp.cli.audit.view import print_record
from tests.machinery.terminal import on_terminal

SESSION = "ses_" + "b" * 26
WHO = {"session_id": SESSION, "user": "alice", "agent": "coder", "tenant": "default"}
TERMS = {
    "purpose": "Find out why the nightly build of the documentation fails since Monday, " * 6,
    "environment": "production",
    "opened_by": "gateway",
    "duration": "5400",
    "labels": ["reads-mail"],
    "tool_patterns": ["github/*"],
    "tools": [f"github/tool_number_{n}" for n in range(117)],
    "attribute_digests": {"team": "hmac-sha256:" + "a" * 64},
    "expires_at": "2026-01-05T11:30:00.000000Z",
    "scope_id": "sha256:" + "b" * 64,
}
RECORDS: tuple[dict[str, Any], ...] = (
    {
        "kind": "session.decided",
        "caller_id": "carol",
        "facts": TERMS
        | {"action": "pdp/approve_session", "outcome": "allow", "basis": "permit", "policies": ["sessions/leads"]},
    },
    {"kind": "session.approved", "caller_id": "carol", "facts": TERMS | {"by": "carol", "grants": ["merge"]}},
    {
        "kind": "decision",
        "id": "dec_" + "c" * 26,
        "caller_id": "gateway",
        "server": "github",
        "tool": "create_issue",
        "resource_type": "Repository",
        "resource_id": "acme/documentation",
        "outcome": "deny",
        "basis": "forbid",
        "policies": ["guardrails/no-writes-in-production"],
        "detail": "",
        "duration_us": 497.9,
        "arguments": {"labels": ["a", "b"]},
    },
    {"kind": "session.narrowed", "caller_id": "gateway", "facts": {"labels_added": ["x\x9b\u202e"], "tools": ["a/b"]}},
)


def found() -> list[Found]:
    """Return the entries of a session."""
    return [
        Found(
            mark=Mark(at=place, segment="s", place=place),
            line=json.dumps({"time": f"2026-01-05T10:00:0{place}.123456Z", **WHO, **record}).encode(),
        )
        for place, record in enumerate(RECORDS)
    ]


PROGRAM = """
from tests.cli.test_cli_entries import found
from pdp.cli.audit.entries import print_entries
print_entries(found())
"""


@pytest.mark.parametrize(("columns", "most"), [(80, 7), (120, 5)])
def test_an_entry_takes_few_lines(tmp_path: Path, columns: int, most: int) -> None:
    """No line is wider than the terminal, each entry begins with its time, and long lists are shortened."""
    shown = on_terminal(PROGRAM, tmp_path, columns=columns, environ={"NO_COLOR": "1", "PYTHONPATH": _root()})

    lines = shown.splitlines()
    starts = [place for place, line in enumerate(lines) if not line.startswith("    ")]
    sizes = [end - start for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]
    assert len(RECORDS) == len(starts)
    assert max(map(len, lines)) <= columns
    assert max(sizes) <= most
    assert sizes[2] <= 4
    assert "github/tool_number_2 … and 114 more" in " ".join(shown.split())
    assert "duration=1h30m" in shown


def test_a_pipe_gets_two_lines_an_entry(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is padded to the longest purpose, and nothing hides or moves text."""
    print_entries(found())

    lines = capsys.readouterr().out.splitlines()
    assert 2 * len(RECORDS) == len(lines)
    assert all(line.isprintable() and line == line.rstrip() for line in lines)
    assert "2026-01-05T10:00:02.123Z  deny        github/create_issue on Repository::acme/documentation" == lines[4]
    assert "    forbid guardrails/no-writes-in-production labels=a b  dec_cccccccccccccccccccccccccc" == lines[5]


def test_who_stands_below_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """A list over several sessions says of each call whose it is."""
    print_entries(found()[2:3], with_who=True)

    assert f"alice coder {SESSION}" in capsys.readouterr().out


def test_a_name_of_a_field_draws_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither does it move the cursor of a terminal, nor end the command."""
    print_record({"\x1b[2J\n\ud800": "x", "facts": {"\x1b[2J\n\ud800": "y"}})

    first, second = capsys.readouterr().out.splitlines()
    assert (r"\x1b[2J\n\ud800  x", r"facts.\x1b[2J\n\ud800  y") == (first, second)


def test_what_the_policies_said_is_short() -> None:
    """Their answer, not once more all that they were asked about."""
    line = tail_line(found()[0].record())

    assert "action=pdp/approve_session" in line
    assert "purpose=" not in line


def test_labels_that_a_call_added_are_shown() -> None:
    """Beside what was logged of its arguments; a call that added none says nothing of labels."""
    record = found()[2].record()

    assert "labels=a b labels_added=untrusted" in tail_line(record | {"labels_added": ["untrusted"]})
    assert "labels_added" not in tail_line(record)


def test_what_a_call_took_and_saw_is_shown() -> None:
    """What is used up of budgets since, and the counts that policies saw, of a session above too."""
    record = found()[2].record()
    said = {
        "debits": {"max_calls": 3, "max_sum": "12.5000"},
        "counts": {"github/create_issue": 2},
        "done": ["github/get_issue", "read_only"],
        "ancestor_counts": {"github/create_issue": 9},
    }
    line = tail_line(record | said)

    assert "done=github/get_issue read_only debits.max_calls=3 debits.max_sum=12.5000" in line
    assert "counts.github/create_issue=2 ancestor_counts.github/create_issue=9" in line


def test_a_report_names_its_call() -> None:
    """By the id of its decision, which its own entry shows too."""
    facts = {"decision_id": "dec_1", "action": "a/b", "status": "failed", "labels_added": ["x"]}
    record = {"kind": "call.reported", "time": "2026-01-05T10:00:00.000000Z", "caller_id": "gateway", "facts": facts}

    assert "action=a/b decision_id=dec_1 labels_added=x status=failed" in tail_line(record)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("duration", "5400", "1h30m"),
        ("duration", "600.5", "600.5"),
        ("duration", "9" * 5000, "9" * 119 + "…"),
        ("expires_at", "2026-01-05T11:30:00.000000Z", "2026-01-05T11:30:00Z"),
        ("purpose", "x" * 121, "x" * 119 + "…"),
        ("tools", ["a", "b"], "a b"),
        ("attributes", {"team": "blue", "level": 3}, "level=3 team=blue"),
        ("amount", 5, "5"),
        ("team", "hmac-sha256:" + "a" * 64, "hmac-sha256:aaaaaaaa…"),
    ],
)
def test_facts_in_short(name: str, value: object, expected: str) -> None:
    """Durations and times as people read them, and of what is long the beginning."""
    assert expected == fact_text(name, value)


def test_the_first_names_and_how_many_more() -> None:
    """A list of any length stays readable."""
    assert "a b c" == named(list("abc"))
    assert "a b c … and 4 more" == named(list("abcdefg"))


def _root() -> str:
    return str(Path(__file__).parents[2])
