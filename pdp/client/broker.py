"""What a person asks a broker of secrets: about connected accounts, who used a secret, and to replace one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeVar

from google.protobuf.message import Message

from pdp.broker.v1 import connection_pb2 as messages
from pdp.broker.v1.exposure_pb2 import GetExposureRequest, GetExposureResponse
from pdp.broker.v1.secret_pb2 import ReplaceSecretRequest, ReplaceSecretResponse
from pdp.client import tasks
from pdp.client.aio.calls import AsyncCalls
from pdp.client.connection import Connection
from pdp.client.operations import Method, Operation

R = TypeVar("R", bound=Message)

_SERVICE, _EXPOSURE = "pdp.broker.v1.ConnectionService", "pdp.broker.v1.ExposureService"
_SECRETS = "pdp.broker.v1.SecretService"
# The broker may ask a provider meanwhile, and waits for it.
_SECONDS = 60.0


class AsyncBrokerClient:
    """A connection to a broker, as the person whose `token` each call brings. The options are those of `AsyncClient`.

    A broker at a port wants a certificate of its clients.
    """

    def __init__(
        self,
        address: str,
        *,
        token: Callable[[], str] | None = None,
        token_file: str | Path | None = None,
        tls: bool | str | Path = False,
        tls_certificate: str | Path | None = None,
        tls_key: str | Path | None = None,
    ) -> None:
        connection = Connection.to(
            address,
            token=token,
            token_file=token_file,
            tls=tls,
            tls_certificate=tls_certificate,
            tls_key=tls_key,
        )
        diagnosis = replace(connection.diagnosis, command="pdp-broker serve")
        self._calls = AsyncCalls(
            replace(connection, diagnosis=diagnosis),
            None,
            timeout=_SECONDS,
            management_timeout=_SECONDS,
            traceparent=None,
            ask_together=False,
            clock=time.monotonic,
            sleep=tasks.sleep,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._calls.close()

    async def list_connections(self, *, of_others: bool = False) -> messages.ListConnectionsResponse:
        """Return the person's connections, or all of their tenants, and what they can connect to."""
        request = messages.ListConnectionsRequest(of_others=of_others)
        return await self._ask("ListConnections", request, messages.ListConnectionsResponse)

    async def begin_connection(
        self, kind: str, *, tenant: str, compartment: str = ""
    ) -> messages.BeginConnectionResponse:
        """Begin to connect, and return where the person agrees."""
        request = messages.BeginConnectionRequest(kind=kind, tenant=tenant, compartment=compartment)
        return await self._ask("BeginConnection", request, messages.BeginConnectionResponse)

    async def finish_connection(self, ticket: str) -> messages.PersonalConnection:
        """Finish with what the browser came back with, and return the new connection."""
        request = messages.FinishConnectionRequest(ticket=ticket)
        return (await self._ask("FinishConnection", request, messages.FinishConnectionResponse)).connection

    async def end_connection(self, connection_id: str) -> messages.EndConnectionResponse:
        """Disconnect, and return what became of the tokens."""
        request = messages.EndConnectionRequest(connection_id=connection_id)
        return await self._ask("EndConnection", request, messages.EndConnectionResponse)

    async def get_exposure(
        self, connection_id: str, *, version: int = 0, since_at: float = 0.0, page_size: int = 0, page_token: str = ""
    ) -> GetExposureResponse:
        """Return who used the secret of a connection, or one version of it; for auditors and admins."""
        request = GetExposureRequest(
            connection_id=connection_id, version=version, page_size=page_size, page_token=page_token
        )
        if since_at:
            request.since_time.FromMicroseconds(round(since_at * 1e6))
        return await self._ask("GetExposure", request, GetExposureResponse, service=_EXPOSURE)

    async def replace_secret(self, connection_id: str, *, version: int = 0) -> ReplaceSecretResponse:
        """Replace a secret that leaked as far as the broker can, end what was handed out, and return what was done.

        `version` is the one that leaked, 0 the present one. For approvers and admins of the connection's tenant.
        """
        request = ReplaceSecretRequest(connection_id=connection_id, version=version)
        return await self._ask("ReplaceSecret", request, ReplaceSecretResponse, service=_SECRETS)

    async def _ask(self, rpc: str, request: Message, reply: type[R], *, service: str = _SERVICE) -> R:
        method = Method(path=f"/{service}/{rpc}", reply=reply)
        return await self._calls.manage(Operation(method=method, request=request, read=_whole))


def _whole(reply: R) -> R:
    return reply
