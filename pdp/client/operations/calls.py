"""Questions about tool calls, what came of them, and the caller: each RPC as a value."""

from __future__ import annotations

from collections.abc import Sequence

from pdp.client.errors import PDPClientError
from pdp.client.operations.fields import strings
from pdp.client.operations.rpc import Method, Operation
from pdp.client.reading import NOTHING_HELD, HeldDigests
from pdp.client.values import Answer, ListedTool
from pdp.model import Visibility
from pdp.v1 import authorization_pb2, caller_pb2

AUTHORIZE = Method(path="/pdp.v1.AuthorizationService/Authorize", reply=authorization_pb2.AuthorizeResponse)
BATCH_AUTHORIZE = Method(
    path="/pdp.v1.AuthorizationService/BatchAuthorize", reply=authorization_pb2.BatchAuthorizeResponse
)
AUTHORIZE_STREAM = Method(
    path="/pdp.v1.AuthorizationService/AuthorizeStream", reply=authorization_pb2.AuthorizeStreamResponse
)

_VISIBILITIES = {
    authorization_pb2.VISIBILITY_DEPENDS: Visibility.DEPENDS,
    authorization_pb2.VISIBILITY_ALWAYS: Visibility.ALWAYS,
}


def get_caller() -> Operation[caller_pb2.GetCallerResponse, caller_pb2.Caller]:
    """Show the caller."""
    return Operation(
        method=Method(path="/pdp.v1.CallerService/GetCaller", reply=caller_pb2.GetCallerResponse),
        request=caller_pb2.GetCallerRequest(),
        read=lambda reply: reply.caller,
    )


def list_tools(
    session_handle: str, session_id: str = ""
) -> Operation[authorization_pb2.ListToolsResponse, tuple[str, tuple[ListedTool, ...]]]:
    """Ask which tools a session can call, and for its public id; a known `session_id` must be in the reply."""

    def read(reply: authorization_pb2.ListToolsResponse) -> tuple[str, tuple[ListedTool, ...]]:
        if session_id and reply.session_id != session_id:
            raise PDPClientError(f"the list of tools is for another session than `{session_id}`")
        return reply.session_id, tuple(_listed(tool) for tool in reply.tools)

    return Operation(
        method=Method(path="/pdp.v1.AuthorizationService/ListTools", reply=authorization_pb2.ListToolsResponse),
        request=authorization_pb2.ListToolsRequest(session_handle=session_handle),
        read=read,
    )


def report_outcome(
    answer: Answer, *, succeeded: bool, labels: Sequence[str], held: HeldDigests
) -> Operation[authorization_pb2.ReportOutcomeResponse, None]:
    """Report what came of the call that an answer allowed. Raise `PDPClientError` when it cannot be reported."""
    if not answer.outcome_token:
        why = "the active bundle makes no use of it" if answer.allowed else "it was denied"
        raise PDPClientError(f"what came of `{answer.server}/{answer.tool}` cannot be reported: {why}")
    return Operation(
        method=Method(path="/pdp.v1.AuthorizationService/ReportOutcome", reply=authorization_pb2.ReportOutcomeResponse),
        request=authorization_pb2.ReportOutcomeRequest(
            outcome_token=answer.outcome_token,
            status=authorization_pb2.CALL_STATUS_SUCCEEDED if succeeded else authorization_pb2.CALL_STATUS_FAILED,
            labels=strings("labels", labels),
            values=authorization_pb2.ReportedValues(issued=held.issued, others=held.others)
            if held != NOTHING_HELD
            else None,
        ),
        read=lambda _: None,
    )


def _listed(tool: authorization_pb2.ToolVisibility) -> ListedTool:
    # INVARIANT: an absent or unknown value is never visible.
    visibility = _VISIBILITIES.get(tool.visibility, Visibility.NEVER)
    return ListedTool(
        server=tool.server, tool=tool.tool, visibility=visibility, definition_digest=tool.definition_digest
    )
