"""What is printed: tables on a terminal, plain columns elsewhere, and nothing that hides or moves text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pdp.cli.moments import duration
from pdp.cli.output import paragraphs, print_fields, print_json, print_table, progress
from pdp.cli.sessions.view import duration_text, print_session
from pdp.foundation.printable import visible
from pdp.v1.session_pb2 import Session
from tests.machinery.servers.commandline import clean_environment, write_bundle
from tests.machinery.terminal import on_terminal

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, Grüße, 日本", "plain, Grüße, 日本"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb", "a\\nb"),
        ("a\u3164\u034f\ufe0f\u2800b", "a\\u3164\\u034f\\ufe0f\\u2800b"),
        ("read\u202eetirw", "read\\u202eetirw"),
        ("a\u200bb", "a\\u200bb"),
    ],
)
def test_hidden_characters_are_shown(text: str, expected: str) -> None:
    """Control, bidi and zero-width characters are printed as escapes, everything else as it is."""
    assert expected == visible(text)


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp437"])
def test_a_terminal_of_few_letters_shows_the_others_as_escapes(tmp_path: Path, encoding: str) -> None:
    """No output ends at a letter that it lacks."""
    write_bundle(tmp_path)
    (tmp_path / "directory.yaml").write_text("users: {λ: {groups: [none]}}\n", encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "pdp.cli", "check", str(tmp_path)],
        check=False,
        capture_output=True,
        env=clean_environment() | {"PYTHONIOENCODING": encoding},
    )

    assert 1 == done.returncode, done.stderr
    assert b"users: {\\u03bb: {" in done.stdout
    assert b"this bundle does not load" in done.stdout


@pytest.mark.parametrize(
    "character", ["\x9b", "\u202e", "\ufeff", "\u200b", "\U000e0041", "\ud800", "\u3164", "\ufe0f"]
)
def test_json_hides_nothing(capsys: pytest.CaptureFixture[str], character: str) -> None:
    """What moves or hides text is an escape in JSON too, and the value is what it was."""
    print_json({"tool": f"Grüße{character}\n", "more": [1]})

    out = capsys.readouterr().out
    assert "Grüße" in out
    assert all(line.isprintable() for line in out.splitlines())
    assert character not in out
    assert json.loads(out) == {"tool": f"Grüße{character}\n", "more": [1]}


def test_approver_is_not_deceived(capsys: pytest.CaptureFixture[str]) -> None:
    """No word of the requester can forge a line or clear the screen before an approval."""
    print_session(
        Session(
            purpose="x\nuser  root",
            labels=["\x1b[2J"],
            user_attributes_json='{"a": "\u202e"}'.encode(),
            terms_json='{"\u202e": 1, "ticket": "x\\nuser  root\u202e"}'.encode(),
        )
    )

    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert [] == [line for line in out.splitlines() if line.startswith("user ")]


def test_columns_are_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, a row is one line however long it is."""
    print_table(("one", "two"), [("a" * 200, "b"), ("c", "d" * 200)])

    assert ["one" + " " * 199 + "two", "a" * 200 + "  b", "c" + " " * 201 + "d" * 200] == (
        capsys.readouterr().out.splitlines()
    )


def test_empty_fields_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Only what has a value is printed, aligned."""
    print_fields([("a", "1"), ("bb", ""), ("ccc", "3")])

    assert "a    1\nccc  3\n" == capsys.readouterr().out


def test_terminal_gets_a_table(tmp_path: Path) -> None:
    """On a terminal the same rows are a table with a rule below its head."""
    out = printed("print_table(['tool'], [['[red]a/b']])", tmp_path)

    assert "─" in out
    assert "[red]a/b" in out


def test_terminal_keeps_what_is_copied_whole(tmp_path: Path) -> None:
    """On a narrow terminal the first column stays on one line and the others are folded."""
    name = "ses_aaaaaaaaaaaaaaaaaaaaaaaaaa"

    out = printed(f"print_table(['session', 'purpose'], [['{name}', '{'b' * 60}']])", tmp_path)

    assert name in out
    assert "b" * 60 not in out
    assert 60 == out.count("b")


def test_short_words_are_not_broken(tmp_path: Path) -> None:
    """Where a long column wants more room than there is, it is folded and the short ones are not."""
    out = printed(f"print_table(['tool', 'risk'], [['{'a' * 58}', 'destructive']])", tmp_path)

    assert "destructive" in out


def test_rows_without_room_are_paragraphs(tmp_path: Path) -> None:
    """Where not even the words of a row have room, it is a paragraph: no word is broken, and each has its name."""
    columns = [f"column {n}" for n in range(9)]
    row = ["unary, one at a time", *(f"{n},000.0" for n in range(1, 9))]

    out = ESCAPE.sub("", printed(f"print_table({columns}, [{row}])", tmp_path))

    lines = out.splitlines()
    assert "unary, one at a time" == lines[0].rstrip()
    assert " ".join(f"column {n} {n},000.0" for n in range(1, 9)) == " ".join(" ".join(lines[1:]).split())


def test_long_values_go_on_below_their_beginning(tmp_path: Path) -> None:
    """On a terminal a value never begins a line of its own, however many blanks it holds."""
    value = "word" + " " * 50 + "agent  root " * 8

    lines = on_terminal(
        f"from pdp.cli.output import print_fields; print_fields([('agent', 'coder'), ('purpose', {value!r})])", tmp_path
    ).splitlines()

    assert ["agent    coder"] == [line for line in lines if line.startswith("agent")]
    assert 60 >= max(map(len, lines))


def test_lines_of_a_text_stay_below_each_other() -> None:
    """A purpose of several lines keeps them, without what hides text, empty lines and runs of blanks."""
    text = "Pay the rent:\r\n\n\t- 1,200   to the landlord\nuser  root\x1b[2J"

    assert ["Pay the rent:", "- 1,200 to the landlord", "user root\\x1b[2J"] == paragraphs(text, 60)


def test_progress_is_for_terminals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A person sees what goes on; a script reads nothing of it."""
    program = "import time\nfrom pdp.cli.output import progress\nwith progress('checking policies'): time.sleep(0.3)"

    with progress("checking policies"):
        pass

    assert "checking policies" in on_terminal(program, tmp_path)
    assert ("", "") == capsys.readouterr()


def printed(call: str, folder: Path) -> str:
    """Return what a call prints on a terminal of 60 columns."""
    return on_terminal(f"from pdp.cli.output import print_table; {call}", folder, environ={"NO_COLOR": "1"})


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("1h1m1s", 3661), ("2h", 7200)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """Hours, minutes and seconds add up."""
    assert seconds == duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m"), (5400, "1h30m"), (28800, "8h"), (3661, "1h1m1s")]
)
def test_durations_are_written(seconds: float, text: str) -> None:
    """A duration is written the way it is read."""
    assert text == duration_text(seconds)
