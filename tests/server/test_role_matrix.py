"""Every role on every RPC, about sessions of the own tenant, of another one and of nobody, through real TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import TypeAlias

import grpc
import pytest

from pdp.model import Role
from pdp.server.rpcs import ACCESS, RPCS
from pdp.serving.rpc import PUBLIC
from pdp.v1.session_pb2 import WatchSessionsResponse
from tests.machinery.rpcs.asking import wanted
from tests.machinery.rpcs.row import ANY, EVERYONE, REFUSED
from tests.machinery.rpcs.table import ALL
from tests.machinery.servers.twotenants import NARROW, SIBLING, TENANTS, Answer, Subject, World, two_tenants

# Makes a session of a caller of a tenant; returns the sessions of all cells, for an RPC and the tenant of who calls it,
# and with `answered` those that only this RPC is asked about.
MakeSubject: TypeAlias = Callable[[str, str], Subject]
SubjectsOf: TypeAlias = Callable[..., Mapping[str, Subject]]

PATHS = {rpc.method: path for path, rpc in RPCS.items()}

# What is said of a session that is none of the caller's.
HIDDEN = {
    "PERMISSION_DENIED",
    "NOT_FOUND",
    "session_not_found",
    "not listed",
    "no record",
    "nothing",
    "nothing to revoke",
}
# What a gateway may call about a session that it names by id or handle.
ASKED = [
    name
    for name, row in ALL.items()
    if (cells := row.roles.get("pep", ANY)).own != cells.unknown and name != "ReportOutcome"
]
# Differs from answer to answer.
FRESH = ("decision_id", "trace_id", "span_id", "duration_us")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Serve two tenants."""
    with two_tenants(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture(scope="module")
def untouched(world: World) -> SubjectsOf:
    """Return what makes sessions that can be asked about again: of each kind they are made once."""

    @cache
    def made(make: MakeSubject, tenant_id: str, _of: str) -> dict[str, Subject]:
        return subjects_by(make, world, tenant_id)

    return lambda method, tenant_id, answered=False: made(
        subject_of(world, method), tenant_id, method if answered else ""
    )


def test_every_rpc_and_role_stands_in_the_table() -> None:
    """A new RPC, or a new role, cannot be left out."""
    assert set(ALL) == set(PATHS)
    assert {role.value for role in Role} == set(EVERYONE) == {role for row in ALL.values() for role in row.roles}


@pytest.mark.parametrize("tenant_id", TENANTS)
@pytest.mark.parametrize("role", EVERYONE)
@pytest.mark.parametrize("method", PATHS)
def test_every_role_on_every_rpc_about_every_session(
    world: World, untouched: SubjectsOf, method: str, role: str, tenant_id: str
) -> None:
    """Each role does to each session what the table says, and what is foreign cannot be told from what is not there."""
    caller, expected = world.actor(tenant_id, role), ALL[method].roles.get(role, REFUSED)
    answered = expected != REFUSED
    again = not (answered and ALL[method].spends)
    subjects = untouched(method, tenant_id, answered) if again else subjects_of(world, method, tenant_id)

    answers = {name: caller.ask(PATHS[method], ALL[method].ask(session)) for name, session in subjects.items()}

    assert expected._asdict() == {name: word(method, answers[name], session) for name, session in subjects.items()}
    alike = {plain(answers[name], subjects[name]) for name, cell in expected._asdict().items() if cell in HIDDEN}
    assert len(alike) == (1 if set(expected) & HIDDEN else 0)


@pytest.mark.parametrize("tenant_id", TENANTS)
@pytest.mark.parametrize("method", PATHS)
def test_who_is_no_caller_calls_nothing(world: World, untouched: SubjectsOf, method: str, tenant_id: str) -> None:
    """A good certificate, and a good token, that belong to no caller lead to nothing but probes."""
    public = RPCS[PATHS[method]].roles == PUBLIC
    subjects = untouched(method, tenant_id)

    codes = {world.nobody[tenant_id].ask(PATHS[method], ALL[method].ask(one)).code for one in subjects.values()}

    assert {grpc.StatusCode.OK if public else grpc.StatusCode.UNAUTHENTICATED} == codes


@pytest.mark.parametrize("tenant_id", TENANTS)
@pytest.mark.parametrize("method", ASKED)
def test_what_a_gateway_may_not_ask_about_is_unknown(world: World, method: str, tenant_id: str) -> None:
    """From the moment at which its entry has lists, a session outside them is answered like none, byte by byte."""
    (elsewhere,) = (one for one in TENANTS if one != tenant_id)
    caller, cells = world.actor(tenant_id, NARROW), ALL[method].roles["pep"]
    world.narrow(tenant_id, {})
    make = subject_of(world, method)
    own, foreign, unknown = make(tenant_id, NARROW), make(elsewhere, Role.PEP.value), Subject()

    def answer(subject: Subject, lists: Mapping[str, list[str]]) -> Answer:
        world.narrow(tenant_id, lists)
        return caller.ask(PATHS[method], ALL[method].ask(subject))

    outside: list[tuple[Subject, Mapping[str, list[str]]]] = [(foreign, {"users": ["ada"]})]
    if method != "EndSession":
        # Ending works: what a gateway has opened, it can end.
        outside += [(own, {"users": ["bob"]}), (own, {"agents": ["helper"], "users": ["ada"]})]
    for subject, lists in outside:
        assert plain(answer(unknown, lists), unknown) == plain(answer(subject, lists), subject)
    everything = {"users": ["ada"], "agents": ["coder"], "tenants": [tenant_id, elsewhere]}
    assert (cells.other, cells.own) == (
        word(method, answer(foreign, everything), foreign),
        word(method, answer(own, everything), own),
    )


@pytest.mark.parametrize("tenant_id", TENANTS)
def test_nothing_is_reported_of_a_session_that_a_gateway_may_not_ask_about(world: World, tenant_id: str) -> None:
    """A report with a token from before is refused as if the session were gone."""
    caller, row = world.actor(tenant_id, NARROW), ALL["ReportOutcome"]
    world.narrow(tenant_id, {})
    own = world.active(tenant_id, NARROW)

    def reported(**lists: list[str]) -> str:
        world.narrow(tenant_id, lists)
        return word("ReportOutcome", caller.ask(PATHS["ReportOutcome"], row.ask(own)), own)

    assert [row.states["unknown"], "OK"] == [reported(users=["bob"]), reported(users=["ada"])]


@pytest.mark.parametrize("tenant_id", TENANTS)
def test_a_session_is_requested_only_for_those_listed(world: World, tenant_id: str) -> None:
    """A user or agent outside the lists is refused in the same words, whether the directory has it or not."""
    caller, path = world.actor(tenant_id, NARROW), PATHS["RequestSession"]

    def refused(name: str, value: str) -> str:
        answer = caller.ask(path, wanted(**{"user": "ada", "agent": "coder", name: value}))
        return f"{answer.code.name} {answer.details}".replace(value, "ID")

    world.narrow(tenant_id, {"users": ["ada"], "agents": ["coder"]})
    found = {
        refused(name, value) for name, there in (("user", "bob"), ("agent", "helper")) for value in (there, "nobody")
    }

    said = "INVALID_ARGUMENT `{0}`: `ID` is not among the {0}s of this caller"
    assert {said.format("user"), said.format("agent")} == found
    assert grpc.StatusCode.OK is caller.ask(path, wanted(user="ada", agent="coder")).code


def subjects_of(world: World, method: str, tenant_id: str) -> dict[str, Subject]:
    """Return a fresh session for each cell."""
    return subjects_by(subject_of(world, method), world, tenant_id)


def subjects_by(make: MakeSubject, world: World, tenant_id: str) -> dict[str, Subject]:
    """Return a session for each cell."""
    (elsewhere,) = (one for one in TENANTS if one != tenant_id)
    return {
        "own": make(tenant_id, Role.PEP.value),
        "other": make(tenant_id, SIBLING),
        "foreign": make(elsewhere, Role.PEP.value),
        "unknown": Subject(bundle_version=world.bundle_version),
    }


def subject_of(world: World, method: str) -> MakeSubject:
    """Return how a session is made that an RPC can be asked about."""
    # A caller can have few open access requests, so only a session that needs one has one.
    asked = world.asked if RPCS[PATHS[method]].service == ACCESS else world.active
    return world.waiting if ALL[method].waits else asked


def word(method: str, answer: Answer, session: Subject) -> str:
    """Say in a word what came of an RPC."""
    if answer.code is not grpc.StatusCode.OK:
        return str(answer.code.name)
    return ALL[method].said(answer.message, session)


def plain(answer: Answer, asked: Subject) -> Answer:
    """Return an answer, byte by byte, without what is fresh in each and with one name for what was asked about."""
    message = answer.message
    if message is not None:
        if isinstance(message, WatchSessionsResponse):
            # Of the whole store, in which other sessions may have changed since the answer before.
            message.ClearField("revision")
        decided = (getattr(message, "decision", None), *getattr(message, "decisions", ()))
        for decision in decided:
            for name in FRESH if decision is not None else ():
                decision.ClearField(name)
        message = message.SerializeToString(deterministic=True)
    details, trailing = answer.details, answer.trailing
    for one in (asked.id, asked.decision_id, asked.access_request_id):
        details = details.replace(one, "ID")
        trailing = tuple((key, _bytes(value).replace(one.encode(), b"ID")) for key, value in trailing)
    return replace(answer, message=message, details=details, trailing=trailing)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
