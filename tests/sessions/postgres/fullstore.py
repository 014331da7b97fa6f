"""A store in which every table has rows, and all that can be read of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from pdp.clock import Deadline
from pdp.model import SessionState
from pdp.sessions import access
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.store import SessionStore
from pdp.sessions.values import Addend, Charge, Cut, Debit, HeldValues, Report, SessionFilter
from pdp.sessions.writes import Write
from pdp.testing.stores.access import at, bound, request
from pdp.testing.stores.keykeeping import make_key
from pdp.testing.stores.samples import (
    insert_family,
    make_bundle,
    make_freeze,
    make_moment,
    make_scope,
    make_session,
    revoked,
    unchanged,
)

SESSION = make_session("scoped", scope=make_scope("git/commit", "git/push"), purpose="naïve “quotes” 🙂")
_NAMES = ("root", "child", "grandchild", "scoped", "gone", "waits", "cut")
_DIGESTS = tuple(number.to_bytes(16) for number in range(4))
_WRITE = Write(key=b"key", digest=b"digest")
_END = Deadline(wall_at=100_000.0, boot_at=100_000.0, boot_id="boot")


def fill(store: SessionStore, history: SessionHistory) -> None:
    """Give an empty store and history, both of which tell, something of every kind."""
    for version, content in (("v1", b"first"), ("v2", b"\0\xff"), ("v3", b"")):
        store.activate_bundle(
            make_bundle(version, number=int(version[1:]), counted=(("git/commit", 0.0),)), content, unchanged
        )
    insert_family(store)
    store.insert(SESSION, wall_at=1000.0)
    store.insert(make_session("gone"), wall_at=1000.0, write=_WRITE)
    store.insert(make_session("waits", state=SessionState.REQUESTED), wall_at=1000.0)
    store.insert(make_session("cut", user="bob"), wall_at=1000.0)
    store.change_tree("ses_gone", revoked, wall_at=1500.25)
    store.cut(Cut(tenant="default", user="bob", agent="", at=1600.0, by="lead", reason="left"))
    store.freeze(make_freeze("acme", confirmed_at=2000.5, confirmed_by="ann"))
    _fill(history)


def _fill(history: SessionHistory) -> None:
    history.keep_report(Report(decision_id="dec_1", digest=b"1\0", reported_at=1000.0))
    debit = Debit(session_id=SESSION.id, budget="max_calls", amount=2, most=9, window=0, ends_at=5000.0)
    addend = Addend(SESSION.id, "git/commit", 5000.0)
    history.charge(Charge(debits=(debit,), retry_digest=b"retry", now=make_moment(1000.0), addends=(addend,)))
    history.values().keep(
        HeldValues(tree_id=SESSION.id, issued=_DIGESTS[:1], clean=_DIGESTS[1:2], tainted=_DIGESTS[2:])
    )
    history.call_token_keys().publish(make_key("a"))
    history.call_token_keys().publish(make_key("b"))
    history.call_token_keys().withdraw("b", wall_at=1000.0)
    history.access().ask(request(), b'{"to":"bob"}', at(1000.0))
    history.access().ask(request("2", bound(b"other")), b"{}", at(1000.0))
    history.access().answer("acc_2", partial(access.approve, now=at(1000.0), by="ann", session_end=_END), write=_WRITE)
    assert history.access().use(bound(b"other"), b"retried", at(1001.0), "dec_2")


def read(store: SessionStore, history: SessionHistory) -> dict[str, Any]:
    """Return all that the methods of a store and a history tell."""
    asked = history.access()
    return {
        "high water": store.high_water_at(),
        "bundles": (store.active_bundle(), store.kept_bundles(), store.bundle_past("v1")),
        "contents": [store.bundle_content(f"v{number}") for number in range(1, 4)],
        "views": [store.view(make_session(name).handle_digest) for name in _NAMES],
        "sessions": store.select(SessionFilter(), limit=99),
        "states": store.count_by_state(),
        "freezes": store.freezes(),
        "written": store.written(_WRITE, wall_at=1001.0),
        "revision": store.head().revision,
        "told": (store.untold(limit=99), asked.untold(limit=99)),
        "key": history.key(),
        "used": history.used(SESSION.id),
        "counts": history.counts([SESSION.id], ["git/commit"]),
        "values": history.values().classes(SESSION.id, _DIGESTS),
        "keys": (history.call_token_keys().get("a"), history.call_token_keys().get("b")),
        "asked": (asked.select(access.AccessFilter(), limit=9), asked.arguments("acc_1", at(1001.0)), asked.revision()),
        "answered": asked.written(_WRITE, wall_at=1001.0),
        "retried": asked.usable(bound(b"other"), b"retried", at(1002.0)),
    }


def go_on(store: SessionStore, history: SessionHistory) -> None:
    """Write what must follow on what is there."""
    store.update([replace(SESSION, epoch=2, reason="goes on")], wall_at=3000.0)
    history.values().keep(HeldValues(tree_id="ses_new", issued=(), clean=_DIGESTS[:1], tainted=()))
    debit = Debit(session_id=SESSION.id, budget="max_calls", amount=8, most=9, window=0, ends_at=5000.0)
    assert history.charge(Charge(debits=(debit,), retry_digest=b"", now=make_moment(1001.0))).exhausted == debit
