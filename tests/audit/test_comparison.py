"""What is said of a call that waits beside an earlier one, by the records of both."""

from __future__ import annotations

from typing import Any

import pytest

from pdp.audit.comparison import Change, WaitingCall, compared, identical

SAME, CHANGED, ADDED, REMOVED, UNKNOWN = Change


def _said(now: dict[str, Any], earlier: dict[str, Any], *names: str) -> dict[str, tuple[Change, str]]:
    call = WaitingCall(
        decision_id="dec_1",
        session_id="ses_1",
        user="alice",
        agent="coder",
        tenant="default",
        tool="crm/send_mail",
        names=frozenset(names),
    )
    return {one.name: (one.change, one.earlier_json) for one in compared(call, now, earlier)}


def _record(digest: str = "a", bundle: str = "v1", **arguments: object) -> dict[str, Any]:
    return {"arguments_digest": digest, "bundle_version": bundle, "arguments": arguments}


@pytest.mark.parametrize(
    ("now", "earlier", "change"),
    [
        (_record("b", to="x"), _record(to="x"), (SAME, "")),
        (_record("b", to={"b": 1, "a": [2]}), _record(to={"a": [2], "b": 1}), (SAME, "")),
        (_record("b", to="x"), _record(to="y"), (CHANGED, '"y"')),
        (_record("b", to=True), _record(to=1), (CHANGED, "1")),
        (_record("b", to="1"), _record(to=1), (CHANGED, "1")),
        (_record("b", to="x"), _record(), (ADDED, "")),
        # What another bundle did not record may have been there.
        (_record("b", "v2", to="x"), _record(), (UNKNOWN, "")),
        (_record("b", "v2", to="x"), _record(to="y"), (CHANGED, '"y"')),
        # Values that are not in the record: of another parameter, too long, or of a record that is gone.
        (_record("b"), _record(), (UNKNOWN, "")),
        (_record("b"), _record(to="y"), (UNKNOWN, "")),
        (_record("b", to={"omitted_characters": 5000}), _record(to={"omitted_characters": 5000}), (UNKNOWN, "")),
        (_record("b", to="x"), _record(to={"omitted_characters": 5000}), (UNKNOWN, "")),
        ({}, _record(to="y"), (UNKNOWN, "")),
        # The digests of all arguments say more than their values.
        (_record(), _record(), (SAME, "")),
    ],
)
def test_an_argument_is_compared(now: dict[str, Any], earlier: dict[str, Any], change: tuple[Change, str]) -> None:
    """In doubt nothing is said."""
    assert {"to": change} == _said(now, earlier, "to")


def test_what_only_the_earlier_call_had_is_told() -> None:
    """With its value; in order of names."""
    found = _said(_record("b", to="x", text="t"), _record(cc="z", to="x"), "to", "text")

    assert [("cc", (REMOVED, '"z"')), ("text", (ADDED, "")), ("to", (SAME, ""))] == list(found.items())


def test_without_a_record_nothing_is_identical() -> None:
    """Two records without a digest say nothing about each other."""
    assert not identical({}, {})
