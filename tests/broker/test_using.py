"""A secret is used for exactly the call that was allowed, once, and only while that still counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from pdp.broker.sending import UpstreamFailedError
from pdp.broker.underway import UnderWay
from pdp.broker.words import Connection, Mode, Secret, UnknownConnectionError
from pdp.calltokens.claims import CallClaims, Presenter, encoded, written
from pdp.calltokens.keys import CallKey
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.uses import FileUses
from pdp.errors import PDPError, PermissionDeniedError, UnavailableError
from tests.broker.worlds import ARGUMENTS, SECRET, World, ask, claims, token, world
from tests.machinery.calltokens import CLAIMS, KEY, PRESENTER
from tests.machinery.servers.running import PATIENCE


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    """Provide a broker that the tests of this module share."""
    with world() as made:
        yield made


def test_the_secret_is_sent_to_the_upstream_and_to_nobody_else(here: World) -> None:
    """In the header of the connection; the record says who used it for what, and holds no secret and no token."""
    here.upstream.got.clear()
    here.record.events.clear()
    text = token()

    assert (200, b'{"done":true}') == ask(here, text)

    ((method, path, headers, body),) = here.upstream.got
    assert ("POST", "/repos/o/issues", b'{"title": "t"}') == (method, path, body)
    assert f"Bearer {SECRET.decode()}" == headers["authorization"]
    used, answered = here.record.events
    assert ["calltoken.used", "calltoken.answered"] == here.record.kinds
    assert ("ses_1", "alice", "coder", "acme") == (used.session_id, used.user, used.agent, used.tenant)
    assert {
        "presenter": PRESENTER.certificate,
        "token_id": used.facts["token_id"],
        "decision_id": "dec_1",
        "action": "github/create_issue",
        "connection": "github-1",
        "version": "3",
        "upstream": here.upstream.origin,
        "mode": "connector",
    } == used.facts
    assert {**used.facts, "status": "200", "bytes": "13", "outcome": "whole"} == answered.facts
    assert not any(part in repr(here.record.events) for part in (SECRET.decode(), text))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"server": "other"}, Reason.TOOL),
        ({"tool": "read_issue"}, Reason.TOOL),
        ({"arguments": {**ARGUMENTS, "title": "u"}}, Reason.ARGUMENTS),
        ({"arguments": {**ARGUMENTS, "more": None}}, Reason.ARGUMENTS),
        ({"arguments": b'{"owner":"o","title":"t","title":"u"}'}, Reason.ARGUMENTS),
        ({"presenter": Presenter(certificate="d" * 43)}, Reason.PRESENTER),
        ({"presenter": Presenter(key="c" * 43)}, Reason.PRESENTER),
        ({"presenter": Presenter()}, Reason.PRESENTER),
        ({"presenter": None}, Reason.PRESENTER),
    ],
)
def test_a_call_token_is_for_one_call_by_one_presenter(here: World, changes: dict[str, Any], reason: Reason) -> None:
    """At another tool, with other arguments, or stolen by another gateway it opens nothing, and is not used up."""
    here.memory.opened.clear()
    here.upstream.got.clear()
    text = token()

    with pytest.raises(CallTokenRefusedError) as refused:
        ask(here, text, **changes)

    assert reason is refused.value.reason
    assert ([], []) == (here.memory.opened, here.upstream.got)
    assert ("calltoken.refused", reason.value) == (here.record.kinds[-1], here.record.events[-1].facts["reason"])
    assert 200 == ask(here, text)[0]


def forged(header: bytes, said: bytes, key: CallKey = KEY) -> str:
    """Return a token with a good signature over any header and claims."""
    message = f"{encoded(header)}.{encoded(said)}"
    return f"{message}.{encoded(key.private.sign(message.encode()))}"


KID = KEY.public.id.encode()
GOOD = b'{"alg":"Ed25519","typ":"pdp-call+jwt","kid":"%b"}' % KID


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b'{"alg":"none","typ":"pdp-call+jwt","kid":"%b"}' % KID, None),
        (b'{"alg":"HS256","typ":"pdp-call+jwt","kid":"%b"}' % KID, None),
        (b'{"alg":"EdDSA","typ":"pdp-call+jwt","kid":"%b"}' % KID, None),
        (b'{"alg":"Ed25519","typ":"at+jwt","kid":"%b"}' % KID, None),
        (b'{"alg":"Ed25519","typ":"JWT","kid":"%b"}' % KID, None),
        (b'{"alg":"Ed25519","kid":"%b"}' % KID, None),
        (b'{"alg":"Ed25519","typ":"pdp-call+jwt","kid":"%b","crit":["x"]}' % KID, None),
        (b'{"alg":"Ed25519","typ":"pdp-call+jwt","kid":"%b","jwk":{}}' % KID, None),
        (b'{"alg":"Ed25519","typ":"pdp-call+jwt","kid":"x"}', None),
        (GOOD, b'"aud":["https://broker.example","https://other.example"]'),
        (GOOD, b'"aud":"https://other.example"'),
        (GOOD, b'"aud":"https://broker.example","aud":"https://broker.example"'),
    ],
    # The key, which they name, is another one in each process.
    ids=["none", "hs256", "eddsa", "at", "jwt", "untyped", "crit", "jwk", "kid", "two", "other", "twice"],
)
def test_a_forged_token_opens_no_secret(here: World, header: bytes, said: bytes | None) -> None:
    """Whatever its header says; also one with two audiences, and one of a megabyte."""
    here.memory.opened.clear()
    text = written(claims())
    if said is not None:
        text = text.replace(b'"aud":"https://broker.example"', said)

    for wrong in (forged(header, text), "a" * 2**20, forged(GOOD, written(claims()), CallKey())):
        with pytest.raises(CallTokenRefusedError):
            ask(here, wrong)

    assert [] == here.memory.opened


def test_of_32_at_once_one_is_sent(tmp_path: Path) -> None:
    """A call token counts once, however many present it at the same moment; the record names the others replays."""
    uses = FileUses(tmp_path / "uses", wall=lambda: 0.0)
    with world(uses=uses) as here, ThreadPoolExecutor(32) as pool:
        text, start = token(), threading.Barrier(32)

        def go(_: int) -> object:
            start.wait()
            try:
                return ask(here, text)[0]
            except CallTokenRefusedError as error:
                return error.reason

        found = list(pool.map(go, range(32)))

        assert [200] == [one for one in found if one is not Reason.USED]
        assert 1 == len(here.upstream.got)
        assert 31 == here.record.kinds.count("calltoken.replayed")
        assert (
            "dec_1" == next(one for one in here.record.events if one.kind == "calltoken.replayed").facts["decision_id"]
        )
    uses.close()


def test_a_revoked_session_and_a_silent_pdp_open_nothing() -> None:
    """The live check comes before the use: what it refuses stays unused, and what does not answer is a refusal."""
    answers: list[Exception | None] = [CallTokenRefusedError(Reason.REVOKED, "over"), TimeoutError(), None]

    def live(_: str, __: CallClaims) -> None:
        if problem := answers.pop(0):
            raise problem

    with world(live=live) as here:
        text, reasons = token(), []
        for _ in range(2):
            with pytest.raises(CallTokenRefusedError) as refused:
                ask(here, text)
            reasons.append(refused.value.reason)

        assert ([Reason.REVOKED, Reason.UNAVAILABLE], []) == (reasons, here.memory.opened)
        assert 200 == ask(here, text)[0]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"tenant": "globex"}, UnknownConnectionError),
        ({"compartment": "test"}, UnknownConnectionError),
        ({"kind": "jira"}, UnknownConnectionError),
        ({"owner": "bob"}, UnknownConnectionError),
        ({"modes": (Mode.PROXY,)}, PermissionDeniedError),
        ({"upstream": "https://API.example.com"}, PermissionDeniedError),
    ],
)
def test_another_ones_connection_is_unknown(row: dict[str, Any], problem: type[PDPError]) -> None:
    """Of another tenant, compartment, kind or user; the answer is the same as if there were none."""
    with world(**row) as here:
        with pytest.raises(problem) as refused:
            ask(here, token())

        here.memory.rows.clear()
        with pytest.raises(UnknownConnectionError) as unknown:
            ask(here, token())

        assert [] == here.memory.opened
        assert problem is not UnknownConnectionError or str(unknown.value) == str(refused.value)
        assert ["calltoken.refused"] * 2 == here.record.kinds


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"connection": "jira"}, "no connection of kind `github`"),
        ({"connection": "", "scopes": ()}, "no connection of kind `github`"),
        ({"scopes": ("issues", "admin")}, "lacks the scope `admin`"),
    ],
)
def test_only_what_the_approver_saw_is_used(here: World, changes: dict[str, Any], problem: str) -> None:
    """Another kind than the call token states, or a scope that the secret does not have, opens nothing."""
    here.memory.opened.clear()

    with pytest.raises(PermissionDeniedError, match=problem):
        ask(here, token(**changes))

    assert [] == here.memory.opened
    assert "calltoken.refused" == here.record.kinds[-1]


@pytest.mark.parametrize("failing", ["", "calltoken.used"])
def test_without_a_record_nothing_is_sent(here: World, failing: str) -> None:
    """A use that nobody could find later is none, also when the record fails with this very use."""
    here.upstream.got.clear()
    here.record.permits, here.record.fails_with = bool(failing), failing

    with pytest.raises(UnavailableError):
        ask(here, token())

    here.record.permits, here.record.fails_with = True, ""
    assert [] == here.upstream.got


@pytest.mark.parametrize(
    ("status", "headers", "problem"),
    [
        (302, [("Location", "http://127.0.0.1:9/")], "answers `302`, and neither redirects"),
        (307, [("Location", "/repos/x")], "answers `307`, and neither redirects"),
        (101, [("Upgrade", "websocket")], "answers `101`"),
        (200, [("Content-Encoding", "gzip")], "in an encoding that was not requested"),
        (200, [("Transfer-Encoding", "gzip")], "in an encoding that was not requested"),
        (200, [(f"X-{number}", "y") for number in range(70)], "more than 64 headers"),
    ],
)
def test_an_answer_that_leads_elsewhere_is_not_followed(
    here: World, status: int, headers: list[tuple[str, str]], problem: str
) -> None:
    """Nor is one that cannot be searched for the secret handed on; the record says why, and the outcome is unknown."""
    before = here.upstream.headers
    here.upstream.status, here.upstream.headers = status, headers
    here.upstream.got.clear()
    try:
        with pytest.raises(UpstreamFailedError, match=problem):
            ask(here, token())
    finally:
        here.upstream.status, here.upstream.headers = 200, before

    assert 1 == len(here.upstream.got)
    facts = here.record.events[-1].facts
    assert ("unknown", True) == (facts["outcome"], problem in facts["problem"])


def test_an_answer_is_bounded_in_size_and_time(here: World) -> None:
    """A broken answer is an error, and not a short one."""
    before = here.upstream.pieces
    left = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"x"
        left.wait(PATIENCE)

    try:
        for server, pieces, problem in (
            ("brief", lambda: iter([b"x" * 600] * 2), "more than 1000 bytes"),
            ("other", slow, "did not answer in time"),
        ):
            here.upstream.pieces = pieces
            with pytest.raises(UpstreamFailedError, match=problem):
                ask(here, token(server=server), server=server)
            assert "broken" == here.record.events[-1].facts["outcome"]
    finally:
        left.set()
        here.upstream.pieces = before


@pytest.mark.parametrize(
    ("end", "name"),
    [(UnderWay.end, CLAIMS.session_id), (UnderWay.end, CLAIMS.ancestor_ids[0]), (UnderWay.freeze, CLAIMS.tenant)],
)
def test_an_answer_ends_with_the_session_of_its_call(here: World, end: Callable[..., None], name: str) -> None:
    """Or with one above it, or with a freeze, also when it streams for long; what came is no whole answer."""
    before = here.upstream.pieces
    left = threading.Event()

    def stream() -> Iterator[bytes]:
        yield b"x"
        end(here.broker.under_way, ["other"])
        end(here.broker.under_way, [name])
        left.wait(PATIENCE)

    here.upstream.pieces = stream
    try:
        with pytest.raises(UpstreamFailedError, match="the session has ended"):
            ask(here, token())
    finally:
        left.set()
        here.upstream.pieces = before

    assert "is no longer heard: the session has ended, or is frozen" == here.record.events[-1].facts["problem"]
    assert () == here.broker.under_way.session_ids


def test_an_answer_takes_no_longer_than_its_session(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it expires is told by nobody; its end is known since the token was checked."""
    monkeypatch.setattr("pdp.broker.underway._LEAST_SECONDS", 0.1)
    before, left = here.upstream.pieces, threading.Event()

    def stream() -> Iterator[bytes]:
        yield b"x"
        left.wait(PATIENCE)

    here.upstream.pieces = stream
    here.broker.under_way.lives_until("ses_brief", 1.0)
    here.broker.under_way.lives_until("ses_long", 9e9)
    try:
        with pytest.raises(UpstreamFailedError, match="did not answer in time"):
            ask(here, token(session_id="ses_brief"))
    finally:
        left.set()
        here.upstream.pieces = before

    assert 200 == ask(here, token(session_id="ses_long"))[0]


def test_a_session_that_ends_while_its_secret_is_opened_has_nothing_sent(here: World) -> None:
    """To open it can mean to ask a provider of tokens."""
    here.upstream.got.clear()
    opened = here.memory.open

    def ending(connection: Connection) -> Secret:
        here.broker.under_way.end([CLAIMS.session_id])
        return opened(connection)

    with patch.object(here.memory, "open", ending), pytest.raises(UpstreamFailedError, match="the session has ended"):
        ask(here, token())

    assert [] == here.upstream.got


def test_no_exception_shows_the_secret(here: World) -> None:
    """One that no header can hold is refused before it is sent, in words that do not show it."""
    wrong = b"s3cr3t\r\nHost: evil.example"
    here.memory.secret = wrong
    try:
        with pytest.raises(PermissionDeniedError) as refused:
            ask(here, token())
    finally:
        here.memory.secret = SECRET

    assert "s3cr3t" not in f"{refused.value!r} {refused.value.__context__!r} {refused.value.__cause__!r}"


def test_a_request_meant_for_another_origin_is_refused(here: World) -> None:
    """Before the secret is opened."""
    here.memory.opened.clear()

    with pytest.raises(PermissionDeniedError, match="spelled as it is"):
        ask(here, token(), origin="https://evil.example")

    assert [] == here.memory.opened
