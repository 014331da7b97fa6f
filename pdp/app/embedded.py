"""What decides, in this process: assembled without gRPC, SQLite and OpenTelemetry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdp.bundles.delivery import BundleSource
from pdp.bundles.keeper import BundleKeeper
from pdp.bundles.localsources import source_at
from pdp.bundles.peers import Peers
from pdp.bundles.replicas import Replicas
from pdp.bundles.signing import Trust
from pdp.clock import Clock, SystemClock, no_earlier
from pdp.decision.authorizer import Authorizer
from pdp.decision.cache import DecisionCache
from pdp.decision.expirynotices import ExpiryNotices
from pdp.decision.explainer import Explainer
from pdp.decision.ledger import Ledger
from pdp.decision.observers import Observers
from pdp.decision.snapshot import Snapshots
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.observer import Observer, TraceIds
from pdp.policy.child.process import run_once
from pdp.policy.loading import Compile
from pdp.registry.access import Approvals
from pdp.registry.calltokens import CallTokens
from pdp.registry.following import Following
from pdp.registry.freezing import Freezer
from pdp.registry.outcomes import Outcomes
from pdp.registry.reach import Reaching
from pdp.registry.registrar import Registrar
from pdp.sessions.history import MemorySessionHistory
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.store import SessionStore

_COMPILE_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """The PDP without a server.

    Ask `authorizer`, report with `outcomes`, get `call_tokens`, open sessions with `registrar`, answer access requests
    with `approvals`, freeze tenants with `freezer`, follow sessions with `following`, ask what can be reached
    with `reaching`, reload with `keeper`, explain with `explainer`.
    """

    authorizer: Authorizer
    registrar: Registrar
    keeper: BundleKeeper
    explainer: Explainer
    outcomes: Outcomes
    call_tokens: CallTokens
    approvals: Approvals
    freezer: Freezer
    following: Following
    reaching: Reaching
    sessions: SessionStore
    history: SessionHistory

    def close(self) -> None:
        """Release the stores."""
        self.sessions.close()
        self.history.close()


def open_embedded(
    policies: Path | str | BundleSource,
    *,
    sessions: SessionStore | None = None,
    history: SessionHistory | None = None,
    clock: Clock | None = None,
    observer: Observer | None = None,
    trace_ids: TraceIds | None = None,
    cache: DecisionCache | None = None,
    limits: Limits = DEFAULT_LIMITS,
    trusted_attributes: frozenset[str] = frozenset(),
    kept_seconds: float = math.inf,
    record_permits: Callable[[], bool] = lambda: True,
    compile_files: Compile | None = None,
    trust: Trust | None = None,
    never_older: bool = False,
    call_token_issuer: str = "",
    call_token_seconds: int = 15,
    peers: Peers | None = None,
    replicas: Replicas | None = None,
) -> Embedded:
    """Open a PDP in this process on a policy folder or a packed file.

    Without `sessions` and `history` it keeps both in memory. Raise `BundleError` when it holds no valid bundle. Threads
    that decide need a stack of 2 MiB or more.
    """
    store = sessions if sessions is not None else MemorySessionStore()
    time = clock or SystemClock()
    # Sessions of an earlier process can be in the store.
    begun_at = no_earlier(time.now(), store.high_water_at()).wall_at if sessions is not None else 0.0
    past = history if history is not None else MemorySessionHistory(begun_at=begun_at)
    watcher = ExpiryNotices(
        observer if isinstance(observer, Observers) else Observers(*([observer] if observer else []))
    )
    keeper = BundleKeeper(
        source=source_at(Path(policies), limits) if isinstance(policies, Path | str) else policies,
        compile_files=compile_files or compile_once(),
        history=store,
        clock=time,
        observer=watcher,
        limits=limits,
        trust=trust,
        never_older=never_older,
        peers=peers,
        replicas=replicas,
    )
    snapshots = Snapshots(sessions=store, bundle_for=keeper.bundle_for, current=keeper.current, clock=time)
    authorizer = Authorizer(
        snapshots=snapshots,
        ledger=Ledger(store, past, limits),
        history=past,
        observer=watcher,
        trace_ids=trace_ids,
        cache=cache,
        limits=limits,
    )
    registrar = Registrar(
        sessions=store,
        history=past,
        bundle=keeper.current,
        clock=time,
        observer=watcher,
        limits=limits,
        trusted_attributes=trusted_attributes,
        kept_seconds=kept_seconds,
        record_permits=record_permits,
    )
    approvals = Approvals(
        sessions=store,
        history=past,
        bundle=keeper.current,
        clock=time,
        observer=watcher,
        limits=limits,
        record_permits=record_permits,
    )
    outcomes = Outcomes(sessions=store, history=past, bundle=keeper.current, clock=time, observer=watcher)
    tokens = CallTokens(
        issuer=call_token_issuer,
        seconds=call_token_seconds,
        snapshots=snapshots,
        sessions=store,
        history=past,
        clock=time,
        observer=watcher,
    )
    explainer = Explainer(snapshots=snapshots, history=past, observer=watcher, limits=limits)
    if peers is not None:
        # Before the start: other workers that start wait for this one too.
        peers.begin(keeper.hear)
    if replicas is not None:
        replicas.begin(keeper.prepare)
    keeper.start(by="start")
    return Embedded(
        authorizer=authorizer,
        registrar=registrar,
        keeper=keeper,
        explainer=explainer,
        outcomes=outcomes,
        call_tokens=tokens,
        approvals=approvals,
        freezer=Freezer(sessions=store, clock=time, observer=watcher, record_permits=record_permits),
        following=Following(store, time),
        reaching=Reaching(snapshots, store),
        sessions=store,
        history=past,
    )


def compile_once() -> Compile:
    """Return a compiler that runs in a throw-away child process: policy text can crash its parser."""

    def compile_files(job: Mapping[str, Any]) -> dict[str, Any]:
        return run_once("compile", dict(job), timeout=_COMPILE_SECONDS)

    return compile_files
