"""Access tokens of a real provider, which node's `oidc-provider` is."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pdp.broker.oauth.ending import is_known
from pdp.broker.oauth.granting import exchange, exchange_code, refresh
from pdp.broker.oauth.tokens import AccessTokens
from pdp.broker.words import ClientAuth, Connection, Exchange, Mode, Secret, TokenRefusedError
from pdp.clock import SystemClock
from pdp.foundation.egress import Roots
from tests.broker.real.realprovider import KEY, REDIRECT, RESOURCE, SECRET, VERIFIER, Provider, running_provider
from tests.broker.tills import KIND, till
from tests.broker.vaults import BY, Files, connection

pytestmark = pytest.mark.credentials


@pytest.fixture
def provider(project_root: Path) -> Iterator[Provider]:
    """Run a provider."""
    with running_provider(project_root) as running:
        yield running


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return the files of a broker."""
    return Files(tmp_path)


def stored(files: Files, *rows: Connection) -> None:
    """Store connections with the secret of the provider's clients, or the key of the one that signs."""
    with closing(files.open()) as vault:
        for row in rows:
            vault.add(row, by=BY)
            signs = row.source is not None and row.source.auth is ClientAuth.PRIVATE_KEY
            vault.put(row.id, KEY if signs else SECRET.encode(), by=BY)


def test_a_client_gets_tokens_with_its_scopes(provider: Provider, files: Files) -> None:
    """By each way of proving who asks, for what the connection names and no more; the provider knows each as good."""
    scopes = ("issues",)
    rows = [connection(f"by-{auth}", source=provider.source(auth=auth), scopes=scopes) for auth in ClientAuth]
    stored(files, *rows)

    with closing(files.open()) as vault:
        tokens = AccessTokens(vault, files.events.append, SystemClock())
        with ThreadPoolExecutor(8) as threads:
            got = set(threads.map(lambda row: tokens.open(vault.connection(row.id)).reveal(), rows * 8))

    assert len(rows) == len(got)
    said = [provider.says_of(one) for one in got]
    assert [(True, "issues", RESOURCE)] * 3 == [(one["active"], one["scope"], one["aud"]) for one in said]
    assert len(rows) == provider.given()


def test_a_client_signs_whatever_it_asks(provider: Provider) -> None:
    """For a code, to refresh, to exchange and to introspect; another key is that of a stranger."""
    ends = {"introspection": f"{provider.issuer}/token/introspection"}
    narrow = Exchange(resource=f"{RESOURCE}/narrow")
    source = provider.source(auth=ClientAuth.PRIVATE_KEY, audience=provider.issuer, exchange=narrow, **ends)
    key, roots, scopes = Secret(KEY), Roots(), ("issues",)

    first = exchange_code(source, key, provider.code(ClientAuth.PRIVATE_KEY), VERIFIER, REDIRECT, roots)
    assert first.refresh
    second = refresh(source, key, first.refresh, scopes, roots)
    third = exchange(source, key, second.secret, scopes, roots)

    assert [True, True] == [is_known(source, key, one.secret, roots) for one in (second, third)]
    strange = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(TokenRefusedError, match="`invalid_client`"):
        exchange(source, Secret(strange), second.secret, scopes, roots)


def test_a_client_gets_nothing_else(provider: Provider, files: Files) -> None:
    """A scope that the provider has not, and a client that it does not know."""
    rows = [
        connection("wide", source=provider.source(), scopes=("issues", "admin")),
        connection("strange", source=provider.source(client_id="stranger"), scopes=("issues",)),
    ]
    stored(files, *rows)

    with closing(files.open()) as vault:
        tokens = AccessTokens(vault, files.events.append, SystemClock())
        for row, problem in zip(rows, ("it does not grant the scope `admin`", "`invalid_client`"), strict=True):
            with pytest.raises(TokenRefusedError, match=problem) as refused:
                tokens.open(vault.connection(row.id))
            assert SECRET not in str(refused.value)


@pytest.mark.parametrize(("resource", "outcome"), [(RESOURCE, "revoked"), (f"{RESOURCE}/jwt", "expires_at")])
def test_a_token_that_was_handed_out_ends_with_its_session(
    provider: Provider, tmp_path: Path, resource: str, outcome: str
) -> None:
    """Of an opaque one the provider says so; a JSON Web Token goes on, and nothing else is claimed."""
    ends = {name: f"{provider.issuer}/token/{name}" for name in ("revocation", "introspection")}
    source = provider.source(resource=resource, **ends)
    row = connection("crm", kind=KIND, source=source, scopes=("issues", "pulls"), modes=(Mode.CHECKOUT,))
    with till(tmp_path / "broker", row, secret=SECRET.encode()) as here:
        credential = here.ask(scopes=("issues",))
        if outcome == "revoked":
            said = provider.says_of(credential.secret.encode())
            assert (True, "issues") == (said["active"], said["scope"])
        here.end_session()

    assert [outcome] == here.outcomes
    if outcome == "revoked":
        assert {"active": False} == provider.says_of(credential.secret.encode())
