"""JSON Web Tokens: which are accepted, that all others are refused, and what changes while the server runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, SECP521R1
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

from pdp.callersettings import rules_of
from pdp.config import contradictions
from pdp.config.settings import JWTSettings
from pdp.errors import ConfigurationError, UnauthenticatedError, UnavailableError
from pdp.identity.authentication import TokenAuthenticator, WebTokenAuthenticator
from pdp.identity.callers import KnownCallers
from pdp.identity.denied import DenyList, web_token_digests
from pdp.identity.keysets import ALGORITHMS, TrustedKeys, read_keys
from pdp.identity.tokens import TokenRefusedError, TokenRules, verify
from pdp.model import Caller, Role
from pdp.testing.clock import FakeClock
from tests.identity.tokencorpus import CORPUS
from tests.machinery.credentials.issuer import AUDIENCE, ISSUER, NOW, SUBJECT, Issuer, decoded, encoded

TOKEN_OF_PEP = "pdpt_sesame"  # noqa: S105 - a token of the tests' own callers
RULES = TokenRules(
    issuer=ISSUER,
    audience=AUDIENCE,
    algorithms=frozenset({"ES256", "Ed25519", "EdDSA", "PS256", "RS256"}),
    types=frozenset({"at+jwt", "application/at+jwt"}),
    leeway_seconds=30.0,
    longest_seconds=86400.0,
)
ALICE = Caller(id="alice", kind="jwt", roles=frozenset({Role.APPROVER, Role.AUDITOR}), authenticated_at=NOW - 120)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Return the issuer that is believed."""
    return Issuer()


class Scene:
    """What decides about a token, with files that a test can change."""

    def __init__(self, folder: Path, jwks: bytes) -> None:
        self.clock = FakeClock()
        self.jwks: bytes | None = jwks
        self.woken: list[None] = []
        self.deny_file = folder / "denied.yaml"
        self.deny_file.write_text("")
        self.callers_file = folder / "callers.yaml"
        self.write_callers()
        self.known = KnownCallers(self.callers_file)
        self.denied = DenyList(self.deny_file)
        self.keys = TrustedKeys(lambda: self.jwks, name="keys.json", clock=self.clock, longest_seconds=3600.0)
        self.keys.wake = lambda: self.woken.append(None)
        self.keys.load()
        web_tokens = WebTokenAuthenticator(self.known, self.keys, RULES, clock=self.clock, denied=self.denied)
        self._authenticator = TokenAuthenticator(self.known, web_tokens=web_tokens, denied=self.denied)

    def write_callers(self, subject: str = SUBJECT) -> None:
        """Write the callers: alice by her subject, and one by a token."""
        digest = hashlib.sha256(TOKEN_OF_PEP.encode()).hexdigest()
        self.callers_file.write_text(
            f"alice: {{jwt_subject: '{subject}', roles: [approver, auditor]}}\n"
            f"pep: {{token_sha256: '{digest}', roles: [pep]}}\n"
        )
        self.callers_file.chmod(0o600)

    def deny(self, text: str) -> None:
        """Replace the deny-list."""
        self.deny_file.write_text(text)
        self.denied.refresh()

    def authenticate(self, token: str) -> Caller:
        """Return who presents a token."""
        return self._authenticator.authenticate((("authorization", f"Bearer {token}"),))

    def refuses(self, token: str) -> bool:
        """Say whether a token is refused."""
        try:
            self.authenticate(token)
        except UnauthenticatedError:
            return True
        return False


@pytest.fixture(scope="module")
def published(issuer: Issuer) -> bytes:
    """Return all keys of the issuer, and one for encryption beside them."""
    entries = json.loads(issuer.jwks())["keys"]
    unfit = dict(RSAKey.generate_key(2048).as_dict(private=False)) | {"use": "enc", "kid": "for-encryption"}
    return json.dumps({"keys": [*entries, unfit]}).encode()


@pytest.fixture
def scene(published: bytes, tmp_path: Path) -> Scene:
    """Return a scene with what the issuer publishes."""
    return Scene(tmp_path, published)


@pytest.mark.parametrize("algorithm", sorted(RULES.algorithms))
def test_a_good_token_is_a_caller(scene: Scene, issuer: Issuer, algorithm: str) -> None:
    """A token of each algorithm that is allowed stands for the caller with its subject, again and again."""
    token = issuer.token(algorithm)

    assert [ALICE, ALICE] == [scene.authenticate(token), scene.authenticate(token)]


GOOD: dict[str, Callable[[Issuer], str]] = {
    "several audiences": lambda issuer: issuer.token(aud=["api.example.org", AUDIENCE]),
    "type in other letters": lambda issuer: issuer.token(header={"typ": "AT+JWT"}),
    "type in full": lambda issuer: issuer.token(header={"typ": "application/at+jwt"}),
    "clock of the issuer ahead": lambda issuer: issuer.token(iat=int(NOW) + 30),
    "not before, just now": lambda issuer: issuer.token(nbf=int(NOW) + 30),
    "times with fractions": lambda issuer: issuer.token(iat=NOW - 0.5, exp=NOW + 0.5),
    "last moment": lambda issuer: issuer.token(exp=NOW + 0.001),
    "longest life": lambda issuer: issuer.token(exp=int(NOW) - 60 + 86400),
    "no token id": lambda issuer: issuer.token(without=("jti",)),
    "other claims": lambda issuer: issuer.token(scope="openid", realm_access={"roles": ["x"]}),
    "other header parameters": lambda issuer: issuer.token(header={"x5t": "abc", "cty": "x"}),
    "said to be a bearer token": lambda issuer: issuer.token(typ="Bearer", token_use="access"),  # noqa: S106 - no password
}


@pytest.mark.parametrize("name", GOOD)
def test_what_a_token_may_say(scene: Scene, issuer: Issuer, name: str) -> None:
    """The corpus below is refused for what is wrong with it, not for being unusual."""
    assert ALICE == scene.authenticate(GOOD[name](issuer))


@pytest.mark.parametrize("setting", ["at+jwt", "JWT", "none"])
@pytest.mark.parametrize("said", ["at+jwt", "application/jwt", "", "dpop+jwt"])
def test_a_token_has_the_type_of_the_setting(
    issuer: Issuer, published: bytes, setting: Literal["at+jwt", "JWT", "none"], said: str
) -> None:
    """And no other; `none` is for a token that names none."""
    rules = rules_of(JWTSettings(issuer=ISSUER, audience=AUDIENCE, token_type=setting))
    token = issuer.token(header={"typ": said}, without=() if said else ("typ",))
    expected = {"at+jwt": "at+jwt", "application/jwt": "JWT", "": "none"}.get(said)

    with nullcontext() if expected == setting else pytest.raises(TokenRefusedError, match="by its `typ`"):
        assert SUBJECT == verify(token, read_keys("keys.json", published), rules).subject


def test_an_id_token_is_none_without_a_type_either(issuer: Issuer, published: bytes) -> None:
    """By its audience, or else by the claims that only it has."""
    rules = rules_of(JWTSettings(issuer=ISSUER, audience=AUDIENCE, token_type="none"))  # noqa: S106 - no password
    wrong = (
        (issuer.token(without=("typ",), aud="console"), "another audience"),
        (issuer.token(without=("typ",), nonce="n"), "it has `nonce`"),
    )
    for token, said in wrong:
        with pytest.raises(TokenRefusedError, match=said):
            verify(token, read_keys("keys.json", published), rules)


@pytest.mark.parametrize("name", CORPUS)
def test_a_wrong_token_is_refused(scene: Scene, issuer: Issuer, name: str) -> None:
    """Every token of the corpus is refused for its own reason, which is for the log and not for the caller."""
    make, reason = CORPUS[name]
    token = make(issuer)
    scene.keys.read_again()  # so that an unknown key causes no other read

    with pytest.raises(UnauthenticatedError) as caught:
        scene.authenticate(token)

    error = caught.value
    assert ("the token is not accepted", "a JSON Web Token") == (str(error), error.what)
    assert error.reason.startswith(reason)
    assert error.reason.isprintable()
    assert token not in error.reason


def test_the_corpus_is_large() -> None:
    """There are at least 120 rows, and no two are refused for nothing."""
    assert len(CORPUS) >= 120
    assert all(reason for _, reason in CORPUS.values())


def test_another_word_than_a_token_is_not_tried(scene: Scene) -> None:
    """What is no JSON Web Token is an unknown token."""
    with pytest.raises(UnauthenticatedError, match="the token is not known"):
        scene.authenticate("pdpt_other")

    assert "pep" == scene.authenticate(TOKEN_OF_PEP).id


def test_a_token_that_was_accepted_expires(scene: Scene, issuer: Issuer) -> None:
    """That a token was accepted before does not count from its end on."""
    token = issuer.token(exp=int(NOW) + 10)
    scene.authenticate(token)

    scene.clock.advance(9.999)
    before = scene.refuses(token)
    scene.clock.advance(0.001)

    assert (False, True) == (before, scene.refuses(token))


@pytest.mark.parametrize("place", [-1, -2, -20, -100, 50, 5])
def test_a_changed_token_is_not_the_one_that_was_accepted(scene: Scene, issuer: Issuer, place: int) -> None:
    """What is remembered is the whole of a token, not a part of it."""
    token = issuer.token()
    scene.authenticate(token)
    letter = "A" if token[place] != "A" else "B"
    changed = token[:place] + letter + (token[place:][1:])

    assert scene.refuses(changed)
    assert not scene.refuses(token)


@pytest.mark.parametrize(
    "text",
    [
        "jwt_ids: [token-1]",
        "jwt_subjects: [alice@example.org]",
        "callers: [alice]",
        "token_sha256: ['{digest}']",
        "callers: [bob]\njwt_ids: [x, token-1]",
    ],
)
def test_the_deny_list_counts_at_once(scene: Scene, issuer: Issuer, text: str) -> None:
    """A token or its caller can be taken back while the token lives, and is refused from the next call on."""
    token = issuer.token()
    digest = hashlib.sha256(token.encode()).hexdigest()
    accepted = scene.refuses(token)

    scene.deny(text.format(digest=digest))
    denied = scene.refuses(token)
    scene.deny("")
    scene.denied.refresh()

    assert (False, True, False) == (accepted, denied, scene.refuses(token))


def twin(token: str, algorithm: str) -> str:
    """Return the same token with the other form of its ECDSA signature, which anybody can make."""
    signed, _, signature = token.rpartition(".")
    raw = decoded(signature)
    half = len(raw) // 2
    orders = {"ES256": SECP256R1().group_order, "ES384": SECP384R1().group_order, "ES512": SECP521R1().group_order}
    s = orders[algorithm] - int.from_bytes(raw[half:], "big")
    return f"{signed}.{encoded(raw[:half] + s.to_bytes(half, 'big'))}"


@pytest.mark.parametrize(("algorithm", "curve"), [("ES256", "P-256"), ("ES384", "P-384"), ("ES512", "P-521")])
def test_the_forms_of_a_signature_are_known(issuer: Issuer, algorithm: str, curve: str) -> None:
    """On each curve the other form is right too, and both forms have the same digests to be denied by."""
    key = ECKey.generate_key(curve)
    token = issuer.sign(b"{}", b"{}", algorithm, key)
    other = twin(token, algorithm)
    signed, _, signature = other.rpartition(".")

    assert JWSRegistry.algorithms[algorithm].verify(signed.encode(), decoded(signature), key)
    digests = [web_token_digests(form, algorithm, decoded(form.rpartition(".")[2])) for form in (token, other)]
    assert digests[0] == digests[1]
    assert {hashlib.sha256(form.encode()).digest() for form in (token, other, signed)} == digests[0]


@pytest.mark.parametrize("entry", ["{token}", "{signed}", "{twin}"])
def test_a_denied_token_has_no_other_form(scene: Scene, issuer: Issuer, entry: str) -> None:
    """Both forms of an ECDSA signature are accepted; with one denied, or all but the signature, both are."""
    token = issuer.token()
    forms = {"token": token, "signed": token.rpartition(".")[0], "twin": twin(token, "ES256")}
    accepted = [scene.refuses(form) for form in (token, forms["twin"])]

    scene.deny(f"token_sha256: ['{hashlib.sha256(entry.format(**forms).encode()).hexdigest()}']")

    assert ([False, False], [True, True]) == (accepted, [scene.refuses(form) for form in (token, forms["twin"])])
    assert not scene.refuses(issuer.token(jti="another"))


def test_the_deny_list_is_for_other_tokens_too(scene: Scene) -> None:
    """A caller with a token of ours is denied by its id or by the token's digest."""
    digest = hashlib.sha256(TOKEN_OF_PEP.encode()).hexdigest()
    found = []

    for text in ("callers: [pep]", f"token_sha256: ['{digest}']", "callers: [alice]"):
        scene.deny(text)
        scene.denied.refresh()
        found.append(scene.refuses(TOKEN_OF_PEP))

    assert [True, True, False] == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("callers: alice", "`callers` must be a list"),
        ("callers: ['a b']", "`callers` contains an invalid entry"),
        ("token_sha256: [abc]", "`token_sha256` contains an invalid entry"),
        ("jwt_ids: [1]", "`jwt_ids` contains an invalid entry"),
        ("jwt_id: [x]", "unknown key: `jwt_id`; did you mean `jwt_ids`?"),
        ("- alice", "must be a mapping"),
    ],
)
def test_a_broken_deny_list_changes_nothing(
    scene: Scene, issuer: Issuer, caplog: pytest.LogCaptureFixture, text: str, problem: str
) -> None:  # fmt: skip
    """Who was denied stays so while the list cannot be read, the log says why once, and no server starts on it."""
    scene.deny("callers: [alice]")

    scene.deny(text)
    scene.denied.refresh()

    assert scene.refuses(issuer.token())
    assert 1 == caplog.text.count("the deny-list could not be read again")
    assert problem in caplog.text
    with pytest.raises(ConfigurationError):
        DenyList(scene.deny_file)


def test_a_deny_list_that_is_being_written_lifts_nothing(scene: Scene, issuer: Issuer) -> None:
    """A writer empties the file first: what it has lost counts no longer only when two readings agree."""
    scene.deny("callers: [alice, bob]")
    refused = []
    for text in ("", "callers: [bob]", "callers: [alice]", "", ""):
        scene.deny(text)
        refused.append(scene.refuses(issuer.token()))

    assert [True, True, True, True, False] == refused


def test_a_deny_list_that_others_may_write_is_refused(scene: Scene) -> None:
    """Whoever can lift a denial is not denied."""
    scene.deny_file.chmod(0o666)

    with pytest.raises(ConfigurationError, match="anyone could lift a denial"):
        DenyList(scene.deny_file)


def test_a_caller_that_is_removed_is_refused(scene: Scene, issuer: Issuer) -> None:
    """A token that lives on gives no right to a caller that is gone."""
    token = issuer.token()
    scene.authenticate(token)

    scene.write_callers("somebody-else")
    scene.known.reload()

    assert scene.refuses(token)


@pytest.mark.parametrize("actor", [{}, {"sub": "agent"}, {"sub": "a", "act": {"sub": "b"}}])
def test_a_token_for_somebody_who_is_not_there_never_approves(scene: Scene, issuer: Issuer, actor: object) -> None:
    """Where an actor stands in for the subject, the role `approver` is gone and the others stay."""
    assert {Role.AUDITOR} == scene.authenticate(issuer.token(act=actor)).roles
    assert {Role.AUDITOR, Role.APPROVER} == scene.authenticate(issuer.token()).roles


def test_a_client_that_speaks_for_itself_never_approves(scene: Scene, issuer: Issuer) -> None:
    """A token whose subject is the client that got it is a program's, and a program is no person."""
    tokens = [issuer.token(client_id=SUBJECT), issuer.token(azp=SUBJECT)]

    assert [{Role.AUDITOR}] * 2 == [scene.authenticate(token).roles for token in tokens]


@pytest.mark.parametrize(("claim", "known"), [(NOW - 60 + 30, NOW - 30), (1, 1.0), (0, 0.0)])
def test_a_token_says_when_its_subject_authenticated(
    scene: Scene, issuer: Issuer, claim: float, known: float
) -> None:  # fmt: skip
    """The time of `auth_time` is that of the caller; the issuer's clock may be ahead of itself by the leeway."""
    assert known == scene.authenticate(issuer.token(auth_time=claim)).authenticated_at


def test_a_token_may_leave_open_when_its_subject_authenticated(scene: Scene, issuer: Issuer) -> None:
    """Without `auth_time` nobody knows, whenever the token was issued."""
    assert 0.0 == scene.authenticate(issuer.token(without=("auth_time",))).authenticated_at


def test_keys_rotate(scene: Scene, issuer: Issuer) -> None:
    """A new key counts once it was read, and what an old one has signed is refused once it is gone."""
    old, new = issuer.token("ES256"), issuer.token("Ed25519")
    found = []

    for names in (("ES256",), ("ES256", "Ed25519"), ("Ed25519",)):
        scene.jwks = issuer.jwks(*names)
        scene.keys.refresh()
        scene.keys.read_again()
        found.append((scene.refuses(old), scene.refuses(new)))

    assert [(False, True), (False, False), (True, False)] == found


def test_a_key_of_the_same_name_is_another_key(scene: Scene, issuer: Issuer) -> None:
    """What was remembered under a key does not outlive it, even when another one has its name."""
    token = issuer.token("ES256")
    scene.authenticate(token)

    scene.jwks = Issuer().jwks("ES256")
    scene.keys.refresh()

    assert scene.refuses(token)


def test_an_unknown_key_is_looked_for(scene: Scene, issuer: Issuer) -> None:
    """The first token of a new key has the keys read again, and is worth a retry; soon after, others are refused."""
    scene.jwks = issuer.jwks("ES256")
    scene.keys.refresh()
    token = issuer.token("Ed25519")

    with pytest.raises(UnavailableError, match="being read again"):
        scene.authenticate(token)
    soon = scene.refuses(token)
    scene.clock.advance(10.0)
    with pytest.raises(UnavailableError):
        scene.authenticate(token)
    scene.jwks = issuer.jwks()
    scene.keys.refresh()

    assert (True, False, 2) == (soon, scene.refuses(token), len(scene.woken))


def test_keys_that_cannot_be_read_stay_for_a_while(scene: Scene, issuer: Issuer) -> None:
    """Broken keys change nothing, but nobody keeps a key alive by breaking its source."""
    scene.jwks = b"broken"
    scene.clock.advance(300.0)
    scene.keys.refresh()
    token = issuer.token(exp=int(NOW) + 80000)
    at_first = scene.refuses(token)

    scene.clock.advance(3301.0)
    with pytest.raises(UnavailableError, match="are not available"):
        scene.authenticate(token)
    scene.jwks = None  # the source says that nothing has changed
    scene.keys.refresh()

    assert (False, False) == (at_first, scene.refuses(token))


def _with(**changes: object) -> Callable[[Issuer], bytes]:
    return lambda issuer: json.dumps({"keys": [issuer.published("ES256") | changes]}).encode()


BROKEN: dict[str, tuple[Callable[[Issuer], bytes], str]] = {
    "empty": (lambda _: b"", "an object with a list `keys`"),
    "no JSON": (lambda _: b"<html>", "not JSON"),
    "a list": (lambda _: b"[]", "not a JSON object"),
    "no keys": (lambda _: b"{}", "an object with a list `keys`"),
    "no key": (lambda _: b'{"keys": []}', "no public key that could verify"),
    "keys twice": (lambda issuer: issuer.jwks()[:-1] + b', "keys": []}', "a key appears twice"),
    "too many": (lambda _: b'{"keys": [' + b"{}," * 100 + b"{}]}", "at most 100"),
    "a key that is a text": (lambda _: b'{"keys": ["x"]}', "key 1 is not an object"),
    "a private key": (
        lambda issuer: json.dumps({"keys": [dict(issuer.keys["ES256"].as_dict(private=True))]}).encode(),
        "key 1 is a private key",
    ),
    "a shared secret": (lambda _: b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}]}', "key 1 is a private key"),
    "no id": (_with(kid=None), "key 1 has no `kid`"),
    "an empty id": (_with(kid=""), "key 1 has no `kid`"),
    "an id with a line end": (_with(kid="a\nb"), "key 1 has no `kid`"),
    "one id twice": (
        lambda issuer: json.dumps({"keys": [issuer.published("ES256")] * 2}).encode(),
        "two keys have the `kid` `ES256`",
    ),
    "half a point": (_with(x="AAAA"), "key 1 is broken"),
    "a point that is a number": (_with(x=5), "key 1 is broken"),
    "a weak RSA key": (
        lambda _: json.dumps(
            {"keys": [dict(RSAKey.generate_key(1024).as_dict(private=False)) | {"kid": "weak"}]}
        ).encode(),
        "key 1 has `1024` bits",
    ),
    "for encryption alone": (_with(use="enc"), "no public key that could verify"),
    "for signing alone": (_with(key_ops=["sign"]), "no public key that could verify"),
    "on another curve": (
        lambda _: json.dumps(
            {"keys": [dict(ECKey.generate_key("secp256k1").as_dict(private=False)) | {"kid": "k"}]}
        ).encode(),
        "no public key that could verify",
    ),
    "for another algorithm": (_with(alg="HS256"), "no public key that could verify"),
}


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("case", BROKEN)
def test_broken_keys_are_refused(issuer: Issuer, case: str) -> None:
    """A set of keys that is not exactly right is not taken, and the message says why."""
    made, problem = BROKEN[case]

    with pytest.raises(ConfigurationError) as caught:
        read_keys("keys.json", made(issuer))

    assert problem in str(caught.value)
    assert "`keys.json`" in str(caught.value)


def test_every_algorithm_that_a_setting_may_name_is_known() -> None:
    """The settings and the keys speak of the same algorithms, and of none with a shared secret."""
    assert set(contradictions.ALGORITHMS) == set().union(*ALGORITHMS.values())
