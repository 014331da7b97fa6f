"""The server on each kind of source: what is refused leaves the running bundle, and says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pdp.app.embedded import open_embedded
from pdp.app.server import App
from pdp.bundles.delivery import Delivery
from pdp.bundles.packing import pack
from pdp.bundles.signing import Trust, generate_key, read_public_keys, sign
from pdp.cli.operate.init import prepare
from pdp.client import Client
from pdp.client.errors import PDPClientError
from pdp.config.reading import load
from pdp.errors import ConfigurationError
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.inprocess import write_folder
from pdp.testing.waiting import wait_until
from tests.machinery.webserver import WebServer, web_server

KEY, PUBLIC_KEY = generate_key()


def files(policy: str) -> dict[str, bytes]:
    """Return a bundle with one policy."""
    return bundle_files(
        policies={"files": f'@id("files/{policy}") permit (principal, action, resource);'},
        tools={"files": [tool("read")]},
        directory="users: {alice: {}}\nagents: {worker: {ceiling: ['files/*']}}",
    )


def packed(policy: str, number: int = 0, *, key: bytes = KEY) -> bytes:
    """Return a packed bundle, signed when it has a number."""
    delivery = Delivery(files=files(policy))
    if number:
        delivery = sign(delivery, key, number)
    return pack(delivery.files, delivery.signature)


def version(policy: str) -> str:
    """Return the version of a bundle with one policy."""
    return Delivery(files=files(policy)).version


class Server:
    """A server of the product, in this process, on its settings."""

    def __init__(self, folder: Path, flags: dict[str, str]) -> None:
        chosen = {"data_dir": str(folder / "data"), "server.address": "127.0.0.1:0", "telemetry.exporter": "none"}
        settings = load(environ={}, flags=chosen | flags)
        prepare(settings)
        self.app: App = App(settings)
        self.app.start()
        token = settings.tokens_folder / "author.token"
        self.author = Client(self.app.address, token_file=token, management_timeout=60, data_dir=settings.data_dir)

    @property
    def policy(self) -> str:
        """Return the policy of the running bundle, as the server tells it."""
        shown = self.author.get_bundle().bundle
        return next(one.policy_id for one in shown.policies if one.file == "files.cedar").removeprefix("files/")

    def runs(self, policy: str) -> None:
        """Wait until a bundle runs."""
        wait_until(lambda: self.policy == policy)

    def complains(self, problem: str) -> None:
        """Wait until the server says what is wrong with its source."""
        wait_until(lambda: any(problem in error for error in self.author.get_bundle().load_errors))

    def reload_refused(self) -> str:
        """Ask for a reload that must be refused, and return the answer."""
        with pytest.raises(PDPClientError) as caught:
            self.author.reload_bundle()
        return str(caught.value)

    def close(self) -> None:
        """Stop."""
        self.author.close()
        self.app.stop(0)


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return what starts a server on settings; all of them share one data folder."""
    (tmp_path / "keys.pem").write_bytes(PUBLIC_KEY)
    with ExitStack() as opened:

        def start(**flags: Any) -> Server:
            server = Server(tmp_path, {name.replace("__", "."): str(value) for name, value in flags.items()})
            opened.callback(server.close)
            return server

        yield start


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where the packed bundle is."""
    return tmp_path / "policies.bundle"


@pytest.fixture
def only_signed(tmp_path: Path, file: Path) -> dict[str, str]:
    """Return the settings of a server that takes only signed bundles, and never an older one."""
    return {
        "policies__file": str(file),
        "policies__require_signature": "true",
        "policies__public_keys": str(tmp_path / "keys.pem"),
        "policies__never_older": "true",
    }


def replace_file(file: Path, content: bytes) -> None:
    """Put a file in the place of another at once, as a deployment does."""
    draft = file.with_suffix(".draft")
    draft.write_bytes(content)
    draft.replace(file)


def test_packed_file_is_served_and_watched(serve: Serve, file: Path) -> None:
    """A new file is taken by itself."""
    file.write_bytes(packed("one"))
    server = serve(policies__file=file)
    before = server.policy
    replace_file(file, packed("two"))
    server.runs("two")

    assert "one" == before
    assert "policy-file" == server.author.get_bundle().bundle.activated_by


def test_packed_file_serves_embedded_use_too(file: Path) -> None:
    """Without a server, a path may lead to a packed bundle."""
    file.write_bytes(packed("one", 1))

    pdp = open_embedded(file, trust=Trust(keys=read_public_keys(PUBLIC_KEY), required=True), compile_files=compile_here)

    assert version("one") == pdp.keeper.current().version
    pdp.close()


def test_half_a_file_changes_nothing(serve: Serve, file: Path) -> None:
    """A file that is still being copied is no bundle, and the running one stays."""
    file.write_bytes(packed("one"))
    server = serve(policies__file=file)
    file.write_bytes(packed("two")[:3000])

    server.complains(f"{file}: ends within `")

    assert "one" == server.policy


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (packed("two"), "the bundle is not signed, but only signed ones are taken; see `pdp bundle sign`"),
        (packed("two", 9, key=generate_key()[0]), "which is not among the trusted keys"),
        (packed("two", 9).replace(b"files/two", b"files/six"), "is wrong: the bundle is not what was signed"),
        (packed("two", 6), "the bundle has number `6`, but `7` was already active; only newer ones are taken"),
        (packed("two", 7), "the bundle has number `7`, but `7` was already active; only newer ones are taken"),
    ],
    ids=["unsigned", "stranger", "changed", "older", "same number"],
)
def test_what_may_not_run_is_refused(
    serve: Serve, file: Path, only_signed: dict[str, str], content: bytes, problem: str
) -> None:
    """Unsigned, wrongly signed, older: by the watch and by a reload, with a clear message; the running one stays."""
    file.write_bytes(packed("one", 7))
    server = serve(**only_signed)
    replace_file(file, content)

    server.complains(problem)

    assert problem in server.reload_refused()
    assert problem in server.author.check_bundle().problems[0].message
    assert ("one", 7) == (server.policy, server.author.get_bundle().bundle.number)


def test_newer_signed_bundle_is_taken(serve: Serve, file: Path, only_signed: dict[str, str]) -> None:
    """A higher number is taken, and the listing shows number and key."""
    file.write_bytes(packed("one", 7))
    server = serve(**only_signed)
    replace_file(file, packed("two", 8))

    server.runs("two")

    listed = server.author.list_bundles()
    assert [8, 7] == [one.number for one in listed]
    assert all(one.signed_by.startswith("ed25519:") for one in listed)


def test_older_bundle_runs_when_somebody_activates_it(serve: Serve, file: Path, only_signed: dict[str, str]) -> None:
    """Kept by the server, or never seen before and in the file: by its version an older one may run."""
    file.write_bytes(packed("one", 7))
    server = serve(**only_signed)
    replace_file(file, packed("two", 8))
    server.runs("two")
    server.author.activate_bundle(version("one"))
    back = server.policy
    replace_file(file, packed("three", 3))
    server.complains("the bundle has number `3`, but `8` was already active")
    server.author.activate_bundle(version("three"))

    assert ["one", "three"] == [back, server.policy]


def test_number_is_remembered_by_the_next_process(serve: Serve, file: Path, only_signed: dict[str, str]) -> None:
    """A server that starts on an older file goes on with what ran before, and says why."""
    file.write_bytes(packed("one", 7))
    serve(**only_signed).close()
    replace_file(file, packed("two", 6))

    server = serve(**only_signed)

    assert "one" == server.policy
    assert "`7` was already active" in server.author.get_bundle().load_errors[0]


def test_unsigned_bundle_that_was_active_does_not_run_once_signatures_are_required(
    serve: Serve, file: Path, only_signed: dict[str, str]
) -> None:
    """What the store keeps counts no more than what a source brings."""
    file.write_bytes(packed("one"))
    serve(policies__file=file).close()
    with pytest.raises(Exception, match="the bundle is not signed"):
        serve(**only_signed)
    replace_file(file, packed("two", 1))
    server = serve(**only_signed)

    assert "two" == server.policy
    with pytest.raises(PDPClientError, match="the bundle is not signed"):
        server.author.activate_bundle(version("one"))


def test_running_bundle_may_be_signed_afterwards(serve: Serve, file: Path, only_signed: dict[str, str]) -> None:
    """Signing what runs and requiring signatures changes how it runs, and not what."""
    file.write_bytes(packed("one"))
    serve(policies__file=file).close()
    replace_file(file, packed("one", 5))

    server = serve(**only_signed)

    shown = server.author.get_bundle().bundle
    assert (version("one"), 5) == (shown.version, shown.number)


def test_kept_version_can_be_looked_at(serve: Serve, file: Path) -> None:
    """GetBundle shows a version that does not run, with its policies, and changes nothing."""
    file.write_bytes(packed("one"))
    server = serve(policies__file=file)
    replace_file(file, packed("two"))
    server.runs("two")

    shown = server.author.get_bundle(version("one")).bundle

    assert (version("one"), False) == (shown.version, shown.active)
    assert {"files/one", "sessions/all"} == {policy.policy_id for policy in shown.policies}
    assert "two" == server.policy


def test_version_that_nobody_has_is_not_found(serve: Serve, file: Path) -> None:
    """Neither shown nor activated."""
    file.write_bytes(packed("one"))
    server = serve(policies__file=file)

    for ask in (server.author.get_bundle, server.author.activate_bundle):
        with pytest.raises(PDPClientError, match="no bundle with this version is kept"):
            ask(version("two"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot read `policies.public_keys`: `.*keys.pem`: no such file or directory"),
        (b"no key", "`policies.public_keys`: `.*keys.pem` holds no public key in PEM"),
    ],
)
def test_public_keys_must_be_readable(
    serve: Serve, file: Path, only_signed: dict[str, str], content: bytes | None, problem: str
) -> None:
    """A server that cannot know whom to trust does not start, and says what to mend."""
    file.write_bytes(packed("one", 1))
    keys = Path(only_signed["policies__public_keys"])
    keys.unlink()
    if content is not None:
        keys.write_bytes(content)

    with pytest.raises(ConfigurationError, match=problem):
        serve(**only_signed)


# A folder


def test_rollback_is_not_undone_by_the_folder_or_a_restart(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Touched files and a new process bring nothing back; new content does."""
    folder = tmp_path / "policies"
    write_folder(folder, files("one"))
    server = serve(policies__folder=folder)
    write_folder(folder, files("two"))
    server.runs("two")
    server.author.activate_bundle(version("one"))
    looks = Counted(server)
    write_folder(folder, files("two"))
    looks.wait(1)
    touched = server.policy
    server.close()
    again = serve(policies__folder=folder)
    restarted = again.policy
    write_folder(folder, files("three"))
    again.runs("three")

    assert ("one", "one") == (touched, restarted)
    assert f"holds {version('two')}, which was active before and is not activated again" in caplog.text


class Counted:
    """Counts how often a server has looked at its source."""

    def __init__(self, server: Server) -> None:
        keeper = server.app.embedded.keeper
        self._looks = 0
        self._follow = keeper.follow
        keeper.follow = self._count  # type: ignore[method-assign]  # the real one is called, and counted

    def wait(self, looks: int) -> None:
        """Wait until the server has looked so often."""
        wait_until(lambda: self._looks >= looks)

    def _count(self) -> bool:
        followed = self._follow()
        self._looks += 1
        return followed


# A URL


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    """Serve a bundle over TLS."""
    with web_server(packed("one"), tmp_path) as server:
        yield server


def url_settings(web: WebServer, tmp_path: Path, **more: str) -> dict[str, str]:
    """Return the settings of a server that polls that URL."""
    url = f"https://127.0.0.1:{web.server_port}/policies.bundle"
    return {
        "policies__url": url,
        "policies__url_ca_file": str(tmp_path / "roots.pem"),
        "policies__poll_seconds": "0.1",
        **more,
    }


def test_url_is_polled(serve: Serve, web: WebServer, tmp_path: Path) -> None:
    """A new bundle is taken by itself; while there is none, the server says 304 and nothing is sent."""
    server = serve(**url_settings(web, tmp_path))
    wait_until(lambda: web.statuses.count(304) >= 2)
    sent = web.statuses.count(200)
    web.body = packed("two")
    server.runs("two")

    assert 1 == sent
    assert "policy-url" == server.author.get_bundle().bundle.activated_by


@pytest.mark.parametrize("way", ["half", "broken", "half_without_length", "no_http"])
def test_url_that_fails_changes_nothing(serve: Serve, web: WebServer, tmp_path: Path, way: str) -> None:
    """The running bundle stays while the URL misbehaves, and the next one is taken when it is well again."""
    server = serve(**url_settings(web, tmp_path))
    web.body, web.way = packed("two"), way
    server.complains(f"127.0.0.1:{web.server_port}/policies.bundle")
    during = server.policy
    web.way = "whole"
    server.runs("two")

    assert "one" == during


@pytest.mark.parametrize("store", ["sqlite", "memory"])
def test_start_while_the_url_is_silent(serve: Serve, web: WebServer, tmp_path: Path, store: str) -> None:
    """The last good bundle is on the disk, whichever store is used, and a later answer is taken."""
    settings = url_settings(web, tmp_path, sessions__store=store)
    serve(**settings).close()
    web.way = "broken"
    server = serve(**settings)
    before = server.policy, list(server.author.get_bundle().load_errors)
    web.body, web.way = packed("two"), "whole"
    server.runs("two")

    assert "one" == before[0]
    assert "answers `503`" in before[1][0]


def test_first_start_while_the_url_is_silent_fails(serve: Serve, web: WebServer, tmp_path: Path) -> None:
    """Without a bundle there is nothing to serve, and the message names the URL."""
    web.way = "broken"

    with pytest.raises(Exception, match=r"policies\.bundle` answers `503`"):
        serve(**url_settings(web, tmp_path))


def test_last_good_bundle_is_verified_too(serve: Serve, web: WebServer, tmp_path: Path) -> None:
    """What lies on the disk is believed no more than what comes over the network."""
    keys = {"policies__require_signature": "true", "policies__public_keys": str(tmp_path / "keys.pem")}
    settings = url_settings(web, tmp_path, sessions__store="memory", **keys)
    web.body = packed("one", 7)
    serve(**settings).close()
    (tmp_path / "data" / "last-good.bundle").write_bytes(packed("six"))
    web.way = "broken"

    with pytest.raises(Exception, match="the bundle is not signed"):
        serve(**settings)


def test_rollback_does_not_wait_for_a_url_that_stalls(serve: Serve, web: WebServer, tmp_path: Path) -> None:
    """Who goes back by version gets it at once, whatever the source does; and so does who stops the server."""
    server = serve(**url_settings(web, tmp_path))
    web.body = packed("two")
    server.runs("two")
    web.way = "silent"
    assert web.held.wait(30)

    server.author.activate_bundle(version("one"))

    assert "one" == server.policy
    assert not web.released.is_set()
    server.close()


def test_rollback_is_not_undone_by_the_next_poll(serve: Serve, web: WebServer, tmp_path: Path) -> None:
    """The URL goes on holding what somebody went back from; only new content ends that."""
    server = serve(**url_settings(web, tmp_path))
    web.body = packed("two")
    server.runs("two")
    server.author.activate_bundle(version("one"))
    polls = len(web.statuses)
    wait_until(lambda: len(web.statuses) >= polls + 3)
    during = server.policy
    web.body = packed("three")
    server.runs("three")

    assert "one" == during
