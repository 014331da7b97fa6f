"""Tokens: who is known, and what is refused."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest

from pdp.errors import ConfigurationError, UnauthenticatedError
from pdp.model import AT_EACH_CALL, Caller, Role
from pdp.server.authentication import TokenAuthenticator
from pdp.server.callers import KnownCallers, init_callers
from tests.server.running import Running, a_call, read_tokens

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
def test_other_credentials_are_refused(running: Running, values: list[str]) -> None:
    """Exactly one `authorization: Bearer TOKEN` with a whole known token, or nothing."""
    token = running.tokens["pep"]
    spoilt = {"token": token, "cut": token[:-1], "changed": token[:-1] + other(token[-1])}
    metadata = tuple(("authorization", value.format(**spoilt)) for value in values)

    refused = running.refused(AUTHORIZE, a_call().SerializeToString(), None, metadata)

    assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
    assert token not in refused.details()
    assert running.notes.refusal().facts == {
        "rpc": "pdp.v1.AuthorizationService/Authorize",
        "status": "UNAUTHENTICATED",
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
        ("'a b': {token_sha256: '%s', roles: [pep]}", "`a b` is no caller id"),
        ("a: text", "`a` must be a mapping"),
        ("a: {token_sha256: '%s'}", "`roles` must be a list of roles"),
        ("a: {token_sha256: '%s', roles: []}", "`roles` must be a list of roles"),
        ("a: {token_sha256: '%s', roles: [peq]}", "unknown role: `peq`; did you mean `pep`?"),
        ("a: {token_sha256: 'AB', roles: [pep]}", "`token_sha256` must be 64 hex digits"),
        ("a: {roles: [pep]}", "exactly one of `token_sha256`, `spiffe_id`, `jwt_subject` is needed"),
        (
            "a: {token_sha256: '%s', spiffe_id: 'spiffe://e/a', roles: [pep]}",
            "exactly one of `token_sha256`, `spiffe_id`, `jwt_subject` is needed",
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
        ("a: {token_sha256: '%s', roles: [approver, pep]}", "an `approver` cannot be `pep` as well"),
        ("a: {jwt_subject: 'a', roles: [approver, auditor, admin]}", "an `approver` cannot be `admin` as well"),
        ("a: {token_sha256: '%s', roles: [pep], development: 'yes'}", "`development` must be `true` or `false`"),
        ("a: {token_sha256: '%s', roles: [pep], development: true}", "`a` is for development"),
        ("a: {token_sha256: '%s', roles: [pep], tenant: ''}", "`tenant` must match"),
        ("a: {token_sha256: '%s', roles: [pep], tenants: x}", "unknown key: `tenants`; did you mean `tenant`?"),
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
        return {caller.authenticated_at for caller in known.values()}

    assert ({AT_EACH_CALL}, {0.0}) == (times(trying), times(using))


def test_callers_for_development_never_come_in_by_a_reload(tmp_path: Path) -> None:
    """A server that others can reach refuses them while it runs as at the start, and goes on with those it knows."""
    path = init_callers(tmp_path)
    known = KnownCallers(path)
    before = known.current

    path.write_text(path.read_text() + "  development: true\n")
    with pytest.raises(ConfigurationError, match="`admin` is for development"):
        known.reload()

    assert before == known.current


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Whoever can add a caller is every caller."""
    path = init_callers(tmp_path)
    path.chmod(0o622)

    with pytest.raises(ConfigurationError, match="others may write"):
        TokenAuthenticator(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """Without a file there are no callers, and no server."""
    with pytest.raises(ConfigurationError, match="cannot read"):
        TokenAuthenticator(tmp_path / "callers.yaml")
