"""Signals are carried out within the bounds of their transmitter; a person decides about the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pdp.cli.root import root
from pdp.client import UnavailableError
from pdp.observer import Event, EventKind
from pdp.record.reader import read_records
from pdp.signals.serving import opened_record
from pdp.signals.store import SignalStore
from pdp.signals.words import ForgottenError, Signal, State, Target, TooManyOpenError, What
from tests.signals.world import FOREIGN, SETTINGS, USERS, Site, World, world


class _Away:
    """A server that does not answer, or a fault of our own."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def preview_revocation(self, **_: str) -> Any:
        """Fail."""
        raise self._error

    revoke_sessions = preview_revocation


def _record_use(here: World, session_id: str) -> None:
    """Write the record of a broker in which a session has used the secret of `github-1`."""
    with opened_record(here.folder / "broker-files") as record:
        facts = {"connection": "github-1", "version": "1", "token_id": "t"}
        record.event(Event(kind=EventKind.CALL_TOKEN_USED, at=1e9, session_id=session_id, tenant="acme", facts=facts))
    (here.folder / "broker").symlink_to(here.folder / "broker-files" / "record")


def run(here: World, *words: str) -> tuple[int, str]:
    """Run a command about signals; return its exit code and output."""
    done = CliRunner().invoke(root, ["signals", *words, "--settings", str(here.folder / "signals.yaml")])
    return done.exit_code, done.output


def test_who_names_every_user_at_once_ends_a_few(here: World) -> None:
    """The first three users of ten minutes lose their sessions; the others are held, and in ten minutes it goes on."""
    sessions = {user: here.session(user) for user in USERS}

    states = [here.sent(here.transmitter.about(user)).state for user in USERS]

    assert ["applied"] * 3 + ["held"] * 2 == states
    assert {"alice", "bob", "carol"} == {user for user, id_ in sessions.items() if here.ended(id_)}
    here.clock.advance(601)
    assert State.APPLIED == here.sent(here.transmitter.about("erin")).state


def test_who_has_nothing_to_end_does_not_count(here: World) -> None:
    """A provider tells of everybody, and few of them work here: none is held, also by an id that none here can have."""
    session_id = here.session("alice")

    strangers = [*(f"stranger-{number}" for number in range(5)), "auth0|5f7c", "a" * 255, "alice+x"]
    states = [here.sent(here.transmitter.about(one)).state for one in strangers]

    assert ["applied"] * 8 == states
    assert (State.APPLIED, True) == (here.sent(here.transmitter.about("alice")).state, here.ended(session_id))


def test_a_user_with_too_many_sessions_is_held_whole(here: World) -> None:
    """And a smaller signal that comes after still fits."""
    many, one = [here.session("dora") for _ in range(6)], here.session("erin")

    held, applied = (here.sent(here.transmitter.about(user)) for user in ("dora", "erin"))

    assert (State.HELD, State.APPLIED) == (held.state, applied.state)
    assert ([False] * 6, True) == ([here.ended(id_) for id_ in many], here.ended(one))


def test_a_person_has_a_held_signal_carried_out_or_dismissed(here: World) -> None:
    """By commands, which name them in the record; each signal is answered once."""
    sessions = {user: here.session(user) for user in USERS}
    signals = {user: here.sent(here.transmitter.about(user)) for user in USERS}
    dora, erin = signals["dora"].id, signals["erin"].id

    listed = json.loads(run(here, "list", "--held", "--json")[1])
    applied = run(here, "apply", dora, "--yes")
    dismissed = run(here, "dismiss", erin, "--reason", "a test", "--yes")
    again = run(here, "dismiss", dora, "--reason", "too late", "--yes")
    here.applier.run()

    assert [dora, erin] == [one["signal_id"] for one in listed]
    assert ["user dora of acme"] == listed[0]["targets"]
    assert ((0, 0), 2) == ((applied[0], dismissed[0]), again[0])
    assert (True, False) == (here.ended(sessions["dora"]), here.ended(sessions["erin"]))
    assert (State.APPLIED, State.DISMISSED) == (here.store.signal(dora).state, here.store.signal(erin).state)
    told = [one.record for one in read_records(here.folder / "record") if "signal" in one.record["kind"]]
    assert ["signal.released", "signal.dismissed"] == [one["kind"] for one in told]
    assert all(one["caller_id"].startswith("local:") for one in told)
    assert "a test" == told[1]["facts"]["reason"]


def test_a_preview_ends_nothing(site: Site, tmp_path: Path) -> None:
    """It says what would end."""
    with world(*site, tmp_path, settings=SETTINGS.replace("ES256]", "ES256]\n    preview: true")) as here:
        session_id = here.session("carol")

        signal = here.sent(here.transmitter.about("carol"))

        assert (State.PREVIEWED, False) == (signal.state, here.ended(session_id))
        assert signal.outcomes[-1].endswith("sessions would be revoked")
        assert EventKind.SIGNAL_PREVIEWED == here.events[-1].kind


def test_another_tenant_is_not_reached(site: Site, tmp_path: Path) -> None:
    """Settings that name a tenant which the server does not let the receiver act for end nothing there."""
    with world(*site, tmp_path, settings=SETTINGS.replace("tenant: acme", f"tenant: {FOREIGN}")) as here:
        session_id = here.session("alice", FOREIGN)

        signal = here.sent(here.transmitter.about("alice"))

        assert (State.HELD, False) == (signal.state, here.ended(session_id, FOREIGN))
        assert "refused by the server" in signal.outcomes[-1]


@pytest.mark.parametrize("error", [UnavailableError("UNAVAILABLE: the server is away"), RuntimeError("a fault")])
def test_a_signal_waits_while_the_server_is_away(here: World, error: Exception) -> None:
    """It was accepted, so it is carried out later; until then the receiver says that it is not well."""
    session_id = here.session("bob")
    revoker = here.applier._revoker
    here.applier._revoker = _Away(error)
    waiting = here.sent(here.transmitter.about("bob"))
    before = here.applier.problem
    here.applier._revoker = revoker
    here.applier.run()

    assert (State.WAITING, True) == (waiting.state, bool(before))
    assert (True, "") == (here.ended(session_id), here.applier.problem)


def test_a_connection_ends_the_sessions_that_used_its_secret(site: Site, tmp_path: Path) -> None:
    """By the record of the broker, as `pdp audit revoke-plan --connection` has it."""
    with world(*site, tmp_path, settings=f"broker_record: broker\n{SETTINGS}") as here:
        used, unused = here.session("alice"), here.session("alice")
        _record_use(here, used)

        signal = here.sent(here.transmitter.token(here.transmitter.claims({"format": "opaque", "id": "app-7"})))

        assert (State.APPLIED, True, False) == (signal.state, here.ended(used), here.ended(unused))


def test_a_connection_without_the_record_of_the_broker_is_held(here: World) -> None:
    """Nobody knows which sessions used it, so a person has to look."""
    signal = here.sent(here.transmitter.token(here.transmitter.claims({"format": "opaque", "id": "app-7"})))

    assert (State.HELD, 1) == (signal.state, len(signal.targets))


def kept(name: str, *, at: float, state: State = State.APPLIED) -> Signal:
    """Return a signal."""
    who = (Target(what=What.USER, tenant="acme", id="alice"),)
    return Signal(
        id=f"sig_{name}",
        transmitter="idp",
        token_id=name,
        event="account-disabled",
        issued_at=at,
        received_at=at,
        state=state,
        targets=who,
    )


def test_what_is_forgotten_does_not_count_again(tmp_path: Path) -> None:
    """The memory is bounded; whoever sends a token again that fell out of it is refused."""
    store = SignalStore(tmp_path / "signals.sqlite", most_kept=3)
    for number in range(5):
        store.add(kept(f"n{number}", at=1e9 + number))

    assert ["n2", "n3", "n4"] == [one.token_id for one in store.signals(limit=10)]
    assert not store.add(kept("n4", at=1e9 + 4))
    with pytest.raises(ForgottenError):
        store.add(kept("n1", at=1e9 + 1))
    store.close()


def test_not_more_is_taken_than_people_can_answer(tmp_path: Path) -> None:
    """What is open is never forgotten, so there is a bound; the transmitter keeps the rest."""
    store = SignalStore(tmp_path / "signals.sqlite", most_open=2, most_kept=1)
    for number in range(2):
        store.add(kept(f"n{number}", at=1e9 + number, state=State.HELD))

    with pytest.raises(TooManyOpenError):
        store.add(kept("n2", at=1e9 + 2, state=State.WAITING))
    assert 2 == len(store.signals(limit=10))
    store.close()
