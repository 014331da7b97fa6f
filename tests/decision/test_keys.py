"""The cache's key is complete: every fact that policies can see is in it, or is checked on each call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from pdp.decision.cache import Key, call_key, read_key
from pdp.decision.snapshot import Snapshot
from pdp.errors import ConflictError
from pdp.model import CacheResult, Call, Caller, CallRequest, Decision, Session
from pdp.policy.contents import Contents
from pdp.policy.moments import Moments
from pdp.policy.question import Question
from pdp.sessions.succession import require_successor
from pdp.testing.bundles import bundle_files, tool, with_terms
from tests.machinery.oracle.opened import GATEWAY, Opened, opened

DIRECTLY = "in every key"
READ = "in the key of the call as it came; in the other one what policies can read of it"
EPOCH = "in the key by the session's epoch, which every change of the session moves on"
VERSION = "in the key by the bundle's version, the digest of all its files"
LIVE = "checked by the gate, or before it, on each call"
FIXED = "the same for as long as calls pass the gate"
UNSEEN = "neither policies nor the gate see it"

CALL = {
    "session_handle": "in the key as the id of the session that was found by it",
    "server": DIRECTLY,
    "tool": DIRECTLY,
    "arguments_json": READ,
    "facts_json": READ,
    "definition_digest": LIVE,
}
CALLER = {
    "authenticated_at": UNSEEN,
    "id": READ,
    "tenant": LIVE,
    "kind": UNSEEN,
    "roles": UNSEEN,
    "bounds": LIVE,
    "user_groups": UNSEEN,
}
# A session's facts: EPOCH, because policies or the ends of entries depend on them; LIVE also where the gate looks.
SESSION = {
    "id": DIRECTLY,
    "epoch": DIRECTLY,
    "ancestor_ids": DIRECTLY,
    "handle_digest": LIVE,
    "state": LIVE,
    "deadline": LIVE,
    "scope": LIVE,
    "user": EPOCH,
    "agent": EPOCH,
    "purpose": EPOCH,
    "tenant": EPOCH,
    "environment": EPOCH,
    "opened_by": EPOCH,
    "grants": EPOCH,
    "labels": EPOCH,
    "widening_labels": LIVE,
    "entities_json": EPOCH,
    "user_attributes_json": EPOCH,
    "user_groups": EPOCH,
    "terms_json": EPOCH,
    "sealed_key": "with the key, values are found in results; what they say of a call is in the key, see CONTEXT",
    "label_origins": UNSEEN,
    "tool_patterns": UNSEEN,
    "duration": UNSEEN,
    "requested_at": UNSEEN,
    "parent_id": FIXED,
    "may_delegate": UNSEEN,
    "approved_at": UNSEEN,
    "approved_by": FIXED,
    "ended_at": UNSEEN,
    "ended_by": UNSEEN,
    "reason": UNSEEN,
}
CONTENTS = {
    "policies": VERSION,
    "schema": VERSION,
    "catalogue": VERSION,
    "directory": VERSION,
    "caller_facts": VERSION,
    "groups": VERSION,
    "name": UNSEEN,
    "label": UNSEEN,
    # What a session has of them is in its epoch; which of them widen, the gate asks.
    "labels": LIVE,
    "obligations": VERSION,
    "known": VERSION,
    "session_seconds": UNSEEN,
    "request_seconds": UNSEEN,
}
# What a bundle makes of its contents.
BUNDLE = {
    **CONTENTS,
    "grants": VERSION,
    "provenances": "by the version of the bundle and the session; what they find in a call is in the key, see CONTEXT",
    "widening": LIVE,
    "added_labels": LIVE,
    "takes_values": UNSEEN,
    "takes_reports": UNSEEN,
    "reported_actions": LIVE,
    "budget_slices": VERSION,
    "counted": VERSION,
    "counted_as": VERSION,
    "target_kinds": UNSEEN,
    "declared_obligations": UNSEEN,
    "version": DIRECTLY,
    "_schema": VERSION,
    "_author_schema": VERSION,
    "_session_schema": VERSION,
    "_by_action": VERSION,
    "_within": VERSION,
    "_slices": VERSION,
    "_plans": VERSION,
    "_kept": VERSION,
    "_memory": "entities by the bundle itself and all that they are made of",
    "terms": VERSION,
    "has_budgets": LIVE,
    "_declared_terms": VERSION,
    "_mark": UNSEEN,
    "_origin": UNSEEN,
    "_stack": UNSEEN,
    "_lock": UNSEEN,
}
del BUNDLE["schema"], BUNDLE["obligations"], BUNDLE["known"]
QUESTION = {
    "user": "a fact of the session",
    "agent": "a fact of the session",
    "session_id": "a fact of the session",
    "resource": "a function of server, tool, arguments and bundle; by itself where policies can read it",
    "context": "see CONTEXT",
}
CONTEXT = {
    "agent": "a fact of the session",
    "session": "a fact of the session",
    "caller": "the caller's id, and the facts of the call; where policies can read it",
    "now": "where it stands among what policies compare it with; a policy that reads it otherwise goes past the cache",
    "opaque": "a function of server, tool, arguments and bundle; by itself where policies can read it",
    "input": "a function of server, tool, arguments and bundle; each argument by itself where policies can read it",
    "targets": "by itself, for each session of the chain, where policies can see it; then no key holds only the call",
    "counts": "past the cache, which remembers nothing of a call whose policies can see them",
    "done": "past the cache, as counts",
}
SNAPSHOT = {
    "activation": "what it says of counts, past the cache",
    "bundle": VERSION,
    "chain": "each session by id and epoch",
    "freeze": LIVE,
    "now": LIVE,
    "wall_at": "see CONTEXT, now",
}


POLICIES = """
@id("shop/anything") permit (principal, action, resource);
@id("shop/user") forbid (principal == User::"bob", action, resource);
@id("shop/agent") forbid (principal, action, resource) when { context.agent == Agent::"other" };
@id("shop/group") forbid (principal in UserGroup::"barred", action, resource);
@id("shop/level") forbid (principal, action, resource) when { principal has level && principal.level == 9 };
@id("shop/purpose") forbid (principal, action, resource is Thing) when { context.session.purpose == "bad" };
@id("shop/environment") forbid (principal, action, resource is Thing) when { context.session.environment == "bad" };
@id("shop/opened-by") forbid (principal, action, resource is Thing) when { context.session.opened_by == "bad" };
@id("shop/label") forbid (principal, action, resource is Thing) when { context.session.labels.contains("bad") };
@id("shop/grant") forbid (principal, action, resource is Thing) when { context.session in Grant::"bad" };
@id("shop/caller") forbid (principal, action, resource is Thing) when { context.caller.id == "bad" };
@id("shop/shift") forbid (principal, action, resource is Thing)
when { context.caller has shift && context.caller.shift == 9 };
@id("shop/tag") forbid (principal, action, resource is Thing)
when { context.input has tags && context.input.tags.contains("a") };
@id("shop/term") forbid (principal, action, resource is Thing)
when { context.session.terms has ticket && context.session.terms.ticket == "bad" };
@id("shop/risk") forbid (principal, action in Action::"destructive", resource);
@id("shop/often") forbid (principal, action == Action::"shop/drop", resource)
when { context.counts["shop/drop"] > 3 && context.done.contains("shop/drop") };
@id("shop/owner") forbid (principal, action, resource is Thing) when { resource has secret && resource.secret };
"""
DIRECTORY = """
users: {alice: {}, bob: {}}
user_groups: {barred: {}}
agents: {coder: {ceiling: [shop/*, a/*]}, other: {ceiling: [shop/*]}}
"""
PROPERTIES = {
    "item": {"type": "string"},
    "count": {"type": "integer"},
    "tags": {"type": "array", "items": {"type": "string"}},
}
FILES = bundle_files(
    policies={"shop": POLICIES},
    tools={"shop": [tool("buy", PROPERTIES, ["item"]), tool("drop")], "a": [tool("b/c")]},
    overlays={"shop": "tools: {buy: {risk: mutating, resource: {type: Thing, id: '{item}'}}}", "a": "risk: read_only"},
    directory=DIRECTORY,
    manifest="caller_facts: {properties: {shift: {type: integer}}}\n",
    labels=("bad",),
    schema=with_terms("ticket?: String"),
)


@dataclass(frozen=True)
class World:
    """A PDP with one active session and a call that is allowed and remembered."""

    pdp: Opened
    call: Call
    session_id: str

    def ask(self, call: Call | None = None, caller: Caller = GATEWAY) -> Decision:
        """Ask about a call, by default the one that is remembered."""
        return self.pdp.embedded.authorizer.authorize(CallRequest(call=call or self.call), caller)

    def session(self) -> Session:
        """Return the session as it is stored."""
        return self.pdp.stored(self.session_id)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Yield a world whose call has been allowed, and is answered from the cache from now on."""
    with opened(tmp_path, FILES) as pdp:
        session_id, handle = pdp.session("shop/*", "a/*")
        call = Call(session_handle=handle, server="shop", tool="buy", arguments_json=b'{"item":"x"}')
        world = World(pdp, call, session_id)
        assert [CacheResult.MISS, CacheResult.HIT] == [world.ask().cache_result for _ in range(2)]
        yield world


# Every field is accounted for.


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        (Call, CALL),
        (Caller, CALLER),
        (Session, SESSION),
        (Contents, CONTENTS),
        (Question, QUESTION),
        (Snapshot, SNAPSHOT),
    ],
)
def test_every_field_is_accounted_for(kind: type[Any], table: dict[str, str]) -> None:
    """A new field is in no table yet: say how the key knows it, or where it is checked on each call."""
    assert sorted(field.name for field in fields(kind)) == sorted(table)


def test_everything_that_a_bundle_holds_is_accounted_for(world: World) -> None:
    """A bundle that holds more must have it from its files, whose digest is its version."""
    assert sorted(vars(world.pdp.embedded.keeper.current())) == sorted(BUNDLE)


def test_every_fact_of_the_context_is_accounted_for(world: World) -> None:
    """The context that policies see holds what the table says."""
    text = world.pdp.embedded.keeper.current().schema_text()
    declared = text[text.index('action "shop/buy"') :].split("context: {")[1].split("input:")[0]
    names = [part.split(":")[0].strip() for part in declared.split(",") if ":" in part]

    assert sorted([*names, "input"]) == sorted(CONTEXT)


# Each keyed field, changed alone.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("server", "shop2"),
        ("tool", "buy2"),
        ("arguments_json", b'{"item":"y"}'),
        ("facts_json", b'{"shift":1}'),
    ],
)
def test_a_changed_call_has_another_key(world: World, field: str, value: Any) -> None:
    """Each field of the call that is in the key makes another key."""
    chain = (world.session(),)

    changed = replace(world.call, **{field: value})

    assert call_key("v", chain, world.call, GATEWAY, ()) != call_key("v", chain, changed, GATEWAY, ())


def test_the_tables_name_all_that_is_changed_here() -> None:
    """The fields that the test above changes are the ones that are in the key directly."""
    assert {"server", "tool", "arguments_json", "facts_json"} == {
        name for name, how in CALL.items() if how in {DIRECTLY, READ}
    }


@pytest.mark.parametrize(("field", "value"), [("id", "ses_b"), ("epoch", 99)])
def test_a_changed_session_has_another_key(world: World, field: str, value: Any) -> None:
    """Id and epoch of the session and of each of its ancestors make another key."""
    session, parent = world.session(), replace(world.session(), id="ses_parent")
    other: dict[str, Any] = {field: value}
    keys = {
        call_key("v", chain, world.call, GATEWAY, ())
        for chain in (
            (session,),
            (replace(session, **other),),
            (session, parent),
            (parent, session),
            (session, replace(parent, **other)),
            (session, parent, replace(parent, id="ses_grandparent")),
        )
    }

    assert 6 == len(keys)


def test_another_caller_and_another_bundle_have_another_key(world: World) -> None:
    """The caller's id and the bundle's version make another key."""
    chain = (world.session(),)
    callers = (GATEWAY, replace(GATEWAY, id="gateway-2"))

    assert 4 == len({call_key(version, chain, world.call, who, ()) for version in ("v", "w") for who in callers})


def test_each_part_of_a_key_by_what_is_read_makes_another(world: World) -> None:
    """Bundle, session, each ancestor, server, tool, what is read and the place in time; and the kind of the key."""
    session, later = world.session(), replace(world.session(), epoch=99)
    call, sold = world.call, replace(world.call, tool="sell")
    bare = replace(call, arguments_json=b"", facts_json=b"")
    keys = {
        read_key("v", (session,), call, b"[]", ()),
        read_key("w", (session,), call, b"[]", ()),
        read_key("v", (later,), call, b"[]", ()),
        read_key("v", (session, later), call, b"[]", ()),
        read_key("v", (session,), sold, b"[]", ()),
        read_key("v", (session,), replace(call, server="a"), b"[]", ()),
        read_key("v", (session,), call, b"[0]", ()),
        read_key("v", (session,), call, b"[]", (0,)),
        call_key("v", (session,), replace(bare, arguments_json=b"[]"), replace(GATEWAY, id=""), ()),
    }

    assert 9 == len(keys)


@pytest.mark.parametrize("name", [name for name in SESSION if name != "epoch"])
def test_no_session_changes_within_an_epoch(world: World, name: str) -> None:
    """Whatever is changed of a session: no store writes it under the epoch that it had."""
    session = world.session()
    other: dict[str, Any] = {name: object()}
    changed = replace(session, **other)

    with pytest.raises(ConflictError):
        require_successor(session, changed)
    with pytest.raises(ConflictError):
        world.pdp.embedded.sessions.update([replace(changed, id=session.id)], wall_at=0.0)


@pytest.mark.parametrize(
    ("changes", "policy"),
    [
        ({"user": "bob"}, "shop/user"),
        ({"agent": "other"}, "shop/agent"),
        ({"purpose": "bad"}, "shop/purpose"),
        ({"environment": "bad"}, "shop/environment"),
        ({"opened_by": "bad"}, "shop/opened-by"),
        ({"labels": ("bad",)}, "shop/label"),
        ({"grants": ("bad",)}, "shop/grant"),
        ({"user_attributes_json": '{"level": 9}'}, "shop/level"),
        ({"user_groups": ("barred",)}, "shop/group"),
        ({"terms_json": '{"ticket":"bad"}'}, "shop/term"),
        ({"entities_json": "barred"}, "shop/group"),
        ({"tenant": "other"}, ""),
    ],
)
def test_a_changed_fact_of_the_session_is_seen_at_once(world: World, changes: dict[str, Any], policy: str) -> None:
    """Each fact of a session that policies see, changed alone under a hot key, changes the answer."""
    session = world.session()
    successor = replace(session, **changes, epoch=session.epoch + 1)
    if {"user", "agent"} & changes.keys():
        captured = world.pdp.embedded.keeper.current().directory.capture(successor.user, successor.agent)
        successor = replace(successor, entities_json=captured or "")
    if "entities_json" in changes:
        entities = json.loads(session.entities_json)
        for one in entities:
            one["parents"] += [{"type": "UserGroup", "id": "barred"}] if one["uid"]["type"] == "User" else []
        group = {"uid": {"type": "UserGroup", "id": "barred"}, "attrs": {}, "parents": []}
        successor = replace(successor, entities_json=json.dumps([*entities, group]))
    world.pdp.embedded.sessions.update([successor], wall_at=0.0)

    ruling = world.ask().ruling

    assert not ruling.allowed
    assert ruling.policies == ((policy,) if policy else ())


def test_every_fact_of_the_session_is_changed_above() -> None:
    """The test above changes every field that the epoch stands for."""
    (mark,) = test_a_changed_fact_of_the_session_is_seen_at_once.pytestmark
    changed = {name for changes, _ in mark.args[1] for name in changes}

    assert changed == {name for name, how in SESSION.items() if how == EPOCH}


@pytest.mark.parametrize(
    ("file", "before", "after", "basis"),
    [
        ("shop.cedar", b'== "bad"', b'!= "bad"', "forbid"),
        ("schema.cedarschema", b"level?: Long", b"level?: Long, more?: Long", "permit"),
        ("tools/shop.json", b'"description": "buy"', b'"description": "buy!"', "tool_changed"),
        ("tools/shop.yaml", b"mutating", b"destructive", "forbid"),
        ("directory.yaml", b"alice: {}", b"alice: {groups: [barred]}", "forbid"),
        (
            "directory.yaml",
            b"users:",
            b"entities: [{type: Thing, id: x, attributes: {secret: true}}]\nusers:",
            "forbid",
        ),
        ("directory.yaml", b"ceiling: [shop/*, a/*]", b"ceiling: [a/*]", "out_of_scope"),
        ("bundle.yaml", b"{properties", b"{required: [], properties", "permit"),
    ],
)
def test_a_changed_bundle_is_seen_at_once(world: World, file: str, before: bytes, after: bytes, basis: str) -> None:
    """Whatever changes in any file of the bundle: nothing that was remembered before answers any more."""
    changed = FILES[file].replace(before, after)
    world.pdp.reload({file: changed})
    decision = world.ask()

    assert changed != FILES[file]

    assert (basis, False) == (decision.ruling.basis.value, decision.cache_result is CacheResult.HIT)


@pytest.mark.parametrize(
    ("call", "caller", "basis"),
    [
        ({"definition_digest": "sha256:" + "0" * 64}, {}, "tool_changed"),
        ({"facts_json": b'{"shift":9}'}, {}, "forbid"),
        ({"arguments_json": b'{"item":"x","tags":["a"]}'}, {}, "forbid"),
        ({"session_handle": "pdps_" + "A" * 43}, {}, "session_not_found"),
        ({"server": "a"}, {}, "unknown_tool"),
        ({"tool": "sell"}, {}, "unknown_tool"),
        ({}, {"tenant": "other"}, "session_not_found"),
        ({}, {"id": "bad"}, "forbid"),
        ({}, {"kind": "certificate", "roles": frozenset()}, "permit"),
    ],
)
def test_a_changed_call_or_caller_is_seen_at_once(
    world: World, call: dict[str, Any], caller: dict[str, Any], basis: str
) -> None:
    """Each field of call and caller, changed alone beside a hot key, gets its own answer."""
    assert basis == world.ask(replace(world.call, **call), replace(GATEWAY, **caller)).ruling.basis.value
    assert "permit" == world.ask().ruling.basis.value


# Different inputs, different keys.


def parts_of(key: Key) -> Iterator[object]:
    """Yield what a key is made of, tuples opened."""
    for part in key:
        if type(part) is tuple:
            yield from parts_of(part)
        else:
            yield part


def test_a_key_is_made_of_plain_parts(world: World) -> None:
    """Only texts, bytes, epochs and places: nothing that Python takes for equal though it is not."""
    chain = (world.session(), replace(world.session(), id="ses_parent"))
    place = Moments([(0, True, 5), (0, False, 5)]).place(7)

    for key in (call_key("v", chain, world.call, GATEWAY, place), read_key("v", chain, world.call, b"[]", place)):
        assert {str, bytes, int} == {type(part) for part in parts_of(key)}


# Longer than what stands in a key as it is.
LONG = b"x" * 5000
COLLIDING = (
    Call(session_handle="h", server="a", tool="b/c"),
    Call(session_handle="h", server="a/b", tool="c"),
    Call(session_handle="h", server="a", tool="b", arguments_json=b"c"),
    Call(session_handle="h", server="a", tool="b", facts_json=b"c"),
    *(
        Call(session_handle="h", server="a", tool="b", arguments_json=text)
        for text in (LONG, LONG[:-1] + b"y", hashlib.sha256(LONG).digest(), hashlib.sha256(LONG).hexdigest().encode())
    ),
    *(
        Call(session_handle="h", server="a", tool="b", arguments_json=b'{"x":' + text + b"}")
        for text in (
            *(b'["a,b"]', b'["a","b"]', b'[["a"],"b"]', b'[["a","b"]]', b'["a",["b"]]', b'"[\\"a\\"]"'),
            *(b"1", b"true", b'"1"', b"1.0", b"1e0", b"null", b'"null"', b"0", b"false", b"-0", b'""', b"[]", b"{}"),
        )
    ),
)


def test_what_differs_has_another_key(world: World) -> None:
    """Nested lists, commas within strings, 1, true, "1" and 1.0, and a slash on either side: all differ."""
    keys = {call_key("v", (world.session(),), call, GATEWAY, ()) for call in COLLIDING}

    assert len(COLLIDING) == len(keys)


@pytest.mark.parametrize("order", list(permutations((b'["a,b"]', b'["a","b"]', b'["b"]'))))
def test_a_comma_in_a_string_is_no_second_string(world: World, order: tuple[bytes, ...]) -> None:
    """`["a,b"]` and `["a","b"]` get their own answers, whichever is remembered first."""
    expected = {b'["a,b"]': "permit", b'["a","b"]': "forbid", b'["b"]': "permit"}
    calls = {tags: replace(world.call, arguments_json=b'{"item":"x","tags":' + tags + b"}") for tags in order}

    assert expected == {tags: world.ask(calls[tags]).ruling.basis.value for tags in order}
    assert expected == {tags: world.ask(calls[tags]).ruling.basis.value for tags in order}


@pytest.mark.parametrize("order", list(permutations((b"1", b"true", b'"1"', b"1.0"))))
def test_one_is_not_true_and_not_a_string(world: World, order: tuple[bytes, ...]) -> None:
    """1, true, "1" and 1.0 get their own answers for an integer, whichever comes first."""
    expected = {b"1": "permit", b"true": "invalid_arguments", b'"1"': "invalid_arguments", b"1.0": "invalid_arguments"}
    calls = {count: replace(world.call, arguments_json=b'{"item":"x","count":' + count + b"}") for count in order}

    assert expected == {count: world.ask(calls[count]).ruling.basis.value for count in order}
    assert expected == {count: world.ask(calls[count]).ruling.basis.value for count in order}


def test_a_slash_belongs_to_one_side(world: World) -> None:
    """Server `a` with tool `b/c` is known; server `a/b` with tool `c` is not, though their actions read alike."""
    known = replace(world.call, server="a", tool="b/c", arguments_json=b"")
    unknown = replace(known, server="a/b", tool="c")

    assert ["permit", "unknown_tool", "permit", "unknown_tool"] == [
        world.ask(call).ruling.basis.value for call in (known, unknown, known, unknown)
    ]
