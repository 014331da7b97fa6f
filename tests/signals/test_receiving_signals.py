"""Security event tokens that are pushed: a good one revokes, and each forged one is refused by its word."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pdp.observer import EventKind
from pdp.signals.words import State
from tests.signals.world import (
    AUDIENCE,
    CREDENTIAL,
    DISABLED,
    EVENTS,
    FOREIGN,
    REVOKED,
    SETTINGS,
    Site,
    Transmitter,
    World,
    iss_sub,
    push,
    world,
)


def test_a_closed_account_ends_what_its_person_had(here: World) -> None:
    """Every session of the user ends, and those of others and of other tenants do not; the record says whose word."""
    mine, other, foreign = here.session(), here.session("bob"), here.session(tenant=FOREIGN)

    signal = here.sent(here.transmitter.about("alice", reason="hijacking"))

    assert State.APPLIED == signal.state
    assert (True, False, False) == (here.ended(mine), here.ended(other), here.ended(foreign, FOREIGN))
    reason = here.server.client("approver-acme").get_session(mine).reason
    assert f"signal {signal.id} of idp: account-disabled" == reason
    assert [EventKind.SIGNAL_RECEIVED, EventKind.SIGNAL_APPLIED] == [one.kind for one in here.events]
    assert mine in here.events[-1].lists["sessions"]


@pytest.mark.parametrize(
    ("event", "payload", "ends"),
    [
        (REVOKED, {"event_timestamp": 1}, True),
        (f"{EVENTS}risc/event-type/sessions-revoked", {}, True),
        (f"{EVENTS}risc/event-type/account-purged", {}, True),
        (CREDENTIAL, {"credential_type": "password", "change_type": "update"}, True),
        (CREDENTIAL, {"credential_type": "password", "change_type": "revoke"}, True),
        (CREDENTIAL, {"credential_type": "fido2-roaming", "change_type": "create"}, False),
        (f"{EVENTS}risc/event-type/account-enabled", {}, False),
        (f"{EVENTS}ssf/event-type/verification", {"state": "x"}, False),
    ],
)
def test_only_what_takes_authority_away_is_acted_on(
    here: World, event: str, payload: dict[str, object], *, ends: bool
) -> None:
    """Other events are accepted, as their transmitter expects, and do nothing."""
    session_id = here.session()

    signal = here.sent(here.transmitter.about("alice", event, **payload))

    assert (ends, State.APPLIED if ends else State.UNMATCHED) == (here.ended(session_id), signal.state)


@pytest.mark.parametrize(
    ("subject", "user"),
    [
        (iss_sub("bob"), "bob"),
        (iss_sub("bob", "https://other.example"), ""),
        ({"format": "email", "email": "Bob@Example.org"}, "bob"),
        ({"format": "email", "email": "bob@example.com"}, ""),
        ({"format": "email", "email": "bob@example.org.evil.example"}, ""),
        ({"format": "opaque", "id": "0x1"}, "alice"),
        ({"format": "opaque", "id": "bob"}, ""),
        ({"format": "complex", "user": iss_sub("bob"), "session": {"format": "opaque", "id": "9"}}, "bob"),
        ({"format": "complex", "device": iss_sub("bob")}, ""),
        ({"format": "phone_number", "phone_number": "+12065550100"}, ""),
    ],
)
def test_a_subject_is_who_the_settings_say(here: World, subject: dict[str, Any], user: str) -> None:
    """Whom no rule names is nobody: nothing ends."""
    sessions = {one: here.session(one) for one in ("alice", "bob")}

    signal = here.sent(here.transmitter.token(here.transmitter.claims(subject)))

    assert {one for one, id_ in sessions.items() if here.ended(id_)} == ({user} if user else set())
    assert (State.APPLIED if user else State.UNMATCHED) == signal.state


@pytest.mark.parametrize(
    ("subject", "status", "user"),
    [
        ({"user": iss_sub("bob")}, 202, "bob"),
        ({"user": {"format": "email", "email": "bob@example.org"}, "device": iss_sub("alice")}, 202, "bob"),
        (iss_sub("bob"), 202, "bob"),
        ({"device": iss_sub("bob")}, 202, ""),
        (None, 400, ""),
    ],
)
def test_a_subject_in_the_event_is_read_where_the_settings_say_so(
    site: Site, tmp_path: Path, subject: dict[str, Any] | None, status: int, user: str
) -> None:
    """As drafts had it, and Okta documents it; then what is beside the event counts nothing."""
    with world(*site, tmp_path, settings=SETTINGS.replace("[ES256]", "[ES256]\n    subject_in: event")) as here:
        sessions = {one: here.session(one) for one in ("alice", "bob")}
        claims = here.transmitter.claims(iss_sub("alice"))
        claims["events"] = {REVOKED: {"subject": subject} if subject else {}}

        pushed = here.push(here.transmitter.token(claims))

        here.applier.run()
        assert status == pushed[0]
        assert {one for one, id_ in sessions.items() if here.ended(id_)} == ({user} if user else set())


def unsigned(here: World) -> str:
    """Return a token without a signature."""
    head = {"typ": "secevent+jwt", "kid": "first"}
    return jwt.encode(here.transmitter.claims(iss_sub("alice")), "", algorithm="none", headers=head)


def with_shared_secret(here: World) -> str:
    """Return a token that is signed with the public key, as if it were a secret."""
    head = {"typ": "secevent+jwt", "kid": "first"}
    point = here.transmitter.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return jwt.encode(here.transmitter.claims(iss_sub("alice")), point, algorithm="HS256", headers=head)


def of_another_key(here: World) -> str:
    """Return a token that somebody else has signed under the name of the key."""
    other = Transmitter(here.clock)
    return other.about("alice")


def with_changed_claims(here: World) -> str:
    """Return a token about bob, with the signature of one about alice."""
    head, _, signature = here.transmitter.about("alice").split(".")
    claims = json.dumps(here.transmitter.claims(iss_sub("bob"))).encode()
    return f"{head}.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.{signature}"


def changed(**claims: object) -> Callable[[World], str]:
    """Return what makes a token with other claims; None leaves one out."""

    def made(here: World) -> str:
        whole = here.transmitter.claims(iss_sub("alice")) | claims
        return here.transmitter.token({name: value for name, value in whole.items() if value is not None})

    return made


def headed(**header: object) -> Callable[[World], str]:
    """Return what makes a token with other parameters in its header."""
    return lambda here: here.transmitter.token(here.transmitter.claims(iss_sub("alice")), **header)


@pytest.mark.parametrize(
    ("forged", "word"),
    [
        pytest.param(unsigned, "invalid_request", id="alg none"),
        pytest.param(with_shared_secret, "invalid_request", id="alg HS256"),
        pytest.param(of_another_key, "authentication_failed", id="another key"),
        pytest.param(with_changed_claims, "authentication_failed", id="other claims"),
        pytest.param(headed(kid="second"), "invalid_key", id="unknown key"),
        pytest.param(headed(typ="JWT"), "invalid_request", id="another kind"),
        pytest.param(headed(typ="at+jwt"), "invalid_request", id="an access token"),
        pytest.param(headed(jku="https://evil.example"), "invalid_request", id="keys from elsewhere"),
        pytest.param(headed(crit=["x"]), "invalid_request", id="crit"),
        pytest.param(changed(iss="https://evil.example"), "invalid_issuer", id="another issuer"),
        pytest.param(changed(aud="https://other.example"), "invalid_audience", id="another audience"),
        pytest.param(changed(aud=None), "invalid_audience", id="no audience"),
        pytest.param(changed(exp=4102444800), "invalid_request", id="exp, as in an ID token"),
        pytest.param(changed(sub="alice"), "invalid_request", id="sub, as in an access token"),
        pytest.param(changed(jti=None), "invalid_request", id="no jti"),
        pytest.param(changed(iat=None), "invalid_request", id="no iat"),
        pytest.param(changed(iat=4102444800), "invalid_request", id="from the future"),
        pytest.param(changed(iat=1), "invalid_request", id="from long ago"),
        pytest.param(changed(events={}), "invalid_request", id="no event"),
        pytest.param(changed(events={DISABLED: "x"}), "invalid_request", id="an event that is no object"),
        pytest.param(changed(events={CREDENTIAL: {}}), "invalid_request", id="a change of nothing"),
        pytest.param(changed(sub_id=None), "invalid_request", id="nobody"),
        pytest.param(changed(sub_id={"format": "iss_sub", "iss": "x"}), "invalid_request", id="half a subject"),
        pytest.param(lambda _: "no token", "invalid_request", id="no token"),
    ],
)
def test_a_forged_token_is_refused(here: World, forged: Callable[[World], str], word: str) -> None:
    """With 400 and the word of RFC 8935; nothing is kept, and nothing ends."""
    session_id = here.session()

    status, headers, problem = here.push(forged(here))

    here.applier.run()
    assert (400, word, "en") == (status, problem["err"], headers["content-language"])
    assert ((), False) == (here.store.signals(limit=10), here.ended(session_id))


def test_a_token_counts_once(here: World) -> None:
    """It is answered like the first time, as the RFC wants; a session that was opened since lives on."""
    token = here.transmitter.about("alice")
    here.sent(token)
    later = here.session()

    again = here.sent(token)

    assert (False, 1) == (here.ended(later), len(here.store.signals(limit=10)))
    assert State.APPLIED == again.state


def test_a_key_that_is_new_is_looked_up(here: World) -> None:
    """A transmitter that has just changed its key loses no signal."""
    following = Transmitter(here.clock, kid="second")
    (here.folder / "idp.jwks").write_bytes(following.jwks())

    assert 202 == here.push(following.about("alice"))[0]
    assert "invalid_key" == here.push(here.transmitter.about("bob"))[2]["err"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"path": "/signals/other"}, 404),
        ({"path": "/signals/"}, 404),
        ({"method": "GET"}, 405),
        ({"content_type": "application/json"}, 415),
        ({"content_encoding": "gzip"}, 415),
        ({"content_length": "999999"}, 413),
    ],
)
def test_what_is_no_push_is_refused(here: World, request_: dict[str, str], status: int) -> None:
    """Before anything of its body counts."""
    assert status == push(here.receiver, here.transmitter.about("alice").encode(), **request_)[0]


def test_a_big_body_is_not_read(here: World) -> None:
    """Also one that does not say how big it is."""
    assert 413 == here.push(b"a" * 20_000, content_length="1")[0]


def test_a_slow_body_is_given_up(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly its bytes come, nobody keeps a place for long."""
    monkeypatch.setattr("pdp.serving.web._BODY_SECONDS", 0.01)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0.005)
        return {"type": "http.request", "body": b"a", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    rows = {b"content-type": b"application/secevent+jwt"}
    scope = {"type": "http", "method": "POST", "path": "/signals/idp", "headers": list(rows.items())}
    asyncio.run(here.receiver(scope, receive, send))

    assert 408 == sent[0]["status"]


def test_a_flood_is_turned_away_before_signatures_are_verified(site: Site, tmp_path: Path) -> None:
    """Beyond the rate even a good token has to come again, and later it is taken."""
    seconds = [0.0]
    with world(*site, tmp_path, monotonic=lambda: seconds[0]) as here:
        flood = [here.push("forged")[0] for _ in range(120)]
        good = here.transmitter.about("alice")
        turned_away = here.push(good)
        seconds[0] += 10

        taken = here.push(good)

    assert ([400] * 100 + [429] * 20) == flood
    assert (429, "5", 202) == (turned_away[0], turned_away[1]["retry-after"], taken[0])


def test_strangers_take_nothing_of_the_rate_where_the_transmitter_has_a_token(site: Site, tmp_path: Path) -> None:
    """Who does not send it is refused before, however often."""
    path = tmp_path / "bearer"
    path.write_text("a-token-of-the-transmitter\n")
    path.chmod(0o600)
    with world(*site, tmp_path, settings=SETTINGS.replace("ES256]", "ES256]\n    authorization_file: bearer")) as here:
        flood = {here.push("forged", authorization="Bearer guess")[0] for _ in range(150)}
        none = here.push(here.transmitter.about("alice"))
        good = here.push(here.transmitter.about("alice"), authorization="Bearer a-token-of-the-transmitter")

    assert ({401}, 401, 202) == (flood, none[0], good[0])
    assert "authentication_failed" == none[2]["err"]


def test_the_audience_may_be_one_of_several(here: World) -> None:
    """As RFC 8417 has it."""
    token = here.transmitter.token(here.transmitter.claims(iss_sub("alice")) | {"aud": ["https://x.example", AUDIENCE]})

    assert 202 == here.push(token)[0]


def test_without_keys_a_transmitter_is_asked_to_come_again(here: World) -> None:
    """Keys that nobody has confirmed for a day may have been withdrawn."""
    token = here.transmitter.about("alice")
    here.clock.advance(90_000)

    status, headers, _ = here.push(token)

    assert (503, "30") == (status, headers["retry-after"])


def test_no_token_is_kept(here: World) -> None:
    """Neither in the file of signals nor in what is told of them."""
    token = here.transmitter.about("alice")
    signal = here.sent(token)

    held = b"".join(path.read_bytes() for path in here.folder.glob("signals.sqlite*"))
    assert signal.token_id.encode() in held
    assert [] == [part for part in token.split(".") if part.encode() in held or part in repr(here.events)]
