"""Log-ins in memory: they end by themselves, are bounded, and one person's choices stay theirs."""

from __future__ import annotations

import pytest

from pdp.console.drafts import Draft
from pdp.console.logins import Credential, Logins, PersonToken, Recent
from pdp.testing.clock import FakeClock
from pdp.v1.caller_pb2 import Caller


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands still."""
    return FakeClock()


@pytest.fixture
def logins(clock: FakeClock) -> Logins:
    """Return log-ins of ten minutes idle, an hour at most, and three of them."""
    return Logins(clock, idle_seconds=600, longest_seconds=3600, most=3)


def begin(logins: Logins, subject: str = "ann") -> str:
    """Begin the log-in of a person."""
    return logins.begin(Caller(caller_id=subject), Credential(subject=subject))


def test_an_idle_log_in_ends(logins: Logins, clock: FakeClock) -> None:
    """Also when its pages have looked for changes meanwhile: that is nobody's doing."""
    secret = begin(logins)
    clock.advance(599)
    assert logins.find(secret, used=False)
    clock.advance(1)

    assert logins.find(secret, used=True) is None


def test_a_log_in_ends_however_much_it_is_used(logins: Logins, clock: FakeClock) -> None:
    """It has a fixed end."""
    secret = begin(logins)
    for _ in range(11):
        clock.advance(300)
        assert logins.find(secret, used=True)
    clock.advance(300)

    assert logins.find(secret, used=True) is None


def test_the_log_in_that_was_idle_longest_makes_room(logins: Logins) -> None:
    """There are at most so many."""
    first, second = begin(logins), begin(logins)
    begin(logins)
    logins.find(first, used=True)
    begin(logins)

    assert 3 == len(logins)
    assert logins.find(second, used=True) is None
    assert logins.find(first, used=True)


def test_one_person_ends_no_log_in_of_others(clock: FakeClock) -> None:
    """However often they log in: of theirs, the one that was idle longest makes room."""
    logins = Logins(clock, idle_seconds=600, longest_seconds=3600, most=4, each=2)
    other, first, second = begin(logins, "bob"), begin(logins), begin(logins)
    logins.find(first, used=True)
    begin(logins)

    assert 3 == len(logins)
    assert logins.find(second, used=True) is None
    assert logins.find(other, used=True)
    assert logins.find(first, used=True)


def test_a_new_log_in_of_the_same_person_keeps_what_they_chose(logins: Logins) -> None:
    """So a detour to the provider costs nothing; another person at the same browser gets none of it."""
    earlier = logins.find(begin(logins), used=True)
    assert earlier
    earlier.drafts.keep("x", Draft(tools=("crm/find",)))
    same = logins.find(logins.begin(Caller(), Credential(subject="ann"), earlier), used=True)
    other = logins.find(logins.begin(Caller(), Credential(subject="bob"), earlier), used=True)

    assert same
    assert same.drafts.get("x")
    assert same.form_token != earlier.form_token
    assert other
    assert other.drafts.get("x") is None


def test_nothing_is_asked_as_nobody() -> None:
    """Without a person there is no token, and no request that another credential could be used for."""
    person = PersonToken()
    with pytest.raises(LookupError):
        person()
    person.take(Credential(access_token="a.b.c"))  # noqa: S106 - none at all

    assert "a.b.c" == person()


def test_secrets_are_in_no_text(logins: Logins) -> None:
    """What is written of a log-in by mistake holds none."""
    secret = logins.begin(Caller(), Credential(access_token="A" * 9, refresh_token="R" * 9, id_token="I" * 9))
    shown = repr(logins.find(secret, used=True))

    assert not any(one in shown for one in ("A" * 9, "R" * 9, "I" * 9, secret))


def test_the_oldest_of_too_many_values_goes() -> None:
    """Nothing that a person causes grows without end."""
    recent: Recent[int] = Recent(2)
    for number in range(4):
        recent.keep(str(number), number)

    assert [2, 3] == list(recent)
