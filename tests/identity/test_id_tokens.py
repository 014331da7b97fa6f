"""ID tokens: which say when an approver logged in, that all others are refused, and that they give nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pdp.errors import InvalidRequestError, UnauthenticatedError, UnavailableError
from pdp.identity.authentication import (
    CallerAuthenticator,
    CertificateAuthenticator,
    TokenAuthenticator,
    WebTokenAuthenticator,
)
from pdp.identity.callers import KnownCallers
from pdp.identity.denied import DenyList
from pdp.identity.keysets import TrustedKeys
from pdp.identity.tokens import TOKEN_CHARACTERS, TokenRules
from pdp.model import Caller, Role
from pdp.testing.clock import FakeClock
from tests.machinery.credentials.issuer import AUDIENCE, ISSUER, NOW, SUBJECT, Issuer

CONSOLE = "pdp-console"
TOKEN_OF_LEAD = "pdpt_sesame"  # noqa: S105 - a token of the tests' own callers
LOG_IN = int(NOW) - 70
Make = Callable[[Issuer], str]


def id_token(issuer: Issuer, **claims: Any) -> str:
    """Return the ID token that a provider gives the console after a log-in, with other claims."""
    known: dict[str, Any] = {
        "aud": CONSOLE,
        "azp": CONSOLE,
        "nonce": "n",
        "at_hash": "h",
        "typ": "ID",
        "auth_time": LOG_IN,
    }
    return issuer.token(header={"typ": "JWT"}, **{**known, **claims})


class Scene:
    """Authenticates callers with an issuer and a console, and with a deny-list that a test can write."""

    def __init__(self, folder: Path, issuer: Issuer, *, console: str = CONSOLE) -> None:
        self.clock = FakeClock()
        self.deny_file = folder / "denied.yaml"
        self.deny_file.write_text("")
        callers = folder / "callers.yaml"
        digest = hashlib.sha256(TOKEN_OF_LEAD.encode()).hexdigest()
        callers.write_text(
            f"alice: {{jwt_subject: '{SUBJECT}', roles: [approver]}}\n"
            f"lead: {{token_sha256: '{digest}', roles: [approver]}}\n"
        )
        callers.chmod(0o600)
        known, self.denied = KnownCallers(callers), DenyList(self.deny_file)
        keys = TrustedKeys(issuer.jwks, name="keys.json", clock=self.clock, longest_seconds=3600.0)
        keys.load()
        rules = TokenRules(
            issuer=ISSUER,
            audience=AUDIENCE,
            algorithms=frozenset({"ES256"}),
            types=frozenset({"at+jwt"}),
            leeway_seconds=30.0,
            longest_seconds=86400.0,
            person_claim="person",
        )
        web_tokens = WebTokenAuthenticator(
            known, keys, rules, clock=self.clock, denied=self.denied, console_client=console
        )
        self.authenticator = CallerAuthenticator(
            TokenAuthenticator(known, web_tokens=web_tokens, denied=self.denied),
            CertificateAuthenticator(known, self.clock, denied=self.denied),
        )

    def present(self, access_token: str, *id_tokens: str) -> Caller:
        """Return the caller of an access token, with what its ID tokens add."""
        metadata = (("authorization", f"Bearer {access_token}"), *(("pdp-id-token", one) for one in id_tokens))
        return self.authenticator.present(self.authenticator.authenticate(metadata), metadata)

    def refusal(self, access_token: str, *id_tokens: str) -> str:
        """Return why the ID tokens of a call are refused; empty when they are not."""
        try:
            self.present(access_token, *id_tokens)
        except InvalidRequestError as error:
            return str(error)
        return ""


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Return the issuer that is believed."""
    return Issuer()


@pytest.fixture
def scene(tmp_path: Path, issuer: Issuer) -> Scene:
    """Return a scene with a console."""
    return Scene(tmp_path, issuer)


ACCEPTED: dict[str, Make] = {
    "as Keycloak writes it": id_token,
    "without a type, as others write it": lambda issuer: issuer.token(
        aud=CONSOLE, auth_time=LOG_IN, without=("typ",)
    ),
    "of Cognito": lambda issuer: id_token(issuer, typ="ID", token_use="id"),  # noqa: S106 - a kind of token
    "for several audiences": lambda issuer: id_token(issuer, aud=["other", CONSOLE]),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_log_in_of_an_id_token_counts(scene: Scene, issuer: Issuer, name: str) -> None:
    """An approver whose access token says nothing of the log-in has that of the ID token."""
    access = issuer.token(without=("auth_time",), person=True)

    found = scene.present(access, ACCEPTED[name](issuer))

    assert Caller(id="alice", kind="jwt", roles=frozenset({Role.APPROVER}), authenticated_at=LOG_IN) == found


@pytest.mark.parametrize("at", [LOG_IN - 10, LOG_IN + 10])
def test_the_later_log_in_counts(scene: Scene, issuer: Issuer, at: int) -> None:
    """An older ID token takes nothing from a newer access token, and the reverse."""
    found = scene.present(issuer.token(auth_time=at), id_token(issuer))

    assert max(at, LOG_IN) == found.authenticated_at


REFUSED: dict[str, tuple[Make, str]] = {
    "another client": (lambda issuer: id_token(issuer, aud="other"), "it is for another audience"),
    "issued to another client": (lambda issuer: id_token(issuer, azp="other"), "it was issued to another client"),
    "an issued-to that is no text": (lambda issuer: id_token(issuer, azp=[CONSOLE]), "it was issued to another client"),
    "another issuer": (lambda issuer: id_token(issuer, iss="https://other.example.org"), "it is from another issuer"),
    "another person": (lambda issuer: id_token(issuer, sub="mallory@example.org"), "its `sub` is not that of"),
    "another's signature": (
        lambda issuer: issuer.token(key=Issuer().keys["ES256"], header={"typ": "JWT"}, aud=CONSOLE),
        "its signature is wrong",
    ),
    "no signature": (lambda issuer: id_token(issuer).rpartition(".")[0] + ".", "its signature is wrong"),
    "another algorithm": (
        lambda issuer: issuer.token("RS256", header={"typ": "JWT"}, aud=CONSOLE),
        "its algorithm is not allowed",
    ),
    "an access token": (lambda issuer: issuer.token(aud=CONSOLE), "it is not an ID token by its `typ`: `at+jwt`"),
    "an access token of another form": (
        lambda issuer: id_token(issuer, typ="Bearer"),
        "it is not an ID token by its `typ`: `Bearer`",
    ),
    "a logout token": (lambda issuer: id_token(issuer, events={}), "it is not an ID token: it has `events`"),
    "expired": (lambda issuer: id_token(issuer, exp=int(NOW)), "it has expired (`exp`)"),
    "not yet valid": (lambda issuer: id_token(issuer, iat=int(NOW) + 31), "it is not valid yet"),
    "too long a life": (lambda issuer: id_token(issuer, exp=int(NOW) + 90000), "it lives longer than 86400 seconds"),
    "no log-in": (
        lambda issuer: issuer.token(header={"typ": "JWT"}, aud=CONSOLE, without=("auth_time",)),
        "(`auth_time`)",
    ),
    "a log-in in 1970": (lambda issuer: id_token(issuer, auth_time=0), "it does not say when the person authenticated"),
    "a log-in to come": (
        lambda issuer: id_token(issuer, auth_time=int(NOW)),
        "its `auth_time` is later",
    ),
    "too long": (lambda _: "a" * (TOKEN_CHARACTERS + 1), f"it is longer than {TOKEN_CHARACTERS} characters"),
    "empty": (lambda _: "", "it is not three parts of base64url"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_id_token_is_refused_by_name(scene: Scene, issuer: Issuer, name: str) -> None:
    """Whatever is wrong, the refusal names the field and says why, and the access token does not help."""
    make, why = REFUSED[name]

    refusal = scene.refusal(issuer.token(auth_time=LOG_IN), make(issuer))

    assert refusal.startswith("`pdp-id-token`: the ID token is not accepted: ")
    assert why in refusal


def test_two_id_tokens_are_refused(scene: Scene, issuer: Issuer) -> None:
    """Nobody has to guess which of two counts."""
    assert scene.refusal(issuer.token(), id_token(issuer), id_token(issuer)).endswith("it appears 2 times")


def test_an_id_token_counts_only_beside_a_token_of_its_issuer(scene: Scene, issuer: Issuer) -> None:
    """A caller with a token of the file has no subject that could be compared."""
    assert "only beside an access token of its issuer" in scene.refusal(TOKEN_OF_LEAD, id_token(issuer))


def test_an_id_token_makes_up_for_no_access_token(scene: Scene, issuer: Issuer) -> None:
    """Neither alone nor as the access token does it prove a caller, nor does it give a role."""
    for alone in ((("pdp-id-token", id_token(issuer)),), (("authorization", f"Bearer {id_token(issuer)}"),)):
        with pytest.raises(UnauthenticatedError):
            scene.authenticator.authenticate(alone)
    program = issuer.token(without=("auth_time",))

    assert frozenset() == scene.present(program, id_token(issuer, person=True)).roles


def test_a_server_without_a_console_accepts_no_id_token(tmp_path: Path, issuer: Issuer) -> None:
    """Without the setting the refusal names it, even if an ID token is for an audience with no name."""
    scene = Scene(tmp_path, issuer, console="")

    for audience in (CONSOLE, ""):
        assert "`jwt.console_client`" in scene.refusal(issuer.token(), id_token(issuer, aud=audience))


def test_a_denied_id_token_is_refused(scene: Scene, issuer: Issuer) -> None:
    """The deny-list counts for ID tokens too."""
    scene.deny_file.write_text("jwt_ids: [stolen]\n")
    scene.denied.refresh()

    assert scene.refusal(issuer.token(), id_token(issuer, jti="stolen")).endswith("is on the deny-list")


def test_an_id_token_of_a_new_key_has_the_keys_read_again(scene: Scene, issuer: Issuer) -> None:
    """As for access tokens, the caller is told to try again."""
    with pytest.raises(UnavailableError, match="the keys of the token issuer are being read again"):
        scene.present(issuer.token(), issuer.token(header={"typ": "JWT", "kid": "new"}, aud=CONSOLE))
