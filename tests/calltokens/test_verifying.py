"""A call token is good for the one call that it states, once, and for nothing else."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OKPKey

from pdp.calltokens.canonical import arguments_digest, canonical
from pdp.calltokens.claims import MOST_TOKEN_BYTES, CallClaims, Presenter, begin
from pdp.calltokens.keys import CallKey, PublicCallKey, key_set, keys_of
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.verifying import PublishedKeys
from tests.machinery.calltokens import (
    ARGUMENTS,
    CLAIMS,
    KEY,
    NOW,
    PRESENTER,
    SALT,
    TEXTS,
    VALUES,
    forged,
    token,
    verifier,
    verify,
)


def reason(refused: Callable[[], object]) -> Reason:
    """Return why something is refused."""
    with pytest.raises(CallTokenRefusedError) as error:
        refused()
    return error.value.reason


def test_a_good_token_says_what_was_allowed() -> None:
    """All that was signed comes back."""
    assert CLAIMS == verify(token())


def test_a_token_says_what_its_call_may_use_downstream() -> None:
    """The kind of a connection and scopes, of which there can be none."""
    both = {"connection": "github", "scopes": ("issues:read", "repo")}
    said = verify(token(**both))
    bare = verify(token(connection="github"))

    assert both == {"connection": said.connection, "scopes": said.scopes}
    assert ("github", ()) == (bare.connection, bare.scopes)


def test_a_token_is_good_once() -> None:
    """The second use is refused, by whatever verifier with the same memory."""
    by, text = verifier(), token()
    verify(text, by)

    assert reason(lambda: verify(text, by)) is Reason.USED


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"server": "github"}, Reason.TOOL),
        ({"tool": "git_push"}, Reason.TOOL),
        ({"arguments": {**ARGUMENTS, "lines": 4}}, Reason.ARGUMENTS),
        ({"arguments": b'{"lines":3,"path":"/srv/notes","path":"/srv/notes"}'}, Reason.ARGUMENTS),
        ({"presenter": None}, Reason.PRESENTER),
        ({"presenter": Presenter()}, Reason.PRESENTER),
        ({"presenter": Presenter(certificate="d" * 43)}, Reason.PRESENTER),
        ({"presenter": Presenter(key="c" * 43)}, Reason.PRESENTER),
    ],
)
def test_another_call_is_refused_and_uses_nothing_up(options: dict[str, Any], expected: Reason) -> None:
    """The tool, the arguments and the presenter are those of the token, and the right call can still be made."""
    by, text = verifier(), token()

    assert expected is reason(lambda: verify(text, by, **options))
    assert CLAIMS == verify(text, by)


def test_a_token_is_for_one_tool_of_one_server_at_one_audience() -> None:
    """Of all pairs of a place and a token for another one, none passes, and each token passes at its own place."""
    ways = list(itertools.product(("https://a.example", "https://b.example"), ("git", "mail"), ("read", "write")))
    texts = [token(audience=audience, server=server, tool=tool) for audience, server, tool in ways]

    def passes(text: str, audience: str, server: str, tool: str) -> bool:
        with suppress(CallTokenRefusedError):
            verify(text, verifier(audience=audience), server=server, tool=tool)
            return True
        return False

    passed = [(texts.index(text), number) for number, at in enumerate(ways) for text in texts if passes(text, *at)]
    assert [(number, number) for number in range(len(ways))] == passed


Path = tuple[str | int, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the way to each value within one, and to itself."""
    yield path
    for step, inner in (
        value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    ):
        yield from places(inner, (*path, step))


def with_value(value: Any, path: Path, other: Any) -> Any:
    """Return a value with another one at a place."""
    if not path:
        return other
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = with_value(value[path[0]], path[1:], other)
    return changed


def shuffled(value: Any, chance: Random) -> Any:
    """Return a value with the members of all its objects in another order."""
    if isinstance(value, list):
        return [shuffled(one, chance) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: shuffled(value[name], chance) for name in chance.sample(list(value), len(value))}


@given(st.dictionaries(TEXTS, VALUES, min_size=1, max_size=3), VALUES, st.randoms(use_true_random=False))
def test_a_token_is_for_these_arguments_alone(arguments: dict[str, Any], other: Any, chance: Random) -> None:
    """Another value at any place is refused; another order, and blanks, are not."""
    text = token(arguments_digest=arguments_digest(arguments, SALT))
    place = chance.choice(list(places(arguments))[1:])
    changed = with_value(arguments, place, other)
    same = canonical(changed) == canonical(arguments)
    written = json.dumps(
        shuffled(arguments, chance), indent=chance.choice([None, 1]), ensure_ascii=chance.random() < 0.5
    )

    assert CLAIMS.id == verify(text, arguments=written.encode()).id
    assert same or reason(lambda: verify(text, arguments=changed)) is Reason.ARGUMENTS


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"issuer": "other.example"}, Reason.ISSUER),
        ({"audience": "https://git.example/"}, Reason.AUDIENCE),
        ({"issued_at": int(NOW) - 40, "expires_at": int(NOW) - 25}, Reason.TIME),
        ({"issued_at": int(NOW) + 40, "expires_at": int(NOW) + 55}, Reason.TIME),
        ({"expires_at": int(NOW) + 61}, Reason.TIME),
        ({"expires_at": int(NOW)}, Reason.TIME),
        ({"issued_at": int(NOW) - 58, "expires_at": int(NOW) + 1}, Reason.TIME),
        ({"presenter": None}, Reason.PRESENTER),
    ],
)
def test_a_token_for_others_or_another_time_is_refused(changes: dict[str, Any], expected: Reason) -> None:
    """Also one that lives too long, or that is from before the verifier remembers uses."""
    assert expected is reason(lambda: verify(token(**changes)))


def test_a_token_without_a_key_is_for_the_same_machine() -> None:
    """It counts only where the presenter is known to be a process there."""
    assert verify(token(presenter=None), presenter=Presenter()).presenter is None


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "EdDSA"},
        {"typ": "at+jwt"},
        {"typ": "JWT"},
        {"crit": ["exp"]},
        {"jwk": KEY.public.jwk},
        {"kid": None},
        {"kid": ["a"]},
    ],
)
def test_a_header_that_is_not_ours_is_refused(header: dict[str, Any]) -> None:
    """Whoever signed it."""
    assert Reason.MALFORMED is reason(lambda: verify(forged(header)))


@pytest.mark.parametrize(
    "said",
    [
        {"aud": ["https://git.example", "https://evil.example"]},
        {"aud": ["https://git.example"]},
        {"exp": True},
        {"exp": CLAIMS.expires_at + 0.5},
        {"exp": "1800000015"},
        {"exp": None},
        {"iat": -1},
        {"jti": "short"},
        {"args": "md5:1"},
        {"salt": "AA"},
        {"anc": "ses_0"},
        {"act": {"sub": "coder", "act": {"sub": "other"}}},
        {"cnf": {}},
        {"cnf": {"x5t#S256": "c" * 43, "jkt": "c" * 43}},
        {"cnf": {"kid": "c" * 43}},
        {"res": ["Checkout"]},
        {"scope": "admin"},
        {"con": "github"},
        {"scp": ["repo:read"]},
        {"con": "Git Hub", "scp": []},
        {"con": "github", "scp": "repo:read"},
        {"con": "github", "scp": ["a b"]},
        {"con": "github", "scp": ["a"] * 33},
        {"sub": ""},
    ],
)
def test_claims_that_are_not_ours_are_refused(said: dict[str, Any]) -> None:
    """With a good signature, too: none is missing, unknown, or of another type."""
    assert Reason.MALFORMED is reason(lambda: verify(forged(**said)))


def test_a_changed_token_is_refused() -> None:
    """Every single character is signed, or is the signature, and has one spelling."""
    text = token()
    changed = [f"{text[:at]}{'A' if text[at] != 'A' else 'B'}{text[at + 1 :]}" for at in range(len(text))]

    assert {Reason.MALFORMED, Reason.SIGNATURE, Reason.UNKNOWN_KEY} >= {reason(partial(verify, one)) for one in changed}


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b.c", "é.é.é", "x" * 10_000, "." * 4000, token() + "=", token()[:-1]]
)
def test_what_is_no_token_is_refused(text: str) -> None:
    """Whatever its length and characters."""
    assert reason(lambda: verify(text)) in (Reason.MALFORMED, Reason.SIGNATURE)


def test_every_token_begins_in_the_same_way() -> None:
    """By that, a door finds one in what a server says."""
    others = CallKey().signed(CLAIMS)

    assert token().startswith(begin())
    assert others.startswith(begin())


@given(st.text(max_size=200) | st.builds(lambda one, two: f"{one}.{two}.AAAA", st.text(), st.text()))
def test_no_text_makes_the_verifier_fail(text: str) -> None:
    """It is refused, and nothing else is raised."""
    assert reason(lambda: verify(text))


def test_a_token_that_no_verifier_would_read_is_not_made() -> None:
    """Names can be long, and a token has a bound."""
    assert Reason.MALFORMED is reason(lambda: token(resource_id="x" * MOST_TOKEN_BYTES))


def test_the_live_check_has_the_last_word() -> None:
    """What it refuses is refused, also when it only does not answer, and uses nothing up."""
    answers: list[Exception] = [
        CallTokenRefusedError(Reason.REVOKED, "the session is revoked"),
        TimeoutError("no answer"),
    ]

    def live(_: str, __: CallClaims) -> None:
        if answers:
            raise answers.pop(0)

    by, text = verifier(live=live), token()

    assert Reason.REVOKED is reason(lambda: verify(text, by))
    assert Reason.UNAVAILABLE is reason(lambda: verify(text, by))
    assert CLAIMS == verify(text, by)


def test_another_library_verifies_what_was_signed() -> None:
    """A token is a JSON Web Signature, and its key a JSON Web Key with the id that both name."""
    key = OKPKey.import_key(dict(KEY.public.jwk))
    read = jws.deserialize_compact(token(), key, algorithms=["Ed25519"])

    assert KEY.public.id == key.thumbprint()
    assert json.loads(read.payload)["tool"] == "git_commit"


def test_a_key_set_is_read_as_it_was_written() -> None:
    """Keys of other kinds are left out."""
    keys = {one.public.id: one.public for one in (KEY, CallKey())}
    listed = json.loads(key_set(keys))["keys"]
    others = [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "OKP", "crv": "X25519", "x": "AA"}, 7]

    assert keys == keys_of(json.dumps({"keys": [*others, *listed]}).encode())


class Server:
    """Publishes keys, counts how often it is asked, and can be away."""

    def __init__(self) -> None:
        self.keys: dict[str, PublicCallKey] = {}
        self.asked, self.away, self.now = 0, False, 0.0

    def fetch(self) -> dict[str, PublicCallKey]:
        """Return the keys."""
        self.asked += 1
        if self.away:
            raise TimeoutError
        return dict(self.keys)


def test_published_keys_are_kept_and_asked_for_seldom() -> None:
    """A new key is found, unknown ones do not flood the server, and old ones end when it is away for long."""
    server = Server()
    keys = PublishedKeys(server.fetch, monotonic=lambda: server.now)
    key = KEY.public
    before = [reason(lambda: keys.key(key.id)) for _ in range(3)]
    server.keys, server.now = {key.id: key}, 10.0
    found = keys.key(key.id)
    server.away, server.now = True, 309.0
    kept = keys.key(key.id)
    server.now = 311.0
    after = reason(lambda: keys.key(key.id))

    assert [Reason.UNKNOWN_KEY] * 3 == before
    assert (key, key, Reason.UNAVAILABLE) == (found, kept, after)
    assert server.asked == 3


def test_verifying_needs_no_other_package() -> None:
    """A tool server installs `cryptography`, and imports what is here."""
    code = """
import sys
sys.path_hooks, allowed = sys.path_hooks, {"pdp", "cryptography", "cffi", "_cffi_backend"}
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ImportError(name)
sys.meta_path.insert(0, Only())
import pdp.calltokens.verifying, pdp.calltokens.asgi, pdp.calltokens.mcp
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert (0, "") == (done.returncode, done.stderr)


def test_the_presenter_of_a_certificate_is_its_thumbprint() -> None:
    """As `x5t#S256` of RFC 8705 has it."""
    assert PRESENTER.certificate != Presenter.of_certificate(b"der").certificate
    assert base64.urlsafe_b64decode(Presenter.of_certificate(b"der").certificate + "=")
