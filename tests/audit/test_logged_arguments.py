"""Questions by a recorded argument: which calls had it, what they reached, and which sessions made them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pdp.audit import AuditIndex, Search
from pdp.audit.values import Filter, Selector, argument_of, logged_values, selector_of
from pdp.errors import InvalidRequestError
from pdp.model import TraceParent
from pdp.record import DecisionLog, SigningKey
from pdp.testing.decisions import a_decision

START_AT = 1_790_000_000.0
CALLS = {
    "dec_text": (("recipients", '"x@a.example"'),),
    "dec_list": (("recipients", '["y@a.example","x@a.example"]'), ("amount", "5")),
    "dec_other": (("recipients", '["z@a.example"]'), ("amount", '"5"')),
    "dec_nested": (("recipients", '[{"b":1,"a":"x@a.example"}]'), ("urgent", "true"), ("amount", "1.5")),
    "dec_copied": (("copies", '["x@a.example"]'),),
    "dec_silent": (),
}


def write(folder: Path, key: bytes = b"k" * 32) -> None:
    """Record a call for each id, each in a session of its own."""
    log = DecisionLog(folder, key=key, signer=SigningKey.generate())
    for place, (decision_id, logged) in enumerate(CALLS.items()):
        decision = a_decision(
            id=decision_id,
            session_id=f"ses_{decision_id[4:]}",
            tenant="b" if place % 2 else "a",
            decided_at=START_AT + place,
            logged_arguments=logged,
        )
        log.decision(decision, TraceParent())
    log.close()


@pytest.fixture
def search(tmp_path: Path) -> Iterator[Search]:
    """Yield what answers about the calls."""
    write(tmp_path)
    with AuditIndex(tmp_path) as index:
        index.refresh()
        yield Search(index)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("recipients=x@a.example",), ["dec_text", "dec_list"]),
        (("recipients=y@a.example",), ["dec_list"]),
        (('recipients=["y@a.example","x@a.example"]',), ["dec_list"]),
        (('recipients={"a":"x@a.example","b":1}',), ["dec_nested"]),
        (("recipients=X@a.example",), []),
        (("recipients=",), []),
        (("amount=5",), ["dec_list", "dec_other"]),
        (("amount=1.5",), ["dec_nested"]),
        (("urgent=true",), ["dec_nested"]),
        (("recipients=x@a.example", "amount=5"), ["dec_list"]),
        (("unknown=x@a.example",), []),
    ],
)
def test_calls_are_found_by_an_argument(search: Search, arguments: tuple[str, ...], expected: list[str]) -> None:
    """By its name and its whole value, or by an element of a list; several must all hold. A scan says the same."""
    wanted = tuple(argument_of("argument", one) for one in arguments)

    found = [one.record()["id"] for one in search.all(Filter(arguments=wanted))]

    scanned = [one.record()["id"] for one in search.all(Filter()) if set(wanted) <= set(logged_values(one.record()))]
    assert expected == found == [one for one in scanned if one in CALLS]


def test_an_argument_stays_in_its_tenant(search: Search) -> None:
    """An auditor finds the calls of the own tenant, and no value of another one."""
    which = Filter(arguments=(("recipients", "x@a.example"),), tenant="a")

    assert ["dec_text"] == [one.record()["id"] for one in search.all(which)]


def test_sessions_are_found_by_an_argument(search: Search) -> None:
    """The plan names those with a call that had it; the tool must be that of the same call."""
    planned = search.plan(Selector(argument="recipients=x@a.example"), now_at=START_AT, limit=10)
    elsewhere = selector_of(("argument:recipients=x@a.example", "tool:other/tool"), window=Filter().window)

    assert ["ses_list", "ses_text"] == [one.session_id for one in planned]
    assert [] == search.plan(elsewhere, now_at=START_AT, limit=10)


def test_what_such_calls_reached(search: Search) -> None:
    """Touched counts them alone."""
    (touch,) = search.touched(Filter(arguments=(("amount", "5"),)), limit=10)

    assert 2 == touch.allowed


def test_a_segment_that_is_gone_takes_its_arguments_along(tmp_path: Path) -> None:
    """No number of a record is used again while arguments of the old one are there."""
    write(tmp_path / "log")
    with AuditIndex(tmp_path / "log", tmp_path / "index") as index:
        index.refresh()
        for segment in (tmp_path / "log").glob("*.jsonl"):
            segment.unlink()
        index.refresh()
        assert [(0,)] == index.rows("SELECT count(*) FROM arguments")
        write(tmp_path / "log")
        index.refresh()
        which = Filter(arguments=(("recipients", "y@a.example"),))
        assert ["dec_list"] == [one.record()["id"] for one in Search(index).all(which)]


def test_values_do_not_stand_in_the_index(tmp_path: Path) -> None:
    """A digest is enough to find them, and the index is smaller than a long value."""
    write(tmp_path)
    with AuditIndex(tmp_path) as index:
        index.refresh()

    assert b"x@a.example" not in b"".join(one.read_bytes() for one in tmp_path.glob("audit-index*"))


@pytest.mark.parametrize("text", ["recipients", "=x", ""])
def test_what_is_no_argument_is_refused(text: str) -> None:
    """A typing error finds nothing and says so."""
    with pytest.raises(InvalidRequestError, match="NAME=VALUE"):
        argument_of("filter.arguments[0]", text)
    with pytest.raises(InvalidRequestError):
        selector_of((f"argument:{text}",), window=Filter().window)


def test_a_line_that_somebody_wrote_by_hand_is_no_obstacle() -> None:
    """Arguments of another form count as none."""
    assert [] == [*logged_values(json.loads('{"arguments": ["a"]}')), *logged_values({"arguments": None})]
