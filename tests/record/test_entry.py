"""Entries of the record by themselves: what is masked, cut or left out, how time is written, and the form of a line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from pdp.clock import utc_text
from pdp.foundation.jsontext import digest, keyed_digest
from pdp.model import CacheResult, Counted, Decision, Obligation, Targets
from pdp.observer import Event, EventKind
from pdp.record.entry import Entries
from pdp.record.envelope import NOTHING_BEFORE, Place, body, canonical, hash_of, own_body, parse_line, place_of, placed
from pdp.testing.decisions import a_decision

KEY = b"k" * 32


def record_of(entries: Entries | None = None, **changes: Any) -> dict[str, Any]:
    """Return the record of a decision, which is canonical."""
    line = (entries or Entries(KEY)).decision(a_decision(**changes)) + b"}"
    record: dict[str, Any] = json.loads(line)
    assert line == json.dumps(record, sort_keys=True, separators=(",", ":")).encode("ascii")
    return record


def test_arguments_that_a_bundle_lists_are_written() -> None:
    """Each as the JSON that it is, in their order; without any there is no field for them."""
    logged = (("amount", '"1.50"'), ("b\n", '{"x":[1,null]}'))

    assert {"amount": "1.50", "b\n": {"x": [1, None]}} == record_of(logged_arguments=logged)["arguments"]
    assert {"amount": "1.50"} == record_of(logged_arguments=logged[:1])["arguments"]
    assert "arguments" not in record_of()


def test_labels_that_a_call_added_are_written() -> None:
    """Those of a remembered ruling too, in which the other record of the same ruling has none."""
    entries = Entries(KEY)
    ruling, caller = a_decision().ruling, a_decision().caller
    bare, added = (
        replace(
            a_decision(), ruling=ruling, caller=caller, cache_result=CacheResult.HIT, recurs=True, labels_added=labels
        )
        for labels in ((), ("seen", "untrusted"))
    )

    found = [json.loads(entries.decision(one) + b"}").get("labels_added") for one in (bare, added, bare)]
    assert [None, ["seen", "untrusted"], None] == found


def test_where_names_come_from_is_written() -> None:
    """The words for targets and links; nothing where no policy could see them, and no links where there are none."""
    entries = Entries(KEY)
    seen = (None, Targets(("none",), ()), Targets(("known", "unseen"), ("named",)))

    found = [
        json.loads(entries.decision(replace(a_decision(), ruling=replace(a_decision().ruling, targets=one))) + b"}")
        for one in seen
    ]
    assert [(None, None), (["none"], None), (["known", "unseen"], ["named"])] == [
        (one.get("targets"), one.get("links")) for one in found
    ]


def test_what_a_call_took_of_budgets_is_written() -> None:
    """What is used up since, by name; nothing for the other record of the same ruling."""
    entries = Entries(KEY)
    ruling, caller = a_decision().ruling, a_decision().caller
    bare, charged = (
        replace(a_decision(), ruling=ruling, caller=caller, cache_result=CacheResult.HIT, recurs=True, debits=debits)
        for debits in ((), (("max_calls", 3), ("max_sum", "12.5000")))
    )

    found = [json.loads(entries.decision(one) + b"}").get("debits") for one in (bare, charged, bare)]
    assert [None, {"max_calls": 3, "max_sum": "12.5000"}, None] == found


def test_what_policies_saw_of_earlier_calls_is_written() -> None:
    """Of the session, and of the one above that denied the call; nothing where no policy saw anything."""
    own, above = Counted((("a/b", 0), ("mutating", 3)), ("a/c",)), Counted((("a/b", 7),), ())
    names = ("counts", "done", "ancestor_counts", "ancestor_done")

    written = [
        record_of(ruling=replace(a_decision().ruling, counted=one, ancestor_counted=other))
        for one, other in ((None, None), (Counted(), None), (own, None), (own, above))
    ]
    counted = {"counts": {"a/b": 0, "mutating": 3}, "done": ["a/c"]}
    assert [{}, {}, counted, counted | {"ancestor_counts": {"a/b": 7}}] == [
        {name: record[name] for name in names if name in record} for record in written
    ]


@pytest.mark.parametrize(("many", "left_out"), [(64, None), (65, 1), (70, 6)])
def test_of_very_many_counts_some_are_written(many: int, left_out: int | None) -> None:
    """The first by name, and how many more there are; for the session above that denied the call as well."""
    counts = tuple((f"a/{number:03}", number) for number in range(many))
    seen = Counted(counts, tuple(name for name, _ in counts))
    record = record_of(ruling=replace(a_decision().ruling, counted=seen, ancestor_counted=seen))

    for whose in ("", "ancestor_"):
        assert (dict(counts[:64]), left_out) == (record[f"{whose}counts"], record.get(f"{whose}counts_left_out"))
        assert [name for name, _ in counts[:64]] == record[f"{whose}done"]
        assert left_out == record.get(f"{whose}done_left_out")


def test_what_a_person_allowed_is_written() -> None:
    """The request and the policies that it lifted; a call that needed nobody has no fields for them."""
    lifted = record_of(ruling=replace(a_decision().ruling, policies_lifted=("e", "f")), access_request_id="acc_1")

    assert ("acc_1", ["e", "f"]) == (lifted["access_request_id"], lifted["policies_lifted"])
    assert set() == {"access_request_id", "policies_lifted"} & set(record_of())


def test_obligations_are_written_with_what_their_author_wrote() -> None:
    """Each with its parameters, a long text as its digest."""
    short, long = '{"text":"Zo\u00eb"}', '{"text":"' + "x" * 512 + '"}'
    asked = (Obligation("notice", short), Obligation("notice", long), Obligation("redact_result", '{"fields":["a"]}'))

    assert [
        {"id": "notice", "parameters": {"text": "Zo\u00eb"}},
        {"id": "notice", "parameters_digest": digest(long.encode())},
        {"id": "redact_result", "parameters": {"fields": ["a"]}},
    ] == record_of(obligations=asked)["obligations"]
    assert [] == record_of()["obligations"]


@pytest.mark.parametrize(("characters", "whole"), [(512, True), (513, False)])
def test_long_parameters_of_an_obligation_are_a_digest(characters: int, *, whole: bool) -> None:
    """The bundle holds them; up to 512 characters they are written."""
    parameters = json.dumps({"text": "x" * (characters - len('{"text": ""}'))})
    record = record_of(obligations=(Obligation(id="notice", parameters_json=parameters),))
    written = {"parameters": json.loads(parameters)} if whole else {"parameters_digest": digest(parameters.encode())}

    assert [{"id": "notice", **written}] == record["obligations"]
    assert [] == record_of()["obligations"]


@pytest.mark.parametrize(
    ("resource_id", "shown", "expected"),
    [
        ("acme/site", True, {"resource_id": "acme/site"}),
        ("acme/site", False, {"resource_digest": keyed_digest(KEY, "acme/site")}),
        ("", True, {"resource_id": ""}),
        ("", False, {"resource_id": ""}),
    ],
)
def test_a_hidden_resource_is_a_digest(resource_id: str, expected: dict[str, str], *, shown: bool) -> None:
    """Nothing is hidden where there is nothing; one field or the other is there, and never both."""
    record = record_of(resource_id=resource_id, log_resource=shown)

    assert expected == {name: value for name, value in record.items() if name in {"resource_id", "resource_digest"}}


def test_without_an_ancestor_there_is_no_basis_of_one() -> None:
    """The field is empty."""
    assert "" == record_of()["ancestor_basis"]


@pytest.mark.parametrize("field", ["server", "tool"])
def test_what_an_agent_names_is_cut(field: str) -> None:
    """To 512 characters."""
    changes: dict[str, Any] = {field: "x" * 513}

    assert "x" * 512 == record_of(**changes)[field]


def test_facts_of_an_event_are_whole() -> None:
    """Texts and lists stand side by side, none is cut, and the line is canonical."""
    lists = {"c": ("y" * 128,) * 64, "0": ("d\n",)}
    event = Event(
        kind=EventKind.SESSION_REQUESTED,
        at=1_800_000_123.5,
        caller_id="c",
        tenant="t",
        facts={"b": "x" * 4096},
        lists=lists,
    )
    line = Entries(KEY).event(event) + b"}"
    record = json.loads(line)

    assert {"0": ["d\n"], "b": "x" * 4096, "c": ["y" * 128] * 64} == record["facts"]
    assert utc_text(1_800_000_123.5) == record["time"]
    assert line == json.dumps(record, sort_keys=True, separators=(",", ":")).encode("ascii")


def test_attributes_are_shown_by_name_alone() -> None:
    """What the settings name is written with its value, of any other a digest that nobody can guess."""
    attributes = {"level": 9_007_199_254_740_993, "team": "blue", "where": {"city": "B", "at": [1]}}
    event = Event(kind=EventKind.SESSION_REQUESTED, at=0.0, attributes=attributes)

    hidden = json.loads(Entries(KEY).event(event) + b"}")["facts"]
    shown = json.loads(Entries(KEY, frozenset({"level", "where", "unknown"})).event(event) + b"}")["facts"]

    assert {"attribute_digests"} == set(hidden)
    assert set(attributes) == set(hidden["attribute_digests"])
    assert keyed_digest(KEY, '"blue"') == hidden["attribute_digests"]["team"]
    assert keyed_digest(KEY, '{"at":[1],"city":"B"}') == hidden["attribute_digests"]["where"]
    assert {
        "attributes": {"level": 9_007_199_254_740_993, "where": {"at": [1], "city": "B"}},
        "attribute_digests": {"team": keyed_digest(KEY, '"blue"')},
    } == shown


def test_every_time_is_its_own() -> None:
    """Whatever was written before: within a second, across its border, and back."""
    entries = Entries(KEY)
    times = [0.25, 5.5, 6.0, 5.999999, 7.000001, 1.0, 1_800_000_123.456789, 1_800_000_123.0, 1_800_000_124.0]

    assert [utc_text(at) for at in times] == [record_of(entries, decided_at=at)["time"] for at in times]


def test_the_second_is_written_once() -> None:
    """Times within one second share its text."""
    entries = Entries(KEY)
    record_of(entries, decided_at=5.25)
    first = entries._second[1]
    record_of(entries, decided_at=5.75)

    assert (5, "1970-01-01T00:00:05") == entries._second
    assert first is entries._second[1]


def test_only_what_was_remembered_is_kept() -> None:
    """A form is found again for a ruling that is the same object, which only a remembered one is."""
    entries = Entries(KEY)
    for result in (CacheResult.NONE, CacheResult.MISS, CacheResult.BYPASS):
        record_of(entries, cache_result=result)
    before = len(entries._forms)
    record_of(entries, cache_result=CacheResult.HIT, recurs=True)

    assert (0, 1) == (before, len(entries._forms))


def weight_of(decision: Decision) -> int:
    """Return for how many bytes the form of a decision counts: its texts twice, and 1 KiB."""
    varied = (decision.id, decision.request_id, decision.span_id, decision.tool_call_id, decision.trace_id)
    own = sum(len(f'"{text}"') for text in varied) + len(f"{decision.duration_us:.1f}2027-01-15T08:00:00.250000Z")
    return 1024 + 2 * (len(Entries(KEY).decision(decision)) - own)


@pytest.mark.parametrize("more", [0, 1])
def test_what_is_kept_is_bounded_in_bytes(more: int) -> None:
    """Forms of 8 MiB are kept; the one that would exceed them begins anew, and counts for itself."""
    entries, caller = Entries(KEY), a_decision().caller
    small = a_decision(cache_result=CacheResult.HIT, recurs=True, user="", caller=caller)
    room = 8 * 1024 * 1024 - 2 * weight_of(small)
    large = replace(small, matter=replace(small.matter, user="x" * (room // 2 + more)))
    entries.decision(small)
    first = entries._forms._bytes
    entries.decision(large)

    assert weight_of(small) == first
    kept = (1, weight_of(large)) if more else (2, 8 * 1024 * 1024)
    assert kept == (len(entries._forms), entries._forms._bytes)


def test_lists_are_written_whole() -> None:
    """Of policies, errors and ancestors."""
    record = record_of(policies=("a", "b"), errors=("c", "d"), ancestor_ids=("e", "f"))

    assert (["a", "b"], ["c", "d"], ["e", "f"]) == (record["policies"], record["errors"], record["ancestors"])


@pytest.mark.parametrize("name", ["policies", "errors"])
def test_of_many_policies_some_are_counted(name: str) -> None:
    """The first 64 are named, and of more a number is told."""
    ids = tuple(f"p{number:02}" for number in range(66))
    changes: list[dict[str, Any]] = [{name: ids[:64]}, {name: ids[:65]}, {name: ids}]
    records = [record_of(**change) for change in changes]

    assert [list(ids[:64])] * 3 == [record[name] for record in records]
    assert [None, 1, 2] == [record.get(f"{name}_left_out") for record in records]


# The form of a line.

PLACE = Place("0f3a9c51d2e7", 17, "ab" * 32)


def test_a_body_is_canonical_and_open() -> None:
    """Sorted, without blanks, printable ASCII, and no number that is none."""
    assert b'{"a":[1,"\\u202e\\n"],"b":{"c":null,"d":1}' == body({"b": {"d": 1, "c": None}, "a": [1, "\u202e\n"]})
    with pytest.raises(ValueError, match="JSON"):
        body({"a": math.nan})


def test_a_place_stands_at_the_end_of_its_line() -> None:
    """It is read back, from lines of any length; a line is closed by it."""
    for text in ("", "x" * 5000):
        line = placed(body({"a": text}), PLACE)

        assert line == b'{"a":"%b","chain":"0f3a9c51d2e7","seq":17,"prev":"%b"}' % (text.encode(), b"ab" * 32)
        assert place_of(line) == PLACE
        assert line == canonical(json.loads(line))


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line + b"\n",
        lambda line: line[:-1],
        lambda line: line.replace(b"17", b"017"),
        lambda line: line.replace(b"17", b"0"),
        lambda line: line.replace(b"17", b"1" * 20),
        lambda line: line.replace(b"0f3a9c51d2e7", b"0F3A9C51D2E7"),
        lambda line: line.replace(b"abab", b"ab"),
        lambda line: line.replace(b'"seq"', b'"SEQ"'),
    ],
)
def test_what_is_no_place(change: Any) -> None:
    """Anything but the exact form."""
    assert place_of(change(placed(body({"a": 1}), PLACE))) is None


def test_the_largest_place_is_read() -> None:
    """A number of 19 digits, behind a comma that still belongs to it."""
    largest = Place("f" * 12, int("9" * 19), "f" * 64)

    assert largest == place_of(placed(body({"a": "b" * 200}), largest))


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b'{"a":1}', {"a": 1}),
        (b"[]", None),
        (b"1", None),
        (b"{", None),
        (b'{"a":NaN}', None),
        (b'{"a":Infinity}', None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_only_whole_objects_are_records(line: bytes, record: object) -> None:
    """Nothing else is read, and nothing fails."""
    assert record == parse_line(line)


def test_a_record_without_a_place_has_no_line() -> None:
    """It is an error that names the missing part."""
    with pytest.raises(KeyError):
        canonical({"a": 1, "chain": "0f3a9c51d2e7", "seq": 1})


def test_what_the_record_keeps_about_itself() -> None:
    """Kind, time and version beside what it is given; hashes are of the whole line, and the first follows zeros."""
    assert b'{"kind":"checkpoint","n":1,"time":"1970-01-01T00:00:01.500000Z","v":1' == own_body("checkpoint", 1.5, n=1)
    assert "0" * 64 == NOTHING_BEFORE
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" == hash_of(b"abc")
