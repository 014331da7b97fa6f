"""Sessions whose terms do not fit a bundle: an activation says how many there are, and so does a look before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdp.bundles import unfit
from pdp.errors import StoreUnavailableError
from pdp.model import Session
from pdp.observer import Event, EventKind
from pdp.policy.bundle import Bundle
from pdp.registry.words import Selector
from pdp.sessions.memory import MemorySessionStore
from pdp.testing.bundles import SCHEMA, bundle_files, tool, with_terms
from tests.machinery.keeping import Events
from tests.machinery.oracle.opened import APPROVER, Opened, opened

TICKET = b'{"ticket":"T-1"}'


class Sessions(MemorySessionStore):
    """A store whose lists can fail."""

    failing = False

    def select(self, *which: Any, **more: Any) -> tuple[Session, ...]:
        """Return a page, or fail."""
        if self.failing:
            raise StoreUnavailableError("the store is silent")
        return super().select(*which, **more)


def bundle_with(terms: str) -> dict[str, bytes]:
    """Return the files of a bundle with some terms of sessions; without any, sessions have none."""
    return bundle_files(
        policies={"files": '@id("files/all") permit (principal, action, resource);'},
        tools={"files": [tool("read")]},
        directory="{users: {alice: {}}, agents: {coder: {ceiling: ['files/*']}}}",
        schema=with_terms(terms) if terms else SCHEMA,
    )


@pytest.fixture
def events() -> Events:
    """Return what observers are told."""
    return Events()


@pytest.fixture
def sessions() -> Sessions:
    """Return the store."""
    return Sessions()


@pytest.fixture
def pdp(tmp_path: Path, events: Events, sessions: Sessions) -> Iterator[Opened]:
    """Return a PDP with a term that sessions can have: two of them do, and one does not."""
    files = bundle_with("ticket?: String")
    with opened(tmp_path / "policies", files, sessions=sessions, observer=events) as one:
        for terms in (TICKET, TICKET, b""):
            one.session("files/*", terms_json=terms)
        yield one


def bundle(pdp: Opened) -> Bundle:
    """Return the running bundle."""
    return pdp.embedded.keeper.current()


def activated(events: Events) -> list[Event]:
    """Return the activations so far."""
    return [one for one in events.events if one.kind == EventKind.BUNDLE_ACTIVATED]


@pytest.mark.parametrize(
    ("terms", "count"),
    [
        ("ticket?: String, more?: Long", 0),
        ("ticket: String", 1),
        ("ticket?: Long", 2),
        ("other?: String", 2),
        ("other: String", 3),
        ("", 2),
    ],
)
def test_an_activation_says_whom_it_denies(pdp: Opened, events: Events, terms: str, count: int) -> None:
    """How many active sessions have terms that do not fit its schema; without any, there is no such fact."""
    pdp.reload(bundle_with(terms))

    assert str(count or "") == activated(events)[-1].facts.get("sessions_unfit", "")
    assert count == pdp.embedded.keeper.unfit_sessions(bundle(pdp))


def test_the_sessions_that_are_counted_are_denied(pdp: Opened) -> None:
    """The count is that of the sessions whose next call is denied because of their terms."""
    handles = [pdp.session("files/*", terms_json=terms)[1] for terms in (TICKET, b"")]
    pdp.reload(bundle_with("ticket?: Long"))

    assert ["policy_error", "permit"] == [pdp.ask(handle, "files/read").ruling.basis.value for handle in handles]
    assert 3 == pdp.embedded.keeper.unfit_sessions(bundle(pdp))


def test_only_active_sessions_count(pdp: Opened) -> None:
    """None that waits for approval, was revoked, or is over by the clock."""
    pdp.request("files/*", terms_json=TICKET)
    revoked, _ = pdp.session("files/*", terms_json=TICKET)
    pdp.embedded.registrar.revoke(Selector(kind="session", value=revoked), reason="r", caller=APPROVER)
    pdp.session("files/*", terms_json=TICKET, duration=60.0)
    pdp.clock.advance(60.0)
    pdp.reload(bundle_with(""))

    assert 2 == pdp.embedded.keeper.unfit_sessions(bundle(pdp))


def test_a_bundle_that_is_kept_is_looked_at_before(pdp: Opened, events: Events) -> None:
    """Nothing is activated by that."""
    first = bundle(pdp).version
    pdp.reload(bundle_with("other?: String"))
    pdp.session("files/*", terms_json=b'{"other":"x"}')
    kept, _ = pdp.embedded.keeper.find(first)
    before = len(activated(events))

    assert (1, 2) == (pdp.embedded.keeper.unfit_sessions(kept), pdp.embedded.keeper.unfit_sessions(bundle(pdp)))
    assert before == len(activated(events))


def test_of_very_many_sessions_the_newest_are_read(pdp: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page by page, up to a bound: an activation does not wait for a million sessions."""
    monkeypatch.setattr(unfit, "_STEP", 2)
    pdp.clock.advance(1.0)
    for terms in (b"", TICKET, TICKET):
        pdp.session("files/*", terms_json=terms)
    pdp.reload(bundle_with(""))

    assert 4 == pdp.embedded.keeper.unfit_sessions(bundle(pdp))

    monkeypatch.setattr(unfit, "MOST_READ", 3)

    assert 2 == pdp.embedded.keeper.unfit_sessions(bundle(pdp))


def test_sessions_that_cannot_be_read_keep_no_bundle_out(pdp: Opened, events: Events, sessions: Sessions) -> None:
    """The bundle becomes active, and nothing is said of them."""
    sessions.failing = True
    pdp.reload(bundle_with(""))
    sessions.failing = False

    assert bundle(pdp).terms is None
    assert "sessions_unfit" not in activated(events)[-1].facts
