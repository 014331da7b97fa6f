"""Tokens: who is known, and what is refused."""

from __future__ import annotations

import hashlib
import logging
import stat
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest

from pdp.errors import ConfigurationError, UnauthenticatedError
from pdp.identity.authentication import TokenAuthenticator
from pdp.identity.callers import KnownCallers
from pdp.identity.callersfile import init_callers
from pdp.model import AT_EACH_CALL, Caller, Role
from pdp.serving.transports import LOOP
from pdp.testing.clock import FakeClock
from tests.machinery.servers.running import Running, a_call, read_tokens

AUTHORIZE = "/pdp.v1.AuthorizationService/Authorize"
DIGEST = "ab" * 32


def other(letter: str) -> str:
    """Return another letter."""
    return "A" if letter != "A" else "B"


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([], id="missing"),
        pytest.param(["Bearer {token}", "Bearer {token}"], id="twice"),
        pytest.param(["Bearer {token}", "Bearer other"], id="with another"),
        pytest.param(["Bearer {changed}"], id="changed tail"),
        pytest.param(["Bearer {cut}"], id="cut tail"),
        pytest.param(["Bearer {token}A"], id="longer tail"),
        pytest.param(["Bearer {token},Bearer {token}"], id="joined"),
        pytest.param(["Basic {token}"], id="wrong scheme"),
        pytest.param(["bearer {token}"], id="scheme in lower case"),
        pytest.param(["Bearer  {token}"], id="two blanks"),
        pytest.param(["{token}"], id="no scheme"),
        pytest.param(["Bearer "], id="empty token"),
        pytest.param([""], id="empty"),
    ],
)
def test_other_credentials_are_refused(running: Running, transport: str, values: list[str]) -> None:
    """Exactly one `authorization: Bearer TOKEN` with a whole known token, or nothing."""
    token = running.tokens["pep"]
    spoilt = {"token": token, "cut": token[:-1], "changed": token[:-1] + other(token[-1])}
    metadata = tuple(("authorization", value.format(**spoilt)) for value in values)

    refused = running.refused(AUTHORIZE, a_call().SerializeToString(), None, metadata)

    if transport == LOOP and values == ["Bearer "]:
        # A header must not end with a blank (RFC 9113, section 8.2.1), which the loop's library says by itself.
        assert refused.code() is grpc.StatusCode.INTERNAL
        return
    assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
    assert token not in refused.details()
    assert running.notes.refusal().facts == {
        "rpc": "pdp.v1.AuthorizationService/Authorize",
        "status": "UNAUTHENTICATED",
        "peer": "127.0.0.1",
    }


def test_a_whole_token_is_a_caller(callers_file: Path, tokens: Mapping[str, str]) -> None:
    """Each fresh token stands for a caller with the one role of its name."""
    authenticator = TokenAuthenticator(KnownCallers(callers_file, development=True))

    callers = {
        name: authenticator.authenticate((("authorization", f"Bearer {token}"),)) for name, token in tokens.items()
    }

    assert callers == {
        role.value: Caller(
            id=role.value, kind="token", roles=frozenset({role}), tenant="default", authenticated_at=AT_EACH_CALL
        )
        for role in Role
    }


def test_fresh_files_are_private(callers_file: Path) -> None:
    """Tokens are readable by their owner only, and stored as digests only."""
    folder = callers_file.parent / "tokens"
    files = sorted(folder.iterdir())

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in files] == sorted(f"{role.value}.token" for role in Role)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (*files, callers_file)} == {0o600}
    assert len({path.read_text() for path in files}) == len(Role)
    for path in files:
        assert path.read_text().strip() not in callers_file.read_text()
        assert len(path.read_text().strip()) == len("pdpt_") + 43


def test_callers_are_never_replaced(callers_file: Path) -> None:
    """Whoever has tokens keeps them: a second start does not make new ones."""
    before = callers_file.read_text()

    with pytest.raises(ConfigurationError, match="exist already"):
        init_callers(callers_file.parent)
    assert callers_file.read_text() == before


def test_an_interrupted_start_is_begun_again(tmp_path: Path) -> None:
    """Tokens without the file of callers are left-overs."""
    init_callers(tmp_path).unlink()

    again = init_callers(tmp_path)

    token = read_tokens(again)["pep"]
    assert TokenAuthenticator(again).authenticate((("authorization", f"Bearer {token}"),)).id == "pep"


def test_reload_forgets_a_caller(tmp_path: Path) -> None:
    """A caller whose entry is gone is unknown; a broken file changes nothing."""
    path = init_callers(tmp_path)
    metadata = (("authorization", f"Bearer {read_tokens(path)['pep']}"),)
    authenticator = TokenAuthenticator(path)
    text = path.read_text()

    path.write_text("- nonsense")
    with pytest.raises(ConfigurationError):
        authenticator.reload()
    assert authenticator.authenticate(metadata).id == "pep"
    path.write_text(text[text.index("approver:") :])
    authenticator.reload()
    with pytest.raises(UnauthenticatedError):
        authenticator.authenticate(metadata)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no callers"),
        ("[]", "must be a mapping"),
        ("'a b': {token_sha256: '%s', roles: [pep]}", "`a b` is not a caller id"),
        ("a: text", "`a` must be a mapping"),
        ("a: {token_sha256: '%s'}", "`roles` must be a list of roles"),
        ("a: {token_sha256: '%s', roles: []}", "`roles` must be a list of roles"),
        ("a: {token_sha256: '%s', roles: [peq]}", "unknown role: `peq`; did you mean `pep`?"),
        ("a: {token_sha256: 'AB', roles: [pep]}", "`token_sha256` must be 64 hex digits"),
        ("a: {roles: [pep]}", "exactly one of `token_sha256`, `spiffe_id`, `jwt_subject`, `jwt_group` is needed"),
        (
            "a: {token_sha256: '%s', spiffe_id: 'spiffe://e/a', roles: [pep]}",
            "exactly one of `token_sha256`, `spiffe_id`, `jwt_subject`, `jwt_group` is needed",
        ),
        ("a: {spiffe_id: 'spiffe://e', roles: [pep]}", "`spiffe_id` must be a SPIFFE id such as"),
        ("a: {spiffe_id: 'spiffe://E/a', roles: [pep]}", "`spiffe_id` must be a SPIFFE id such as"),
        ("a: {spiffe_id: 'spiffe://e/../a', roles: [pep]}", "`spiffe_id` must be a SPIFFE id such as"),
        ("a: {spiffe_id: 'spiffe://e/a/', roles: [pep]}", "`spiffe_id` must be a SPIFFE id such as"),
        ("a: {spiffe_id: 'https://e/a', roles: [pep]}", "`spiffe_id` must be a SPIFFE id such as"),
        ("a: {spiffe_id: 'spiffe://e/a', roles: [pep, approver]}", "an `approver` is a person"),
        (
            "a: {spiffe_id: 'spiffe://e/a', roles: [pep]}\nb: {spiffe_id: 'spiffe://e/a', roles: [admin]}",
            "`b` has the SPIFFE id of `a`",
        ),
        ("a: {token_sha256: '%s', roles: [approver, pep]}", "an `approver` cannot also be `pep`"),
        ("a: {jwt_subject: 'a', roles: [approver, auditor, admin]}", "an `approver` cannot also be `admin`"),
        ("a: {token_sha256: '%s', roles: [pep], development: 'yes'}", "`development` must be `true` or `false`"),
        ("a: {token_sha256: '%s', roles: [pep], development: true}", "`a` is for development"),
        ("a: {token_sha256: '%s', roles: [pep], tenant: ''}", "`tenant` must match"),
        ("a: {token_sha256: '%s', roles: [pep], tenat: x}", "unknown key: `tenat`; did you mean `tenant`?"),
        ("a: {token_sha256: '%s', roles: [pep], users: []}", "`users` must be a list of ids, with one at least"),
        ("a: {token_sha256: '%s', roles: [pep], users: bob}", "`users` must be a list of ids"),
        ("a: {token_sha256: '%s', roles: [pep], agents: [7]}", "`agents` must be a list of ids"),
        ("a: {token_sha256: '%s', roles: [pep], agents: ['a b']}", "`agents` must be a list of ids"),
        ("a: {token_sha256: '%s', roles: [pep], tenants: [acme]}", "`tenants` must hold the caller's own tenant"),
        ("a: {token_sha256: '%s', roles: [pep], sees_results: 'no'}", "`sees_results` must be `true` or `false`"),
        ("a: {token_sha256: '%s', roles: [admin], sees_results: false}", "`sees_results` is only for a caller whose"),
        ("a: {token_sha256: '%s', roles: [auditor], users: [bob]}", "`users` is only for a caller whose one role is"),
        (
            "a: {token_sha256: '%s', roles: [admin], tenants: [default]}",
            "`tenants` is only for a caller whose one role is `pep` or `broker` or `revoker`",
        ),
        (
            "a: {token_sha256: '%s', roles: [revoker, admin], tenants: [default]}",
            "`tenants` is only for a caller whose",
        ),
        (
            "a: {token_sha256: '%s', roles: [revoker], users: [bob]}",
            "`users` is only for a caller whose one role is `pep`",
        ),
        ("a: {token_sha256: '%s', roles: [approver, revoker]}", "an `approver` cannot also be `revoker`"),
        ("a: {token_sha256: '%s', roles: [pep, auditor], users: [bob]}", "`users` is only for a caller whose one role"),
        (
            "a: {token_sha256: '%s', roles: [pep]}\nb: {token_sha256: '%s', roles: [approver]}",
            "`b` has the token of `a`",
        ),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    """A file of callers that is not exactly right stops the start, and the message says where."""
    path = tmp_path / "callers.yaml"
    path.write_text(text.replace("%s", DIGEST))

    with pytest.raises(ConfigurationError) as caught:
        TokenAuthenticator(path)

    assert problem in str(caught.value)
    assert str(path) in str(caught.value)


def test_callers_for_development_are_there_at_each_call(tmp_path: Path) -> None:
    """A server that nobody else can reach knows them, and takes them for people who are there; others are not."""
    trying, using = tmp_path / "trying", tmp_path / "using"
    init_callers(trying, development=True)
    init_callers(using)

    def times(folder: Path) -> set[float]:
        known = KnownCallers(folder / "callers.yaml", development=True).current.by_token
        return {one.caller.authenticated_at for one in known.values()}

    assert ({AT_EACH_CALL}, {0.0}) == (times(trying), times(using))


def test_callers_for_development_never_come_in_by_a_reload(tmp_path: Path) -> None:
    """A server that others can reach refuses them while it runs as at the start, and goes on with those it knows."""
    path = init_callers(tmp_path)
    known = KnownCallers(path)
    before = known.current

    path.write_text(path.read_text() + "  development: true\n")
    with pytest.raises(ConfigurationError, match=f"`{[*Role][-1].value}` is for development"):
        known.reload()

    assert before == known.current


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Whoever can add a caller is every caller."""
    path = init_callers(tmp_path)
    path.chmod(0o622)

    with pytest.raises(ConfigurationError, match="others can write"):
        TokenAuthenticator(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """Without a file there are no callers, and no server."""
    with pytest.raises(ConfigurationError, match="cannot read"):
        TokenAuthenticator(tmp_path / "callers.yaml")


def entry(token: str, more: str = "") -> str:
    """Return the entry of a gateway with a token."""
    return f"gateway:\n  token_sha256: '{hashlib.sha256(token.encode()).hexdigest()}'\n  roles: [pep]\n{more}"


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call with a token."""
    return (("authorization", f"Bearer {token}"),)


def write(path: Path, text: str) -> Path:
    """Write a file of callers."""
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("time", ["'2023-11-14T22:14:20Z'", "2023-11-14T23:14:20+01:00"])
def test_a_token_expires(tmp_path: Path, time: str) -> None:
    """From its end on a token is refused; the log says so, and the caller learns no more than of an unknown one."""
    clock = FakeClock(wall_at=1_700_000_000.0)
    path = write(tmp_path / "callers.yaml", entry("a-token", f"  expires_at: {time}\n"))
    authenticator = TokenAuthenticator(KnownCallers(path), clock=clock)
    clock.advance(59.9)
    before = authenticator.authenticate(bearer("a-token")).id
    clock.advance(0.1)

    with pytest.raises(UnauthenticatedError) as caught:
        authenticator.authenticate(bearer("a-token"))

    assert ("gateway", "the token is not known") == (before, str(caught.value))
    assert "the token of `gateway` has expired" == caught.value.reason


def test_a_token_that_was_replaced_may_live_on_for_a_while(tmp_path: Path) -> None:
    """The token before counts until its own end, and is the same caller's."""
    clock, digest = FakeClock(wall_at=1_700_000_000.0), hashlib.sha256(b"old-token").hexdigest()
    more = f"  previous_token_sha256: '{digest}'\n  previous_expires_at: '2023-11-14T22:14:20Z'\n"
    path = write(tmp_path / "callers.yaml", entry("a-token", more))
    authenticator = TokenAuthenticator(KnownCallers(path), clock=clock)

    both = [authenticator.authenticate(bearer(token)).id for token in ("a-token", "old-token")]
    clock.advance(60.0)

    assert ["gateway", "gateway"] == both
    assert "gateway" == authenticator.authenticate(bearer("a-token")).id
    with pytest.raises(UnauthenticatedError):
        authenticator.authenticate(bearer("old-token"))


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("  expires_at: '2030-01-01'\n", "`expires_at` must be a time with a zone"),
        ("  expires_at: tomorrow\n", "`expires_at` must be a time with a zone"),
        ("  expires_at: 1900000000\n", "`expires_at` must be a time with a zone"),
        ("  previous_token_sha256: 'ab'\n", "`previous_token_sha256` must be 64 hex digits"),
        (f"  previous_token_sha256: '{DIGEST}'\n", "must be given together"),
        ("  previous_expires_at: '2030-01-01T00:00:00Z'\n", "must be given together"),
    ],
)
def test_the_end_of_a_token_is_checked(tmp_path: Path, more: str, problem: str) -> None:
    """A time without a zone, or half of what a replaced token needs, refuses the file."""
    path = write(tmp_path / "callers.yaml", entry("a-token", more))

    with pytest.raises(ConfigurationError, match=problem):
        KnownCallers(path)


def test_a_change_counts_once_the_file_stays_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is being written may be valid at every moment: two looks must find the same, and one line says so."""
    path = write(tmp_path / "callers.yaml", entry("one"))
    known = KnownCallers(path)
    found = []

    with caplog.at_level(logging.INFO, "pdp.server"):
        for text in (entry("one"), entry("two"), entry("two", "  tenant: ac"), entry("two", "  tenant: acme")):
            path.write_text(text)
            known.refresh()
            found.append(known.current.by_token)
        known.refresh()
        known.refresh()

    assert 1 == len({id(current) for current in found})
    ((digest, caller),) = known.current.by_token.items()
    assert (hashlib.sha256(b"two").digest(), "acme") == (digest, caller.caller.tenant)
    assert [f"`{path}` has changed and was read again; callers: 1"] == [one.getMessage() for one in caplog.records]


def test_a_broken_change_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """While the file is wrong, or gone, the callers stay as they were, and the log says why once."""
    path = write(tmp_path / "callers.yaml", entry("one"))
    known = KnownCallers(path)
    before = known.current

    path.write_text("- nonsense")
    for _ in range(5):
        known.refresh()
    path.unlink()
    for _ in range(5):
        known.refresh()

    assert before is known.current
    first, second = (record.getMessage() for record in caplog.records)
    assert ("must be a mapping" in first, "cannot read" in second) == (True, True)


def test_a_refused_file_counts_once_only_its_mode_was_mended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A caller that was removed is gone although the new file was first one that others could write to."""
    path = write(tmp_path / "callers.yaml", entry("one"))
    known = KnownCallers(path)
    path.write_text(entry("two"))
    path.chmod(0o646)
    for _ in range(3):
        known.refresh()

    path.chmod(0o600)
    known.refresh()

    assert [hashlib.sha256(b"two").digest()] == [*known.current.by_token]
    assert ["ERROR"] == [record.levelname for record in caplog.records]
