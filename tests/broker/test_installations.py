"""Applications with installations, as those of GitHub: a signed statement buys a narrow token for one session."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from pdp.broker.words import App, ClientAuth, Connection, Mode, TokenRefusedError, TokensUnavailableError
from pdp.errors import PermissionDeniedError
from tests.broker.tills import Till, till
from tests.broker.tokenproviders import Provider, client_of, provider_here

TOKEN = "ghs_canary5b20"  # noqa: S105 - a canary
APP, MAKE, END = "Iv23app", "/app/installations/7/access_tokens", "/installation/token"
_KEY: Final = rsa.generate_private_key(65537, 2048)
KEY: Final = _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
PUBLIC: Final = RSAKey.import_key(_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


class GitHub(Provider):
    """Gives tokens to the application `APP`, whose statements another library verifies.

    `changes` replaces members of a good answer. `makes` and `ends` replace the status of what makes and ends a token; a
    token that was ended counts no more, unless it is one of those that only say so.
    """

    def reset(self) -> None:
        """Let it be as at first, with no token out."""
        super().reset()
        self.good: set[str] = set()
        self.changes: dict[str, Any] = {}
        self.makes, self.ends, self.lies, self.seconds = 0, 0, False, 600

    @property
    def status(self) -> int:
        """Return the status of the present answer."""
        method, path, headers, body = self.got[-1]
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        self._answer = (200, {})
        if path == MAKE:
            self._answer = (self.makes or self._made(bearer), self.made(json.loads(body)))
        elif (method, path) == ("DELETE", END):
            self._answer = (self.ends or (204 if bearer in self.good else 401), {})
            if not self.lies and not self.ends:
                self.good.discard(bearer)
        return self._answer[0]

    @status.setter
    def status(self, _: int) -> None:
        """Leave it as it is."""

    def _made(self, statement: str) -> int:
        try:
            said = jwt.decode(statement, PUBLIC, algorithms=["RS256"]).claims
        except JoseError:
            return 401
        now = time.time()
        if said["iss"] != APP or not said["iat"] <= now < said["exp"] <= said["iat"] + 600:
            return 401
        self.good.add(TOKEN)
        return 201

    def made(self, asked: Any) -> dict[str, Any]:
        """Return what it gives for what is asked."""
        ends_at = datetime.fromtimestamp(int(time.time()) + self.seconds, UTC).isoformat().replace("+00:00", "Z")
        rows = [{"id": 1, "name": name, "full_name": f"acme/{name}"} for name in asked["repositories"]]
        known = {"repository_selection": "selected", "repositories": rows, "permissions": asked["permissions"]}
        said = {"token": TOKEN, "expires_at": ends_at, **known, **self.changes}
        return {name: value for name, value in said.items() if value is not None}

    @property
    def bodies(self) -> list[Any]:
        """Return what tokens were asked for."""
        return [json.loads(body) for _, path, _, body in self.got if path == MAKE]


@pytest.fixture(scope="module")
def serving_github() -> Iterator[GitHub]:
    """Run it for all tests."""
    with provider_here(GitHub) as github:
        yield github


@pytest.fixture
def github(serving_github: GitHub) -> GitHub:
    """Provide it as it is at first."""
    serving_github.reset()
    return serving_github


def installation(github: GitHub, **of_source: Any) -> Connection:
    """Return a connection by which tokens of an installation are handed out."""
    app = App(repositories=("api", "web"))
    known = {"endpoint": f"{github.origin}{MAKE}", "client_id": APP, "auth": ClientAuth.PRIVATE_KEY, "app": app}
    ends = {"revocation": f"{github.origin}{END}", "introspection": ""}
    scopes = ("contents:read", "issues:write")
    return client_of(github, of_source={**known, **ends, **of_source}, scopes=scopes)


@pytest.fixture
def here(github: GitHub, tmp_path: Path) -> Iterator[Till]:
    """Provide a desk with an installation."""
    with till(tmp_path / "broker", installation(github), secret=KEY) as made:
        yield made


def test_a_session_gets_a_token_of_an_installation(here: Till, github: GitHub) -> None:
    """With the permissions of the call, for the repositories of the connection, and until its end; the key stays."""
    credential = here.ask(scopes=("issues:write",))

    assert [{"repositories": ["api", "web"], "permissions": {"issues": "write"}}] == github.bodies
    assert TOKEN == credential.secret
    assert credential.ends_at == pytest.approx(time.time() + 600, abs=60)
    assert "PRIVATE KEY" not in repr(github.got)
    held = b"".join(path.read_bytes() for path in here.folder.rglob("*") if path.is_file())
    assert TOKEN.encode() not in held


def test_a_token_serves_the_calls_of_its_session(github: GitHub, tmp_path: Path) -> None:
    """Those that the broker makes, whose tokens stay there, however long they live; afterwards it is ended."""
    github.seconds = 7200
    row = replace(installation(github), upstream=github.origin, modes=(Mode.CONNECTOR,))
    with till(tmp_path / "broker", row, secret=KEY) as here:
        assert [200, 200] == [here.use(scopes=("issues:write",)) for _ in range(2)]
        here.end_session()

        assert ["revoked"] == here.outcomes
    sent = [headers["authorization"] for _, path, headers, _ in github.got if path == "/"]
    assert ([f"Bearer {TOKEN}"] * 2, 1) == (sent, len(github.bodies))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"permissions": {"issues": "write", "contents": "write"}}, "other permissions than the scopes"),
        ({"permissions": {"issues": "admin"}}, "other permissions than the scopes"),
        ({"permissions": {}}, "other permissions than the scopes"),
        ({"permissions": None}, "other permissions than the scopes"),
        ({"repositories": [{"name": "api"}, {"name": "web"}, {"name": "secret"}]}, "for other repositories"),
        ({"repositories": [{"name": "api"}]}, "for other repositories"),
        ({"repositories": None, "repository_selection": "all"}, "for other repositories"),
        ({"expires_at": None}, "a token without an end"),
        ({"expires_at": "2026-01-01T00:00:00"}, "a token without an end"),
        ({"token": "a\r\nb"}, "a token that no header can hold"),
    ],
)
def test_a_token_that_can_something_else_is_refused(
    here: Till, github: GitHub, changes: dict[str, Any], problem: str
) -> None:
    """More, or less: nobody has seen it, and it is ended."""
    github.changes = changes

    with pytest.raises(TokenRefusedError, match=problem):
        here.ask(scopes=("issues:write",))

    assert () == here.store.all()
    assert ("token" not in changes) == (END in github.asked)


@pytest.mark.parametrize(
    ("status", "kind"), [(200, TokenRefusedError), (422, TokenRefusedError), (503, TokensUnavailableError)]
)
def test_what_gives_no_token_is_told(here: Till, github: GitHub, status: int, kind: type[Exception]) -> None:
    """Only `201` is a token that was made."""
    github.makes = status

    with pytest.raises(kind, match=f"it answers `{status}`"):
        here.ask(scopes=("issues:write",))


def test_another_key_gets_nothing(github: GitHub, tmp_path: Path) -> None:
    """As one that the provider has taken back."""
    strange = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with (
        till(tmp_path / "broker", installation(github), secret=strange) as here,
        pytest.raises(TokenRefusedError, match="it answers `401`"),
    ):
        here.ask(scopes=("issues:write",))


def test_scopes_that_are_no_permissions_ask_for_nothing(github: GitHub, tmp_path: Path) -> None:
    """Nor those that name one twice."""
    row = installation(github)
    wrong = ("issues", "issues:read", "issues:write")
    with till(tmp_path / "broker", replace(row, scopes=wrong), secret=KEY) as here:
        for scopes in (("issues",), ("issues:read", "issues:write")):
            with pytest.raises(TokenRefusedError, match="it is not asked"):
                here.ask(scopes=scopes)

    assert [] == github.got


@pytest.mark.parametrize(
    ("lies", "ends", "source", "outcome"),
    [
        (False, 0, {}, "revoked"),
        (True, 0, {}, "expires_at"),
        (False, 401, {}, "expires_at"),
        (False, 403, {}, "failed"),
        (False, 503, {}, "failed"),
        (False, 0, {"revocation": ""}, "expires_at"),
    ],
    ids=["proved", "lies", "unknown", "refused", "down", "nowhere"],
)
def test_the_token_ends_itself_with_its_session(
    github: GitHub, tmp_path: Path, *, lies: bool, ends: int, source: dict[str, Any], outcome: str
) -> None:
    """`204` shows nothing; that the same token is taken no more the second time does."""
    github.lies, github.ends = lies, ends
    with till(tmp_path / "broker", installation(github, **source), secret=KEY) as here:
        here.ask(scopes=("issues:write",))
        here.end_session()

        assert [outcome] == here.outcomes
    assert (outcome != "revoked") == (TOKEN in github.good)


@pytest.mark.parametrize("lies", [False, True])
def test_a_token_may_outlive_its_session_where_that_is_set(github: GitHub, tmp_path: Path, *, lies: bool) -> None:
    """It is ended with the session all the same, and until when it may be good is said as it is."""
    github.seconds, github.lies = 3600, lies
    rows = installation(github), installation(github, outlives=True)
    for number, row in enumerate(rows):
        with till(tmp_path / f"broker-{number}", row, secret=KEY) as here:
            here.session_ends[""] = here.wall() + 60
            if not number:
                with pytest.raises(PermissionDeniedError, match="would outlive the session"):
                    here.ask(scopes=("issues:write",))
                continue
            credential = here.ask(scopes=("issues:write",))
            here.ahead = 61
            here.sweeper.sweep()

            assert ["expires_at" if lies else "revoked"] == here.outcomes
            ends = datetime.fromisoformat(here.told()[0]["ends"])
            assert credential.ends_at == pytest.approx(ends.timestamp(), abs=1)
            assert credential.ends_at == pytest.approx(time.time() + 3600, abs=60)
