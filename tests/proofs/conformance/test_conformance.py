"""`Evaluate` says exactly what Cedar's own tests, Cedar's examples and AuthZEN's decisions say."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc
import pytest

from pdp.testing.bundles import bundle_files
from pdp.testing.inprocess import running_server
from tests.proofs.conformance.cases import Case, Run, authzen, corpus, disagreements, examples, hand_written
from tests.proofs.conformance.edges import BROKEN, EDGES
from tests.proofs.conformance.over_grpc import over_grpc

SEED = 20261125
SAMPLE = 5_000


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    """Yield what runs a job: `PolicyService.Evaluate` on a running server."""
    files = bundle_files(policies={}, tools={}, directory="")
    with running_server(files) as server, grpc.insecure_channel(server.address) as channel:
        yield over_grpc(channel, server.token("author"))


def check(cases: Iterable[Case], run: Run) -> tuple[int, int]:
    """Run all cases, demand that all agree, print and return the number of cases and of requests."""
    cases = list(cases)
    requests = sum(len(case.expected) for case in cases)
    wrong = [line for case in cases for line in disagreements(case, run(case.job))]
    print(f"{len(cases)} cases, {requests} requests, {len(wrong)} disagreements")  # noqa: T201 - the figure of the proof

    assert wrong == []
    return len(cases), requests


def test_hand_written_cases(test_data: Path, run: Run) -> None:
    """All of Cedar's hand-written requests."""
    assert check(hand_written(test_data / "cedar-integration-tests"), run) == (22, 74)


def test_examples(test_data: Path, run: Run) -> None:
    """All requests of Cedar's example applications, templates included."""
    assert check(examples(test_data / "cedar-examples"), run) == (72, 72)


def test_authzen(test_data: Path, run: Run) -> None:
    """AuthZEN's Todo decisions, 40 single ones and 3 batches of two."""
    assert check(authzen(test_data / "authzen"), run) == (43, 46)


def test_sample_of_the_corpus(test_data: Path, run: Run) -> None:
    """A sample of the fuzz corpus, at least 5,000 requests."""
    print(f"seed {SEED}")  # noqa: T201 - to repeat it
    cases = list(corpus(test_data / "cedar-integration-tests" / "corpus-tests.tar.gz"))
    sample = random.Random(SEED).sample(cases, len(cases) * SAMPLE // 60_000)  # noqa: S311 - no secret

    assert check(sample, run)[1] >= SAMPLE


@pytest.mark.long
def test_corpus(test_data: Path, run: Run) -> None:
    """The whole fuzz corpus."""
    assert check(corpus(test_data / "cedar-integration-tests" / "corpus-tests.tar.gz"), run) == (7_809, 62_472)


def test_disagreements_are_found(test_data: Path, run: Run) -> None:
    """The comparison notices a wrong decision, reason, erring policy and verdict of the validator."""
    case = next(hand_written(test_data / "cedar-integration-tests"))
    right = run(case.job)
    first = right["evaluations"][0]
    wrong = [
        right | {"valid": not right["valid"]},
        right | {"evaluations": right["evaluations"][1:]},
        *(
            right | {"evaluations": [first | change, *right["evaluations"][1:]]}
            for change in ({"decision": "NoDecision"}, {"reasons": ["policy99"]}, {"erroring_policies": ["policy0"]})
        ),
        {"invalid": {"field": "policies", "problem": "x"}},
    ]

    assert disagreements(case, right) == []
    assert [bool(disagreements(case, result)) for result in wrong] == [True] * len(wrong)


def test_edges(run: Run) -> None:
    """Cases in which an adapter that is nearly right would answer wrongly."""
    assert check(EDGES, run) == (13, 23)


@pytest.mark.parametrize("fault", sorted(BROKEN))
def test_adapters_that_are_nearly_right_are_noticed(run: Run, fault: str) -> None:
    """Each of them disagrees with a case."""
    broken = BROKEN[fault](run)

    assert [case.name for case in EDGES if disagreements(case, broken(case.job))] != []
