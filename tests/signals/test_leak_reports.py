"""Leak reports of GitHub: the example of its documentation is taken, and whatever else says that it is one is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pdp.cli.root import root
from pdp.errors import ConfigurationError
from pdp.identity.keysets import read_keys
from pdp.observer import Event, EventKind
from pdp.signals.github import GitHubReports
from pdp.signals.serving import opened_record
from pdp.signals.settings import read_settings
from pdp.signals.words import State
from tests.signals.world import SETTINGS, Site, World, push, world

# "Secret scanning partner program" in GitHub's documentation shows this report, and the test key that signed it.
KEY_ID: Final = "f9525bf080f75b3506ca1ead061add62b8633a346606dc5fe544e29231c6ee0d"
KEY: Final = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsz9ugWDj5jK5ELBK42ynytbo38gP
HzZFI03Exwz8Lh/tCfL3YxwMdLjB+bMznsanlhK0RwcGP3IDb34kQDIo3Q==
-----END PUBLIC KEY-----
"""
REPORT: Final = b'[{"token":"some_token","type":"some_type","url":"some_url","source":"some_source"}]'
SIGNATURE: Final = "MEUCIFLZzeK++IhS+y276SRk2Pe5LfDrfvTXu6iwKKcFGCrvAiEAhHN2kDOhy2I6eGkOFmxNkOJ+L2y8oQ9A2T9GGJo6WJY="
RULES: Final = """
broker_record: broker
scanners:
  github:
    format: github
    keys_file: github.json
    leaks:
      - {type: some_type, tenant: acme, connection: github-1}
"""


def published(*keys: tuple[str, str]) -> bytes:
    """Return keys as GitHub publishes them."""
    rows = [{"key_identifier": key_id, "key": pem, "is_current": True} for key_id, pem in keys]
    return json.dumps({"public_keys": rows}).encode()


@pytest.fixture
def here(site: Site, tmp_path: Path) -> Iterator[World]:
    """Provide a receiver that knows the key of the documentation, and a broker's record of a session."""
    (tmp_path / "github.json").write_bytes(published((KEY_ID, KEY)))
    with world(*site, tmp_path, settings=SETTINGS + RULES) as found:
        yield found


def used(here: World) -> str:
    """Have a session use the secret of the connection; return its id."""
    session_id = here.session()
    with opened_record(here.folder / "broker-files") as record:
        facts = {"connection": "github-1", "version": "1", "token_id": "t"}
        record.event(Event(kind=EventKind.CALL_TOKEN_USED, at=1e9, session_id=session_id, tenant="acme", facts=facts))
    (here.folder / "broker").symlink_to(here.folder / "broker-files" / "record")
    return session_id


def report(here: World, body: bytes = REPORT, signature: str = SIGNATURE, key_id: str = KEY_ID, **more: str) -> Any:
    """Send a report; return status, headers and the JSON of the answer."""
    sent = {"content_type": "application/json", "github_public_key_identifier": key_id} | more
    return push(here.receiver, body, "/signals/github", github_public_key_signature=signature, **sent)


def test_the_example_of_the_documentation_ends_the_sessions_that_used_the_secret(here: World) -> None:
    """And no others; the token is in no file and in nothing that is told."""
    leaked, other = used(here), here.session()

    status, _, _ = report(here)
    here.applier.run()

    (signal,) = here.store.signals(limit=10)
    assert (202, State.APPLIED, "secret-leaked") == (status, signal.state, signal.event)
    assert (True, False) == (here.ended(leaked), here.ended(other))
    held = b"".join(path.read_bytes() for path in here.folder.rglob("*") if path.is_file() and "sqlite" in path.name)
    assert (False, False) == (b"some_token" in held, "some_token" in repr(here.events))


def test_a_report_counts_once(here: World) -> None:
    """It has no id, so what it says is its id."""
    assert [202, 202] == [report(here)[0] for _ in range(2)]
    assert 1 == len(here.store.signals(limit=10))


OTHER: Final = ec.generate_private_key(ec.SECP256R1())
FORGED: Final = base64.b64encode(OTHER.sign(REPORT, ec.ECDSA(SHA256()))).decode()


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({"body": REPORT.replace(b"some_url", b"other_ur")}, (400, "authentication_failed")),
        ({"body": REPORT + b" "}, (400, "authentication_failed")),
        ({"signature": FORGED}, (400, "authentication_failed")),
        ({"signature": ""}, (400, "authentication_failed")),
        ({"signature": "no base64"}, (400, "authentication_failed")),
        ({"signature": "A" * 10_000}, (400, "authentication_failed")),
        ({"key_id": "9" * 64}, (400, "invalid_key")),
        ({"key_id": ""}, (400, "invalid_key")),
        ({"content_type": "application/secevent+jwt"}, (415, "invalid_request")),
        ({"body": b"[" + b"1," * 600_000 + b"1]"}, (413, "invalid_request")),
    ],
)
def test_a_forged_report_is_refused(here: World, changed: dict[str, Any], answer: tuple[int, str]) -> None:
    """Nothing is kept."""
    status, _, problem = report(here, **changed)

    assert answer == (status, problem["err"])
    assert () == here.store.signals(limit=10)


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b"[1]", b'[{"token": "x"}]', b"no json", b'[{"token": 1, "type": "t"}]']
)
def test_what_is_signed_and_no_report_is_refused(site: Site, tmp_path: Path, body: bytes) -> None:
    """A good signature makes no sense of what has none."""
    pem = OTHER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    (tmp_path / "github.json").write_bytes(published(("other", pem)))
    with world(*site, tmp_path, settings=SETTINGS + RULES) as here:
        signature = base64.b64encode(OTHER.sign(body, ec.ECDSA(SHA256()))).decode()

        status, _, problem = report(here, body, signature, "other")

    assert (400, "invalid_request") == (status, problem["err"])


def test_a_secret_is_known_by_its_fingerprint(here: World) -> None:
    """As the command prints it, from standard input; that of another secret is another one."""
    words = ["signals", "fingerprint", "--settings", str(here.folder / "signals.yaml")]
    done = [CliRunner().invoke(root, words, input=text) for text in ("some_token\n", "some_token", "other")]
    prints = [one.output.strip() for one in done]
    file = here.folder / "signals.yaml"
    file.write_text((SETTINGS + RULES).replace("type: some_type", f"fingerprint: {prints[0]}"))
    with world(here.server, here.clock, here.folder, settings=file.read_text()) as found:
        status, _, _ = report(found)
        (signal,) = found.store.signals(limit=10)

    assert (prints[0] == prints[1] != prints[2], [0] * 3) == (True, [one.exit_code for one in done])
    assert (202, ["connection github-1 of acme"]) == (status, [one.text for one in signal.targets])


def test_a_secret_of_nobody_here_ends_nothing(site: Site, tmp_path: Path) -> None:
    """It is accepted, as its scanner expects."""
    (tmp_path / "github.json").write_bytes(published((KEY_ID, KEY)))
    rules = RULES.replace("type: some_type", f"fingerprint: hmac-sha256:{'0' * 64}")
    with world(*site, tmp_path, settings=SETTINGS + rules) as here:
        status, _, _ = report(here)

        assert (202, [State.UNMATCHED]) == (status, [one.state for one in here.store.signals(limit=10)])


@pytest.mark.parametrize(
    "text", [b"{}", b"no json", b'{"public_keys": [1]}', published(("a", "no pem")), published(("a", KEY), ("a", KEY))]
)
def test_broken_keys_are_refused(text: bytes) -> None:
    """The present ones stay in use then."""
    with pytest.raises(ConfigurationError):
        read_keys("keys", GitHubReports().as_jwks("keys", text))


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("format: github", "format: gitlab", "`format` must be one of github"),
        ("type: some_type", "type: ''", "`fingerprint` or `type` must say"),
        ("type: some_type", "fingerprint: abc", "must be what `pdp signals fingerprint` prints"),
        ("  github:\n", "  idp:\n", "`idp` is a transmitter, too"),
    ],
)
def test_a_wrong_setting_of_a_scanner_is_named(tmp_path: Path, before: str, after: str, says: str) -> None:
    """With its line."""
    file = tmp_path / "signals.yaml"
    file.write_text((SETTINGS + RULES).replace(before, after))

    with pytest.raises(ConfigurationError, match=r"signals.yaml:\d+") as caught:
        read_settings(file)
    assert says in str(caught.value)
