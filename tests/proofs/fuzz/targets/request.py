"""Requests as bytes: every one is answered or refused with a status; none is an error that nobody foresaw.

The first byte chooses the RPC, the rest is its message. All handlers run, on a real PDP in this process.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from pdp.app.embedded import Embedded, open_embedded
from pdp.audit.coverage import Coverage
from pdp.audit.searchable import SearchableRecord
from pdp.errors import PDPError
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Caller, Role, SessionState, TraceParent
from pdp.policy.child.process import PolicyChild
from pdp.registry.words import SessionRequest
from pdp.server.access import AccessHandlers
from pdp.server.audit import AuditHandlers
from pdp.server.authorization import AuthorizationHandlers
from pdp.server.callers import CallerHandlers
from pdp.server.calltokens import CallTokenHandlers
from pdp.server.following import SessionFollowers
from pdp.server.freezes import FreezeHandlers
from pdp.server.policies import PolicyHandlers
from pdp.server.reach import ReachHandlers
from pdp.server.rpcs import RPCS
from pdp.server.sessions import SessionHandlers
from pdp.serving.decoding import read
from pdp.serving.origin import Origin
from pdp.serving.rpc import RPC, Shape
from pdp.serving.status import refusal_of
from pdp.serving.transport import Outgoing
from pdp.serving.watches import Watch
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.clock import FakeClock
from pdp.v1.access_pb2 import (
    ApproveCallRequest,
    DenyCallRequest,
    ListAccessRequestsRequest,
    RevokeAccessRequest,
    WatchAccessRequestsRequest,
)
from pdp.v1.audit_pb2 import ListRecordsRequest
from pdp.v1.authorization_pb2 import AuthorizeRequest, BatchAuthorizeRequest, ListToolsRequest
from pdp.v1.decision_pb2 import Call
from pdp.v1.freeze_pb2 import LiftFreezeRequest, SetFreezeRequest
from pdp.v1.policy_pb2 import BundleFile, CheckBundleRequest, EvaluateRequest
from pdp.v1.session_pb2 import (
    EndSessionRequest,
    GetSessionRequest,
    NarrowSessionRequest,
    RequestSessionRequest,
    ReviewSessionRequest,
    RevokeSessionsRequest,
    WatchSessionsRequest,
    WatchSessionsResponse,
)

# They stand for the handle and the id of a session that is active, which are others each time.
HANDLE, SESSION = "pdps_" + "A" * 43, "ses_" + "A" * 26
WORDS = (
    HANDLE,
    SESSION,
    "alice",
    "coder",
    "a/b",
    '{"x": "y"}',
    "sha256:",
    "ses_",
    "\x0a\x00",
    "\x12\x00",
    "\xe2\x80\xae",
)
REQUEST = "acc_" + "a" * 26
_HOUSE = "pdp.v1."
PATHS = tuple(sorted(path for path, row in RPCS.items() if row.service.startswith(_HOUSE)))
_CALL = Call(session_handle=HANDLE, server="a", tool="b", arguments_json=b'{"x": "y"}')
_GOOD: dict[str, Message] = {
    "Authorize": AuthorizeRequest(call=_CALL, request_id="r", tool_call_id="t"),
    "BatchAuthorize": BatchAuthorizeRequest(requests=[AuthorizeRequest(call=_CALL)] * 2),
    "ListTools": ListToolsRequest(session_handle=HANDLE),
    "RequestSession": RequestSessionRequest(user="alice", agent="coder", purpose="p", tool_patterns=["a/*"]),
    "RevokeSessions": RevokeSessionsRequest(user="alice", reason="r"),
    "GetSession": GetSessionRequest(session_id=SESSION),
    "ReviewSession": ReviewSessionRequest(session_id=SESSION, grants=["g"]),
    "EndSession": EndSessionRequest(session_handle=HANDLE),
    "NarrowSession": NarrowSessionRequest(session_id=SESSION, tool_patterns=["a/b"], labels=["l"]),
    "ApproveCall": ApproveCallRequest(access_request_id=REQUEST, request_digest="sha256:" + "0" * 64, calls=2),
    "DenyCall": DenyCallRequest(access_request_id=REQUEST, reason="r"),
    "RevokeAccess": RevokeAccessRequest(session_id=SESSION, reason="r"),
    "SetFreeze": SetFreezeRequest(tenant="default", reason="r"),
    "LiftFreeze": LiftFreezeRequest(freeze_id="frz_" + "a" * 26),
    "ListAccessRequests": ListAccessRequestsRequest(session_id=SESSION, page_size=10),
    "WatchSessions": WatchSessionsRequest(since_revision="MS5h", session_id=SESSION, heartbeat=Duration(seconds=1)),
    "WatchAccessRequests": WatchAccessRequestsRequest(user="alice"),
    "CheckBundle": CheckBundleRequest(files=[BundleFile(path="a.cedar", content=b"permit;")]),
    "Evaluate": EvaluateRequest(),
    "ListRecords": ListRecordsRequest(page_size=10),
}
SEEDS = tuple(
    bytes([place]) + (_GOOD[path.rpartition("/")[2]].SerializeToString() if path.rpartition("/")[2] in _GOOD else b"")
    for place, path in enumerate(PATHS)
)
_PEP = Caller(id="fuzz", kind="token", roles=frozenset({Role.PEP}))
_APPROVER = Caller(id="ann", kind="token", roles=frozenset({Role.APPROVER}))
# Sessions are never forgotten, so a long run begins anew now and then.
_MOST_REQUESTS = 5000
_FILES = bundle_files(
    policies={"a": '@id("a/all") permit (principal, action, resource);\n'},
    tools={"a": [tool("b", {"x": {"type": "string"}}, ["x"])]},
    overlays={"a": "risk: mutating\n"},
    directory="{users: {alice: {}}, agents: {coder: {ceiling: [a/*]}}}",
)


class _Sent:
    """What a watch sends goes nowhere."""

    over, idle = False, True

    def send(self, wire: bytes) -> None:
        """Take a message."""
        assert WatchSessionsResponse.FromString(wire).revision


@dataclass(slots=True)
class _Service:
    """The handlers of all services, on a PDP of their own."""

    embedded: Embedded
    handlers: dict[str, object]
    followers: SessionFollowers
    session_id: str
    handle: str
    served: int = 0

    @property
    def active(self) -> bool:
        """Say whether the session still stands, as it is stored, and nothing is frozen."""
        sessions = self.embedded.sessions
        return sessions.get(self.session_id)[0].state is SessionState.ACTIVE and not sessions.freezes()

    def meant(self, data: bytes) -> bytes:
        """Return a message in which the names of the session are the real ones, which are as long."""
        return data.replace(HANDLE.encode(), self.handle.encode()).replace(SESSION.encode(), self.session_id.encode())


_FOLDER = Path(tempfile.mkdtemp(prefix="pdp-fuzz-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
_CHILD = PolicyChild(timeout=20.0)
_SEARCHABLE = SearchableRecord(_FOLDER / "record")
_LOCK = threading.Lock()
_OPEN: list[_Service] = []


def _end() -> None:
    _CHILD.close()
    _SEARCHABLE.close()


atexit.register(_end)


def run(data: bytes) -> None:
    """Serve one request."""
    row = RPCS[PATHS[data[0] % len(PATHS)]] if data else RPCS[PATHS[0]]
    with _LOCK:
        service = _service()
        service.served += 1
        try:
            message: Any = read(row.request, service.meant(data[1:]))
            _serve(service, row, message)
        except PDPError as error:
            refusal = refusal_of(error)
            assert refusal is not None, "an error that no status stands for"
            assert refusal.details.isprintable(), "a refusal that is not one printable line"


def _serve(service: _Service, row: RPC, message: Any) -> None:
    role = next(role for role in Role if role in row.roles)
    caller = Caller(id="fuzz", kind="token", roles=frozenset({role}))
    handle = getattr(service.handlers[row.service], row.handler)
    sent = (message,) if row.shape is Shape.UPLOAD else message
    over = threading.Event()
    origin = Origin(caller=caller, parent=TraceParent())
    if row.shape is Shape.WATCH:
        watch = Watch(caller, cast("Outgoing", _Sent()), admits=lambda: True, refuse=lambda _: None, leave=lambda: None)
        handle(sent, origin, watch)
        service.followers.look()
        service.followers.stop()
        return
    answer = handle(sent, origin, over) if row.shape is Shape.FEED else handle(sent, origin)
    if row.shape is Shape.FEED:
        over.set()
    for one in islice(answer, 3) if row.shape is Shape.FEED else (answer,):
        one.SerializeToString()


def _service() -> _Service:
    if _OPEN and _OPEN[0].served < _MOST_REQUESTS and _OPEN[0].active:
        return _OPEN[0]
    while _OPEN:
        _OPEN.pop().embedded.close()
    policies = _FOLDER / "policies"
    for name, content in _FILES.items():
        (policies / name).parent.mkdir(parents=True, exist_ok=True)
        (policies / name).write_bytes(content)
    (_FOLDER / "record").mkdir(exist_ok=True)
    clock = FakeClock()
    embedded = open_embedded(policies, clock=clock, compile_files=compile_here)
    followers = SessionFollowers(embedded.following, clock, DEFAULT_LIMITS, every=1.0)
    handlers: dict[str, object] = {
        "pdp.v1.AuthorizationService": AuthorizationHandlers(
            embedded.authorizer, embedded.outcomes, embedded.call_tokens, DEFAULT_LIMITS
        ),
        "pdp.v1.SessionService": SessionHandlers(embedded.registrar, DEFAULT_LIMITS, followers),
        "pdp.v1.AccessService": AccessHandlers(embedded.approvals, DEFAULT_LIMITS, clock, every=1.0),
        "pdp.v1.FreezeService": FreezeHandlers(embedded.freezer, DEFAULT_LIMITS),
        "pdp.v1.PolicyService": PolicyHandlers(embedded.keeper, _CHILD, embedded.explainer, DEFAULT_LIMITS),
        "pdp.v1.AuditService": AuditHandlers(
            _SEARCHABLE, None, coverage=Coverage(None), clock=clock, limits=DEFAULT_LIMITS
        ),
        "pdp.v1.CallerService": CallerHandlers(),
        "pdp.v1.CallTokenService": CallTokenHandlers(embedded.call_tokens, DEFAULT_LIMITS),
        "pdp.v1.ReachService": ReachHandlers(
            embedded.reaching, embedded.keeper, None, clock=clock, limits=DEFAULT_LIMITS
        ),
    }
    wanted = SessionRequest(user="alice", agent="coder", purpose="p", tool_patterns=("a/*",))
    view, handle = embedded.registrar.request(wanted, _PEP)
    embedded.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=_APPROVER)
    _OPEN.append(
        _Service(embedded=embedded, handlers=handlers, followers=followers, session_id=view.session.id, handle=handle)
    )
    return _OPEN[0]
