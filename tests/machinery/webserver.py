"""A web server that hands out one file over TLS, and misbehaves in one way where a test wants it."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class WebServer(ThreadingHTTPServer):
    """Serves `body` with its digest as ETag. `way` says how: `whole`, or a mistake of `Answer`."""

    daemon_threads = True

    def __init__(self, body: bytes, *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Answer)
        self.body = body
        self.way = "whole"
        self.statuses: list[int] = []
        self.tokens: list[str | None] = []
        self.released = threading.Event()
        self.held = threading.Event()

    @property
    def tag(self) -> str:
        """Return the ETag of the body."""
        return f'"{hashlib.sha256(self.body).hexdigest()}"'

    def handle_error(self, *_: object) -> None:
        """Say nothing about clients that hang up: some tests do."""


class Answer(BaseHTTPRequestHandler):
    """Answers one request the way that the test wants."""

    server: WebServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer."""
        self.server.tokens.append(self.headers["Authorization"])
        if self.server.way == "whole" and self.headers["If-None-Match"] == self.server.tag:
            self._begin(304, length=None)
            return
        getattr(self, self.server.way)()
        self.close_connection = True

    def whole(self) -> None:
        """Send all of it."""
        self._begin(200, length=len(self.server.body))
        self.wfile.write(self.server.body)

    def half(self) -> None:
        """Promise all and send half."""
        self._begin(200, length=len(self.server.body))
        self.wfile.write(self.server.body[: len(self.server.body) // 2])

    def half_in_chunks(self) -> None:
        """Send half in chunks, and stop without the last one."""
        self._begin(200, length=None, headers={"Transfer-Encoding": "chunked"})
        half = self.server.body[: len(self.server.body) // 2]
        self.wfile.write(b"%x\r\n%s\r\n" % (len(half), half))

    def half_without_length(self) -> None:
        """Send half and say nothing about how much it would be."""
        self._begin(200, length=None)
        self.wfile.write(self.server.body[: len(self.server.body) // 2])

    def endless(self) -> None:
        """Send more and more, until the client has enough."""
        self._begin(200, length=None)
        while True:
            self.wfile.write(bytes(1 << 20))

    def huge(self) -> None:
        """Promise more than anybody would want."""
        self._begin(200, length=10**12)

    def silent(self) -> None:
        """Say nothing until the test is over."""
        self.server.held.set()
        self.server.released.wait(60)

    def stalled(self) -> None:
        """Send half, and then nothing until the test is over."""
        self._begin(200, length=len(self.server.body))
        self.wfile.write(self.server.body[: len(self.server.body) // 2])
        self.server.held.set()
        self.server.released.wait(60)

    def compressed(self) -> None:
        """Send something encoded."""
        self._begin(200, length=len(self.server.body), headers={"Content-Encoding": "gzip"})
        self.wfile.write(self.server.body)

    def elsewhere(self) -> None:
        """Send the client to another place."""
        self._begin(302, length=0, headers={"Location": "/other"})

    def broken(self) -> None:
        """Fail."""
        self._begin(503, length=0)

    def unchanged(self) -> None:
        """Claim that nothing has changed, whatever was asked."""
        self._begin(304, length=None)

    def no_http(self) -> None:
        """Speak something else."""
        self.wfile.write(b"220 ready\r\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _begin(self, status: int, *, length: int | None, headers: dict[str, str] | None = None) -> None:
        self.server.statuses.append(status)
        self.send_response(status)
        if status == 200:
            self.send_header("ETag", self.server.tag)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def web_server(body: bytes, folder: Path, *, port: int = 0, host: str = "127.0.0.1") -> Iterator[WebServer]:
    """Serve a body over TLS while the `with` block runs; `roots.pem` in `folder` is what trusts the certificate."""
    server = WebServer(body, port=port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_certificate(folder, host))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with serving(server, server.released):
        yield server


@contextmanager
def serving(server: ThreadingHTTPServer, released: threading.Event) -> Iterator[None]:
    """Serve on a thread while the `with` block runs; at its end `released` lets go of handlers that wait."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _certificate(folder: Path, host: str) -> Path:
    """Write a certificate that signs itself, with its key, and `roots.pem` without it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bundles")])
    now = dt.datetime.now(dt.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    roots = certificate.public_bytes(pem)
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "roots.pem").write_bytes(roots)
    (folder / "server.pem").write_bytes(private + roots)
    return folder / "server.pem"
