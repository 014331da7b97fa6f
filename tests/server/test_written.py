"""What the agent wrote is data and gets a deny; what the gateway wrote is API and gets an error. Both are recorded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor

from pdp.limits import DEFAULT_LIMITS
from pdp.telemetry import names
from pdp.v1.authorization_pb2 import AuthorizeStreamRequest, BatchAuthorizeRequest
from pdp.v1.decision_pb2 import OUTCOME_ALLOW, OUTCOME_DENY, Decision
from tests.machinery.rpcs.asking import a_call, basis_of
from tests.machinery.rpcs.table import OWN
from tests.machinery.servers.rawmessages import METHODS, Opened, Service, serving


def scored(score: str) -> bytes:
    """Return arguments of `clock/ring`, whose only parameter may hold anything."""
    return b'{"score": ' + score.encode() + b"}"


def padded(size: int) -> bytes:
    """Return arguments of `clock/ring` that are exactly so many bytes long."""
    return b'{"score": 1'.ljust(size - 1) + b"}"


def nested(depth: int) -> bytes:
    """Return arguments of `clock/ring` that are so many levels deep."""
    return scored("[" * (depth - 1) + "]" * (depth - 1))


def listed(nodes: int) -> bytes:
    """Return arguments of `clock/ring` that hold so many values, the object and the list included."""
    return scored("[" + ",".join("0" * (nodes - 2)) + "]")


# Names of tools as an agent may make them up; the server's name is the gateway's.
TOOLS = {
    "empty": "",
    "endless": "a" * 100_000,
    "a line break": "log\n",
    "a NUL": "log\0",
    "turned text": "\u202egol",
    "a wildcard": "*",
    "a path": "../git/log",
    "a space": " log",
    "another case": "LOG",
    "wide letters": "\uff4c\uff4f\uff47",
    "an attribute": "__class__",
    "faces": "🙂" * 1000,
    "of another server": "../clock/now",
    "an action of our own": "pdp/approve_session",
}

ARGUMENTS = {
    "nothing closed": b"{",
    "only a word": b"nul",
    "something behind": b'{"score": 1} 2',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "no UTF-8": b'{"score": "\xff"}',
    "a comment": b'{"score": 1 /* one */}',
    "a trailing comma": b'{"score": 1,}',
    "single quotes": b"{'score': 1}",
    "a list": b"[]",
    "a string": b'"score"',
    "null": b"null",
    "a key twice": b'{"score": 1, "score": 2}',
    "a key twice, written otherwise": b'{"score": 1, "\\u0073core": 2}',
    "a key twice, deep": scored('[{"a": {"b": 1, "b": 1}}]'),
    "a minted entity": scored('{"__entity": {"type": "User", "id": "ada"}}'),
    "a minted value": scored('{"__extn": {"fn": "ip", "arg": "127.0.0.1"}}'),
    "a minted expression": scored('{"__expr": "User::\\"ada\\""}'),
    "a minted entity, deep": scored('[[[[{"x": {"__entity": {"type": "User", "id": "ada"}}}]]]]'),
    "a minted entity, written otherwise": scored('{"\\u005f_entity": {}}'),
    "NaN": scored("NaN"),
    "infinity": scored("-Infinity"),
    "a number without end": scored("1" * 5000),
    "a lone surrogate": scored('"\\ud800"'),
    "a lone surrogate as a key": scored('{"\\udfff": 1}'),
    "one level too deep": nested(DEFAULT_LIMITS.arguments_depth + 1),
    "deep enough to end a parser": nested(40_000),
    "deep, and never closed": b"[" * 100_000,
    "one value too many": listed(DEFAULT_LIMITS.arguments_nodes + 1),
    "one byte too many": padded(DEFAULT_LIMITS.arguments_bytes + 1),
    "129 KiB": padded(129 * 1024),
    "a string one byte too long": scored('"' + "a" * (DEFAULT_LIMITS.string_bytes + 1) + '"'),
    "a long string of long letters": scored('"' + "é" * (DEFAULT_LIMITS.string_bytes // 2 + 1) + '"'),
    "a long key": scored('{"' + "a" * (DEFAULT_LIMITS.string_bytes + 1) + '": 1}'),
    "an undeclared parameter": b'{"pitch": 1}',
}

# Arguments of `git/log`, whose `repo` is a required string that names the resource.
REPOSITORIES = {
    "missing": b"{}",
    "nothing at all": b"",
    "null": b'{"repo": null}',
    "a number": b'{"repo": 1}',
    "a boolean": b'{"repo": true}',
    "a list": b'{"repo": ["web"]}',
    "an object": b'{"repo": {"id": "web"}}',
    "empty": b'{"repo": ""}',
    "longer than an id": b'{"repo": "' + b"a" * (DEFAULT_LIMITS.resource_id_characters + 1) + b'"}',
    "one parameter more": b'{"repo": "web", "force": true}',
}

WRITTEN_BY_AGENTS = [
    *(pytest.param("git", tool, b"{}", "unknown_tool", id=f"tool: {title}") for title, tool in TOOLS.items()),
    *(
        pytest.param("clock", "ring", text, "invalid_arguments", id=f"arguments: {title}")
        for title, text in ARGUMENTS.items()
    ),
    *(
        pytest.param("git", "log", text, "invalid_arguments", id=f"repository: {title}")
        for title, text in REPOSITORIES.items()
    ),
]

JUST_WITHIN = {
    "the deepest": nested(DEFAULT_LIMITS.arguments_depth),
    "the widest": listed(DEFAULT_LIMITS.arguments_nodes),
    "the largest": padded(DEFAULT_LIMITS.arguments_bytes),
    "the longest string": scored('"' + "a" * DEFAULT_LIMITS.string_bytes + '"'),
    "nothing": b"",
    "odd letters": scored('"\\u0000\\u202e\\ud83d\\ude42"'),
}

PATHS = ("Authorize", "BatchAuthorize", "AuthorizeStream")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Serve for all of them: whatever is sent, the same process answers to the end."""
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def session(service: Service) -> Opened:
    """Return an active session."""
    return service.open().approved()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("server", "tool", "arguments", "basis"), WRITTEN_BY_AGENTS)
def test_trouble_that_an_agent_writes(
    service: Service, session: Opened, path: str, server: str, tool: str, arguments: bytes, basis: str
) -> None:
    """It is a deny with status OK, one record and one span; and the next good call is allowed as before."""
    before = _counts(service)

    decision = ask(service, path, session, server, tool, arguments)

    assert (OUTCOME_DENY, basis) == (decision.outcome, basis_of(decision.basis))
    assert (decision.server, decision.tool) == (server, tool)
    assert _counts(service) == (before[0] + 1, before[1] + 1)
    record, span = service.server.evidence.decision_records[-1], service.server.evidence.decision_spans[-1]
    assert (record["id"], record["basis"]) == (decision.decision_id, basis)
    assert (span[names.DECISION_ID], span[names.BASIS]) == (decision.decision_id, basis)
    assert ask(service, path, session, "git", "log", b'{"repo": "web"}').outcome == OUTCOME_ALLOW


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("arguments", JUST_WITHIN.values(), ids=JUST_WITHIN)
def test_what_is_just_within_the_limits(service: Service, session: Opened, path: str, arguments: bytes) -> None:
    """The limits are where they are said to be."""
    assert ask(service, path, session, "clock", "ring", arguments).outcome == OUTCOME_ALLOW


def test_one_bad_call_spoils_no_batch(service: Service, session: Opened) -> None:
    """In a batch each call has its own outcome, whatever an agent wrote in another."""
    calls = [a_call(session.handle), a_call(session.handle, "log\0"), a_call(session.handle, "log", b"{")]

    answer = service.send("BatchAuthorize", BatchAuthorizeRequest(requests=[*calls, calls[0]]))

    assert [basis_of(decision.basis) for decision in answer.decisions] == [
        "permit",
        "unknown_tool",
        "invalid_arguments",
        "permit",
    ]


def test_what_an_agent_writes_is_not_repeated(service: Service, session: Opened) -> None:
    """Neither record nor span holds a value of the arguments, however wrong they are."""
    canary = "canary-7f3a"
    for text in (
        f'{{"repo": ["{canary}"]}}',
        f'{{"{canary}": 1}}',
        f'{{"repo": "{canary}"',
        f'{{"repo": "{canary}/"}}',
    ):
        ask(service, "Authorize", session, "git", "log", text.encode())

    shown = [record for record in service.server.evidence.decision_records if canary in str(record)]
    traced = [span for span in service.server.evidence.decision_spans if canary in str(span)]
    # A resource's id may be shown: mapping a parameter to it says so.
    assert [record["resource_id"] for record in shown] == [f"{canary}/"]
    assert [span[names.RESOURCE_ID] for span in traced] == [f"{canary}/"]


# Their requests have no fields.
NOTHING_TO_WRITE = {"GetCaller", "GetCallTokenKeys", "ListBundles", "ListFreezes"}


@pytest.mark.parametrize("method", METHODS)
def test_trouble_that_a_caller_writes(service: Service, method: str) -> None:
    """It is INVALID_ARGUMENT and names the field; the refusal is recorded and traced, and no decision is made."""
    if method in NOTHING_TO_WRITE:
        assert METHODS[method].input_type.fields == []
        return
    message, field = OWN[method].wrong[0]
    before, decided = len(service.refusals), _counts(service)

    assert service.status(method, message) == "INVALID_ARGUMENT"

    (record,) = service.refusals[before:]
    span = dict(service.server.evidence.spans[-1].attributes or {})
    rpc = f"{METHODS[method].containing_service.full_name}/{method}"
    assert record["facts"] == {"rpc": rpc, "status": "INVALID_ARGUMENT", "field": field, "peer": "127.0.0.1"}
    assert (span[names.RPC_METHOD], span[names.RPC_STATUS], span[names.REQUEST_FIELD]) == (
        rpc,
        "INVALID_ARGUMENT",
        field,
    )
    assert _counts(service) == decided


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_message(service: Service, method: str) -> None:
    """On every RPC they are the caller's mistake, recorded, and nothing of them is told."""
    before = len(service.refusals)

    assert service.status(method, b"\xff\xff canary") == "INVALID_ARGUMENT"

    (record,) = service.refusals[before:]
    assert record["facts"]["field"] == "request"
    assert "canary" not in str(record)


# Every value of these is a right one, or somebody else's business.
ANY_VALUE_WILL_DO = {
    "call.tool": "the agent's",
    "call.arguments_json": "the agent's",
    "traceparent": "a trace decides nothing: a malformed header is ignored",
    "tracestate": "the same",
    "independent": "yes or no",
    "arguments_json": "the agent's, and Explain says what is wrong with them",
    "may_delegate": "yes or no",
    "running_bundle": "yes or no",
    "validate": "yes or no",
    "validate_only": "yes or no",
    "summaries": "yes or no",
    "skip_request_validation": "yes or no",
    "with_readings": "yes or no",
    "with_sessions": "yes or no",
    "tried": "yes or no",
    "files.content": "what is wrong with a bundle is the answer of CheckBundle",
    "template_links.principal.type": "the engine's, shown by `template_links`",
    "template_links.principal.id": "any text is an id",
    "template_links.resource.type": "the engine's, shown by `template_links`",
    "template_links.resource.id": "any text is an id",
    "template_links.template_id": "the engine's, shown by `template_links`",
}


def test_every_field_has_a_wrong_value_in_some_table() -> None:
    """A new field of a request is checked, or somebody says here why any value will do."""
    tried = {(type(message).__name__, _bare(field)) for row in OWN.values() for message, field in row.wrong}
    missing = []
    for method in METHODS.values():
        for field in _fields(method.input_type):
            named = {(method.input_type.name, field), ("AuthorizeRequest", field.partition(".")[2] or field)}
            if not named & tried and _within_call(field) not in ANY_VALUE_WILL_DO:
                missing.append(f"{method.input_type.name}.{field}")

    assert missing == []


def ask(service: Service, path: str, session: Opened, server: str, tool: str, arguments: bytes) -> Decision:
    """Ask about one call through one of the three RPCs."""
    request = a_call(session.handle, tool, arguments, server=server)
    decision: Decision
    if path == "Authorize":
        decision = service.send(path, request).decision
    elif path == "BatchAuthorize":
        (decision,) = service.send(path, BatchAuthorizeRequest(requests=[request])).decisions
    else:
        decision = service.send(path, AuthorizeStreamRequest(request=request)).decision
    return decision


def _counts(service: Service) -> tuple[int, int]:
    return len(service.server.evidence.decision_records), len(service.server.evidence.decision_spans)


def _fields(kind: Descriptor, place: str = "") -> Iterator[str]:
    """Yield every field that a message leads to, without the numbers of lists."""
    for field in kind.fields:
        inner = field.message_type
        if inner is not None and inner.file.package == "pdp.v1":
            yield from _fields(inner, f"{place}{field.name}.")
        else:
            yield place + field.name


def _bare(field: str) -> str:
    parts = (part.partition("[")[0] for part in field.split("."))
    return ".".join(parts)


def _within_call(field: str) -> str:
    # One of a batch, or of a stream.
    field = field.removeprefix("requests.").removeprefix("request.")
    return field[field.index("call.") :] if "call." in field else field
