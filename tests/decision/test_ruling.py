"""What the policies are asked, by itself: facts of a call, the question, the chain, and what may be recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from pdp.decision.ruling import (
    ancestor_deny,
    call_facts,
    caller_facts,
    deny,
    judge_chain,
    lifted,
    of_chain,
    of_this_call,
)
from pdp.errors import InvalidArgumentsError, InvalidJSONError, InvalidRequestError
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Ask, Basis, Call, Counted, Obligation, Outcome, Ruling, Session
from pdp.policy.bundle import Bundle
from pdp.policy.loading import load_bundle
from pdp.policy.question import Facts, Question, question_of
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.stores.samples import make_session

FACTS = "caller_facts: {properties: {shift: {type: integer}}, required: [shift]}\n"
PROPERTIES = {"item": {"type": "string"}, "amount": {"type": "number"}, "note": {"type": "string"}, "more": {}}
OVERLAY = """
tools:
  buy: {resource: {type: Thing, id: "{item}"}, log: [item, amount, note, more]}
  sell: {resource: {type: Thing, id: "{item}", log: digest}}
"""
ALLOW = Ruling(outcome=Outcome.ALLOW, basis=Basis.PERMIT, policies=("p",))


def bundle_of(manifest: str, properties: Mapping[str, Any] = PROPERTIES) -> Bundle:
    """Return a bundle with tools that are mapped to things."""
    files = bundle_files(
        policies={"shop": '@id("shop/all") permit (principal, action, resource);\n'},
        tools={"shop": [tool(name, properties, ["item"]) for name in ("buy", "sell")]},
        overlays={"shop": OVERLAY},
        directory="{users: {ada: {}}, agents: {coder: {ceiling: [shop/*]}}}",
        manifest=manifest,
    )
    return load_bundle(files, DEFAULT_LIMITS, compile_here)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Return a bundle that needs no facts of the caller."""
    return bundle_of("name: test\ncaller_facts: {properties: {shift: {type: integer}}}\n")


@pytest.fixture(scope="module")
def demanding() -> Bundle:
    """Return a bundle that needs one."""
    return bundle_of("name: test\n" + FACTS)


def call(arguments: bytes = b'{"item": "x"}', facts: bytes = b"", name: str = "buy") -> Call:
    """Return a call."""
    return Call(session_handle="", server="shop", tool=name, arguments_json=arguments, facts_json=facts)


def facts_of(bundle: Bundle, asked: Call) -> Facts:
    """Return what policies see of a call by `gateway` in shift 3."""
    return call_facts(bundle.catalogue.tools[asked.action], asked, "gateway", {"shift": 3}, DEFAULT_LIMITS)


def test_a_tool_that_cannot_be_called_denies_and_says_why(bundle: Bundle) -> None:
    """Whatever the arguments are."""
    unusable = replace(bundle.catalogue.tools["shop/buy"], unusable="its schema does not compile")

    with pytest.raises(InvalidArgumentsError, match="the tool cannot be called: its schema does not compile"):
        call_facts(unusable, call(), "gateway", {}, DEFAULT_LIMITS)


def test_arguments_are_held_against_the_whole_schema() -> None:
    """What policies see of them is not all: here what no policy can see is of a kind that the schema does not admit."""
    strict = bundle_of("name: test\n", {**PROPERTIES, "more": {"enum": [1, {"a": 2}]}})

    assert {"item": "x"} == facts_of(strict, call(b'{"item": "x", "more": {"a": 2}}')).context["input"]
    with pytest.raises(InvalidArgumentsError, match="more"):
        facts_of(strict, call(b'{"item": "x", "more": {"a": 3}}'))


@pytest.mark.parametrize(("text", "expected"), [(b"", {}), (b'{"shift": 7}', {"shift": 7})])
def test_facts_of_the_caller_are_typed(bundle: Bundle, text: bytes, expected: Mapping[str, Any]) -> None:
    """Facts are optional where the bundle asks for none."""
    assert expected == caller_facts(bundle, call(facts=text), DEFAULT_LIMITS)


@pytest.mark.parametrize("text", [b"", b"{}", b'{"shift": "x"}', b"["])
def test_wrong_facts_of_the_caller_are_its_mistake(demanding: Bundle, text: bytes) -> None:
    """Missing ones too, where the bundle asks for one; the attribute is named."""
    with pytest.raises(InvalidRequestError) as caught:
        caller_facts(demanding, call(facts=text), DEFAULT_LIMITS)

    assert "call.facts_json" == caught.value.attribute
    assert caught.value.problem


def test_limits_hold_for_facts_and_arguments(bundle: Bundle) -> None:
    """The limits are those that are given."""
    tight = replace(DEFAULT_LIMITS, arguments_bytes=12, resource_id_characters=4)
    known = bundle.catalogue.tools["shop/buy"]

    with pytest.raises(InvalidRequestError):
        caller_facts(bundle, call(facts=b'{"shift":    7}'), tight)
    with pytest.raises(InvalidJSONError):
        call_facts(known, call(b'{"item":    "x"}'), "gateway", {}, tight)
    with pytest.raises(InvalidArgumentsError):
        call_facts(known, call(b'{"item":"xxxxx"}'), "gateway", {}, replace(tight, arguments_bytes=100))


def test_the_whole_of_what_policies_see_of_a_call(bundle: Bundle) -> None:
    """Resource, typed arguments, what is opaque, and the caller; its id cannot be vouched for."""
    found = facts_of(bundle, call(b'{"item": "x", "amount": 1.5}'))

    assert ("Thing", "x") == found.resource
    assert {"input", "opaque", "caller"} == set(found.context)
    assert "x" == found.context["input"]["item"]
    assert isinstance(found.context["opaque"], list)
    assert {"amount"} == set(found.context["opaque"])
    assert {"shift": 3, "id": "gateway"} == found.context["caller"]


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        (b'"x y"', '"x y"'),
        (b"1.50", '"1.50"'),
        (b'{"b": 1, "a": [true, null]}', '{"a":[true,null],"b":1}'),
        (b'"' + b"x" * 510 + b'"', '"' + "x" * 510 + '"'),
        (b'"' + b"x" * 511 + b'"', '{"omitted_characters":513}'),
    ],
)
def test_what_may_be_recorded_of_the_arguments(bundle: Bundle, value: bytes, logged: str) -> None:
    """Each argument that the bundle lists and the call holds, as compact sorted JSON of up to 512 characters."""
    found = facts_of(bundle, call(b'{"item": "x", "more": ' + value + b"}"))

    assert (("item", '"x"'), ("more", logged)) == found.logged
    assert () == facts_of(bundle, call(name="sell")).logged


def test_the_whole_question() -> None:
    """The user is the principal; agent, session and time stand beside what the call brings."""
    session = make_session("s", user="ada", agent="coder")
    facts = Facts(
        action="shop/buy", resource=("Thing", "x"), context={"input": {}, "opaque": [], "caller": {"id": "g"}}
    )
    expected = Question(
        user="ada",
        agent="coder",
        session_id="ses_s",
        resource=("Thing", "x"),
        context={
            "input": {},
            "opaque": [],
            "caller": {"id": "g"},
            "agent": {"__entity": {"type": "Agent", "id": "coder"}},
            "session": {"__entity": {"type": "Session", "id": "ses_s"}},
            "now": {"__extn": {"fn": "datetime", "arg": "1970-01-01T00:16:40.000Z"}},
        },
    )

    assert expected == question_of(session, facts, 1000.0)


OWN, PARENT, ROOT = (make_session(name) for name in ("own", "parent", "root"))
FORBID = deny(Basis.FORBID, "d")


@pytest.mark.parametrize(
    ("answers", "expected", "asked"),
    [
        ((ALLOW,), ALLOW, 1),
        ((FORBID,), FORBID, 1),
        ((FORBID, ALLOW), FORBID, 1),
        ((ALLOW, ALLOW, replace(ALLOW, policies=("q",))), ALLOW, 3),
        ((ALLOW, FORBID, ALLOW), ancestor_deny(PARENT, FORBID), 2),
        ((ALLOW, ALLOW, FORBID), ancestor_deny(ROOT, FORBID), 3),
    ],
)
def test_all_of_a_chain_must_permit(answers: Sequence[Ruling], expected: Ruling, asked: int) -> None:
    """The first that does not decides, and nobody after it is asked; the ruling of an allow is the session's own."""
    chain, seen = (OWN, PARENT, ROOT)[: len(answers)], []

    def ask(session: Session) -> Ruling:
        seen.append(session)
        return answers[len(seen) - 1]

    assert expected == of_chain(chain, map(ask, chain))
    assert chain[:asked] == tuple(seen)


def test_a_session_of_a_chain_without_a_ruling_is_no_permit() -> None:
    """Too few rulings, or too many, are a mistake of ours and no allow."""
    for rulings in ((ALLOW,), (ALLOW, ALLOW, ALLOW)):
        with pytest.raises(ValueError, match="zip"):
            of_chain((OWN, PARENT), rulings)


def test_each_session_of_a_chain_is_asked_about(bundle: Bundle) -> None:
    """What the policies say is what they say of the session and of each above it."""
    facts = facts_of(bundle, call())
    known = bundle.directory.capture("ada", "coder")
    own, parent = (make_session(name, user="ada", agent="coder", entities_json=known) for name in ("own", "parent"))

    found = judge_chain(bundle, (own, parent), facts, 1000.0)

    assert (Basis.PERMIT, ("shop/all",)) == (found.basis, found.policies)
    assert Basis.ANCESTOR_DENIED is judge_chain(bundle, (own, make_session("lost")), facts, 1000.0).basis


def test_a_chain_has_the_obligations_of_all_its_sessions() -> None:
    """All must be fulfilled: sorted, each once; the rest is the session's own ruling."""
    chain = tuple(make_session(name) for name in ("own", "parent", "top"))
    notice, most, ask = Obligation("notice", "{}"), Obligation("max_result_bytes", "{}"), Obligation("ask", "{}")
    above = replace(ALLOW, policies=("q",))
    rulings = [replace(ALLOW, obligations=(notice,)), above, replace(above, obligations=(ask, most, notice))]

    assert replace(ALLOW, obligations=(ask, most, notice)) == of_chain(chain, rulings)
    assert ALLOW == of_chain(chain, [ALLOW, above, above])


def test_a_chain_with_too_many_obligations_is_a_deny() -> None:
    """An answer holds sixteen."""
    chain = tuple(make_session(name) for name in ("own", "parent"))
    asked = tuple(Obligation(f"a{number:02}", "{}") for number in range(17))
    own, rest = replace(ALLOW, obligations=asked[:8]), replace(ALLOW, obligations=asked[7:16])

    assert asked[:16] == of_chain(chain, [own, rest]).obligations
    found = of_chain(chain, [own, replace(ALLOW, obligations=asked[8:])])
    assert (Basis.POLICY_ERROR, ()) == (found.basis, found.obligations)
    assert "more than 16 obligations" in found.detail


def test_a_deny_in_a_chain_has_the_advice_of_its_forbids_alone() -> None:
    """And no obligation of the sessions that would allow the call."""
    chain = tuple(make_session(name) for name in ("own", "parent"))
    forbidden = Ruling(outcome=Outcome.DENY, basis=Basis.FORBID, policies=("f",), advice=("Do it otherwise.",))
    found = of_chain(chain, [replace(ALLOW, obligations=(Obligation("notice", "{}"),)), forbidden])

    assert (("Do it otherwise.",), ()) == (found.advice, found.obligations)


def asking(session: Session, policy: str, held: Ruling = ALLOW, *, advice: Sequence[str] = ()) -> Ruling:
    """Return the deny of a session in which a person can lift a forbid; `held` is the ruling without it."""
    return Ruling(
        outcome=Outcome.DENY,
        basis=Basis.APPROVAL_REQUIRED,
        policies=(policy,),
        advice=tuple(advice),
        asks=(Ask(session.id, policy, "sha256:0", "May it?"),),
        otherwise=held,
    )


def test_all_sessions_of_a_chain_ask_together() -> None:
    """The deny names the forbids of all, sorted, each once, and what they ask; it holds the allow of the chain."""
    notice = Obligation("notice", "{}")
    rulings = [
        asking(OWN, "f", advice=("First.", "Second.")),
        replace(ALLOW, obligations=(notice,)),
        asking(ROOT, "e", replace(ALLOW, policies=("q",)), advice=("Second.", "Third.")),
    ]
    expected = Ruling(
        outcome=Outcome.DENY,
        basis=Basis.APPROVAL_REQUIRED,
        policies=("e", "f"),
        advice=("First.", "Second.", "Third."),
        asks=(Ask("ses_own", "f", "sha256:0", "May it?"), Ask("ses_root", "e", "sha256:0", "May it?")),
        otherwise=replace(ALLOW, obligations=(notice,)),
    )

    assert expected == of_chain((OWN, PARENT, ROOT), rulings)
    later, earlier = asking(PARENT, "e"), asking(OWN, "e")
    both = of_chain((PARENT, OWN), [later, earlier])
    assert (("e",), ("ses_own", "ses_parent")) == (both.policies, tuple(ask.session_id for ask in both.asks))


def test_of_a_deny_that_is_final_nobody_is_asked() -> None:
    """A session that nobody can lift the deny of decides, whatever others ask; so does too much to be fulfilled."""
    obliged = tuple(Obligation(f"a{number:02}", "{}") for number in range(17))

    assert FORBID == of_chain((OWN, PARENT), [FORBID, asking(PARENT, "f")])
    assert ancestor_deny(PARENT, FORBID) == of_chain((OWN, PARENT), [asking(OWN, "f"), FORBID])
    full = of_chain((OWN, PARENT), [asking(OWN, "f"), replace(ALLOW, obligations=obliged)])
    assert (Basis.POLICY_ERROR, ()) == (full.basis, full.asks)


def test_a_deny_has_a_bounded_advice() -> None:
    """Of many lines the first eight."""
    lines = [f"line {number}" for number in range(12)]

    found = of_chain((OWN, PARENT), [asking(OWN, "f", advice=lines[:6]), asking(PARENT, "f", advice=lines[4:])])

    assert tuple(lines[:8]) == found.advice


def test_what_a_person_has_lifted_is_the_allow_of_the_chain() -> None:
    """It names what was lifted, and has neither advice nor questions; the call's own part of the ruling stays."""
    held = replace(ALLOW, policies=("p", "q"), obligations=(Obligation("notice", "{}"),))
    asked = replace(asking(OWN, "f", held, advice=("Ask.",)), resource_type="Thing", resource_id="x")

    assert replace(held, policies_lifted=("f",), resource_type="Thing", resource_id="x") == lifted(asked)
    with pytest.raises(AssertionError):
        lifted(FORBID)


def test_a_call_without_a_session_is_never_ruled() -> None:
    """An empty chain is a mistake of ours and no allow."""
    with pytest.raises(AssertionError):
        of_chain((), ())


@pytest.mark.parametrize(("name", "shown"), [("buy", True), ("sell", False)])
def test_a_ruling_of_this_call(bundle: Bundle, name: str, *, shown: bool) -> None:
    """What it is mapped to, whether that may be shown, and what may be recorded; the rest is as it was."""
    facts = Facts(action="shop/buy", resource=("Thing", "x"), context={}, logged=(("item", '"x"'),))
    expected = Ruling(
        outcome=Outcome.ALLOW,
        basis=Basis.PERMIT,
        policies=("p",),
        resource_type="Thing",
        resource_id="x",
        log_resource=shown,
        logged_arguments=(("item", '"x"'),),
    )

    assert expected == of_this_call(ALLOW, (OWN,), bundle.catalogue.tools[f"shop/{name}"], facts)


def test_a_ruling_holds_what_the_deciding_session_has_seen(bundle: Bundle) -> None:
    """What the session of the call sees of its earlier calls, and what the one above sees that denies the call."""
    seen = tuple(Counted((("shop/buy", number),)) for number in range(3))
    facts = Facts(action="shop/buy", resource=("Thing", "x"), context={}, counted=seen)
    tool = bundle.catalogue.tools["shop/buy"]
    nothing = replace(facts, counted=())
    found = [
        of_this_call(one, (OWN, PARENT, ROOT), tool, looked_at)
        for one, looked_at in (
            (ALLOW, facts),
            (ancestor_deny(ROOT, FORBID), facts),
            (ancestor_deny(ROOT, FORBID), nothing),
        )
    ]

    assert [(seen[0], None), (seen[0], seen[2]), (None, None)] == [(one.counted, one.ancestor_counted) for one in found]


def test_facts_stand_in_no_representation() -> None:
    """What an agent wrote is not shown by accident, and nothing is logged by default."""
    facts = Facts(
        action="shop/buy", resource=("Thing", "secret"), context={"input": "secret"}, logged=(("a", "secret"),)
    )

    assert "secret" not in repr(facts)
    assert () == Facts(action="shop/buy", resource=("", ""), context={}).logged
