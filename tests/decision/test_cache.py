"""What is remembered, by itself: keys, ends, bounds, and the memory of request ids."""

from __future__ import annotations

import hashlib
import tracemalloc
from dataclasses import astuple, replace
from sys import getsizeof

import pytest

from pdp.clock import Deadline, Instant
from pdp.decision.cache import DecisionCache, RequestMemory, call_key, read_key
from pdp.decision.ruling import deny
from pdp.errors import RequestIdConflictError
from pdp.foundation.lrucache import LRUCache
from pdp.model import Basis, Call, Caller, Outcome
from pdp.testing.decisions import a_decision
from pdp.testing.stores.samples import make_session

ALLOW, DENY = Outcome.ALLOW, Outcome.DENY
NOW = Instant(wall_at=1000.0, boot_at=100.0, boot_id="boot-1")
FAR = Deadline.after(NOW, 1e6)
CALL = Call(session_handle="h", server="a", tool="b", arguments_json=b"{}", facts_json=b"[]", definition_digest="d")
CALLER = Caller(id="gateway", kind="token", roles=frozenset())
OTHER, FOREIGN = replace(CALLER, id="other"), replace(CALLER, tenant="elsewhere")
RULING = deny(Basis.FORBID)
OWN, ABOVE = make_session("own", epoch=3), make_session("above", epoch=5)
LONG = b"x" * 1025


def later(seconds: float) -> Instant:
    """Return a moment after now."""
    return Instant(wall_at=NOW.wall_at + seconds, boot_at=NOW.boot_at + seconds, boot_id=NOW.boot_id)


def test_the_whole_key_of_a_call() -> None:
    """It is these parts in this order, and nothing else."""
    expected = ("call", "v", (("ses_own", 3), ("ses_above", 5)), (1, 2), "gateway", "a", "b", b"{}", b"[]")

    assert expected == call_key("v", (OWN, ABOVE), CALL, CALLER, (1, 2))


def test_the_whole_key_of_what_is_read() -> None:
    """It is these parts in this order, and nothing else."""
    expected = ("read", "v", (("ses_own", 3), ("ses_above", 5)), (1, 2), "a", "b", b"[1]")

    assert expected == read_key("v", (OWN, ABOVE), CALL, b"[1]", (1, 2))


@pytest.mark.parametrize(("text", "short"), [(b"", True), (LONG[:1024], True), (LONG, False)])
def test_long_texts_stand_as_their_digest(text: bytes, *, short: bool) -> None:
    """Up to 1,024 bytes stand as they are; a longer text is a tuple of its SHA-256, which no text is."""
    expected = text if short else (hashlib.sha256(text).digest(),)

    key = call_key("v", (), replace(CALL, arguments_json=text, facts_json=text), CALLER, ())

    assert (expected, expected) == key[-2:]


def test_an_entry_is_found_until_its_end() -> None:
    """The moment of its end counts as passed, and `max_ttl` bounds it by default to five minutes."""
    cache = DecisionCache()
    cache.put(("long",), RULING, FAR, NOW)
    cache.put(("short",), RULING, Deadline.after(NOW, 10.0), NOW)

    assert [True, False] == [cache.get(("long",), later(seconds)) is not None for seconds in (299.5, 300.0)]
    assert [True, False] == [cache.get(("short",), later(seconds)) is not None for seconds in (9.5, 10.0)]
    found = cache.get(("short",), NOW)
    assert found is not None
    assert (RULING, Deadline.after(NOW, 10.0)) == (found.ruling, found.end)
    assert cache.get(("other",), NOW) is None
    assert 300.0 == cache.max_ttl


def test_a_cache_holds_as_much_as_it_may() -> None:
    """The default is 65,536 rulings; the one that was not used for longest goes first; none with a size of 0."""
    two, none, usual = DecisionCache(size=2), DecisionCache(size=0), DecisionCache()
    for cache in (two, none):
        for name in ("a", "b", "c"):
            cache.put((name,), RULING, FAR, NOW)
    for number in range(65_537):
        usual.put((number,), RULING, FAR, NOW)

    assert [False, True, True] == [two.get((name,), NOW) is not None for name in ("a", "b", "c")]
    assert none.get(("c",), NOW) is None
    assert [False, True] == [usual.get((number,), NOW) is not None for number in (0, 1)]


def test_a_cache_can_forget() -> None:
    """What was cleared is not found."""
    cache = DecisionCache()
    cache.put(("a",), RULING, FAR, NOW)
    cache.clear()

    assert cache.get(("a",), NOW) is None


def test_a_value_is_made_once() -> None:
    """It is kept under its key, and made again when it has gone."""
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name

    cache: LRUCache[str] = LRUCache(2)
    found = [cache.get(name) or cache.keep(name, make(name)) for name in "aabcbca"]

    assert list("aabcbca") == found
    assert list("abca") == made


def test_a_retry_gets_the_first_decision_id() -> None:
    """The same call of the same caller under the same request id, until five minutes have passed."""
    memory = RequestMemory()

    assert "dec_1" == memory.claim(CALLER, "r", CALL, "dec_1", DENY, NOW)
    assert "dec_1" == memory.claim(CALLER, "r", CALL, "dec_2", DENY, later(299.5))
    assert "dec_3" == memory.claim(CALLER, "other", CALL, "dec_3", DENY, NOW)
    assert "dec_4" == memory.claim(OTHER, "r", CALL, "dec_4", DENY, NOW)
    assert "dec_5" == memory.claim(CALLER, "r", CALL, "dec_5", DENY, later(300.0))


def test_nobody_else_can_use_up_a_request_id() -> None:
    """In another tenant the same id is another caller's, and its request ids are others."""
    memory = RequestMemory()
    memory.claim(FOREIGN, "r", replace(CALL, tool="c"), "dec_1", DENY, NOW)
    memory.part(FOREIGN, "r")

    assert ["dec_2", "dec_2"] == [memory.claim(CALLER, "r", CALL, name, DENY, NOW) for name in ("dec_2", "dec_3")]


def test_another_outcome_has_another_decision_id() -> None:
    """No id stands for an allow and a deny, in whichever order they come."""
    memory = RequestMemory()
    outcomes = (DENY, ALLOW, ALLOW, DENY)

    ids = [memory.claim(CALLER, "r", CALL, f"dec_{n}", one, NOW) for n, one in enumerate(outcomes)]

    assert ids == ["dec_0", "dec_1", "dec_1", "dec_3"]


def test_an_outcome_that_was_changed_is_shared_by_no_retry() -> None:
    """An allow that became a deny for lack of a record keeps its id, and the next allow has another."""
    memory = RequestMemory()
    memory.claim(CALLER, "r", CALL, "dec_1", ALLOW, NOW)

    memory.part(CALLER, "r")
    memory.part(CALLER, "unknown")

    assert ["dec_2", "dec_2"] == [memory.claim(CALLER, "r", CALL, name, ALLOW, NOW) for name in ("dec_2", "dec_3")]
    with pytest.raises(RequestIdConflictError):
        memory.claim(CALLER, "r", replace(CALL, tool="c"), "dec_4", ALLOW, NOW)


def test_a_request_id_can_be_taken_without_an_outcome() -> None:
    """It then belongs to this call, and what the gate denies shares its id with no other try."""
    memory = RequestMemory()

    assert "dec_0" == memory.claim(CALLER, "r", CALL, "dec_0", None, NOW)
    with pytest.raises(RequestIdConflictError):
        memory.claim(CALLER, "r", replace(CALL, tool="c"), "dec_1", ALLOW, NOW)
    assert "dec_2" == memory.claim(CALLER, "r", CALL, "dec_2", DENY, NOW)
    assert "dec_3" == memory.claim(CALLER, "r", CALL, "dec_3", None, NOW)
    assert "dec_2" == memory.claim(CALLER, "r", CALL, "dec_4", DENY, NOW)


@pytest.mark.parametrize(
    "other",
    [
        {"session_handle": "i"},
        {"server": "b"},
        {"tool": "c"},
        {"arguments_json": b"{ }"},
        {"arguments_json": LONG},
        {"definition_digest": "e"},
        {"facts_json": b"[ ]"},
    ],
    ids=str,
)
def test_another_call_under_the_same_request_id_is_refused(other: dict[str, str]) -> None:
    """Whichever field of the call differs."""
    memory = RequestMemory()
    memory.claim(CALLER, "r", CALL, "dec_1", ALLOW, NOW)

    with pytest.raises(RequestIdConflictError):
        memory.claim(CALLER, "r", replace(CALL, **other), "dec_2", ALLOW, NOW)  # type: ignore[arg-type]  # by name


def test_what_moves_between_the_fields_of_a_call_makes_another_call() -> None:
    """Texts that read the same one after the other do not: the bytes are pinned, with where each field ends."""
    memory = RequestMemory()
    memory.claim(CALLER, "r", CALL, "dec_1", ALLOW, NOW)
    [claim] = memory._claims.values()

    assert hashlib.sha256(b"1 1 1 1 2 habd{}[]").digest() == claim.asked


def test_the_memory_of_request_ids_is_bounded_and_holds_no_handle() -> None:
    """Ten thousand are remembered by default, each as one digest of the whole call."""
    memory = RequestMemory()
    for number in range(10_001):
        memory.claim(CALLER, str(number), CALL, f"dec_{number}", ALLOW, NOW)

    assert "fresh" == memory.claim(CALLER, "0", CALL, "fresh", ALLOW, NOW)
    assert "dec_10000" == memory.claim(CALLER, "10000", CALL, "fresh", ALLOW, NOW)
    assert "dec_2" == memory.claim(CALLER, "2", CALL, "fresh", ALLOW, NOW)
    assert {32} == {len(claim.asked) for claim in memory._claims.values()}


@pytest.mark.parametrize("name", ["tool", "server", "session_handle", "definition_digest"])
def test_the_memory_of_request_ids_keeps_no_text_of_a_call(name: str) -> None:
    """A name of 256 KiB, of letters that take four bytes each, costs no more than a short one; it still counts."""
    memory, long = RequestMemory(), replace(CALL, **{name: "\ud800\U0001f600" * 65_536})  # type: ignore[arg-type]  # by name
    memory.claim(CALLER, "short", CALL, "d1", ALLOW, NOW)
    tracemalloc.start()

    for number in range(10):
        memory.claim(CALLER, f"long-{number}", long, f"d{number}", ALLOW, NOW)

    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 10 * 2048
    assert memory.claim(CALLER, "long-3", long, "d9", ALLOW, NOW) == "d3"
    with pytest.raises(RequestIdConflictError):
        memory.claim(CALLER, "long-3", CALL, "d9", ALLOW, NOW)


def test_rulings_are_bounded_in_bytes() -> None:
    """Texts that stand in keys and rulings count: 64 MiB are all, whatever agents send."""
    cache, long = DecisionCache(), replace(RULING, resource_id="\U0001f600" * 4 * 1024 * 1024)
    for number in range(5):
        cache.put((number,), long, FAR, NOW)
    cache.put(("larger than all",), replace(long, resource_id=long.resource_id * 5), FAR, NOW)

    kept = [number for number in range(5) if cache.get((number,), NOW)]

    assert [2, 3, 4] == kept
    assert cache.get(("larger than all",), NOW) is None


def test_a_ruling_weighs_what_it_keeps() -> None:
    """Texts of key, resource and recorded arguments, 256 bytes for each session of the key, and 768 for the rest.

    Obligations and advice count as lists, here empty: their texts are the bundle's. What the decisions are about counts
    with all its values.
    """
    logged, matter = (("name", "x" * 300), ("other", "y" * 20)), a_decision().matter
    rulings = (replace(RULING, policies=("a", "b"), resource_id="z"), replace(RULING, logged_arguments=logged), RULING)
    weights = []
    for ruling in rulings:
        cache, key = DecisionCache(), ("text", (("s", 1), ("t", 2), ("u", 3)))
        cache.put(key, ruling, FAR, NOW, matter if ruling is RULING else None)
        found = cache.get(key, NOW)
        assert found is not None
        weights.append(found.weight - sum(map(getsizeof, key)) - 3 * 256 - 768 - 2 * getsizeof(()))

    assert weights == [
        getsizeof("z") + getsizeof(("a", "b")),
        getsizeof("") + getsizeof(()) + getsizeof("x" * 300) + getsizeof("y" * 20),
        getsizeof("") + getsizeof(RULING.policies) + getsizeof(matter) + sum(map(getsizeof, astuple(matter))),
    ]


def test_values_are_bounded_in_bytes() -> None:
    """What was not used for longest makes room, and what is heavier than all may be is made each time."""
    cache: LRUCache[str] = LRUCache(100, most_bytes=10, weigh=len)
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name

    for name in ("four", "five5", "four", "six666", "four", "five5", "heavier than ten", "heavier than ten"):
        assert name == (cache.get(name) or cache.keep(name, make(name)))

    assert ["four", "five5", "six666", "five5", "heavier than ten", "heavier than ten"] == made


def test_every_byte_is_counted_once() -> None:
    """A value that is replaced or forgotten gives its bytes back; as many values as there is room for are kept."""
    cache: LRUCache[str] = LRUCache(100, most_bytes=10, weigh=len)
    for _ in range(3):
        cache.keep("replaced", "seven77")
    replaced = cache.get("replaced")
    cache.clear()
    cache.keep("whole", "ten letter")
    whole = cache.get("whole")
    for letter in "abcdefghijk":
        cache.keep(letter, letter)

    assert ("seven77", "ten letter") == (replaced, whole)
    assert [None, *"bcdefghijk"] == [cache.get(letter) for letter in "abcdefghijk"]
