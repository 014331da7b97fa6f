"""Fetching bundles from a URL: over TLS, only what has changed, within limits, and never half of one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pdp.bundles.delivery import Delivery
from pdp.bundles.packing import pack
from pdp.bundles.urlsource import URLSource
from pdp.errors import BundleError, BundleUnavailableError
from pdp.foundation.webfile import WebEndpoint
from pdp.limits import DEFAULT_LIMITS
from tests.machinery.webserver import WebServer, web_server

FILES = {"bundle.yaml": b"name: small\n", "schema.cedarschema": b"entity User;\n" + b"// a long comment\n" * 1000}
OTHER = {**FILES, "bundle.yaml": b"name: other\n"}

Open = Callable[..., URLSource]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    """Serve a bundle over TLS."""
    with web_server(pack(FILES), tmp_path) as server:
        yield server


@pytest.fixture
def open_source(web: WebServer, tmp_path: Path) -> Open:
    """Return what opens a source on that server; it trusts its certificate."""

    def opened(
        *, url: str = "", ca_file: str = str(tmp_path / "roots.pem"), token_file: str = "", **more: object
    ) -> URLSource:
        endpoint = WebEndpoint(
            url=url or f"https://127.0.0.1:{web.server_port}/b.bundle?key=canary",
            ca_file=ca_file,
            token_file=token_file,
        )
        options: dict[str, object] = {"limits": DEFAULT_LIMITS, "kept_at": tmp_path / "last.bundle", **more}
        return URLSource(endpoint, **options)  # type: ignore[arg-type]  # options by name

    return opened


def test_bundle_is_fetched_once_while_it_does_not_change(web: WebServer, open_source: Open) -> None:
    """The server is told what was read before, and says that it has not changed."""
    source = open_source()

    read = [source.read() for _ in range(3)]

    assert [Delivery(files=FILES)] * 3 == read
    assert [200, 304, 304] == web.statuses


def test_change_is_fetched(web: WebServer, open_source: Open) -> None:
    """Another ETag is another bundle."""
    source = open_source()
    source.read()
    web.body = pack(OTHER)

    assert OTHER == source.read().files
    assert [200, 200] == web.statuses


def test_bad_bundle_is_fetched_again(web: WebServer, open_source: Open) -> None:
    """What was no bundle is not what has not changed."""
    source = open_source()
    web.body = b"<html>not found</html>" * 100
    for _ in range(2):
        with pytest.raises(BundleError, match=r"https://127\.0\.0\.1:\d+/b\.bundle: is not a packed bundle"):
            source.read()
    web.body = pack(FILES)

    assert FILES == source.read().files
    assert [200, 200, 200] == web.statuses


@pytest.mark.parametrize(
    ("way", "problem"),
    [
        ("half", r"stopped after \d+ of \d+ bytes"),
        ("half_in_chunks", "did not answer in valid HTTP"),
        ("elsewhere", "answers `302`, but redirects are not followed"),
        ("broken", "answers `503`"),
        ("unchanged", "answers `304`"),
        ("compressed", "answers with an encoding that was not requested"),
        ("no_http", "did not answer in valid HTTP"),
    ],
)
def test_server_that_misbehaves_is_silent(web: WebServer, open_source: Open, way: str, problem: str) -> None:
    """Half a body, a redirect, an error: there is no bundle now, and the message says why and hides the query."""
    web.way = way

    with pytest.raises(BundleUnavailableError, match=problem) as caught:
        open_source().read()

    assert "canary" not in str(caught.value)


def test_half_a_body_without_length_is_no_bundle(web: WebServer, open_source: Open) -> None:
    """Where the server does not say how much there is, the packed form does."""
    web.way = "half_without_length"

    with pytest.raises(BundleError, match=r"ends within `schema\.cedarschema`"):
        open_source().read()


@pytest.mark.parametrize("way", ["endless", "huge"])
def test_body_is_limited(web: WebServer, open_source: Open, way: str) -> None:
    """No more is read than a bundle may have."""
    web.way = way

    with pytest.raises(BundleError, match=r"larger than \d+ bytes \(limit `bundle_bytes`\)"):
        open_source(limits=replace(DEFAULT_LIMITS, bundle_bytes=100_000)).read()


@pytest.mark.parametrize("way", ["silent", "stalled"])
@pytest.mark.parametrize("bound", ["step_seconds", "whole_seconds"])
def test_server_that_stalls_is_left(web: WebServer, open_source: Open, way: str, bound: str) -> None:
    """Each step has its time, and so has the whole."""
    web.way = way

    with pytest.raises(BundleUnavailableError, match=r"did not answer in time|stopped after"):
        open_source(**{bound: 0.05}).read()


@pytest.mark.parametrize("way", ["silent", "stalled"])
def test_closing_ends_a_fetch(web: WebServer, open_source: Open, way: str) -> None:
    """A server that stops does not wait for a URL that stalls."""
    web.way = way
    source = open_source()
    failed: list[BundleUnavailableError] = []

    def read() -> None:
        try:
            source.read()
        except BundleUnavailableError as error:
            failed.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    assert web.held.wait(30)

    source.close()
    reading.join(30)

    assert 1 == len(failed)
    with pytest.raises(BundleUnavailableError, match="is no longer asked"):
        source.read()


def test_nobody_listens(web: WebServer, open_source: Open) -> None:
    """A refused connection is a silent URL."""
    source = open_source()
    web.shutdown()
    web.server_close()

    with pytest.raises(BundleUnavailableError, match="cannot be reached: connection refused"):
        source.read()


def test_certificate_must_be_trusted(open_source: Open, tmp_path: Path) -> None:
    """With other roots, and with the system's, the server is not believed."""
    with web_server(b"", tmp_path / "other"):
        pass

    for roots in ("", str(tmp_path / "other" / "roots.pem")):
        with pytest.raises(BundleUnavailableError, match="has a certificate that is not trusted"):
            open_source(ca_file=roots).read()


def test_certificate_must_name_the_host(open_source: Open, tmp_path: Path) -> None:
    """A trusted certificate of another host does not count."""
    with web_server(pack(FILES), tmp_path / "other", host="127.0.0.2") as other:
        source = open_source(
            url=f"https://127.0.0.1:{other.server_port}/", ca_file=str(tmp_path / "other" / "roots.pem")
        )

        with pytest.raises(BundleUnavailableError, match=r"not trusted: .*127\.0\.0\.1"):
            source.read()


def test_roots_that_cannot_be_read_are_named(open_source: Open) -> None:
    """The message names the file."""
    with pytest.raises(BundleUnavailableError, match=r"`nowhere\.pem` holds no certificates"):
        open_source(ca_file="nowhere.pem").read()


def test_token_is_presented_and_read_again(web: WebServer, open_source: Open, tmp_path: Path) -> None:
    """Whoever changes the token restarts nothing."""
    token = tmp_path / "token"
    source = open_source(token_file=str(token))
    for text in ("first\n", "second"):
        token.write_text(text, encoding="ascii")
        source.read()

    assert ["Bearer first", "Bearer second"] == web.tokens


@pytest.mark.parametrize("text", ["", "two words", "a\r\nX-Evil: 1", "ä"])
def test_bad_token_is_not_sent(web: WebServer, open_source: Open, tmp_path: Path, text: str) -> None:
    """A file that holds something else makes no request, and what it holds is not told."""
    token = tmp_path / "token"
    token.write_text(text, encoding="utf-8", newline="")

    with pytest.raises(BundleUnavailableError, match="holds no token") as caught:
        open_source(token_file=str(token)).read()

    assert [] == web.tokens
    assert not text or text not in str(caught.value)


def test_last_good_bundle_is_kept_for_the_next_process(open_source: Open) -> None:
    """What loaded is on the disk; what was only read is not."""
    source = open_source()
    delivery = source.read()
    before = open_source().last_good()

    source.loaded(delivery)

    assert before is None
    assert delivery == open_source().last_good()


def test_disk_that_is_full_stops_nothing(open_source: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The bundle runs all the same, and the log says that it was not kept."""
    source = open_source(kept_at=tmp_path / "nowhere" / "last.bundle")

    source.loaded(source.read())

    assert "the last good bundle could not be kept" in caplog.text
    assert source.last_good() is None
