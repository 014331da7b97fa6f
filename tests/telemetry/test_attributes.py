"""What spans and log records show, by itself: whole attribute sets, what is cut, hidden, or left out when empty."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pdp.foundation.jsontext import keyed_digest
from pdp.model import Basis, Obligation
from pdp.observer import Event, EventKind
from pdp.telemetry import names
from pdp.telemetry.attributes import (
    SHOWN_LISTS,
    TEXT_CHARACTERS,
    bounded,
    decision_attributes,
    record_attributes,
    refusal_attributes,
    session_decision_attributes,
)
from pdp.testing.decisions import a_decision

KEY = b"k" * 32
SPAN: dict[str, Any] = {
    names.SESSION_ID: "ses_bbbbbbbbbbbbbbbbbbbbbbbbbb",
    names.USER: "alice",
    names.AGENT: "coder",
    names.SESSION_EPOCH: 3,
    names.ANCESTORS: ("ses_cccccccccccccccccccccccccc",),
    names.TENANT: "default",
    names.ENVIRONMENT: "production",
    names.CALLER_ID: "gateway-1",
    names.TOOL: "create_issue",
    names.SERVER: "github",
    names.BUNDLE_VERSION: "sha256:" + "b" * 64,
    names.OUTCOME: "allow",
    names.BASIS: "permit",
    names.POLICIES: ("github/coders_open_issues",),
    names.RESOURCE_TYPE: "Repository",
    names.CACHE: "miss",
    names.DECISION_ID: "dec_aaaaaaaaaaaaaaaaaaaaaaaaaa",
    names.RESOURCE_ID: "acme/site",
    names.TOOL_CALL_ID: "call-1",
    names.REQUEST_ID: "req-1",
    f"{names.PHASE_PREFIX}gate{names.PHASE_SUFFIX}": 4.5,
    f"{names.PHASE_PREFIX}policy{names.PHASE_SUFFIX}": 80.0,
}
RECORD: dict[str, Any] = {
    names.OPENED_BY: "gateway-1",
    names.DEFINITION_DIGEST: "sha256:" + "d" * 64,
    names.ARGUMENTS_DIGEST: keyed_digest(KEY, "sha256:" + "a" * 64),
}


def test_the_whole_span_of_a_decision() -> None:
    """What is empty is left out, so an ancestor, errors and a digest are not there."""
    assert decision_attributes(a_decision(), KEY) == SPAN


def test_the_whole_log_record_of_a_decision() -> None:
    """All that the span shows, who opened the session, the definition, a keyed digest of arguments, and the detail."""
    assert SPAN | RECORD == record_attributes(a_decision(), KEY)
    assert SPAN | RECORD | {names.DETAIL: "d"} == record_attributes(a_decision(detail="d"), KEY)


def test_an_ancestor_and_errors_are_shown() -> None:
    """When there are some."""
    changes = {"ancestor_id": "ses_c", "ancestor_basis": Basis.FORBID, "errors": ("e",)}
    expected = {names.ANCESTOR_ID: "ses_c", names.ANCESTOR_BASIS: "forbid", names.ERRORS: ("e",)}

    assert SPAN | expected == decision_attributes(a_decision(**changes), KEY)


def test_obligations_are_shown_by_their_ids() -> None:
    """Each id once; what an author wrote beside it is in the record."""
    asked = (Obligation("notice", '{"text":"a"}'), Obligation("notice", '{"text":"b"}'), Obligation("x", "{}"))

    assert SPAN | {names.OBLIGATIONS: ("notice", "x")} == decision_attributes(a_decision(obligations=asked), KEY)


@pytest.mark.parametrize(
    ("resource_id", "shown", "key", "expected"),
    [
        ("a", True, KEY, {names.RESOURCE_ID: "a"}),
        ("a", True, b"", {names.RESOURCE_ID: "a"}),
        ("a", False, KEY, {names.RESOURCE_DIGEST: keyed_digest(KEY, "a")}),
        ("a", False, b"", {}),
        ("", False, KEY, {}),
        ("", True, KEY, {}),
    ],
)
def test_a_hidden_resource(resource_id: str, key: bytes, expected: dict[str, str], *, shown: bool) -> None:
    """It shows as a keyed digest, and without a key as nothing."""
    found = decision_attributes(a_decision(resource_id=resource_id, log_resource=shown), key)

    assert expected == {name: found[name] for name in (names.RESOURCE_ID, names.RESOURCE_DIGEST) if name in found}


def test_without_a_key_there_is_no_digest_of_arguments() -> None:
    """A digest that anybody can make can be guessed."""
    assert names.ARGUMENTS_DIGEST not in record_attributes(a_decision(), b"")


@pytest.mark.parametrize("field", ["policies", "errors"])
def test_lists_are_cut(field: str) -> None:
    """To 64 ids."""
    name = {"policies": names.POLICIES, "errors": names.ERRORS}[field]
    ids = tuple(f"p{number:03}" for number in range(66))

    assert ids[:64] == decision_attributes(a_decision(**{field: ids}), KEY)[name]


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("tool", names.TOOL),
        ("server", names.SERVER),
        ("resource_id", names.RESOURCE_ID),
        ("tool_call_id", names.TOOL_CALL_ID),
        ("request_id", names.REQUEST_ID),
        ("definition_digest", names.DEFINITION_DIGEST),
    ],
)
def test_what_others_wrote_is_cut_and_made_printable(field: str, name: str) -> None:
    """To 128 characters, of which those that cannot be printed are dropped."""
    assert "x" * 127 == record_attributes(a_decision(**{field: "\u202e" + "x" * 128}), KEY)[name]


def test_what_a_call_changed_is_shown() -> None:
    """The labels that it added, the budgets that it took of, and what a person had lifted, where there is any."""
    decision = a_decision(labels_added=("seen", "untrusted"), debits=(("max_calls", 3),), access_request_id="acc_1")
    found = decision_attributes(replace(decision, ruling=replace(decision.ruling, policies_lifted=("f",))), KEY)

    assert (("seen", "untrusted"), ("max_calls",)) == (found[names.LABELS_ADDED], found[names.DEBITS])
    assert (("f",), "acc_1") == (found[names.POLICIES_LIFTED], found[names.ACCESS_REQUEST])
    assert {names.LABELS_ADDED, names.DEBITS, names.POLICIES_LIFTED}.isdisjoint(decision_attributes(a_decision(), KEY))


def test_texts_are_bounded() -> None:
    """A text that is short and printable is the same object."""
    text = "plain text that is printable"

    assert text is bounded(text)
    assert 128 == TEXT_CHARACTERS
    assert ["", "a b", "ab"] == [bounded(one) for one in ("\n\x00", "a b", "a\x1bb")]


def test_the_whole_span_of_a_refusal() -> None:
    """Of a caller and a session that are known, and with nothing that is empty."""
    event = Event(
        kind=EventKind.REQUEST_REFUSED,
        at=1.0,
        caller_id="c",
        session_id="s",
        user="u",
        agent="a",
        tenant="t",
        facts={"rpc": "R" * 129, "status": "NOT_FOUND", "field": "f"},
    )
    expected = {
        names.RPC_SYSTEM: "grpc",
        names.RPC_METHOD: "R" * 128,
        names.RPC_STATUS: "NOT_FOUND",
        names.REQUEST_FIELD: "f",
        names.CALLER_ID: "c",
        names.SESSION_ID: "s",
        names.USER: "u",
        names.AGENT: "a",
        names.TENANT: "t",
    }

    assert expected == refusal_attributes(event)
    assert {names.RPC_SYSTEM: "grpc"} == refusal_attributes(
        Event(kind=EventKind.REQUEST_REFUSED, at=1.0, caller_id="", tenant="")
    )


def test_the_whole_span_of_a_decision_about_a_session() -> None:
    """Its action without our own prefix, lists of at most 64 ids, and nothing that is empty."""
    ids = tuple(f"p{number:03}" for number in range(66))
    facts = {"action": "pdp/approve_session", "decision_id": "d", "outcome": "deny", "basis": "forbid"}
    facts |= {"bundle_version": "v", "purpose": "secret"}
    lists = {"policies": ids, "errors": ids, "tools": ids}
    who: dict[str, Any] = {"caller_id": "c", "session_id": "s", "user": "u", "agent": "a", "tenant": "t"}
    expected = {
        names.SESSION_ACTION: "approve_session",
        names.DECISION_ID: "d",
        names.OUTCOME: "deny",
        names.BASIS: "forbid",
        names.POLICIES: ids[:64],
        names.ERRORS: ids[:64],
        names.BUNDLE_VERSION: "v",
        names.CALLER_ID: "c",
        names.SESSION_ID: "s",
        names.USER: "u",
        names.AGENT: "a",
        names.TENANT: "t",
    }

    assert expected == session_decision_attributes(
        Event(kind=EventKind.SESSION_DECIDED, at=1.0, facts=facts, lists=lists, **who)
    )
    assert {} == session_decision_attributes(
        Event(kind=EventKind.SESSION_DECIDED, at=1.0, caller_id="", tenant="", facts={})
    )


def test_a_span_of_a_session_counts_what_is_left_out() -> None:
    """As a number, of policies and of errors, like that of a decision; nothing where none is."""
    facts = {"policies_left_out": "7", "errors_left_out": "3"}
    decided = decision_attributes(a_decision(policies=("p",) * 66, errors=("p",) * 65), b"")
    shown = session_decision_attributes(Event(kind=EventKind.SESSION_DECIDED, at=0.0, facts=facts))

    assert (2, 1) == (decided["pdp.policies_left_out"], decided["pdp.errors_left_out"])
    assert {"policies", "errors"} == SHOWN_LISTS
    assert {"pdp.policies_left_out": 7, "pdp.errors_left_out": 3} == shown
    assert {} == session_decision_attributes(Event(kind=EventKind.SESSION_DECIDED, at=0.0))
