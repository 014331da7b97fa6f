"""TLS at the proxy over HTTP: towards its clients, and towards the server behind it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pdp.calltokens.claims import Presenter
from pdp.doors.mcp.clientcertificate import ClientCertificate
from pdp.doors.mcp.serversfile import ServerEntry
from pdp.doors.mcp.upstream import Upstream, UpstreamError
from pdp.errors import ConfigurationError
from pdp.serving import tlsbeginning, webconnections, weblistener
from pdp.serving.weblistener import Listener
from tests.doors.mcp.conversation import PATIENCE
from tests.machinery.credentials.authority import Authority

pytestmark = pytest.mark.anyio


async def greeting(scope: Any, _: Any, send: Any) -> None:
    """Answer every request."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": scope["scheme"].encode()})


@asynccontextmanager
async def served(listener: Listener) -> AsyncIterator[str]:
    """Serve the greeting, and provide its URL."""
    with listener:
        serving = asyncio.ensure_future(weblistener.serve(greeting, listener))
        try:
            yield f"https://localhost:{listener.port}/"
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving


@pytest.fixture
def authority() -> Authority:
    """Return an authority whose certificates nobody else trusts."""
    return Authority()


def listener_of(authority: Authority, folder: Path) -> Listener:
    """Return a listener with a certificate of the authority, whose roots are in `roots.pem`."""
    files = authority.files(folder)
    return Listener("127.0.0.1:0", certificate=files.certificate, key=files.key)


async def test_a_client_that_does_not_begin_tls_is_given_up(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such connections take files of the process, and nothing else counts them."""
    monkeypatch.setattr(webconnections, "HEAD_SECONDS", 0.05)
    listener = listener_of(authority, tmp_path)
    async with served(listener), asyncio.timeout(PATIENCE / 2):
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        with suppress(ConnectionResetError):
            assert b"" == await reader.read()
        writer.close()


async def test_clients_that_do_not_begin_tls_keep_out_nobody(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of too many the oldest ends, before the process has no files left for others."""
    monkeypatch.setattr(tlsbeginning, "_MOST", 4)
    monkeypatch.setattr(webconnections, "HEAD_SECONDS", 10 * PATIENCE)
    listener = listener_of(authority, tmp_path)
    trusting = ssl.create_default_context(cafile=tmp_path / "roots.pem")
    async with (
        served(listener) as url,
        asyncio.timeout(PATIENCE / 2),
        httpx2.AsyncClient(verify=trusting, timeout=60) as http,
    ):
        silent = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(9)]
        answer = await http.get(url)
        for reader, _ in silent[:5]:
            with suppress(ConnectionResetError):
                assert b"" == await reader.read()
        for _, writer in silent:
            writer.close()

    assert "https" == answer.text


async def test_clients_are_served_over_tls(authority: Authority, tmp_path: Path) -> None:
    """The certificate is that of the files, and its own pages are of https."""
    listener = listener_of(authority, tmp_path)
    trusting = ssl.create_default_context(cafile=tmp_path / "roots.pem")
    async with served(listener) as url, httpx2.AsyncClient(verify=trusting, timeout=60) as http:
        answer = await http.get(url)

    assert "https" == answer.text
    assert f"https://localhost:{listener.port}" in listener.origins


async def test_the_server_is_known_by_its_certificate(authority: Authority, tmp_path: Path) -> None:
    """With the right roots the server is asked, and with others it is not sent a byte."""
    async with served(listener_of(authority, tmp_path)) as url:
        (tmp_path / "others.pem").write_bytes(Authority("others").roots)
        async with Upstream(url, ca_file=tmp_path / "roots.pem") as right, right.exchange("GET", {}) as answer:
            body = await answer.body()
        async with Upstream(url, ca_file=tmp_path / "others.pem") as wrong:
            with pytest.raises(UpstreamError, match="does not answer"):
                async with wrong.exchange("GET", {}):
                    pass

    assert b"https" == body


async def test_the_server_knows_the_proxy_by_its_certificate(authority: Authority, tmp_path: Path) -> None:
    """The one to which call tokens are bound: its thumbprint is what the connection proves."""
    certificate, key = authority.server().write(tmp_path, "server")
    (tmp_path / "roots.pem").write_bytes(authority.roots)
    mine = ClientCertificate(**dict(zip(("chain", "key"), authority.caller().write(tmp_path, "proxy"), strict=True)))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "roots.pem")
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        body = Presenter.of_certificate(shown).certificate.encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
        entry = ServerEntry(name="git", upstream=url, tls_roots=tmp_path / "roots.pem", certificate=mine)
        async with Upstream.of(entry) as upstream, upstream.exchange("GET", {}) as said:
            seen = (await said.body()).decode()

    assert mine.thumbprint == seen


@pytest.mark.parametrize(("chain", "says"), [("server.pem", "is not the key of"), ("none.pem", "holds no certificate")])
def test_a_certificate_that_is_none_is_refused(authority: Authority, tmp_path: Path, chain: str, says: str) -> None:
    """So is one with the key of another."""
    authority.server().write(tmp_path, "server")
    _, key = authority.caller().write(tmp_path, "proxy")
    (tmp_path / "none.pem").write_text("none", encoding="ascii")
    mine = ClientCertificate(chain=tmp_path / chain, key=key)

    with pytest.raises(ConfigurationError, match=says):
        Upstream.of(ServerEntry(name=mine.thumbprint, upstream="https://a.example", certificate=mine))


async def serial_at(port: int, roots: Path) -> int:
    """Return the number of the certificate that a new connection gets, which names no host."""
    trusting = ssl.create_default_context(cafile=roots)
    trusting.check_hostname = False
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="")
    shown = writer.get_extra_info("peercert")
    writer.close()
    return int(shown["serialNumber"], 16)


async def test_a_renewed_certificate_is_used_without_a_restart(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New connections get it as soon as its key is there too; until then they get the last good one."""
    listener = listener_of(authority, tmp_path)
    (tmp_path / "renewed").mkdir()
    files = authority.files(tmp_path / "renewed")
    async with served(listener):
        first = await serial_at(listener.port, tmp_path / "roots.pem")
        (tmp_path / "server.pem").write_bytes(files.certificate.read_bytes())
        half = [await serial_at(listener.port, tmp_path / "roots.pem") for _ in range(2)]
        (tmp_path / "server.key.pem").write_bytes(files.key.read_bytes())
        renewed = await serial_at(listener.port, tmp_path / "roots.pem")

    assert [first, first] == half
    assert first != renewed
    assert 1 == caplog.text.count("the last good one stays in use")


async def test_a_renewed_certificate_is_used_once_its_folder_is_mended(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The files do not change with the mode of the folder above them; what is wrong is told once."""
    listener = listener_of(authority, tmp_path)
    (tmp_path / "renewed").mkdir()
    files = authority.files(tmp_path / "renewed")
    async with served(listener):
        first = await serial_at(listener.port, tmp_path / "roots.pem")
        await asyncio.to_thread(tmp_path.chmod, 0o777)
        (tmp_path / "server.pem").write_bytes(files.certificate.read_bytes())
        (tmp_path / "server.key.pem").write_bytes(files.key.read_bytes())
        refused = [await serial_at(listener.port, tmp_path / "roots.pem") for _ in range(3)]
        await asyncio.to_thread(tmp_path.chmod, 0o700)
        renewed = await serial_at(listener.port, tmp_path / "roots.pem")

    assert [first] * 3 == refused
    assert first != renewed
    assert 1 == caplog.text.count("the last good one stays in use")


def test_a_key_of_another_certificate_is_refused(authority: Authority, tmp_path: Path) -> None:
    """What does not fit together is told when the proxy starts."""
    certificate, _ = authority.server().write(tmp_path, "one")
    _, key = authority.server().write(tmp_path, "two")

    with pytest.raises(ConfigurationError, match="are not a certificate and its key"):
        Listener("127.0.0.1:0", certificate=certificate, key=key)


def test_roots_that_are_none_are_refused(tmp_path: Path) -> None:
    """The message names the file."""
    file = tmp_path / "roots.pem"
    file.write_text("no roots", encoding="ascii")

    with pytest.raises(ConfigurationError, match="holds no certificates"):
        Upstream("https://localhost/", ca_file=file)
