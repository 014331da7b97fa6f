"""The client library of the PDP: ask before every tool call; every doubt is a deny.

`Client` is for threads and `AsyncClient` for asyncio; both offer the same.
Asking about a call never raises: when anything goes wrong, the `Answer` is a deny that says why.
Managing sessions and policies raises `PDPClientError`, and a client that cannot be made as requested raises
`ConfigurationError`; both are a `PDPError`, like the errors of the embedded form.
"""

from __future__ import annotations

from pdp.client.aio.client import AsyncClient
from pdp.client.aio.session import AsyncClientSession
from pdp.client.aio.stream import AsyncAuthorizationStream
from pdp.client.aio.underway import AsyncCallUnderWay
from pdp.client.connection import DEFAULT_ADDRESS
from pdp.client.definitions import DefinitionDigests, definition_digest, definition_digests
from pdp.client.errors import (
    AlreadyReportedError,
    ConflictError,
    FrozenError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    PDPClientError,
    PermissionDeniedError,
    RequestIdConflictError,
    SessionNotApprovedError,
    UnauthenticatedError,
    UnavailableError,
    UnknownRevisionError,
    WrongStateError,
)
from pdp.client.fulfilling import FULFILLED, fulfil
from pdp.client.sync.client import Client
from pdp.client.sync.session import ClientSession
from pdp.client.sync.stream import AuthorizationStream
from pdp.client.sync.underway import CallUnderWay
from pdp.client.values import (
    Answer,
    CallToken,
    CallTokenRequest,
    ListedTool,
    Obligation,
    ToolCall,
    ToolCallDenied,
    ToolCallStopped,
    ToolResultWithheld,
)
from pdp.errors import ConfigurationError, PDPError

__all__ = [
    "DEFAULT_ADDRESS",
    "FULFILLED",
    "AlreadyReportedError",
    "Answer",
    "AsyncAuthorizationStream",
    "AsyncCallUnderWay",
    "AsyncClient",
    "AsyncClientSession",
    "AuthorizationStream",
    "CallToken",
    "CallTokenRequest",
    "CallUnderWay",
    "Client",
    "ClientSession",
    "ConfigurationError",
    "ConflictError",
    "DefinitionDigests",
    "FrozenError",
    "InvalidRequestError",
    "ListedTool",
    "NotFoundError",
    "Obligation",
    "OverloadedError",
    "PDPClientError",
    "PDPError",
    "PermissionDeniedError",
    "RequestIdConflictError",
    "SessionNotApprovedError",
    "ToolCall",
    "ToolCallDenied",
    "ToolCallStopped",
    "ToolResultWithheld",
    "UnauthenticatedError",
    "UnavailableError",
    "UnknownRevisionError",
    "WrongStateError",
    "definition_digest",
    "definition_digests",
    "fulfil",
]
