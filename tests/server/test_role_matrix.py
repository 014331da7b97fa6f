"""Every role on every RPC, about sessions of the own tenant, of another one and of nobody, through real TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from pdp.model import Role
from pdp.server.rpcs import RPCS
from pdp.serving.rpc import PUBLIC
from pdp.v1.policy_pb2 import ActivateBundleRequest
from tests.failures.questions import MESSAGES, READ, Named
from tests.server.twotenants import SIBLING, TENANTS, Answer, Subject, World, two_tenants


class Cells(NamedTuple):
    """What comes of an RPC about four sessions: an answer in a word, or the name of a status.

    `own` is an active session that the caller opened, or for callers that open none a gateway of their tenant;
    `other` is one of another gateway of the tenant, `foreign` one of another tenant, `unknown` one of nobody.
    """

    own: str
    other: str
    foreign: str
    unknown: str


REFUSED = Cells(*["PERMISSION_DENIED"] * 4)
# Belongs to no session.
ANY = Cells(*["OK"] * 4)
# A handle is all that counts, whichever gateway of the tenant holds it.
CALL = Cells("permit", "permit", "session_not_found", "session_not_found")


def tenant(answer: str, *, hidden: str = "NOT_FOUND") -> Cells:
    """Return the cells of what anybody of the tenant may do."""
    return Cells(answer, answer, hidden, hidden)


def opener(answer: str, *, hidden: str = "NOT_FOUND") -> Cells:
    """Return the cells of what only the gateway that opened the session may do."""
    return Cells(answer, hidden, hidden, hidden)


# Stated by hand: a new role must be thought about.
EVERYONE = ("pep", "approver", "author", "auditor", "admin")
WATCHFUL = ("approver", "auditor", "admin")

# Which role may do what to whose session. What a role does not stand at is refused, whatever the message says.
TABLE: Mapping[str, Mapping[str, Cells]] = {
    "Authorize": {"pep": CALL},
    "BatchAuthorize": {"pep": CALL},
    "AuthorizeStream": {"pep": CALL},
    "ListTools": {"pep": tenant("OK")},
    # The session is the parent of the one that is asked for.
    "RequestSession": {"pep": opener("OK")},
    "ApproveSession": {"approver": tenant("OK")},
    "DenySession": {"approver": tenant("OK")},
    "EndSession": {"pep": opener("OK")},
    "RevokeSessions": dict.fromkeys(("approver", "admin"), tenant("revokes 1")),
    "ReviewSession": {"approver": tenant("active")},
    "GetSession": {"pep": opener("active"), **dict.fromkeys(WATCHFUL, tenant("active"))},
    "ListSessions": {
        "pep": opener("active", hidden="not listed"),
        **dict.fromkeys(WATCHFUL, tenant("active", hidden="not listed")),
    },
    "NarrowSession": {"pep": opener("OK"), "approver": tenant("OK")},
    # Policies belong to no tenant: one bundle is active for all.
    "GetBundle": dict.fromkeys(("author", "auditor", "admin"), ANY),
    "ListBundles": dict.fromkeys(("author", "auditor", "admin"), ANY),
    "ActivateBundle": dict.fromkeys(("author", "admin"), ANY),
    "ReloadBundle": dict.fromkeys(("author", "admin"), ANY),
    "CheckBundle": dict.fromkeys(("author", "admin"), ANY),
    "Evaluate": {"author": ANY},
    "Explain": dict.fromkeys(("author", "auditor"), tenant("permit")),
    "GetRecord": dict.fromkeys(("auditor", "admin"), tenant("OK")),
    "ListRecords": dict.fromkeys(("auditor", "admin"), tenant("1 record", hidden="no record")),
    "ListApprovals": dict.fromkeys(("auditor", "admin"), tenant("active")),
    "ListTouched": dict.fromkeys(("auditor", "admin"), tenant("git/log", hidden="nothing")),
    "PlanRevocation": dict.fromkeys(("auditor", "admin"), tenant("revoke it", hidden="nothing to revoke")),
    "Check": dict.fromkeys(EVERYONE, ANY),
    "Watch": dict.fromkeys(EVERYONE, ANY),
    "ServerReflectionInfo": dict.fromkeys(EVERYONE, ANY),
}
PATHS = {rpc.method: path for path, rpc in RPCS.items()}
# These decide about a session that waits; all others are about one that is active.
DECIDING = frozenset({"ApproveSession", "DenySession"})

SAID: Mapping[str, Callable[[Any, Named], str]] = {
    **READ,
    "ListTouched": lambda found, _: " ".join(f"{one.server}/{one.tool}" for one in found.touched) or "nothing",
}
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
# Differs from answer to answer.
FRESH = ("decision_id", "trace_id", "span_id", "duration_us")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Serve two tenants."""
    with two_tenants(tmp_path_factory.mktemp("world")) as world:
        yield world


def test_every_rpc_and_role_stands_in_the_table() -> None:
    """A new RPC, or a new role, cannot be left out."""
    assert set(TABLE) == set(PATHS)
    assert {role.value for role in Role} == set(EVERYONE) == {role for row in TABLE.values() for role in row}


@pytest.mark.parametrize("tenant_id", TENANTS)
@pytest.mark.parametrize("role", EVERYONE)
@pytest.mark.parametrize("method", PATHS)
def test_every_role_on_every_rpc_about_every_session(world: World, method: str, role: str, tenant_id: str) -> None:
    """Each role does to each session what the table says, and what is foreign cannot be told from what is not there."""
    caller = world.actor(tenant_id, role)
    subjects = subjects_of(world, method, tenant_id)

    answers = {name: caller.ask(PATHS[method], question(world, method, session)) for name, session in subjects.items()}

    expected = TABLE[method].get(role, REFUSED)
    assert expected._asdict() == {name: word(method, answers[name], session) for name, session in subjects.items()}
    alike = {plain(answers[name], subjects[name]) for name, cell in expected._asdict().items() if cell in HIDDEN}
    assert len(alike) == (1 if set(expected) & HIDDEN else 0)


@pytest.mark.parametrize("tenant_id", TENANTS)
@pytest.mark.parametrize("method", PATHS)
def test_who_is_no_caller_calls_nothing(world: World, method: str, tenant_id: str) -> None:
    """A good certificate, and a good token, that belong to no caller lead to nothing but probes."""
    public = RPCS[PATHS[method]].roles == PUBLIC
    subjects = subjects_of(world, method, tenant_id)

    codes = {world.nobody[tenant_id].ask(PATHS[method], question(world, method, one)).code for one in subjects.values()}

    assert {grpc.StatusCode.OK if public else grpc.StatusCode.UNAUTHENTICATED} == codes


def subjects_of(world: World, method: str, tenant_id: str) -> dict[str, Subject]:
    """Return a fresh session for each cell."""
    (elsewhere,) = (one for one in TENANTS if one != tenant_id)
    make = world.waiting if method in DECIDING else world.active
    return {
        "own": make(tenant_id, Role.PEP.value),
        "other": make(tenant_id, SIBLING),
        "foreign": make(elsewhere, Role.PEP.value),
        "unknown": Subject(),
    }


def question(world: World, method: str, session: Subject) -> Message:
    """Return the message that asks an RPC about a session."""
    ask: Callable[[Named], Message] = {
        **MESSAGES,
        "ActivateBundle": lambda _: ActivateBundleRequest(version=world.bundle_version),
        "ServerReflectionInfo": lambda _: ServerReflectionRequest(list_services=""),
        "Check": lambda _: HealthCheckRequest(),
        "Watch": lambda _: HealthCheckRequest(),
    }[method]
    return ask(session)


def word(method: str, answer: Answer, session: Subject) -> str:
    """Say in a word what came of an RPC."""
    if answer.code is not grpc.StatusCode.OK:
        return str(answer.code.name)
    return SAID[method](answer.message, session) if method in SAID else "OK"


def plain(answer: Answer, asked: Subject) -> Answer:
    """Return an answer, byte by byte, without what is fresh in each and with one name for what was asked about."""
    message = answer.message
    if message is not None:
        decided = (getattr(message, "decision", None), *getattr(message, "decisions", ()))
        for decision in decided:
            for name in FRESH if decision is not None else ():
                decision.ClearField(name)
        message = message.SerializeToString(deterministic=True)
    details, trailing = answer.details, answer.trailing
    for one in (asked.id, asked.decision_id):
        details = details.replace(one, "ID")
        trailing = tuple((key, _bytes(value).replace(one.encode(), b"ID")) for key, value in trailing)
    return replace(answer, message=message, details=details, trailing=trailing)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
