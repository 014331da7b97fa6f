"""Where names come from, in the cache and for calls whose policies do not ask: `cases/targets.yaml` has the rules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pdp.decision.cache import DecisionCache, Key, read_key
from pdp.decision.ruling import seen_targets
from pdp.limits import DEFAULT_LIMITS
from pdp.model import CacheResult, Call, CallRequest, Decision, Targets, ValueClass
from pdp.policy.loading import load_bundle
from pdp.policy.provenance import Provenances
from pdp.policy.reading import Reading
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.stores.samples import make_session
from tests.machinery.oracle.opened import GATEWAY, Opened, opened

POLICIES = """
@id("mail/all") permit (principal, action, resource);
@id("mail/unseen") forbid (principal, action == Action::"mail/send", resource)
when { context.targets.provenance.contains("unseen") };
@id("mail/whole") forbid (principal, action == Action::"mail/move", resource)
unless { context has targets };
"""
PROPERTIES = {"to": {"type": "string"}}
FILES = bundle_files(
    policies={"mail": POLICIES},
    tools={"mail": [tool(name, PROPERTIES) for name in ("send", "move", "file")]},
    overlays={"mail": "risk: mutating\ntools: {send: {targets: [to]}, file: {targets: [to]}}"},
    directory="users: {alice: {}}\nagents: {coder: {ceiling: [mail/*]}}",
)


@pytest.fixture
def pdp(tmp_path: Path) -> Iterator[Opened]:
    """Yield a PDP whose policies ask for the targets of one tool."""
    with opened(tmp_path, FILES) as found:
        yield found


def ask(pdp: Opened, handle: str, name: str, to: str) -> Decision:
    """Ask about a call."""
    call = Call(session_handle=handle, server="mail", tool=name, arguments_json=f'{{"to":"{to}"}}'.encode())
    return pdp.embedded.authorizer.authorize(CallRequest(call=call), GATEWAY)


def test_no_key_holds_only_the_call_where_policies_see_targets(pdp: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes can name something else later; other tools have both keys."""
    keys: list[Key] = []
    put = DecisionCache.put

    def noted(cache: DecisionCache, key: Key, *more: Any) -> None:
        keys.append(key)
        put(cache, key, *more)

    monkeypatch.setattr(DecisionCache, "put", noted)
    _, handle = pdp.session("mail/*")

    results = [
        ask(pdp, handle, name, to).cache_result for name in ("send", "move", "file") for to in ("a@x.com", "b@x.com")
    ]

    assert [CacheResult.MISS, CacheResult.HIT] * 3 == results
    # `move` only asks whether there is such an attribute, which is always so.
    assert ["read", "read", "read", "call"] == [key[0] for key in keys]


def test_only_what_is_found_by_the_call_recurs(pdp: Opened) -> None:
    """Its matter and ruling are those of the next equal call; where policies see targets they are always new ones."""
    _, handle = pdp.session("mail/*")

    seen, unseen = ([ask(pdp, handle, name, "a@x.com") for _ in range(3)] for name in ("send", "file"))

    assert [(CacheResult.MISS, False), (CacheResult.HIT, False), (CacheResult.HIT, False)] == [
        (one.cache_result, one.recurs) for one in seen
    ]
    assert [False, True, True] == [one.recurs for one in unseen]
    assert (True, True) == (unseen[1].matter is unseen[2].matter, unseen[1].ruling is unseen[2].ruling)


def test_nothing_is_looked_for_where_no_policy_sees_it(pdp: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets cost only the calls whose policies ask for them."""

    def refuse(*_: Any, **__: Any) -> tuple[Targets, ...]:
        raise AssertionError("looked for")

    _, handle = pdp.session("mail/*")
    monkeypatch.setattr(Provenances, "of", refuse)
    decision = ask(pdp, handle, "file", "a@x.com")

    assert (True, None) == (decision.allowed, decision.ruling.targets)
    with pytest.raises(AssertionError, match="looked for"):
        ask(pdp, handle, "send", "a@x.com")


def test_what_results_held_is_looked_for() -> None:
    """A name that the session does not know comes from where the look-up has found it."""
    bundle = load_bundle(FILES, DEFAULT_LIMITS, compile_here)
    chain, asked = (make_session("own", user="alice"),), bundle.catalogue.tools["mail/send"]

    seen = seen_targets(bundle, chain, asked, lambda names: dict.fromkeys(names, "clean"))

    assert (Targets(("clean",), ()),) == seen({"to": "a@x.com"})


def test_a_ruling_says_where_names_come_from(pdp: Opened) -> None:
    """For the record; a remembered ruling says the same."""
    _, handle = pdp.session("mail/*")

    found = [ask(pdp, handle, "send", "a@x.com") for _ in range(2)]

    assert [(CacheResult.MISS, Targets(("unseen",), ())), (CacheResult.HIT, Targets(("unseen",), ()))] == [
        (one.cache_result, one.ruling.targets) for one in found
    ]


def test_each_session_of_the_chain_is_in_the_key() -> None:
    """Provenance and links of each session make another key, in their order."""
    reading = Reading.of([("a", frozenset({"context.targets"}), ())])
    call = Call(session_handle="h", server="mail", tool="send")
    context = {"input": {}, "opaque": [], "caller": {"id": "g"}}
    named, unseen = Targets(("named",), ()), Targets(("unseen",), ())
    seen: list[tuple[Targets, ...]] = [
        (named,),
        (unseen,),
        (Targets((), ("named",)),),
        (Targets(("named", "unseen"), ()),),
        (named, unseen),
        (unseen, named),
        (named, named),
        *((Targets((word.value,), ()),) for word in ValueClass),
        *((Targets((), (word.value,)),) for word in ValueClass),
    ]
    chain = (make_session("own"),)

    keys = {read_key("v", chain, call, reading.part(("Server", "mail"), context, one), ()) for one in seen}

    assert len(seen) == len(keys)
