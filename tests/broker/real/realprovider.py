"""A real provider of tokens, which node's `oidc-provider` is, and a person's browser at it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc.jwk import ECKey

from pdp.broker.words import ClientAuth, Consenting, Exchange, TokenSource
from tests.machinery.servers.running import PATIENCE

_PROGRAMS: Final = Path(".venv-credentials") / "programs"
# What must be escaped on its way, and what a provider must read as it was.
SECRET: Final = "a secret: of+the/broker%20"  # noqa: S105 - of the test's provider
RESOURCE: Final = "https://api.example.com"
BACK: Final = "http://127.0.0.1:9/back"
REDIRECT: Final = f"{BACK}/crm"
VERIFIER: Final = "v" * 43
# Of the client that signs.
_KEY: Final = ec.generate_private_key(ec.SECP256R1())
KEY: Final = _KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


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

    def peoples_source(self, *, exchange: Exchange | None = None, **fields: Any) -> TokenSource:
        """Return how people connect to it; `fields` replaces values of what is about people."""
        known = {"issuer": self.issuer, "authorization": f"{self.issuer}/auth"}
        ends = {"revocation": f"{self.issuer}/token/revocation", "introspection": f"{self.issuer}/token/introspection"}
        consenting = Consenting(**{**known, **fields})
        return self.source(client_id="broker:people", consenting=consenting, exchange=exchange, **ends)

    def ask(self, path: str, client: str = "client_secret_basic", **form: str) -> Any:
        """Send a form to an endpoint as a client, and return what it says."""
        pair = f"{quote_plus(f'broker:{client}')}:{quote_plus(SECRET)}"
        headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        asked = urllib.request.Request(f"{self.issuer}{path}", urlencode(form).encode(), headers)  # noqa: S310 - on loopback
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:  # noqa: S310 - as above
            return json.load(answer)

    def says_of(self, token: bytes, client: str = "client_secret_basic") -> Any:
        """Return what the provider says of a token."""
        return self.ask("/token/introspection", client, token=token.decode())

    def connected(self, scope: str = "issues") -> Any:
        """Return the tokens that it gives for alice, who agrees in a browser."""
        code = self.code("people", scope)
        form = {"grant_type": "authorization_code", "redirect_uri": REDIRECT, "code": code, "code_verifier": VERIFIER}
        return self.ask("/token", "people", **form)

    def code(self, client: str, scope: str = "issues") -> str:
        """Return the code that it gives when alice agrees with a client in a browser, for `VERIFIER`."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
        wanted = {"client_id": f"broker:{client}", "response_type": "code", "redirect_uri": REDIRECT, "scope": scope}
        proof = {"code_challenge": challenge, "code_challenge_method": "S256", "resource": RESOURCE}
        back = Browser().go(f"{self.issuer}/auth?{urlencode({**wanted, **proof})}")
        [code] = parse_qs(urlsplit(back).query)["code"]
        return code

    @property
    def kids(self) -> set[str]:
        """Return which keys it says that it has."""
        with urllib.request.urlopen(f"{self.issuer}/jwks", timeout=PATIENCE) as answer:  # noqa: S310 - on loopback
            return {key["kid"] for key in json.load(answer)["keys"]}

    def slow(self, milliseconds: int) -> None:
        """Let it wait before it answers a refresh, after it has done it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"slow {milliseconds}\n")
        self.process.stdin.flush()

    def given(self) -> int:
        """End the provider, and return how many tokens it has given."""
        self.process.terminate()
        assert self.process.stdout is not None
        return self.process.stdout.read().count("token\n")


class Browser(urllib.request.HTTPRedirectHandler):
    """Follows redirects with cookies, and stops at what nobody serves: where the person is sent back to."""

    def __init__(self) -> None:
        self._opener = urllib.request.build_opener(self, urllib.request.HTTPCookieProcessor(CookieJar()))
        self._back = ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Go on, unless it leads back."""
        if newurl.startswith(BACK):
            self._back = newurl
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def go(self, url: str) -> str:
        """Open a page, and return where it leads back to."""
        try:
            self._opener.open(url, timeout=PATIENCE).close()
        except urllib.error.HTTPError as error:
            if not self._back:
                raise AssertionError(error.read().decode()) from None
        return self._back


@contextmanager
def running_provider(project_root: Path, issuer: str = "") -> Iterator[Provider]:
    """Run a provider, with keys of its own, anywhere or in the place of one that has ended."""
    folder = project_root / _PROGRAMS
    shutil.copy(Path(__file__).parent / "provider.mjs", folder)
    public = ECKey.import_key(_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    program, port = str(folder / "provider.mjs"), str(urlsplit(issuer).port or 0)
    command = ["node", program, SECRET, REDIRECT, json.dumps(public.as_dict(private=False)), port]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Provider(issuer=process.stdout.readline().strip(), process=process)
        finally:
            process.kill()
