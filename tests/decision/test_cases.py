"""The main table: every case runs through the product in all its ways and through the oracle, and all agree."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest

from pdp.model import Basis
from pdp.telemetry import names
from tests.machinery.bases import UNSHOWN
from tests.machinery.ways.embeddedway import embedded_way
from tests.machinery.ways.notation import Case, SlipError, Step, load_cases, read_cases
from tests.machinery.ways.oracleway import OracleWay
from tests.machinery.ways.runner import expected_cache, run, run_product
from tests.machinery.ways.serviceway import service_way

CASES = list(load_cases())
CALLS = [step for case in CASES for step in case.steps if step.verb == "call"]
HOW = ("unary", "batch", "stream", "together")


def answer_to(step: Step) -> Any:
    """Return what the table says about a call: its basis, or why it is refused."""
    return step.given.get("allow") or step.given.get("deny") or step.refused


def by_turns() -> dict[str, str]:
    """Choose for the place of each call how the client asks: calls with the same answer take turns."""
    turns: defaultdict[Any, Iterator[str]] = defaultdict(lambda: cycle(HOW))
    return {step.place: next(turns[answer_to(step)]) for step in CALLS}


ASKED = by_turns()


def title(case: Case) -> str:
    """Name a case in the output of a test run."""
    return f"{case.theme}: {case.name}"


each_case = pytest.mark.parametrize("case", CASES, ids=title, scope="module")


@each_case
def test_through_the_authorizer_without_cache(case: Case, tmp_path: Path) -> None:
    """Every answer follows from the policies alone."""
    with embedded_way(case, tmp_path, remembers=False) as way:
        run_product(case, way)


@each_case
def test_through_the_authorizer_with_cache(case: Case, tmp_path: Path) -> None:
    """What is remembered changes no answer, nor does deciding at once; it is remembered where the case says so."""
    with embedded_way(case, tmp_path, remembers=True) as way:
        run_product(case, way)


@each_case
def test_through_the_server(case: Case) -> None:
    """The client hears over the wire what the authorizer says, however it asks."""
    with service_way(case, ASKED) as way:
        run_product(case, way)


def test_the_server_gives_every_answer_however_it_is_asked() -> None:
    """Each answer that four calls have is heard by a call alone, in either kind of batch and on a stream."""
    often = {answer for answer, calls in Counter(map(answer_to, CALLS)).items() if calls >= len(HOW)}

    assert len(ASKED) == len(CALLS)
    assert set(product(often, HOW)) <= {(answer_to(step), ASKED[step.place]) for step in CALLS}


@pytest.mark.parametrize("case", [case for case in CASES if not case.beyond_oracle], ids=title, scope="module")
def test_through_the_oracle(case: Case) -> None:
    """Code that shares nothing with the product comes to the same answers."""
    run(case, OracleWay(case))


def test_the_table_is_large_enough() -> None:
    """A table that lost its files would pass without a word."""
    assert len(CALLS) >= 100


def test_every_basis_has_a_call() -> None:
    """A basis that no case shows is not specified; the table of bases names those that none can show."""
    shown = {step.given.get("allow", step.given.get("deny")) for step in CALLS}

    assert {basis.value for basis in Basis} - {basis.value for basis in UNSHOWN} == shown - {None}


def test_every_cache_result_has_a_call() -> None:
    """Hit, miss, bypass and none are all shown."""
    assert {expected_cache(step, remembers=True) for step in CALLS} == {"hit", "miss", "bypass", "none"}


def test_every_attribute_of_a_decision_is_shown(tmp_path: Path) -> None:
    """Each name that the telemetry has for a decision's span stands in the span of at least one case, and no other."""
    # Those of more policies than a case has are shown by `tests/record/test_many_policies.py`.
    of_many = {names.POLICIES_LEFT_OUT, names.ERRORS_LEFT_OUT}
    known = {one.name for one in names.ATTRIBUTES if names.DECIDED in one.on} - of_many

    # No case has other names than these and what it states: `run_product` demands it.
    assert {name for step in CALLS for name in step.given.get("span", ())} <= known
    shown: set[str] = set()
    stated: set[str] = set()
    for number, case in enumerate(CASES):
        # A case that says nothing that no case before it has said would show the same attributes.
        says = {word for step in case.steps for word in (step.verb, *step.given, *step.given.get("span", ()))}
        if says <= stated:
            continue
        stated |= says
        folder = tmp_path / str(number)
        folder.mkdir()
        with embedded_way(case, folder, remembers=True) as way:
            run_product(case, way)
            shown |= {name for span in way.evidence.decision_spans for name in span}

    assert known == shown


A_CASE = """
bundle: office
cases:
  - case: somebody asks
    steps:
      - {request: work, user: ada, agent: coder, tools: ["git/*"]}
      - {call: git/log, session: work, arguments: {repo: web}, deny: session_not_approved}
"""


def test_a_case_is_read() -> None:
    """The text that the next test spoils is a case."""
    (case,) = read_cases("example.yaml", A_CASE.encode())

    assert [(step.verb, step.subject) for step in case.steps] == [("request", "work"), ("call", "git/log")]


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("bundle:", "bundel:", "example.yaml:2: unknown key: `bundel`; did you mean `bundle`?"),
        ("- case:", "- rule:", "example.yaml:4: unknown key: `rule`"),
        ("request: work", "ask: work", "example.yaml:6: unknown step: `ask`"),
        ("user: ada,", "", "example.yaml:6: `user` is missing"),
        ("tools:", "tool:", "example.yaml:6: unknown key: `tool`; did you mean `tools`?"),
        ("arguments:", "argument:", "example.yaml:7: unknown key: `argument`; did you mean `arguments`?"),
        (
            ", deny: session_not_approved",
            "",
            "example.yaml:7: a call says exactly one of `allow`, `deny` and `refused`",
        ),
        ("deny: session", "allow: permit, deny: session", "example.yaml:7: a call says exactly one of"),
        ("session: work, arg", "session: work, session: work, arg", "example.yaml:7: key `session` appears twice"),
    ],
)
def test_a_slip_in_a_case_is_an_error(right: str, wrong: str, message: str) -> None:
    """A case never passes because the runner did not understand what it says."""
    assert right in A_CASE

    with pytest.raises(SlipError) as caught:
        list(read_cases("example.yaml", A_CASE.replace(right, wrong).encode()))

    assert message in str(caught.value)


def test_without_cache_only_hits_read_otherwise() -> None:
    """The one rule for the cache's word without a cache."""
    read = {
        cache: expected_cache(Step(verb="call", subject="", given={"cache": cache}, place=""), remembers=False)
        for cache in ("hit", "miss", "bypass", "none")
    }

    assert {"hit": "miss", "miss": "miss", "bypass": "bypass", "none": "none"} == read
