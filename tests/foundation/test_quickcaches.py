"""What was used last is kept up to a weight, and what was dropped is made again without a difference."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import cedarpy
import pytest

from pdp.app.embedded import open_embedded
from pdp.foundation.quickcaches import GenerationCache, SmallCache, WeighedCache
from pdp.model import Call, Caller, CallRequest, Role
from pdp.policy import engine
from pdp.registry.words import SessionRequest
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.inprocess import write_folder


def test_what_is_not_kept_is_none() -> None:
    """A key that nobody put has no value."""
    assert GenerationCache[str, int](8).get("a") is None


def test_as_much_is_kept_as_was_asked_for() -> None:
    """However much is put, what is kept weighs no more than the bound, and the last half of it is there."""
    kept = GenerationCache[int, int](8)
    for number in range(100):
        kept.put(number, number, 1)
        found = [*kept._old, *kept._young]

        assert len(found) <= 8
        assert set(range(max(0, number - 3), number + 1)) <= set(found)


def test_what_is_used_stays() -> None:
    """A value that is looked at between others is never dropped, whatever comes and goes."""
    kept = GenerationCache[str, int](8)
    kept.put("used", 1, 1)
    for number in range(100):
        kept.put(str(number), number, 1)

        assert kept.get("used") == 1


def test_what_is_heavier_than_all_may_be_is_kept() -> None:
    """One slice of a large bundle may be larger than the bound: it is not parsed at each call."""
    kept = GenerationCache[str, int](8)
    kept.put("small", 1, 1)
    kept.put("huge", 2, 1000)

    assert kept.get("huge") == 2


def test_a_value_stays_under_threads() -> None:
    """Threads that put and look at the same keys find each key's own value, and the weight stays true."""
    kept = GenerationCache[int, int](16)

    def work(seed: int) -> list[tuple[int, int]]:
        wrong = []
        for step in range(2000):
            key = (seed * step) % 23
            kept.put(key, key, 1)
            found = kept.get(key)
            wrong += [(key, found)] if found not in (key, None) else []
        return wrong

    with ThreadPoolExecutor(4) as pool:
        assert [one for found in pool.map(work, range(1, 5)) for one in found] == []
    assert kept._weight == len(kept._young)


@pytest.mark.parametrize("most", [1, 6])
def test_answers_are_the_same_when_slices_are_dropped(tmp_path: Path, most: int) -> None:
    """Decisions and listings do not depend on what is kept, and no more policies are parsed than the bound says."""
    tools = [tool(f"t{n}", {"item": {"type": "string"}}, ["item"]) for n in range(6)]
    texts = [
        f'@id("s/{n}") permit (principal, action == Action::"s/t{n}", resource) when {{ context.input.item == "{n}" }};'
        for n in range(6)
    ]
    write_folder(
        tmp_path,
        bundle_files(
            policies={"s": "\n".join(texts)},
            tools={"s": tools},
            overlays={"s": "risk: read_only\n"},
            directory='users: {ada: {}}\nagents: {coder: {ceiling: ["s/*"]}}',
        ),
    )
    with patch.object(engine, "MOST_PARSED", most):
        pdp = open_embedded(tmp_path, compile_files=compile_here)
    pep = Caller(id="gateway", kind="test", roles=frozenset({Role.PEP}))
    approver = Caller(id="approver", kind="test", roles=frozenset({Role.APPROVER}))
    wanted = SessionRequest(user="ada", agent="coder", purpose="look", tool_patterns=("s/*",))
    view, handle = pdp.registrar.request(wanted, pep)
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=approver)

    def allowed(number: int, item: int) -> bool:
        arguments = b'{"item": "%d"}' % item
        call = Call(session_handle=handle, server="s", tool=f"t{number}", arguments_json=arguments)
        return pdp.authorizer.authorize(CallRequest(call=call), pep).allowed

    answers = [[allowed(number, item) for number in range(6)] for item in range(6)]
    visible = {one.visibility.value for one in pdp.authorizer.list_tools(handle, pep).tools}

    assert [[number == item for number in range(6)] for item in range(6)] == answers
    assert visible == {"depends"}
    kept = pdp.keeper.current()._kept.whole
    assert len({*kept._old, *kept._young}) < 6
    pdp.close()


def test_a_listing_parses_the_schema_of_no_action(tmp_path: Path) -> None:
    """The first listing over many tools does without what only calls need: mapped tools and known servers too."""
    text = """
        @id("s/reads") permit (principal, action in Action::"read_only", resource in Server::"s");
        @id("s/own") permit (principal, action == Action::"s/own", resource) when { resource.owner == principal };
        @id("s/never") forbid (principal, action == Action::"s/never", resource in Server::"s");
    """
    tools = [tool(name, {"item": {"type": "string"}}, ["item"]) for name in ("any", "own", "never")]
    write_folder(
        tmp_path,
        bundle_files(
            policies={"s": text.replace("resource.owner ==", "resource has owner && resource.owner ==")},
            tools={"s": tools},
            overlays={"s": "risk: read_only\ntools: {own: {resource: {type: Thing, id: '{item}'}}}\n"},
            directory="""
users: {ada: {}}
agents: {coder: {ceiling: ["s/*"]}}
entities:
- {type: Thing, id: mine, attributes: {owner: {type: User, id: ada}}}
""",
        ),
    )
    pdp = open_embedded(tmp_path)
    gateway = Caller(id="g", kind="token", roles=frozenset({Role.PEP}))
    approver = Caller(id="a", kind="token", roles=frozenset({Role.APPROVER}))
    wanted = SessionRequest(user="ada", agent="coder", purpose="p", tool_patterns=("s/*",))
    view, handle = pdp.registrar.request(wanted, gateway)
    pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=approver)
    parsed = cedarpy.Schema.from_str

    with patch.object(cedarpy.Schema, "from_str", side_effect=parsed) as counted:
        listing = pdp.authorizer.list_tools(handle, gateway)

    assert {"any": "always", "own": "depends", "never": "never"} == {
        one.tool: one.visibility.value for one in listing.tools
    }
    assert counted.call_count == 0


def test_few_begin_anew() -> None:
    """One more than there may be is kept alone, and a look is one into a dictionary."""
    few: SmallCache[int, str] = SmallCache(2)

    assert [few.keep(number, str(number)) for number in (1, 2, 3)] == ["1", "2", "3"]
    assert few == {3: "3"}
    assert SmallCache.get is dict.get


def test_few_and_light_begin_anew() -> None:
    """One more than there may be, or one that is too heavy with the others, is kept alone."""
    few: WeighedCache[int, str] = WeighedCache(2, 10)

    assert [few.keep(number, str(number), weight=3) for number in (1, 2, 3)] == ["1", "2", "3"]
    assert few == {3: "3"}
    few.keep(4, "4", weight=7)
    assert few == {3: "3", 4: "4"}
    few.keep(5, "5", weight=4)
    few.keep(6, "6", weight=7)
    assert few == {6: "6"}
    assert WeighedCache.get is dict.get
