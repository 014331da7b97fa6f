"""After a leak the record of the broker says who used the secret, and when it cannot say."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pdp.broker.cli.root import root
from pdp.broker.exposure import Exposure, Question, exposure_of
from pdp.broker.exposurecalls import ExposureFace
from pdp.broker.opening import RECORD_FOLDER, opened_record
from pdp.broker.persons import Person
from pdp.broker.templates import UpstreamRequest
from pdp.broker.using import Asked
from pdp.broker.v1.exposure_pb2 import GetExposureRequest
from pdp.broker.words import Mode
from pdp.calltokens.claims import Presenter
from pdp.clock import utc_text
from pdp.errors import NotFoundError, OverloadedError, UnavailableError
from pdp.observer import Event, EventKind
from pdp.record import reader
from pdp.record.envelope import parse_line
from pdp.record.keys import PUBLIC_KEY_FILE, PublicKeys
from pdp.record.secretuses import trail_of
from tests.broker.worlds import ARGUMENTS, token, world
from tests.machinery.calltokens import PRESENTER

Ask = Callable[..., tuple[Result, Any]]
STORED, ROTATED, USED = EventKind.SECRET_STORED, EventKind.SECRET_ROTATED, EventKind.CALL_TOKEN_USED


def about(kind: EventKind, at: float, version: int = 1, connection: str = "github", **more: Any) -> Event:
    """Return an event about a connection; of a use, `session_id` may be given."""
    facts = {"connection": connection, "version": str(version), "mode": "proxy", "upstream": "https://u.example"}
    said = {"token_id": f"t{at}", "decision_id": f"d{at}", "action": "git/push", "presenter": "local"}
    return Event(kind=kind, at=at, facts={**facts, **said}, user="alice", agent="coder", tenant="acme", **more)


def written(folder: Path, *events: Event) -> None:
    """Write events into the record of a broker, as one run of it."""
    with opened_record(folder) as record:
        for one in events:
            record.event(one)


def keys_of(folder: Path) -> PublicKeys:
    """Return the keys by which the record of a broker is verified."""
    return PublicKeys.load([folder / PUBLIC_KEY_FILE])


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Run the command on the folder of a broker; return how it ended, and its JSON if there is any."""

    def asked(*words: str) -> tuple[Result, Any]:
        done = CliRunner().invoke(root, ("exposure", *words, "--json", "--data-dir", str(tmp_path)))
        return done, json.loads(done.stdout) if done.stdout else None

    return asked


def test_each_use_of_a_secret_is_named(tmp_path: Path, ask: Ask) -> None:
    """Real uses in both modes, also one that calls no tool: by which call, session, people, tool and upstream."""
    with opened_record(tmp_path) as record, world(record=record) as here:
        record.event(about(STORED, 10, 1, "github-1"))
        record.event(about(ROTATED, 20, 3, "github-1"))
        template = here.broker.rules["github"].templates["create_issue"]
        changed: tuple[dict[str, Any], ...] = ({}, {"session_id": "ses_2", "user": "bob"})
        for changes in changed:
            made = Asked(
                server="github",
                tool="create_issue",
                token=token(ARGUMENTS, **changes),
                arguments={**ARGUMENTS},
                presenter=PRESENTER,
                request=template.filled(ARGUMENTS),
                mode=Mode.CONNECTOR,
            )
            here.broker.use(made, lambda answer: b"".join(answer.pieces))
        request = UpstreamRequest(method="POST", target="/mcp", headers={})
        from_here = Asked(server="remote", token="", presenter=Presenter(), request=request, mode=Mode.PROXY)
        here.broker.greet(from_here, lambda answer: b"".join(answer.pieces))

    done, said = ask("github-1@3")
    text = CliRunner().invoke(root, ("exposure", "github-1", "--data-dir", str(tmp_path)))

    assert (0, 3, 3, 39) == (done.exit_code, said["uses"], said["answers"], said["answer_bytes"])
    named = {what: [one["name"] for one in said[what]["named"]] for what in ("sessions", "users", "tools", "modes")}
    assert {
        "sessions": ["ses_1", "ses_2"],
        "users": ["alice", "bob"],
        "tools": ["github/create_issue", "remote"],
        "modes": ["connector", "proxy"],
    } == named
    first, second, third = said["calls"]
    assert ("dec_1", "ses_1", "coder", here.upstream.origin) == tuple(
        first[name] for name in ("decision_id", "session_id", "agent", "upstream")
    )
    assert (43, 43, 0) == tuple(len(one["token_id"]) for one in (first, second, third))
    assert (0, True) == (text.exit_code, "the record is intact: this is all" in text.output)
    assert all(one["token_id"] in text.output for one in said["calls"])


@pytest.mark.parametrize(
    ("words", "sessions"),
    [
        (("github",), ["s1", "s2", "s3"]),
        (("github@1",), ["s1", "s2"]),
        (("github@2",), ["s3"]),
        (("github", "--since", utc_text(30)), ["s2", "s3"]),
        (("github@1", "--since", utc_text(31)), []),
        (("other",), ["s4"]),
    ],
)
def test_only_what_was_asked_about_counts(tmp_path: Path, ask: Ask, words: tuple[str, ...], sessions: Any) -> None:
    """One connection, one version of its secret, from one moment on."""
    uses = [about(USED, 20, session_id="s1"), about(USED, 30, session_id="s2"), about(USED, 50, 2, session_id="s3")]
    others = [about(STORED, 11, connection="other"), about(USED, 60, connection="other", session_id="s4")]
    written(tmp_path, about(STORED, 10), others[0], *uses[:2], about(ROTATED, 40, 2), uses[2], others[1])

    done, said = ask(*words)

    assert (0, sessions) == (done.exit_code, [one["name"] for one in said["sessions"]["named"]])


@pytest.mark.parametrize(
    ("words", "code", "gap"),
    [
        # The secret was first stored within this record, so nothing was before it.
        (("github",), 0, ""),
        (("github", "--since", utc_text(1)), 0, ""),
        # This one is older than the record, which begins when it was made.
        (("old",), 1, "it begins at "),
        (("old@7",), 1, "it begins at "),
        (("old", "--since", "1h"), 1, "it begins at "),
        (("old", "--since", "9999-01-01"), 0, ""),
        (("old@8",), 0, ""),
    ],
)
def test_a_record_that_does_not_reach_back_says_so(
    tmp_path: Path, ask: Ask, words: tuple[str, ...], code: int, gap: str
) -> None:
    """A secret may be older than the record: then there may have been more uses."""
    former = [about(USED, 20, 7, "old"), about(ROTATED, 30, 8, "old")]
    written(tmp_path, about(STORED, 10), *former, about(USED, 40))

    done, said = ask(*words)

    assert (code, True) == (done.exit_code, said["gap"].startswith(gap))
    assert bool(gap) == bool(said["gap"])


def test_a_record_whose_oldest_file_is_gone_is_not_whole(tmp_path: Path, ask: Ask) -> None:
    """Uses since a moment after the rest begins are still all there, but the record is not intact."""
    written(tmp_path, about(STORED, 10), about(USED, 20))
    written(tmp_path, about(USED, 30))
    first, second = sorted((tmp_path / "record").glob("*.jsonl"))
    begins = json.loads(second.read_bytes().splitlines()[0])["time"]
    first.unlink()

    done, said = ask("github")
    late, since_then = ask("github", "--since", "9999-01-01")

    assert (1, f"its oldest files are missing: it is whole from {begins} on") == (done.exit_code, said["gap"])
    assert (1, "", False) == (late.exit_code, since_then["gap"], since_then["intact"])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"alice", b"carol"),
        lambda text: text[:-700],
        lambda text: text.replace(b'"version":"1"', b'"version":"%b"' % (b"1" * 5000)),
    ],
)
def test_a_record_that_was_changed_says_so(tmp_path: Path, ask: Ask, change: Callable[[bytes], bytes]) -> None:
    """The answer comes with what is wrong with the record, and with another exit code."""
    written(tmp_path, about(STORED, 10), about(USED, 20), about(USED, 30))
    (file,) = (tmp_path / "record").glob("*.jsonl")
    file.write_bytes(change(file.read_bytes()))

    done, said = ask("github")
    text = CliRunner().invoke(root, ("exposure", "github", "--data-dir", str(tmp_path)))

    assert (1, False) == (done.exit_code, said["intact"])
    assert (1, "there may have been more uses") == (text.exit_code, text.output.splitlines()[-1])
    assert f"not intact: {said['findings'][0]}" in text.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("githib",), "never names the connection `githib`"),
        (("github@2",), "never names version 2 of `github`"),
        (("github@",), "`github@` is not a connection, or one version such as `github@2`"),
        (("github@0",), "`github@0` is not a connection"),
        (("github", "--since", "soon"), "`soon` is not a time"),
        (("github", "--public-key", "none.pem"), "cannot read the public key `none.pem`"),
    ],
)
def test_a_question_without_an_answer_is_an_error(
    tmp_path: Path, ask: Ask, words: tuple[str, ...], expected: str
) -> None:
    """A connection that is spelled wrongly must not look like one that nobody used."""
    written(tmp_path, about(STORED, 10), about(USED, 20))

    done, _ = ask(*words)

    assert (2, True) == (done.exit_code, expected in done.stderr.splitlines()[-1])


def test_lists_are_bounded_and_what_is_beyond_is_counted(tmp_path: Path, ask: Ask) -> None:
    """Of sessions the first are kept, of calls the last, and no use is lost from the counts."""
    written(tmp_path, about(STORED, 10), *(about(USED, 20.0 + one, session_id=f"s{one}") for one in range(5)))

    done, said = ask("github", "--most", "2")

    sessions = said["sessions"]
    assert (0, 5, ["s0", "s1"]) == (done.exit_code, said["uses"], [one["name"] for one in sessions["named"]])
    assert {"uses": 3, "first_time": utc_text(22), "last_time": utc_text(24)} == sessions["others"]
    assert (["d23.0", "d24.0"], 3) == ([one["decision_id"] for one in said["calls"]], said["calls_left_out"])


def test_memory_does_not_grow_with_the_record(tmp_path: Path) -> None:
    """Ten times as many sessions and calls take no more."""

    def peak(folder: Path, uses: int) -> int:
        written(folder, *(about(USED, 20.0 + one, session_id=f"s{one}") for one in range(uses)))
        tracemalloc.start()
        try:
            exposure_of(folder / "record", keys_of(folder), Question(connection="github", most_names=50, most_calls=50))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # First, since what is made once in a process is a tenth of all.
    small = peak(tmp_path / "small", 300)

    assert peak(tmp_path / "large", 3_000) < 1.5 * small


@pytest.mark.parametrize(("connection", "parsed"), [("github", 3), ('git"hub', 31)])
def test_what_names_another_connection_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connection: str, parsed: int
) -> None:
    """A record can be long, and each leak report asks it; only a name that JSON writes in several ways is read for."""
    other = (about(USED, float(at), connection=f"other{at}", session_id=f"s{at}") for at in range(3, 28))
    written(tmp_path, *(about(USED, float(at), connection=connection, session_id=f"s{at}") for at in range(3)), *other)
    seen: list[bytes] = []

    def parsing(line: bytes) -> Any:
        seen.append(line)
        return parse_line(line)

    monkeypatch.setattr(reader, "parse_line", parsing)

    assert ("s0", "s1", "s2") == trail_of(tmp_path / RECORD_FOLDER, connection).sessions
    assert parsed == len(seen)


def test_the_calls_can_be_read_from_the_last_to_the_first(tmp_path: Path) -> None:
    """Each on one page, also when another one comes meanwhile; the counts are those of all."""
    written(tmp_path, *(about(USED, 20.0 + one) for one in range(5)))
    before, pages = None, []
    while before != 0:
        question = Question(connection="github", most_names=9, most_calls=2, before=before)
        found, _ = exposure_of(tmp_path / "record", keys_of(tmp_path), question)
        pages.append([one.decision_id for one in found.calls])
        before = found.calls_before
        written(tmp_path, about(USED, 100.0 + len(pages)))

    assert [["d23.0", "d24.0"], ["d21.0", "d22.0"], ["d20.0"]] == pages
    assert 7 == found.uses.count


@pytest.mark.parametrize(("since_at", "parsed"), [(0.0, 32), (30.0, 4)])
def test_uses_from_before_the_time_that_is_asked_about_are_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since_at: float, parsed: int
) -> None:
    """A record of years is asked about a week. One says that the secret is known, and all that is stored is parsed."""
    uses = [about(USED, float(at), session_id=f"s{at}") for at in range(1, 31)]
    written(tmp_path, uses[0], about(STORED, 2), about(ROTATED, 3, 2), *uses[1:])
    seen: list[bytes] = []

    def parsing(line: bytes) -> Any:
        seen.append(line)
        return parse_line(line)

    monkeypatch.setattr(reader, "parse_line", parsing)
    found = Exposure(Question(connection="github", since_at=since_at, most_names=9, most_calls=9))
    found.read(tmp_path / RECORD_FOLDER)

    # The beginning of the file is looked at once more.
    assert parsed + 1 == len(seen)
    assert (1 if since_at else 30, "") == (found.uses.count, found.gap)


def test_nothing_is_read_for_who_has_left(tmp_path: Path) -> None:
    """Others may ask at once, and a broker that stops does not wait for the end of a long record."""
    written(tmp_path, about(STORED, 10), about(USED, 20), about(USED, 30))
    request, auditor = GetExposureRequest(connection_id="github"), Person(id="a", roles=["auditor"], tenants=["acme"])
    face = ExposureFace(persons=lambda _: auditor, folder=tmp_path)

    for looks in (0, 2):
        # So often it is still waited for.
        waits = partial(next, iter([True] * looks + [False]))
        with pytest.raises(UnavailableError, match="nobody waits"):
            face.show(request, replace(auditor, waits=waits))
        assert 2 == face.show(request, auditor).uses.count


def test_nothing_is_told_of_another_tenant(tmp_path: Path) -> None:
    """Its connection is as unknown as one that never was, and its uses are not counted."""
    written(tmp_path, about(STORED, 10), about(USED, 20, session_id="s1"))

    for tenants, expected in ((["acme", "b"], (True, 1)), (["b"], (False, 0)), ([], (False, 0))):
        question = Question(connection="github", tenants=tenants, most_names=9, most_calls=9)
        found, _ = exposure_of(tmp_path / "record", keys_of(tmp_path), question)

        assert expected == (found.known, found.uses.count)


def test_one_question_at_a_time_reads_the_record(tmp_path: Path) -> None:
    """The next one is refused, not kept waiting; and one that failed blocks none after it."""
    auditor = Person(id="carol", roles=["auditor"], tenants=["acme"])
    face = ExposureFace(persons=lambda _: auditor, folder=tmp_path)
    request = GetExposureRequest(connection_id="github")
    written(tmp_path, about(STORED, 10), about(USED, 20))

    with face.reading(), pytest.raises(OverloadedError, match="try again"):
        face.show(request, auditor)
    with pytest.raises(NotFoundError):
        face.show(GetExposureRequest(connection_id="other"), auditor)
    assert 1 == face.show(request, auditor).uses.count
