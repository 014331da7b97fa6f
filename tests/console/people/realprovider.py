"""A real provider of log-ins, and a server that believes it."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pdp.app import build
from pdp.cli.operate.init import prepare
from pdp.config import JWTSettings, PolicySettings, ServerSettings, SessionSettings, Settings
from pdp.testing.clock import FakeClock
from pdp.testing.inprocess import write_folder
from tests.console.desk import files
from tests.console.people.chromium import program

AUDIENCE = "https://pdp.example.org"
_PROGRAMS = Path(__file__).parents[3] / ".venv-people/programs"


def set_clock(clock: FakeClock, ahead: float = 0.0) -> None:
    """Set the server's clock to the time, or ahead of it."""
    clock.step_wall(time.time() + ahead - clock.now().wall_at)


@contextmanager
def provider(origin: str, port: int = 0) -> Iterator[str]:
    """Run the provider, and return its issuer."""
    (_PROGRAMS / "provider.mjs").write_bytes((Path(__file__).parent / "provider.mjs").read_bytes())
    command = [program("node"), str(_PROGRAMS / "provider.mjs"), origin, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextmanager
def server(folder: Path, issuer: str, client: str = "console") -> Iterator[tuple[Settings, str, FakeClock]]:
    """Run a server that believes the provider, and return its settings, address and clock."""
    write_folder(folder / "policies", files())
    take_keys(folder, issuer)
    settings = Settings(
        data_dir=str(folder / "data"),
        server=ServerSettings(address="localhost:0", plaintext=True),
        sessions=SessionSettings(store="memory"),
        jwt=JWTSettings(
            issuer=issuer,
            audience=AUDIENCE,
            keys_file=str(folder / "keys.json"),
            person_claim="person",
            console_client=client,
        ),
        policies=PolicySettings(folder=str(folder / "policies"), watch=False),
    )
    prepare(settings)
    with settings.callers_file.open("a", encoding="utf-8") as file:
        file.write("ann: {jwt_subject: 'ann@example.org', roles: [approver]}\n")
    clock = FakeClock(time.time())
    app = build(settings, clock=clock)
    app.start()
    try:
        yield settings, app.address, clock
    finally:
        app.stop()


def take_keys(folder: Path, issuer: str) -> None:
    """Write the provider's keys where the server reads them."""
    with urllib.request.urlopen(f"{issuer}/jwks") as answer:  # noqa: S310 - the provider of this test
        (folder / "keys.json").write_bytes(answer.read())
