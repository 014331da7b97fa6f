"""`pdp login`: the log-in of the console, for the commands that follow."""

from __future__ import annotations

import html
import json
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
import pytest
from click.testing import CliRunner

from pdp.cli.operate import login
from pdp.cli.root import root
from tests.console.desk import SECONDS
from tests.console.provider import CLIENT, SECRET, Entered, Wishes, entered
from tests.machinery.credentials.issuer import AUDIENCE

Go = Callable[[str], None]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entered]:
    """Return a server and a provider that it believes."""
    with entered(tmp_path_factory.mktemp("login")) as world:
        yield world


@pytest.fixture
def world(running: Entered, monkeypatch: pytest.MonkeyPatch) -> Entered:
    """Return them, with a provider that behaves, and its time for the command."""
    running.provider.clock.advance(60)
    running.provider.wishes = Wishes()
    monkeypatch.setattr(login, "SystemClock", lambda: running.provider.clock)
    return running


def through(link: str) -> None:
    """Log in as a browser does: at the provider, and back."""
    got(got(link).headers["location"])


def got(url: str) -> httpx2.Response:
    """Return what is at a URL, however long it takes."""
    return httpx2.get(url, timeout=SECONDS)


def ran(world: Entered, folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str, go: Go = through) -> Any:
    """Run the command; `go` is what the person does with the link in the file that their browser is started with."""
    secret = folder / "secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET)

    def opened(url: str) -> None:
        page = Path(unquote(urlsplit(url).path))
        assert 0o600 == stat.S_IMODE(page.stat().st_mode)
        [link] = set(re.findall(r'href="([^"]+)"', page.read_text()))
        go(html.unescape(link))

    monkeypatch.setattr("webbrowser.open", opened)
    command = ["login", "--issuer", world.provider.url, "--client-id", CLIENT, "--client-secret-file", str(secret)]
    command += ["--parameter", f"resource={AUDIENCE}", "--address", world.address, "--plaintext"]
    # As after an earlier log-in, whose token may have ended.
    return CliRunner().invoke(root, [*command, "--data-dir", str(folder), *words], env={"PDP_TOKEN_FILE": "/gone"})


def test_commands_have_the_authority_of_the_person(
    world: Entered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also to approve what destroys, with an ID token that says when they logged in; both files are theirs alone."""
    world.provider.wishes = Wishes(in_access_token=False)
    session_id = world.requested()

    done = ran(world, tmp_path, monkeypatch, "--fresh", "--json")
    found = json.loads(done.stdout)
    approve = ["session", "approve", session_id, "--yes", "--id-token-file", found["id_token_file"]]
    approve += ["--address", world.address, "--plaintext", "--data-dir", str(tmp_path)]
    approved = CliRunner().invoke(root, approve, env={"PDP_TOKEN_FILE": found["token_file"]})

    assert ("ann", ["approver"]) == (found["caller_id"], found["roles"])
    assert ("300", "login") == (world.provider.asked["max_age"], world.provider.asked["prompt"])
    assert 0 == approved.exit_code, approved.output
    assert "ann" == world.state(session_id).approved_by
    assert {0o600} == {stat.S_IMODE(Path(found[name]).stat().st_mode) for name in ("token_file", "id_token_file")}
    assert [] == [*tmp_path.glob("login-*.html")]


def test_only_its_own_answer_ends_the_log_in(world: Entered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another program of the machine sends is refused, and the person's answer still counts."""

    def go(link: str) -> None:
        back = got(link).headers["location"]
        for forged in (back.replace("state=", "state=x"), back.partition("?")[0], f"{back.partition('?')[0]}?error=x"):
            assert 400 == got(forged).status_code
        assert 200 == got(back).status_code

    done = ran(world, tmp_path, monkeypatch, go=go)

    assert (0, "logged in as ann (approver) until ") == (done.exit_code, done.stdout[:34])
    assert "PDP_TOKEN_FILE=" in done.stdout


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"back": {"code": "", "error": "access_denied"}}, "not logged in: the provider refuses: access_denied"),
        ({"id_claims": {"nonce": "x"}}, "not logged in: "),
        ({"access_token": "opaque"}, "is opaque"),
        ({"subject": "stranger@example.org"}, "unauthenticated"),
    ],
)
def test_a_wrong_answer_leaves_no_token(
    world: Entered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wishes: dict[str, Any], said: str
) -> None:
    """The command says in one line what did not fit."""
    world.provider.wishes = Wishes(**wishes)

    done = ran(world, tmp_path, monkeypatch)

    assert 2 == done.exit_code
    assert said in done.stderr.splitlines()[-1]
    assert [] == [*tmp_path.glob("login*")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "pass --issuer"),
        (("--issuer", "https://a.example"), "pass --client-id"),
    ],
)
def test_what_is_needed_is_said(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    """Before anything listens."""
    done = CliRunner().invoke(root, ["login", *words, "--data-dir", str(tmp_path)])

    assert (2, True) == (done.exit_code, said in done.stderr)
