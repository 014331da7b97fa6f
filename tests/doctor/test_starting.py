"""What keeps a server from starting: `pdp serve` and `pdp doctor` both name it, whatever it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pdp.cli.operate.init import prepare
from pdp.config.reading import load
from tests.machinery.credentials.certificates import write_certificate
from tests.machinery.credentials.issuer import Issuer
from tests.machinery.servers.commandline import clean_environment, run_here, start_server, stop_server, write_bundle

Spoil = Callable[[Path], dict[str, str]]
Done = subprocess.CompletedProcess[str]
SECONDS = 120
ALONE = {"PDP_SERVER__ADDRESS": "127.0.0.1:0", "PDP_SERVER__WORKERS": "1"}
POSTGRES: dict[str, Any] = {"PDP_SESSIONS__STORE": "postgres"}
JWT = {"PDP_JWT__ISSUER": "https://issuer.example.org", "PDP_JWT__AUDIENCE": "pdp"}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a deployment in which a server would start."""
    folder = tmp_path_factory.mktemp("sound")
    write_bundle(folder / "policies")
    prepare(load(environ={}, flags={"data_dir": str(folder / ".pdp")}, file=os.devnull))
    return folder


@pytest.fixture
def place(sound: Path, tmp_path: Path) -> Path:
    """Return a copy of that deployment, to be spoiled."""
    shutil.copytree(sound, tmp_path / "place")
    return tmp_path / "place"


def serve(place: Path, **environ: str) -> Done:
    """Run `pdp serve` in a deployment in which it does not start."""
    return subprocess.run(
        [sys.executable, "-m", "pdp.cli", "serve"],
        cwd=place,
        env=clean_environment() | ALONE | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def doctor(place: Path, **environ: str) -> Done:
    """Run `pdp doctor` in a deployment, in this process."""
    return run_here(place, "doctor", "--json", **ALONE | environ)


def serve_here(place: Path, **environ: str) -> Done:
    """Run `pdp serve` in a deployment in which it does not start, in this process, which keeps its signals.

    One that starts all the same says that it listens, and ends, because it has nothing to wait for.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pdp.cli.operate.serve.receive_signals", lambda: (-1, -1))
        patch.setattr("pdp.cli.operate.serve.keep_memory_private", lambda: None)
        patch.setattr("pdp.cli.operate.serve.collect_later", lambda: None)
        patch.setattr("pdp.cli.operate.serve.keep_what_there_is", lambda: None)
        return run_here(place, "serve", **ALONE | environ)


def settings(**given: str) -> Spoil:
    """Change settings alone."""
    return lambda _: given


def write(name: str, content: bytes, mode: int = 0o600, **given: str) -> Spoil:
    """Write a file, and change settings."""

    def spoil(place: Path) -> dict[str, str]:
        (place / name).write_bytes(content)
        (place / name).chmod(mode)
        return given

    return spoil


def keys(content: bytes = b"", mode: int = 0o600) -> Spoil:
    """Have the keys of an issuer in a file."""
    return write("keys.json", content or Issuer().jwks(), mode, PDP_JWT__KEYS_FILE="keys.json", **JWT)


def tls(spoiled: str = "", content: bytes = b"x") -> Spoil:
    """Have a certificate, and spoil one of its files."""

    def spoil(place: Path) -> dict[str, str]:
        certificate, key = write_certificate(place)
        given = {
            "PDP_SERVER__TLS_CERTIFICATE": str(certificate),
            "PDP_SERVER__TLS_KEY": str(key),
            "PDP_SERVER__TLS_CLIENT_ROOTS": str(shutil.copy(certificate, place / "roots.pem")),
        }
        if spoiled:
            Path(given[spoiled]).write_bytes(content)
        return given

    return spoil


class Row(NamedTuple):
    """One thing that is broken, and the setting or file that both must name."""

    name: str
    named: str
    spoil: Spoil


ROWS = (
    Row("no keys of the issuer", "jwt.keys_file", settings(PDP_JWT__KEYS_FILE="gone.json", **JWT)),
    Row("broken keys", "jwt.keys_file", keys(b"{}")),
    Row("keys that others may write", "jwt.keys_file", keys(mode=0o622)),
    Row("no deny-list", "callers.denied_file", settings(PDP_CALLERS__DENIED_FILE="gone.yaml")),
    Row("broken deny-list", "callers.denied_file", write("d.yaml", b"- a", PDP_CALLERS__DENIED_FILE="d.yaml")),
    Row("no callers", "callers.file", settings(PDP_CALLERS__FILE="gone.yaml")),
    Row("broken callers", "callers.file", write(".pdp/callers.yaml", b"a: {roles: [pep]}")),
    Row("no signing key", "record.signing_key", settings(PDP_RECORD__SIGNING_KEY="gone.pem")),
    Row("broken signing key", "record.signing_key", write(".pdp/record-signing.pem", b"x")),
    Row("no more keys of records", "record.public_keys", settings(PDP_RECORD__PUBLIC_KEYS="gone.pem")),
    Row("broken keys of records", "record.public_keys", write("more.pem", b"x", PDP_RECORD__PUBLIC_KEYS="more.pem")),
    Row("no digest key", "record.digest_key", settings(PDP_RECORD__DIGEST_KEY="gone.key")),
    Row("short digest key", "record.digest_key", write(".pdp/record.key", b"x")),
    Row("no public keys", "policies.public_keys", settings(PDP_POLICIES__PUBLIC_KEYS="gone.pem")),
    Row("broken certificate", "server.tls_certificate", tls("PDP_SERVER__TLS_CERTIFICATE")),
    Row("broken TLS key", "server.tls_key", tls("PDP_SERVER__TLS_KEY")),
    Row("broken authorities", "server.tls_client_roots", tls("PDP_SERVER__TLS_CLIENT_ROOTS")),
    Row("record is a file", "record.folder", settings(PDP_RECORD__FOLDER="policies/bundle.yaml")),
    Row(
        "a path too long for the socket",
        "server.control_address",
        settings(PDP_SERVER__CONTROL_ADDRESS="unix:" + "a" * 108),
    ),
    Row("no folder of the socket", "server.address", settings(PDP_SERVER__ADDRESS="unix:gone/socket")),
    Row("a long path of the socket", "server.address", settings(PDP_SERVER__ADDRESS="unix:" + "x" * 110)),
    Row("no receivers", "messages.receivers_file", settings(PDP_MESSAGES__RECEIVERS_FILE="gone.yaml")),
    Row("no connection string", "sessions.postgres_file", settings(PDP_SESSIONS__POSTGRES_FILE="gone", **POSTGRES)),
    Row("an empty one", "sessions.postgres_file", write("f", b"", PDP_SESSIONS__POSTGRES_FILE="f", **POSTGRES)),
    Row("no such string", "connection string", write("f", b"x", PDP_SESSIONS__POSTGRES_FILE="f", **POSTGRES)),
    Row("wrong variable", "OTEL_EXPORTER_OTLP_ENDPOINT", settings(OTEL_EXPORTER_OTLP_ENDPOINT="ftp://x")),
    Row("data is a file", "data_dir", settings(PDP_DATA_DIR="policies/bundle.yaml")),
    Row("no policies", "policies.folder|policy folder|gone", settings(PDP_POLICIES__FOLDER="gone")),
    Row("broken policy", "files.cedar:1", write("policies/files.cedar", b"permit (")),
    Row("no store", "sessions.sqlite", write(".pdp/sessions.sqlite", b"noise" * 99)),
)


def problems(done: Done) -> list[str]:
    """Return what `pdp doctor` says must be fixed."""
    found = json.loads(done.stdout)["findings"]
    return [f"{one['found']} -> {one['remedy']}" for one in found if one["level"] == "problem"]


def require_named(named: str, place: Path, given: dict[str, str], refuse: Callable[..., Done]) -> None:
    """Assert that neither command is content, and that each says what is wrong."""
    examined = doctor(place, **given)
    refused = refuse(place, **given)

    assert (2, "", 1) == (refused.returncode, refused.stdout, examined.returncode)
    assert re.search(named, refused.stderr), refused.stderr
    assert "Traceback" not in refused.stderr
    assert any(re.search(named, one) for one in problems(examined)), problems(examined)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_both_name_what_is_broken(place: Path, row: Row) -> None:
    """What makes `pdp serve` refuse is a problem to `pdp doctor`, and both name it."""
    require_named(row.named, place, row.spoil(place), serve_here)


def test_both_name_a_listener_without_its_library(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra `loop` the setting that wants it is named, before anything is compiled."""
    monkeypatch.setitem(sys.modules, "ngh2", None)
    said = re.escape("`server.listener`: `ngh2` is not installed: pip install 'agent-pdp[loop]'")

    require_named(said, place, {"PDP_SERVER__LISTENER": "loop"}, serve_here)


@contextmanager
def taken() -> Iterator[str]:
    """Listen on a port while the `with` block runs."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield f"127.0.0.1:{other.getsockname()[1]}"


@pytest.mark.parametrize(
    ("setting", "workers"),
    [
        ("server.address", "1"),
        ("server.address", "2"),
        ("server.control_address", "1"),
        ("server.control_address", "2"),
        ("telemetry.prometheus_address", "1"),
    ],
)
def test_both_name_a_port_that_is_in_use(place: Path, setting: str, workers: str) -> None:
    """A port that is in use is named with its setting, for one worker and for several."""
    with taken() as address:
        given = {"PDP_" + setting.replace(".", "__").upper(): address, "PDP_SERVER__WORKERS": workers}

        require_named(f"`{setting}`.*`{address}`", place, given, serve)


def test_everything_is_named_at_once(place: Path) -> None:
    """A start that refuses says all that is wrong with what it reads."""
    refused = serve(place, PDP_CALLERS__DENIED_FILE="gone.yaml", PDP_JWT__KEYS_FILE="gone.json", **JWT)

    named = [line.partition(": cannot")[0] for line in refused.stderr.splitlines()]
    assert ["error: `callers.denied_file`", "error: `jwt.keys_file`"] == named


def test_an_issuer_that_does_not_answer(place: Path) -> None:
    """A server starts without the keys of its issuer, and says so; to `pdp doctor` it is a problem."""
    url = "http://127.0.0.1:1/keys"
    examined = doctor(place, PDP_JWT__KEYS_URL=url, **JWT)
    flags = ("--jwt-keys-url", url, "--jwt-issuer", JWT["PDP_JWT__ISSUER"], "--jwt-audience", JWT["PDP_JWT__AUDIENCE"])

    server = start_server(place, *flags)
    assert server.process.stderr is not None
    told = next(line for line in server.process.stderr if "token issuer" in line)
    stop_server(server)

    assert f"the keys of the token issuer could not be read, so no JSON Web Token is accepted: `{url}`" in told
    assert (1, 1) == (examined.returncode, len(problems(examined)))
    assert problems(examined)[0].startswith(f"`jwt.keys_url`: `{url}` cannot be reached")


def test_the_port_of_the_server_itself_is_no_problem(place: Path) -> None:
    """Beside a running server its port is in use, as it should be."""
    server = start_server(place)
    done = doctor(place, PDP_SERVER__ADDRESS=server.address)
    stop_server(server)

    assert (0, []) == (done.returncode, problems(done))
