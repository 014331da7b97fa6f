"""A real server on loopback, with real parts behind it and real channels to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from pdp.app.embedded import Embedded, open_embedded
from pdp.audit.searchable import SearchableRecord
from pdp.decision.authorizer import Authorizer
from pdp.identity.authentication import Authenticator, TokenAuthenticator
from pdp.identity.callers import KnownCallers
from pdp.identity.callersfile import init_callers
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.policy.child.process import PolicyChild
from pdp.registry.registrar import Registrar
from pdp.server.service import PDPServer
from pdp.serving.certificates import TLSFiles
from pdp.serving.listener import Listener
from pdp.testing.clock import FakeClock
from tests.machinery.servers import transports
from tests.machinery.servers.running import Notes, Running, Serve, Unhealthy, read_tokens


@pytest.fixture(scope="session")
def callers_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of fresh callers, with their tokens beside it."""
    return init_callers(tmp_path_factory.mktemp("callers"), development=True)


@pytest.fixture(scope="session")
def tokens(callers_file: Path) -> Mapping[str, str]:
    """Return the token of each caller."""
    return read_tokens(callers_file)


@pytest.fixture(scope="session")
def known_callers(callers_file: Path) -> KnownCallers:
    """Return these callers as a server knows them, read once: no test changes the file."""
    return KnownCallers(callers_file, development=True)


@pytest.fixture(scope="session")
def child() -> Iterator[PolicyChild]:
    """Return the child process that evaluates."""
    evaluator = PolicyChild(timeout=60)
    yield evaluator
    evaluator.close()


@pytest.fixture
def embedded(project_root: Path, clock: FakeClock, notes: Notes) -> Iterator[Embedded]:
    """Return the parts behind a server, on the shipped policies and a store in memory."""
    parts = open_embedded(
        project_root / "policies",
        clock=clock,
        observer=notes,
        trusted_attributes=frozenset({"team"}),
    )
    yield parts
    parts.close()


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands still."""
    return FakeClock()


@pytest.fixture
def notes() -> Notes:
    """Return an observer that keeps what it is told."""
    return Notes()


@pytest.fixture
def unhealthy() -> Unhealthy:
    """Return the switch that makes the server unhealthy."""
    return Unhealthy()


def pytest_configure() -> None:
    """Choose the transport of servers."""
    transports.choose()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of what a transport does on each of them."""
    if "transport" in metafunc.fixturenames:
        metafunc.parametrize("transport", transports.parameters(metafunc.definition.path), indirect=True)


@pytest.fixture
def transport(request: pytest.FixtureRequest) -> str:
    """Return the transport of the server."""
    return str(request.param)


@pytest.fixture
def serve(  # noqa: PLR0917 - what stands behind a server
    embedded: Embedded,
    child: PolicyChild,
    known_callers: KnownCallers,
    tokens: Mapping[str, str],
    notes: Notes,
    clock: FakeClock,
    unhealthy: Unhealthy,
    tmp_path: Path,
    transport: str,
) -> Iterator[Serve]:
    """Return what starts a server; it ends with the test."""
    with ExitStack() as stack:

        def start(
            *,
            authorizer: Authorizer | None = None,
            registrar: Registrar | None = None,
            authenticator: Authenticator | None = None,
            searchable: SearchableRecord | None = None,
            limits: Limits = DEFAULT_LIMITS,
            reflection: bool = False,
            address: str = "127.0.0.1:0",
            tls: TLSFiles | None = None,
            control: bool = False,
        ) -> Running:
            if searchable is None:
                searchable = SearchableRecord(tmp_path)
                stack.callback(searchable.close)
            server = PDPServer(
                Listener(address=address, tls=tls, plaintext=tls is None),
                authorizer=authorizer or embedded.authorizer,
                registrar=registrar or embedded.registrar,
                outcomes=embedded.outcomes,
                call_tokens=embedded.call_tokens,
                approvals=embedded.approvals,
                freezer=embedded.freezer,
                following=embedded.following,
                reaching=embedded.reaching,
                keeper=embedded.keeper,
                evaluator=child,
                explainer=embedded.explainer,
                searchable=searchable,
                authenticator=authenticator or TokenAuthenticator(known_callers),
                observer=notes,
                clock=clock,
                healthy=lambda: not unhealthy.is_set(),
                limits=limits,
                reflection=reflection,
                control=control,
                transport=transport,
                check_seconds=0.01,
            )
            stack.enter_context(server)
            running = Running(server, tokens, notes, clock)
            stack.callback(running.channel.close)
            return running

        yield start


@pytest.fixture
def running(serve: Serve) -> Running:
    """Return a server with all defaults."""
    return serve()
