"""A real provider of log-ins, and a server that believes it."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pdp.clock import Instant
from pdp.config.settings import JWTSettings, Settings
from pdp.testing.clock import FakeClock
from tests.console.people.chromium import program
from tests.console.provider import believing

AUDIENCE = "https://pdp.example.org"
_PROGRAMS = Path(__file__).parents[3] / ".venv-people/programs"


class GoingClock(FakeClock):
    """Goes as time does, from where it was set: the provider's tokens are of the time."""

    def __init__(self) -> None:
        super().__init__(time.time())
        self._began = time.monotonic()

    def now(self) -> Instant:
        """Return the current reading of both clocks."""
        set_to, gone = super().now(), time.monotonic() - self._began
        return set_to._replace(wall_at=set_to.wall_at + gone, boot_at=set_to.boot_at + gone)


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
    take_keys(folder, issuer)
    jwt = JWTSettings(
        issuer=issuer,
        audience=AUDIENCE,
        keys_file=str(folder / "keys.json"),
        person_claim="person",
        console_client=client,
    )
    clock = GoingClock()
    with believing(folder, jwt, clock) as (settings, address):
        yield settings, address, clock


def take_keys(folder: Path, issuer: str) -> None:
    """Write the provider's keys where the server reads them."""
    with urllib.request.urlopen(f"{issuer}/jwks") as answer:  # noqa: S310 - the provider of this test
        (folder / "keys.json").write_bytes(answer.read())
