"""Who is a person, and what groups give: tokens as Keycloak, Entra ID, Auth0, Okta and Cognito issue them."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pdp.errors import ConfigurationError, UnauthenticatedError
from pdp.identity.authentication import TokenAuthenticator, WebTokenAuthenticator
from pdp.identity.callers import KnownCallers
from pdp.identity.denied import DenyList
from pdp.identity.keysets import TrustedKeys
from pdp.identity.tokens import TokenRules
from pdp.model import Bounds, Caller, Role
from pdp.testing.clock import FakeClock
from tests.machinery.credentials.issuer import AUDIENCE, ISSUER, NOW, Issuer

RULES = TokenRules(
    issuer=ISSUER,
    audience=AUDIENCE,
    algorithms=frozenset({"ES256"}),
    types=frozenset({"at+jwt"}),
    leeway_seconds=30.0,
    longest_seconds=86400.0,
)
ASKED = int(NOW) - 120
PERSON = "https://example.org/person"
Claims = dict[str, Any]

# As the issuers write them, but for names, times, issuer and audience. Ids are made up.
KEYCLOAK_PERSON: Claims = {
    "jti": "onrtac:6a0d", "sub": "5b1c6a1e-3f0b-4a66-8d2e-2f6a3c1f9d10", "typ": "Bearer", "azp": "console",
    "auth_time": ASKED, "sid": "b6f0", "acr": "1", "scope": "openid profile email", "email_verified": True,
    "name": "Alice Adams", "preferred_username": "alice", "email": "alice@example.org",
    "realm_access": {"roles": ["offline_access", "default-roles-realm", "pdp-approver"]},
    "resource_access": {"account": {"roles": ["manage-account"]}, "pdp": {"roles": ["auditors"]}},
    "groups": ["/engineering", "/release-managers"],
}  # fmt: skip
KEYCLOAK_PROGRAM: Claims = {
    "jti": "trrtcc:91aa", "sub": "e41f9b0a-52a5-4b6d-9d0e-0c2f7b0f8a77", "typ": "Bearer", "azp": "nightly", "acr": "1",
    "scope": "profile email", "email_verified": False, "clientHost": "10.0.0.7", "clientAddress": "10.0.0.7",
    "client_id": "nightly", "preferred_username": "service-account-nightly",
    "realm_access": {"roles": ["default-roles-realm", "pdp-approver"]}, "groups": ["/release-managers"],
}  # fmt: skip
ENTRA_PERSON: Claims = {
    "aio": "AVQAq/8TAAAA", "azp": "2f9a36fd-3f0b-4c08-8b7a-7f3d1e0f2c11", "azpacr": "0", "name": "Alice Adams",
    "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "preferred_username": "alice@example.org", "rh": "0.ARwA",
    "scp": "access_as_user", "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ", "tid": "fa15d692-e9c7-4460",
    "uti": "fqiBqXLPj0eQa82S", "ver": "2.0", "idtyp": "user", "groups": ["7a0f2f6e-9a3b-4a58-9b0a-5a8f5d1c2b90"],
}  # fmt: skip
ENTRA_PROGRAM: Claims = {
    "aio": "E2ZgYLh1", "azp": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "azpacr": "1", "idtyp": "app",
    "oid": "41b8a5f1-6e0a-4d70-bb7a-0c3d1f7a9b55", "rh": "0.ARwA", "roles": ["Approver"],
    "sub": "41b8a5f1-6e0a-4d70-bb7a-0c3d1f7a9b55", "tid": "fa15d692-e9c7-4460", "uti": "kY0", "ver": "2.0",
    "groups": ["7a0f2f6e-9a3b-4a58-9b0a-5a8f5d1c2b90"],
}  # fmt: skip
AUTH0_PERSON: Claims = {
    "sub": "auth0|507f1f77bcf86cd799439020", "azp": "my_client_id", "scope": "openid profile",
    PERSON: True, "https://example.org/groups": ["approvers"],
}  # fmt: skip
AUTH0_PROGRAM: Claims = {
    "sub": "mYcLiEnTiD@clients", "azp": "mYcLiEnTiD", "gty": "client-credentials", "scope": "approve:sessions",
    PERSON: True, "https://example.org/groups": ["approvers"],
}  # fmt: skip
OKTA_PROGRAM: Claims = {
    "ver": 1,
    "jti": "AT.0mP4",
    "cid": "0oa1",
    "sub": "0oa1",
    "scp": ["approve"],
    "auth_time": ASKED,
}
COGNITO_PROGRAM: Claims = {"sub": "3n4b5urk1ft", "token_use": "access", "client_id": "3n4b5urk1ft", "auth_time": ASKED}

CALLERS = """
subject: {jwt_subject: '%s', roles: [approver, auditor]}
"""
GROUPS = """
approvers: {jwt_group: '%s', roles: [approver]}
others: {jwt_group: others, roles: [auditor]}
gateways: {jwt_group: gateways, roles: [pep]}
admins: {jwt_group: admins, roles: [admin]}
bounded: {jwt_group: bounded, roles: [pep], users: [bob]}
elsewhere: {jwt_group: elsewhere, roles: [auditor], tenant: acme}
bob: {jwt_subject: bob, roles: [auditor]}
"""


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Return the issuer that is believed."""
    return Issuer()


class Desk:
    """Says who presents the claims of a token."""

    def __init__(self, folder: Path, issuer: Issuer) -> None:
        self._file, self._issuer = folder / "callers.yaml", issuer

    def caller(self, claims: Claims, callers: str, **rules: Any) -> Caller:
        """Return the caller of a token with these claims, and no others but times, issuer and audience."""
        self._file.write_text(callers)
        self._file.chmod(0o600)
        known, clock = KnownCallers(self._file), FakeClock()
        keys = TrustedKeys(self._issuer.jwks, name="keys.json", clock=clock, longest_seconds=3600.0)
        keys.load()
        denied = DenyList(None)
        web_tokens = WebTokenAuthenticator(known, keys, replace(RULES, **rules), clock=clock, denied=denied)
        without = tuple({"sub", "auth_time", "jti", "client_id"} - set(claims))
        token = self._issuer.token(without=without, **claims)
        return TokenAuthenticator(known, web_tokens=web_tokens).authenticate((("authorization", f"Bearer {token}"),))


@pytest.fixture
def desk(tmp_path: Path, issuer: Issuer) -> Desk:
    """Return what says who presents a token."""
    return Desk(tmp_path, issuer)


BY_PERSON = (
    pytest.param(KEYCLOAK_PERSON, "", id="Keycloak"),
    pytest.param(ENTRA_PERSON, "idtyp=user", id="Entra ID"),
    pytest.param(ENTRA_PERSON | {"auth_time": ASKED}, "", id="Entra ID with `auth_time`"),
    pytest.param(AUTH0_PERSON, PERSON, id="Auth0"),
    pytest.param(KEYCLOAK_PERSON | {"auth_time": 0, "amr": ["pwd", "mfa"]}, "amr=mfa", id="how it was proved"),
    pytest.param(AUTH0_PERSON | {"kind": {"of": "person"}}, "kind.of=person", id="nested"),
)


@pytest.mark.parametrize(("claims", "person_claim"), BY_PERSON)
def test_a_person_approves(desk: Desk, claims: Claims, person_claim: str) -> None:
    """A token that was issued to a person, and shows it, keeps the role `approver`."""
    caller = desk.caller(claims, CALLERS % claims["sub"], person_claim=person_claim)

    assert {Role.APPROVER, Role.AUDITOR} == caller.roles
    assert claims.get("auth_time", 0.0) == caller.authenticated_at


BY_PROGRAM = (
    pytest.param(KEYCLOAK_PROGRAM, "", "service account", id="Keycloak"),
    pytest.param(KEYCLOAK_PROGRAM | {"auth_time": 0}, "", "service account", id="Keycloak before 25"),
    pytest.param(ENTRA_PROGRAM, "tid=fa15d692-e9c7-4460", "to an application", id="Entra ID"),
    pytest.param(AUTH0_PROGRAM, PERSON, "`gty`", id="Auth0"),
    pytest.param(OKTA_PROGRAM, "", "the client itself", id="Okta"),
    pytest.param(COGNITO_PROGRAM, "", "the client itself", id="Cognito"),
    pytest.param(KEYCLOAK_PERSON | {"act": {"sub": "agent"}}, "", "`act`", id="acted for"),
    pytest.param(KEYCLOAK_PERSON | {"gty": "password"}, "", "`gty`", id="granted to a client"),
    pytest.param(KEYCLOAK_PERSON | {"idtyp": "app"}, "", "`idtyp`", id="application"),
    pytest.param(KEYCLOAK_PERSON | {"idtyp": 1}, "", "`idtyp`", id="type of another kind"),
    pytest.param(KEYCLOAK_PERSON | {"sub": "x@clients"}, "", "`@clients`", id="subject of a client"),
    pytest.param(KEYCLOAK_PERSON | {"preferred_username": "service-account-x"}, "", "`preferred_username`", id="name"),
    pytest.param(KEYCLOAK_PERSON | {"appid": KEYCLOAK_PERSON["sub"]}, "", "the client itself", id="client's id"),
    # Nothing shows a program, and nothing a person.
    pytest.param(KEYCLOAK_PERSON | {"auth_time": 0}, "", "nothing shows", id="time of nought"),
    pytest.param(AUTH0_PERSON, "", "nothing shows", id="no sign is set"),
    pytest.param(AUTH0_PERSON | {PERSON: "true"}, PERSON, "nothing shows", id="text"),
    pytest.param(AUTH0_PERSON | {PERSON: False}, PERSON, "nothing shows", id="no"),
    pytest.param(AUTH0_PERSON | {"amr": ["pwd"]}, "amr=mfa", "nothing shows", id="proved otherwise"),
    pytest.param(AUTH0_PERSON, "kind.of=person", "nothing shows", id="nested and absent"),
    pytest.param(AUTH0_PERSON | {"kind": "person"}, "kind.of=person", "nothing shows", id="not nested"),
)  # fmt: skip


@pytest.mark.parametrize(("claims", "person_claim", "reason"), BY_PROGRAM)
def test_a_program_never_approves(
    desk: Desk, caplog: pytest.LogCaptureFixture, claims: Claims, person_claim: str, reason: str
) -> None:
    """A token that a program got, or that shows no person, keeps every role but `approver`, and the log says why."""
    with caplog.at_level(logging.WARNING, "pdp.server"):
        caller = desk.caller(claims, CALLERS % claims["sub"], person_claim=person_claim)

    assert {Role.AUDITOR} == caller.roles
    (record,) = caplog.records
    assert record.getMessage().startswith("`subject` cannot approve with this token: ")
    assert reason in record.getMessage()


BY_GROUP = (
    pytest.param(KEYCLOAK_PERSON, "/release-managers", {"groups_claim": "groups"}, id="Keycloak's groups"),
    pytest.param(KEYCLOAK_PERSON, "pdp-approver", {"groups_claim": "realm_access.roles"}, id="Keycloak's realm roles"),
    pytest.param(KEYCLOAK_PERSON, "auditors", {"groups_claim": "resource_access.pdp.roles"}, id="of a client"),
    pytest.param(
        ENTRA_PERSON,
        "7a0f2f6e-9a3b-4a58-9b0a-5a8f5d1c2b90",
        {"groups_claim": "groups", "person_claim": "idtyp=user"},
        id="Entra ID",
    ),
    pytest.param(
        AUTH0_PERSON,
        "approvers",
        {"groups_claim": "https://example.org/groups", "person_claim": PERSON},
        id="Auth0",
    ),
    pytest.param(KEYCLOAK_PERSON | {"groups": "one"}, "one", {"groups_claim": "groups"}, id="one group as a text"),
)


@pytest.mark.parametrize(("claims", "group", "rules"), BY_GROUP)
def test_a_group_makes_an_approver(desk: Desk, claims: Claims, group: str, rules: dict[str, Any]) -> None:
    """A person in a group of the file has its roles and its tenant, and the subject's id."""
    caller = desk.caller(claims, GROUPS % group, **rules)

    approver = frozenset({Role.APPROVER})
    seen_at = claims.get("auth_time", 0.0)
    assert Caller(id=claims["sub"], kind="jwt", roles=approver, authenticated_at=seen_at) == caller


@pytest.mark.parametrize(
    ("claims", "group", "rules"),
    [
        pytest.param(KEYCLOAK_PROGRAM, "/release-managers", {"groups_claim": "groups"}, id="Keycloak"),
        pytest.param(ENTRA_PROGRAM, "7a0f2f6e-9a3b-4a58-9b0a-5a8f5d1c2b90", {"groups_claim": "groups"}, id="Entra ID"),
    ],
)
def test_a_program_in_a_group_never_approves(desk: Desk, claims: Claims, group: str, rules: dict[str, Any]) -> None:
    """A group gives a program no authority of a person."""
    assert frozenset() == desk.caller(claims, GROUPS % group, **rules).roles


@pytest.mark.parametrize(
    ("groups", "roles"),
    [
        (["boss", "others"], {Role.APPROVER, Role.AUDITOR}),
        (["boss", "gateways"], {Role.PEP}),
        (["boss", "admins", "others"], {Role.ADMIN, Role.AUDITOR}),
        (["gateways", "admins", "unknown"], {Role.PEP, Role.ADMIN}),
    ],
)
def test_groups_add_up_but_never_to_both_sides(desk: Desk, groups: list[str], roles: set[Role]) -> None:
    """Roles of several groups add up; who would be gateway or admin as well does not approve."""
    claims = KEYCLOAK_PERSON | {"groups": groups}

    assert roles == desk.caller(claims, GROUPS % "boss", groups_claim="groups").roles


def test_a_group_says_for_whom_its_gateways_may_ask(desk: Desk) -> None:
    """The lists of an entry for a group bind each of its members."""
    caller = desk.caller(KEYCLOAK_PERSON | {"groups": ["bounded"]}, GROUPS % "boss", groups_claim="groups")

    assert Bounds(tenants=frozenset({"default"}), users=frozenset({"bob"})) == caller.bounds


def test_the_subject_goes_before_the_groups(desk: Desk) -> None:
    """Whoever has an entry of their own has what that gives, and no more by a group."""
    claims = KEYCLOAK_PERSON | {"sub": "bob", "groups": ["boss"]}

    caller = desk.caller(claims, GROUPS % "boss", groups_claim="groups")

    assert ("bob", {Role.AUDITOR}) == (caller.id, set(caller.roles))


def test_the_id_can_be_another_claim(desk: Desk) -> None:
    """Where the directory knows people by another name than the issuer's, a setting names the claim of it."""
    claims = KEYCLOAK_PERSON | {"groups": ["boss"]}

    assert "alice" == desk.caller(claims, GROUPS % "boss", groups_claim="groups", id_claim="preferred_username").id


@pytest.mark.parametrize(
    ("claims", "prefix", "expected"),
    [
        pytest.param({}, "idp/", ("idp//engineering", "idp//release-managers"), id="Keycloak"),
        pytest.param({"groups": ["b", "a", "b"]}, "idp/", ("idp/a", "idp/b"), id="twice"),
        pytest.param({"groups": "a"}, "idp/", ("idp/a",), id="one as a text"),
        pytest.param({"groups": ["idp/a"]}, "idp/", ("idp/idp/a",), id="with the prefix itself"),
        pytest.param({"groups": ["a\n", "x" * 125, "x" * 124, ""]}, "idp/", (f"idp/{'x' * 124}",), id="odd"),
        pytest.param({"groups": []}, "idp/", (), id="none"),
        pytest.param({"groups": None, "_claim_names": {"groups": "src1"}}, "idp/", (), id="left out"),
        pytest.param({"auth_time": 0}, "idp/", (), id="nobody shown"),
        pytest.param({}, "", None, id="no setting"),
    ],
)
def test_the_directory_knows_groups_under_a_prefix_alone(
    desk: Desk, claims: Claims, prefix: str, expected: tuple[str, ...] | None
) -> None:
    """No name that an issuer can choose is one of the bundle's own groups; a program is in none."""
    token = KEYCLOAK_PERSON | claims

    caller = desk.caller(token, CALLERS % token["sub"], groups_claim="groups", user_group_prefix=prefix)

    assert expected == caller.user_groups


@pytest.mark.parametrize(
    ("claims", "rules", "reason"),
    [
        pytest.param({}, {"groups_claim": ""}, "no caller has its subject or one of its groups", id="no setting"),
        pytest.param({"groups": ["boss"]}, {"groups_claim": "roles"}, "no caller has its subject", id="other claim"),
        pytest.param({"groups": ["Boss"]}, {}, "no caller has its subject", id="other letters"),
        pytest.param({"groups": ["boss/"]}, {}, "no caller has its subject", id="longer"),
        pytest.param({"groups": ["boss", 1]}, {}, "its `groups` is not a list of strings", id="a number"),
        pytest.param({"groups": {"boss": True}}, {}, "its `groups` is not a list of strings", id="an object"),
        pytest.param({"groups": ["boss", "elsewhere"]}, {}, "its groups belong to several tenants", id="tenants"),
        pytest.param({"groups": ["gateways", "bounded"]}, {}, "its groups give a gateway different bounds", id="lists"),
        pytest.param(
            {"groups": ["bounded", "others"]}, {}, "its groups give a gateway different bounds", id="other role"
        ),
        pytest.param(
            {"groups": ["boss"]}, {"id_claim": "nick"}, "the claim that `jwt.id_claim` names is not a", id="no name"
        ),
        pytest.param(
            {"groups": ["boss"], "sub": "a b"}, {}, "the claim that `jwt.id_claim` names is not a caller id", id="blank"
        ),
        pytest.param({"groups": ["boss"]}, {"id_claim": "kind"}, "`gateways` is the id of another", id="stolen name"),
    ],
)
def test_a_group_is_matched_exactly(desk: Desk, claims: Claims, rules: dict[str, Any], reason: str) -> None:
    """No pattern, no other letters; a name that is another caller's makes nobody that caller."""
    token = KEYCLOAK_PERSON | {"groups": [], "kind": "gateways"} | claims

    with pytest.raises(UnauthenticatedError) as caught:
        desk.caller(token, GROUPS % "boss", **({"groups_claim": "groups"} | rules))

    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: {jwt_group: g, roles: [approver, admin]}", "an `approver` cannot also be `admin`"),
        ("a: {jwt_group: g, roles: [pep]}\nb: {jwt_group: g, roles: [author]}", "`b` has the group of `a`"),
        ("a: {jwt_group: g, jwt_subject: s, roles: [pep]}", "exactly one of"),
        ("a: {jwt_group: '', roles: [pep]}", "`jwt_group` must be the name of a group in tokens"),
        ("a: {jwt_group: g, roles: [pep], expires_at: '2030-01-01T00:00:00Z'}", "`expires_at` needs `token_sha256`"),
    ],
)
def test_entries_for_groups_are_checked(tmp_path: Path, text: str, problem: str) -> None:
    """An entry for a group keeps the rules of all entries."""
    path = tmp_path / "callers.yaml"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(ConfigurationError, match=problem):
        KnownCallers(path)
