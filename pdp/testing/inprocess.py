"""Run the real server on loopback inside a test, on the test's own bundle and a clock that the test moves."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pdp.app.embedded import Embedded, open_embedded
from pdp.audit.coverage import Coverage
from pdp.audit.searchable import SearchableRecord
from pdp.client import Client
from pdp.decision.cache import DecisionCache
from pdp.identity.authentication import TokenAuthenticator
from pdp.identity.callers import LISTS, SEES_RESULTS, KnownCallers
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.model import AT_EACH_CALL, Caller, Role
from pdp.policy.child.process import PolicyChild
from pdp.record.segmentcheck import SegmentCheck
from pdp.server.links import Links
from pdp.server.policies import Evaluator
from pdp.server.service import PDPServer
from pdp.serving.listener import Listener
from pdp.sessions.store import SessionStore
from pdp.testing.bundles import compile_once_here
from pdp.testing.clock import FakeClock
from pdp.testing.evidence import Evidence

# One caller for each role, with the role's name: the callers of a first `pdp serve`.
ONE_OF_EACH_ROLE = tuple(
    Caller(id=role.value, kind="token", roles=frozenset({role}), authenticated_at=AT_EACH_CALL) for role in Role
)

_EVALUATE_SECONDS = 60.0
# On a machine that is busy with other tests, a late answer must not become the client's own deny.
_CLIENT_SECONDS = 60.0


class RunningServer:
    """A running server, the parts behind it, and a client for each caller. `running_server` makes one."""

    def __init__(
        self,
        server: PDPServer,
        *,
        embedded: Embedded,
        evidence: Evidence,
        clock: FakeClock,
        policies: Path,
        tokens: Mapping[str, str],
        opened: ExitStack,
    ) -> None:
        self.embedded = embedded
        self.evidence = evidence
        self.clock = clock
        self._server = server
        self.policies = policies
        self._tokens = tokens
        self._opened = opened
        self._clients: dict[tuple[str, frozenset[str]], Client] = {}

    @property
    def address(self) -> str:
        """Return the address to connect to."""
        return self._server.address

    def token(self, caller_id: str) -> str:
        """Return the bearer token of a caller."""
        return self._tokens[caller_id]

    def client(self, caller_id: str, known_obligations: Iterable[str] = ()) -> Client:
        """Return the client of a caller that knows some obligations; it is closed with the server."""
        key = (caller_id, frozenset(known_obligations))
        if key not in self._clients:
            client = Client(
                self.address,
                token=self.token(caller_id),
                timeout=_CLIENT_SECONDS,
                plaintext=True,
                known_obligations=key[1],
            )
            self._clients[key] = self._opened.enter_context(client)
        return self._clients[key]

    def write_policies(self, files: Mapping[str, bytes]) -> None:
        """Replace the policy folder; the server uses it only after a reload."""
        write_folder(self.policies, files)


@contextmanager
def running_server(
    files: Mapping[str, bytes],
    *,
    callers: Sequence[Caller] = ONE_OF_EACH_ROLE,
    clock: FakeClock | None = None,
    store: SessionStore | None = None,
    cache_size: int = 65536,
    limits: Limits = DEFAULT_LIMITS,
    trusted_attributes: frozenset[str] = frozenset(),
    evaluator: Evaluator | None = None,
    console_url: str = "",
    call_token_issuer: str = "",
    call_token_seconds: int = 15,
    coverage: Coverage | None = None,
    transport: str = "grpc",
) -> Iterator[RunningServer]:
    """Serve a bundle, given as its files, while the `with` block runs.

    The bundle is compiled in this process, so it should be the test's own. A `store` that is passed stays open. The
    server speaks plain text: a client that is not from `RunningServer.client` must be set to plain text too.
    """
    time = clock or FakeClock()
    with ExitStack() as opened:
        folder = Path(opened.enter_context(TemporaryDirectory(prefix="pdp-")))
        write_folder(folder / "policies", files)
        tokens = _write_callers(folder / "callers.yaml", callers)
        evidence = Evidence(folder)
        opened.callback(evidence.close)
        embedded = open_embedded(
            folder / "policies",
            sessions=store,
            clock=time,
            observer=evidence,
            trace_ids=evidence.trace_ids,
            cache=DecisionCache(size=cache_size),
            limits=limits,
            trusted_attributes=trusted_attributes,
            call_token_issuer=call_token_issuer,
            call_token_seconds=call_token_seconds,
            compile_files=compile_once_here,
        )
        if store is None:
            opened.callback(embedded.close)
        if evaluator is None:
            child = PolicyChild(timeout=_EVALUATE_SECONDS)
            opened.callback(child.close)
            evaluator = child
        searchable = SearchableRecord(evidence.record_folder)
        opened.callback(searchable.close)
        server = PDPServer(
            Listener(address="127.0.0.1:0", plaintext=True),
            authorizer=embedded.authorizer,
            registrar=embedded.registrar,
            outcomes=embedded.outcomes,
            call_tokens=embedded.call_tokens,
            approvals=embedded.approvals,
            freezer=embedded.freezer,
            following=embedded.following,
            reaching=embedded.reaching,
            keeper=embedded.keeper,
            evaluator=evaluator,
            explainer=embedded.explainer,
            searchable=searchable,
            segment_check=SegmentCheck(evidence.record_folder, evidence.public_keys),
            coverage=coverage,
            authenticator=TokenAuthenticator(KnownCallers(folder / "callers.yaml", development=True)),
            observer=evidence,
            clock=time,
            healthy=embedded.keeper.serves,
            limits=limits,
            links=Links(console_url),
            transport=transport,
        )
        opened.enter_context(server)
        # Closed before the server stops, so that no connection keeps it waiting.
        clients = opened.enter_context(ExitStack())
        yield RunningServer(
            server,
            embedded=embedded,
            evidence=evidence,
            clock=time,
            policies=folder / "policies",
            tokens=tokens,
            opened=clients,
        )


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder hold exactly these files, named relative to it."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # In one step: a server that watches the folder must not read half of a file. `replacing` would flush it, too.
        whole = path.with_name(f".{path.name}")
        whole.write_bytes(content)
        whole.replace(path)


def _write_callers(file: Path, callers: Sequence[Caller]) -> dict[str, str]:
    tokens = {caller.id: "pdpt_" + secrets.token_urlsafe(32) for caller in callers}
    lines = []
    for caller in callers:
        digest = hashlib.sha256(tokens[caller.id].encode("ascii")).hexdigest()
        roles = ", ".join(sorted(role.value for role in caller.roles))
        lines += [f"{caller.id}:", f"  token_sha256: '{digest}'", f"  roles: [{roles}]", f"  tenant: {caller.tenant}"]
        lines += [f"  {name}: [{', '.join(sorted(ids))}]" for name, ids in _lists_of(caller) if ids is not None]
        lines += [] if caller.sees_results else [f"  {SEES_RESULTS}: false"]
        lines += ["  development: true"] if caller.authenticated_at == AT_EACH_CALL else []
    file.write_text("\n".join(lines) + "\n", encoding="ascii")
    file.chmod(0o600)
    return tokens


def _lists_of(caller: Caller) -> Sequence[tuple[str, frozenset[str] | None]]:
    bounds = caller.bounds
    return [(name, getattr(bounds, name)) for name in LISTS] if bounds is not None else []
