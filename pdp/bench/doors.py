"""A door before the server, asked in the words of its gateway: what it adds to a call."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from google.protobuf.message import DecodeError

from pdp.bench.dialects import Metadata, PDPDialect
from pdp.bench.failure import WrongAnswerError
from pdp.bench.plan import DOOR, Shape
from pdp.bench.processes import listening, module_process
from pdp.bench.questions import Question, Workload
from pdp.bench.servers import Target, data_of, pdp_server
from pdp.doors.envoy.extauthz_pb2 import CheckRequest, CheckResponse

_CHECK = "/envoy.service.auth.v3.Authorization/Check"
_SERVING = "serving Envoy at "


class EnvoyDialect:
    """Asks as Envoy does about calls of MCP tools. `handles` are those of the sessions, one for each asker."""

    cached = False
    metadata: Metadata = ()
    # A field that Envoy's message does not have, which the door ignores: an id of the call has no place there.
    id_field = 15

    def __init__(self, handles: Sequence[str]) -> None:
        self._handles = handles

    def path(self, shape: Shape) -> str | None:
        """Return the method to call: Envoy asks about each request by itself."""
        return _CHECK if shape is Shape.UNARY else None

    def encode(self, shape: Shape, questions: Sequence[Question]) -> bytes:  # noqa: ARG002 - there is one shape
        """Return the message for one question."""
        (one,) = questions
        params = {"name": one.tool, "arguments": json.loads(one.arguments_json)}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        asked = CheckRequest()
        http = asked.attributes.request.http
        http.method, http.path, http.raw_body = "POST", "/mcp", body
        http.headers.update(
            {
                ":method": "POST",
                ":path": "/mcp",
                "content-type": "application/json",
                "content-length": str(len(body)),
                "x-envoy-auth-partial-body": "false",
                "x-pdp-session": self._handles[one.asker],
            }
        )
        asked.attributes.context_extensions["server"] = one.server
        return asked.SerializeToString()

    def check(self, shape: Shape, answer: bytes, questions: Sequence[Question]) -> int:  # noqa: ARG002 - there is one shape
        """Compare what becomes of the request, which must rest on a decision. No answer says that it was remembered."""
        (question,) = questions
        try:
            told = CheckResponse.FromString(answer)
        except DecodeError:
            raise WrongAnswerError("the answer is not a message of Envoy's API") from None
        decision = told.dynamic_metadata.fields
        if not decision["decision_id"].string_value:
            raise WrongAnswerError(f"the door asked nobody about `{question.server}/{question.tool}`")
        if (told.status.code == 0 and told.HasField("ok_response")) is not question.allowed:
            must, was = ("be sent on", "refused") if question.allowed else ("be refused", "sent on")
            raise WrongAnswerError(
                f"`{question.server}/{question.tool}` must {must}, and is {was} by `{decision['basis'].string_value}`"
            )
        return 0


@contextmanager
def envoy_door(workload: Workload, folder: Path, core: int | None, environment: Mapping[str, str]) -> Iterator[Target]:
    """Run a server and the door of Envoy before it, on the same core; the CPU is that of both."""
    command = ("door", "envoy", "--listen", "127.0.0.1:0")
    with behind_door(DOOR, command, workload, folder, core, environment, says=_SERVING) as (both, handles, address):
        yield replace(both, address=address, dialect=EnvoyDialect(handles))


@contextmanager
def behind_door(
    name: str,
    command: Sequence[str],
    workload: Workload,
    folder: Path,
    core: int | None,
    environment: Mapping[str, str],
    *,
    says: str,
) -> Iterator[tuple[Target, Sequence[str], str]]:
    """Run a server, and a command of `pdp` that is a door before it, on the same core.

    Yield both as one, the handles of the sessions, and what the door prints after `says` once it listens.
    """
    with pdp_server(name, workload, folder, core, environment) as server:
        if not isinstance(server.dialect, PDPDialect):
            raise TypeError("this server is asked in its own words")
        reached = ("--address", server.address, "--plaintext")
        token = ("--token-file", str(data_of(name, folder) / "tokens" / "pep.token"))
        with module_process(
            "pdp.cli", [*command, *reached, *token], core=core, environment=environment, errors=subprocess.STDOUT
        ) as process:
            said = listening(process, f"pdp {command[0]}", says=says)
            yield replace(server, others=(process.pid,)), server.dialect.handles, said
