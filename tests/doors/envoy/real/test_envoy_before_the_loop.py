"""The real Envoy before a server on the loop: calls, streams, refusals, and connections that end while calls go on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import pytest

from pdp.limits import DEFAULT_LIMITS
from pdp.serving.http2.bounds import Times
from pdp.serving.looptransport import LoopTransport
from pdp.serving.transports import LOOP
from pdp.v1.authorization_pb2 import (
    AuthorizeResponse,
    AuthorizeStreamRequest,
    AuthorizeStreamResponse,
)
from pdp.v1.decision_pb2 import OUTCOME_ALLOW
from tests.doors.envoy.real.world import running_program
from tests.machinery.credentials.authority import Authority
from tests.machinery.ports import free_port
from tests.machinery.servers.running import PATIENCE, Running, Serve, a_call

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
STREAM = "/pdp.v1.AuthorizationService/AuthorizeStream"
CALLERS = 4
# Connections to the server that end while calls go on.
ENDS = 4
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
CONFIGURATION = """\
static_resources:
  listeners:
    - address: {socket_address: {address: 127.0.0.1, port_value: LISTENER}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": MANAGER
                stat_prefix: callers
                codec_type: HTTP2
                route_config:
                  virtual_hosts:
                    - {name: pdp, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: pdp, timeout: 0s}}]}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
    - name: pdp
      load_assignment:
        cluster_name: pdp
        endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: SERVER}}}}]}]
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {}}
"""
SECURED = """\
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
          sni: localhost
          common_tls_context:
            alpn_protocols: [h2]
            tls_certificates: [{certificate_chain: {filename: CERTIFICATE}, private_key: {filename: KEY}}]
            validation_context: {trusted_ca: {filename: ROOTS}}
"""

pytestmark = pytest.mark.doors


@pytest.fixture
def transport() -> str:
    """Return the loop."""
    return LOOP


@contextmanager
def before(folder: Path, server: Running, secured: str = "") -> Iterator[grpc.Channel]:
    """Return a channel to an Envoy before a server."""
    port = free_port()
    text = CONFIGURATION.replace("MANAGER", MANAGER).replace("LISTENER", str(port))
    text = text.replace("SERVER", server.server.address.rpartition(":")[2])
    with running_program(folder, text + secured), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel


def ask(channel: grpc.Channel, server: Running, wire: bytes, caller: str = "pep") -> bytes:
    """Make a call."""
    metadata = server.credentials(caller)
    answer: bytes = channel.unary_unary(AUTHORIZE)(wire, metadata=metadata, timeout=PATIENCE)
    return answer


def speaks(channel: grpc.Channel, server: Running, handle: str) -> None:
    """Hold what a caller reads behind Envoy to what it would read without."""
    wire = a_call(handle).SerializeToString()
    stream = channel.stream_stream(STREAM)(
        iter([AuthorizeStreamRequest(request=a_call(handle)).SerializeToString()] * 5),
        metadata=server.credentials("pep"),
        timeout=PATIENCE,
    )
    streamed = [AuthorizeStreamResponse.FromString(one).decision.outcome for one in stream]
    refused = {}
    for name, sent, caller in (("large", wire + bytes(300_000), "pep"), ("role", wire, "approver")):
        with pytest.raises(grpc.RpcError) as caught:
            ask(channel, server, sent, caller)
        trailers = dict(caught.value.trailing_metadata())
        refused[name] = caught.value.code(), "grpc-status-details-bin" in trailers

    assert OUTCOME_ALLOW == AuthorizeResponse.FromString(ask(channel, server, wire)).decision.outcome
    assert [OUTCOME_ALLOW] * 5 == streamed
    assert {
        "large": (grpc.StatusCode.RESOURCE_EXHAUSTED, False),
        "role": (grpc.StatusCode.PERMISSION_DENIED, True),
    } == refused


def test_envoy_in_clear(serve: Serve, tmp_path: Path) -> None:
    """Calls, a stream and refusals with their details pass."""
    server = serve()
    with before(tmp_path, server) as channel:
        speaks(channel, server, server.open_session())


def test_envoy_with_certificates(serve: Serve, tmp_path: Path) -> None:
    """They pass the same over TLS, where Envoy has a certificate of its own."""
    authority, plain = Authority(), serve()
    files = authority.files(tmp_path)
    certificate, key = authority.caller("spiffe://example.org/envoy").write(tmp_path, "envoy")
    secured = SECURED.replace("CERTIFICATE", str(certificate)).replace("KEY", str(key))
    server = serve(address="localhost:0", tls=files)
    with before(tmp_path, server, secured.replace("ROOTS", str(files.client_roots))) as channel:
        speaks(channel, server, plain.open_session())


def test_connections_that_end_lose_no_call(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is announced by GOAWAY: calls go on over the next one, and a stream of the first is answered to its end."""
    monkeypatch.setattr("pdp.serving.looptransport.Times", partial(Times, announced=0.5))
    opened, enough = [], threading.Event()
    open_link: Any = LoopTransport._open

    def counted(*given: Any) -> Any:
        opened.append(1)
        if len(opened) > ENDS:
            enough.set()
        return open_link(*given)

    monkeypatch.setattr(LoopTransport, "_open", counted)
    server = serve(limits=replace(DEFAULT_LIMITS, connection_age_seconds=0.3))
    handle = server.open_session()
    opened.clear()
    wire, asked = a_call(handle).SerializeToString(), SimpleQueue[bytes | None]()
    question = AuthorizeStreamRequest(request=a_call(handle)).SerializeToString()

    def go_on(channel: grpc.Channel) -> int:
        answered = 0
        while True:
            answered += AuthorizeResponse.FromString(ask(channel, server, wire)).decision.outcome == OUTCOME_ALLOW
            if enough.is_set():
                return answered

    with before(tmp_path, server) as channel, ThreadPoolExecutor(CALLERS) as pool:
        stream = channel.stream_stream(STREAM)(
            iter(asked.get, None), metadata=server.credentials("pep"), timeout=2 * PATIENCE
        )
        asked.put(question)
        first = AuthorizeStreamResponse.FromString(next(stream)).decision.outcome
        going = [pool.submit(go_on, channel) for _ in range(CALLERS)]
        ended = enough.wait(PATIENCE)
        enough.set()
        answered = [one.result() for one in going]
        asked.put(question)
        asked.put(None)
        last = [AuthorizeStreamResponse.FromString(one).decision.outcome for one in stream]

    assert (True, OUTCOME_ALLOW, [OUTCOME_ALLOW]) == (ended, first, last)
    assert min(answered) > 0
