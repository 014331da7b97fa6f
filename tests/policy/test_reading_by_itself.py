"""What policies read, by itself: whole readings, the part of a call that is seen, trees that only look like time."""

from __future__ import annotations

from typing import Any

import pytest

from pdp.policy.moments import Moments, moments
from pdp.policy.reading import CacheClass, Reading

CALL = {
    "input": {"b": 1, "a": [{"d": 1, "c": 2}]},
    "opaque": ["o"],
    "caller": {"id": "g", "a": 1},
}
RESOURCE = ("Thing", "x")
NOW = {".": {"left": {"Var": "context"}, "attr": "now"}}
DATE = {"datetime": [{"Value": "1970-01-01T00:00:05Z"}]}


def test_a_whole_reading() -> None:
    """Who reads what, sorted both ways; what the session holds does not count."""
    found = Reading.of(
        [
            ("z", frozenset({"resource", "context.input.b", "context.session", "context.agent"}), ()),
            ("y", frozenset({"context.input.b", "context.caller"}), ()),
            ("x", frozenset({"context.input.a", "context.input.b", "context.opaque"}), ()),
            ("w", frozenset(), ()),
        ]
    )

    assert [
        ("context.caller", ("y",)),
        ("context.input.a", ("x",)),
        ("context.input.b", ("x", "y", "z")),
        ("context.opaque", ("x",)),
        ("resource", ("z",)),
    ] == list(found.readers.items())
    assert (CacheClass.INPUT, frozenset({"a", "b"})) == (found.kind, found.inputs)
    assert (True, True, True, False, True) == (
        *(found.opaque, found.caller, found.resource),
        *(found.timed, found.cacheable),
    )
    assert () == found.place_in_time(5.0)


def test_nothing_is_read() -> None:
    """Then a part of the call is nothing, and its answer pure."""
    found = Reading.of([("a", frozenset({"context.agent"}), ())])

    assert ({}, CacheClass.PURE, frozenset()) == (found.readers, found.kind, found.inputs)
    assert (False, False, False, False) == (found.opaque, found.caller, found.resource, found.timed)
    assert b"[{},null,null,null]" == found.part(RESOURCE, CALL)


@pytest.mark.parametrize(
    ("policies", "kind", "cacheable"),
    [
        ([("a", None, ())], CacheClass.VOLATILE, False),
        ([("a", None, None), ("b", frozenset(), ())], CacheClass.VOLATILE, False),
        ([("a", frozenset({"context.now"}), ((0, False, 5000),)), ("b", None, None)], CacheClass.VOLATILE, False),
        ([("a", frozenset({"context.counts.a/b"}), ())], CacheClass.VOLATILE, False),
        ([("a", frozenset({"context.counts"}), ()), ("b", frozenset(), ())], CacheClass.VOLATILE, False),
        ([("a", frozenset({"context.done.a/b"}), ())], CacheClass.VOLATILE, False),
        ([("a", frozenset({"context.done"}), ()), ("b", frozenset(), ())], CacheClass.VOLATILE, False),
        ([("a", frozenset({"context.now"}), None)], CacheClass.TIMED, False),
        ([("a", frozenset({"context.now"}), None), ("b", frozenset(), ())], CacheClass.TIMED, False),
        ([("a", frozenset({"context.now"}), ((0, False, 5000),)), ("b", frozenset(), ())], CacheClass.TIMED, True),
    ],
)
def test_what_can_be_remembered(policies: Any, kind: CacheClass, *, cacheable: bool) -> None:
    """Only when of every policy it is known what it reads, and that it only compares the time."""
    found = Reading.of(policies)

    assert (kind, cacheable) == (found.kind, found.cacheable)
    assert cacheable or () == found.place_in_time(5.0)


def test_the_time_stands_among_what_it_is_compared_with() -> None:
    """Before, at and after a moment are three places; where nobody compares it, there is one."""
    timed = Reading.of([("a", frozenset({"context.now"}), ((0, False, 5000),)), ("b", frozenset(), ())])
    untimed = Reading.of([("a", frozenset({"resource"}), ())])

    assert timed.timed
    assert [(0,), (1,), (2,)] == [timed.place_in_time(at) for at in (4.999, 5.0, 5.001)]
    assert {()} == {untimed.place_in_time(at) for at in (4.999, 5.0, 5.001)}


@pytest.mark.parametrize(
    ("reads", "expected"),
    [
        ({"context.input.a"}, b'[{"a":[{"c":2,"d":1}]},null,null,null]'),
        ({"context.input.a", "context.input.absent"}, b'[{"a":[{"c":2,"d":1}]},null,null,null]'),
        ({"context.input"}, b'[{"a":[{"c":2,"d":1}],"b":1},null,null,null]'),
        ({"context.opaque"}, b'[{},["o"],null,null]'),
        ({"context.caller"}, b'[{},null,{"a":1,"id":"g"},null]'),
        ({"resource"}, b'[{},null,null,["Thing","x"]]'),
    ],
)
def test_the_part_that_is_seen(reads: set[str], expected: bytes) -> None:
    """Exactly what is read, as canonical JSON."""
    assert expected == Reading.of([("a", frozenset(reads), ())]).part(RESOURCE, CALL)


def offset(text: str, tree: Any = NOW) -> dict[str, Any]:
    """Return the tree of a time that is shifted by a duration."""
    return {"offset": [tree, {"duration": [{"Value": text}]}]}


def compared(left: Any, right: Any = DATE, **more: Any) -> dict[str, Any]:
    """Return the tree of a comparison."""
    return {"<": {"left": left, "right": right}, **more}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (compared(NOW), [(0, False, 5000)]),
        (compared(DATE, NOW), [(0, False, 5000)]),
        (compared(offset("1d2h3m4s5ms")), [(93784005, False, 5000)]),
        (compared(offset("-1s")), [(-1000, False, 5000)]),
        (compared(offset("1s", offset("2s"))), [(3000, False, 5000)]),
        (compared(offset(f"{10**15}ms")), [(10**15, False, 5000)]),
        (compared(offset(f"-{10**15}ms")), [(-(10**15), False, 5000)]),
        (compared(offset(f"{10**15 + 1}ms")), None),
        (compared(offset("")), None),
        (compared(offset("-")), None),
        (compared(offset("1x")), None),
        (compared(NOW, other=1), None),
        ({"<": {"left": NOW}}, None),
        ({"<": {"left": NOW, "right": DATE, "more": 1}}, None),
        ({"<": [NOW, DATE]}, None),
        (compared(NOW, {**DATE, "more": 1}), None),
        (compared(NOW, ["datetime"]), None),
        (compared(NOW, "datetime"), None),
        (compared({"offset": [NOW, "1s"]}), None),
        (compared({"offset": "x"}, NOW), None),
        (compared("x", "y"), []),
        (compared(["x"], ["y"]), []),
        (compared(["toTime"], {"duration": [{"Value": "1s"}]}), []),
        (compared({"toTime": [NOW]}, {"duration": [{"Value": "1s"}]}), [(0, True, 1000)]),
        (compared({"toTime": [NOW]}, {"duration": [{"Value": ""}]}), None),
        (compared({"toTime": [NOW]}, DATE), None),
        (
            [compared(offset(f"{n}s")) for n in (3, 1, 5, 2, 4, 9, 8, 7)],
            [(n * 1000, False, 5000) for n in (1, 2, 3, 4, 5, 7, 8, 9)],
        ),
    ],
)
def test_trees_of_time(tree: Any, expected: list[tuple[int, bool, int]] | None) -> None:
    """What is not exactly a comparison of the time with a constant makes it unknown, whatever it looks like."""
    assert expected == moments(tree)


def test_places_do_not_depend_on_the_order_of_moments() -> None:
    """Equal sets of moments have equal places."""
    some = [(7, False, 10), (0, True, 5), (0, False, 20), (3, False, 15), (7, False, 1)]

    assert {Moments(some).place(9)} == {Moments(some[n:] + some[:n]).place(9) for n in range(len(some))}
    assert (0, 2, 0, 4) == Moments(some).place(9)
