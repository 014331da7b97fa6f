"""Access tokens of a real provider, which node's `oidc-provider` is."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest

from pdp.broker.oauth.tokens import AccessTokens
from pdp.broker.words import ClientAuth, Connection, TokenRefusedError, TokenSource
from pdp.clock import SystemClock
from tests.broker.vaults import BY, Files, connection

pytestmark = pytest.mark.credentials

PROGRAMS = Path(".venv-credentials") / "programs"
# What must be escaped on its way, and what a provider must read as it was.
SECRET = "a secret: of+the/broker%20"  # noqa: S105 - of the test's provider
RESOURCE = "https://api.example.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A running provider."""

    issuer: str
    process: subprocess.Popen[str]

    def source(self, **fields: Any) -> TokenSource:
        """Return how its tokens are got; `fields` replaces values."""
        auth = fields.get("auth", ClientAuth.BASIC)
        known = {"endpoint": f"{self.issuer}/token", "client_id": f"broker:{auth}", "resource": RESOURCE}
        return TokenSource(**{**known, **fields})

    def says_of(self, token: bytes) -> Any:
        """Return what the provider says of a token."""
        body = urlencode({"token": token}).encode()
        pair = f"{quote_plus('broker:client_secret_basic')}:{quote_plus(SECRET)}"
        headers = {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        asked = urllib.request.Request(f"{self.issuer}/token/introspection", body, headers)  # noqa: S310 - on loopback
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310 - as above
            return json.load(answer)

    def given(self) -> int:
        """End the provider, and return how many tokens it has given."""
        self.process.terminate()
        assert self.process.stdout is not None
        return self.process.stdout.read().count("token\n")


@pytest.fixture
def provider(project_root: Path) -> Iterator[Provider]:
    """Run a provider."""
    folder = project_root / PROGRAMS
    shutil.copy(Path(__file__).parent / "provider.mjs", folder)
    command = ["node", str(folder / "provider.mjs"), SECRET]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Provider(issuer=process.stdout.readline().strip(), process=process)
        finally:
            process.kill()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return the files of a broker."""
    return Files(tmp_path)


def stored(files: Files, *rows: Connection) -> None:
    """Store connections with the secret of the provider's clients."""
    with closing(files.open()) as vault:
        for row in rows:
            vault.add(row, by=BY)
            vault.put(row.id, SECRET.encode(), by=BY)


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
    assert [(True, "issues", RESOURCE)] * 2 == [(one["active"], one["scope"], one["aud"]) for one in said]
    assert len(rows) == provider.given()


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
