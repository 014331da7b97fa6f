"""The messages have the numbers and kinds of the contract: the gateway of these tests would follow a slip of ours."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from pdp.doors.agentgateway import extmcp_pb2

TEXT, BYTES, MESSAGE, ENUM = (
    FieldDescriptor.TYPE_STRING,
    FieldDescriptor.TYPE_BYTES,
    FieldDescriptor.TYPE_MESSAGE,
    FieldDescriptor.TYPE_ENUM,
)
# By the names of agentgateway: number, kind, and whether there can be several.
CONTRACT: dict[str, tuple[Any, dict[int, tuple[str, int, bool]]]] = {
    "McpRequest": (
        extmcp_pb2.RequestQuestion,
        {
            1: ("service_names", TEXT, True),
            2: ("method", TEXT, False),
            3: ("metadata_context", MESSAGE, False),
            4: ("mcp_request", BYTES, False),
            5: ("headers", MESSAGE, True),
        },
    ),
    "McpResponse": (
        extmcp_pb2.ResponseQuestion,
        {
            1: ("service_names", TEXT, True),
            2: ("method", TEXT, False),
            3: ("metadata_context", MESSAGE, False),
            4: ("mcp_response", BYTES, False),
        },
    ),
    "McpRequestResult": (
        extmcp_pb2.RequestAnswer,
        {
            1: ("passed", MESSAGE, False),
            2: ("mutated", BYTES, False),
            3: ("error", MESSAGE, False),
            4: ("header_mutation", MESSAGE, False),
            5: ("metadata", MESSAGE, False),
        },
    ),
    "McpResponseResult": (
        extmcp_pb2.ResponseAnswer,
        {1: ("passed", MESSAGE, False), 2: ("mutated", BYTES, False), 3: ("error", MESSAGE, False)},
    ),
    "HeaderMutation": (extmcp_pb2.HeaderMutation, {2: ("remove", TEXT, True)}),
    "McpHeader": (extmcp_pb2.Header, {1: ("key", TEXT, False), 2: ("value", BYTES, False)}),
    "AuthorizationError": (
        extmcp_pb2.Error,
        {1: ("code", ENUM, False), 2: ("reason", TEXT, False), 3: ("mcp_error", BYTES, False)},
    ),
}


def test_the_numbers_are_those_of_the_contract() -> None:
    """Every message, field by field, and the codes of an error."""
    found = {
        name: {one.number: (one.name, one.type, one.is_repeated) for one in message.DESCRIPTOR.fields}
        for name, (message, _) in CONTRACT.items()
    }

    assert {name: fields for name, (_, fields) in CONTRACT.items()} == found
    assert {"UNKNOWN": 0, "PERMISSION_DENIED": 1, "RESOURCE_EXHAUSTED": 2, "INVALID": 3} == dict(
        extmcp_pb2.Error.Code.items()
    )
