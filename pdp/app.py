"""Assembly: the only module that constructs the parts and connects them."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdp.bundles.delivery import BundleSource
from pdp.bundles.following import BundleFollower
from pdp.bundles.keeper import BundleKeeper
from pdp.bundles.localsources import source_at
from pdp.bundles.peers import Peers
from pdp.bundles.replicas import Replicas
from pdp.bundles.signing import Trust
from pdp.clock import Clock, Instant, SystemClock, no_earlier
from pdp.decision.authorizer import Authorizer
from pdp.decision.cache import DecisionCache
from pdp.decision.expirynotices import ExpiryNotices
from pdp.decision.explainer import Explainer
from pdp.decision.ledger import Ledger
from pdp.decision.observers import Observers
from pdp.decision.snapshot import Snapshots
from pdp.errors import ConfigurationError, PDPError, StoreUnavailableError, reason_of
from pdp.foundation.ownership import require_own
from pdp.foundation.repeating import Repeater
from pdp.limits import DEFAULT_LIMITS, Limits
from pdp.observer import Event, Observer, TraceIds
from pdp.policy.bundle import Compile
from pdp.policy.child.process import PolicyChild, run_once
from pdp.registry.access import Approvals
from pdp.registry.calltokens import CallTokens
from pdp.registry.following import Following
from pdp.registry.freezing import Freezer
from pdp.registry.outcomes import REPORT_SECONDS, Outcomes
from pdp.registry.reach import Reaching
from pdp.registry.registrar import Registrar
from pdp.sessions.fences import Fences
from pdp.sessions.heartbeat import Heartbeat
from pdp.sessions.history import MemorySessionHistory, ReopeningHistory
from pdp.sessions.memory import MemorySessionStore
from pdp.sessions.purging import Purge
from pdp.sessions.sharedclock import SharedClock
from pdp.sessions.store import SessionHistory, SessionStore

if TYPE_CHECKING:
    from pdp.audit.coverage import Coverage
    from pdp.config import Settings
    from pdp.record import DecisionLog
    from pdp.server.service import PDPServer
    from pdp.sessions.notedheads import NotedHeads
    from pdp.sessions.postgres import PostgresSessionStore
    from pdp.sessions.postgresreplicas import PostgresReplicas
    from pdp.sessions.sqlite import SQLiteSessionStore
    from pdp.telemetry.observer import Telemetry
    from pdp.workers.port import SharedPort
    from pdp.workers.supervisor import Supervisor

_LOG = logging.getLogger("pdp")

_COMPILE_SECONDS = 120.0
_EVALUATE_SECONDS = 30.0
_HEARTBEAT_SECONDS = 10.0
_PURGE_SECONDS = 60.0
_RENEW_SECONDS = 3600.0
# How long a change of a session waits for other writers.
_BUSY_SECONDS = 5.0
# And what a call changes: each waits for it.
_HISTORY_BUSY_SECONDS = 1.0

# `-P`: nothing is imported from the working directory.
_WORKER = (sys.executable, "-P", "-m", "pdp.cli.operate.worker")


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


class App:
    """The server with everything that it needs, built from its settings. `start` it, `wait`, and `stop` it."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        observer: Observer | None = None,
        worker: int = 0,
        control: bool = False,
        peers: Peers | None = None,
    ) -> None:
        # Embedded use must not import gRPC, SQLite and OpenTelemetry.
        from pdp.audit.searchable import SERVER_BYTES, SearchableRecord  # noqa: PLC0415 - see above
        from pdp.bundlesettings import sourcing_of, trust_of  # noqa: PLC0415 - see above
        from pdp.callersettings import Identity  # noqa: PLC0415 - see above
        from pdp.record.segmentcheck import SegmentCheck  # noqa: PLC0415 - see above
        from pdp.server.links import Links  # noqa: PLC0415 - see above
        from pdp.server.service import PDPServer  # noqa: PLC0415 - see above
        from pdp.starting import more_keys_of, require, telemetry_of  # noqa: PLC0415 - see above
        from pdp.telemetry.build import build_telemetry  # noqa: PLC0415 - see above

        require(settings, port_held=worker > 0)
        key = record_key(settings)
        time = SharedClock(clock or SystemClock())
        self._opened, self._peers = ExitStack(), peers
        try:
            telemetry = build_telemetry(
                telemetry_of(settings), digest_key=key, worker=worker, scraped=settings.telemetry.scraped
            )
            self._opened.callback(telemetry.shutdown)
            log, record_healthy = self._open_record(settings, key, time, telemetry)
            log.start()
            telemetry.watch_record(log.status)
            # In this order: a decision that cannot be recorded becomes a deny, and the trace shows the final answer.
            watchers = Observers(telemetry, *([observer] if observer else []), record=log)
            fences = Fences(telemetry.fenced)
            sessions, history = self._open_stores(settings, log, time, fences)
            telemetry.watch_sessions(sessions.count_by_state)
            telemetry.watch_freezes(lambda: len(sessions.freezes()))
            holds_lease = _watched_lease(settings, sessions, telemetry)
            self._replicas = self._open_replicas(settings, worker, sessions)
            self._sourcing = sourcing = sourcing_of(settings)
            self.embedded = open_embedded(
                sourcing.source,
                sessions=sessions,
                history=history,
                clock=time,
                observer=watchers,
                trace_ids=telemetry.trace_ids,
                cache=DecisionCache(size=settings.cache.size, max_ttl=settings.cache.max_ttl),
                limits=settings.limits,
                trusted_attributes=frozenset(settings.sessions.trusted_attributes),
                kept_seconds=settings.sessions.keep_ended_seconds,
                record_permits=lambda: log.permits,
                trust=trust_of(settings),
                never_older=settings.policies.never_older,
                call_token_issuer=settings.call_tokens.issuer,
                call_token_seconds=settings.call_tokens.seconds,
                peers=peers,
                replicas=self._replicas,
            )
            telemetry.watch_bundle(self.embedded.keeper.running_version)
            follower = BundleFollower(self.embedded.keeper, sourcing.name)
            follower.began()
            self._identity = Identity(settings, time)
            self._opened.callback(self._identity.close)
            evaluator = PolicyChild(timeout=_EVALUATE_SECONDS)
            self._opened.callback(evaluator.close)
            searchable = SearchableRecord(
                settings.record_folder,
                shared=settings.record_shared,
                index_file=settings.record_index,
                most_bytes=SERVER_BYTES,
                # Store, record and index can share a disk.
                keep_bytes=settings.record.reserve_bytes + settings.sessions.reserve_bytes,
            )
            self._opened.callback(searchable.close)
            heartbeat = Heartbeat(lambda: sessions.touch(wall_at=time.now().wall_at), every=_HEARTBEAT_SECONDS)
            serve = partial(
                PDPServer,
                authorizer=self.embedded.authorizer,
                registrar=self.embedded.registrar,
                outcomes=self.embedded.outcomes,
                call_tokens=self.embedded.call_tokens,
                approvals=self.embedded.approvals,
                freezer=self.embedded.freezer,
                following=self.embedded.following,
                reaching=self.embedded.reaching,
                keeper=self.embedded.keeper,
                evaluator=evaluator,
                explainer=self.embedded.explainer,
                searchable=searchable,
                segment_check=SegmentCheck(
                    log.folder, log.public_keys | more_keys_of(settings), shared=settings.record_shared
                ),
                coverage=self._coverage(settings),
                authenticator=self._identity.authenticator,
                observer=self._sums(watchers, telemetry.refused),
                clock=time,
                healthy=lambda: log.permits and self.embedded.keeper.serves() and holds_lease(),
                record_healthy=record_healthy,
                store_healthy=heartbeat.writable,
                limits=settings.limits,
                links=Links(settings.server.console_url),
                fences=fences,
                transport=settings.server.listener,
                answers_left=telemetry.encode_ahead,
                reflection=settings.server.reflection,
                call_threads=settings.server.threads,
            )
            self._servers = tuple(_servers(settings, serve, worker=worker, control=control))
            # One of several workers watches, and notifies the others; when it ends, its replacement watches.
            if settings.policies.watch and worker <= 1:
                self._opened.enter_context(sourcing.watch(follower.follow))
            self._opened.enter_context(heartbeat)
            if settings.makes_certificate and worker <= 1:
                self._renew_certificate(Path(settings.data_dir))
            if not control:
                self._send_messages(settings, time, telemetry)
                self._purge(
                    Purge(
                        sessions,
                        history,
                        time,
                        keep_ended_seconds=settings.sessions.keep_ended_seconds,
                        # A retry of a decision has its id, and a token of its own.
                        keep_reports_seconds=2 * REPORT_SECONDS,
                    )
                )
        except BaseException:
            self._opened.close()
            raise

    @property
    def address(self) -> str:
        """Return the address to connect to, with the actual port."""
        return self._servers[0].address

    @property
    def control_address(self) -> str:
        """Return the address for ending authority alone, if this process serves it."""
        return self._servers[-1].address

    def start(self) -> int:
        """Listen and serve; return the port. Raise `ConfigurationError` when it cannot listen."""
        try:
            self._identity.start()
            # Another worker can have activated a bundle while this one was being built.
            self.embedded.keeper.catch_up()
            for server in self._servers:
                server.start()
        except BaseException:
            for server in self._servers:
                server.stop()
            self._opened.close()
            raise
        return self._servers[0].port

    def reload_callers(self) -> None:
        """Read the file of callers again; when it is invalid, keep the present callers."""
        try:
            count = self._identity.reload_callers()
        except ConfigurationError as error:
            _LOG.error("the callers could not be read again and stay as they were: %s", error)
        else:
            _LOG.info("the file of callers was read again; callers: %d", count)

    def takes_calls(self) -> bool:
        """Say whether calls are taken; False while something blocks them all. Never waits."""
        return all(server.takes_calls() for server in self._servers)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped; return False after `timeout` seconds."""
        return self._servers[0].wait(timeout)

    def stop(self, grace: float = 5.0) -> None:
        """Take no new calls, give open ones `grace` seconds, and release everything."""
        # Do not wait for a source that stalls, or for other workers and servers, which may stop as well.
        self._sourcing.close()
        if self._peers is not None:
            self._peers.close()
        if self._replicas is not None:
            self._replicas.close()
        # Authority can be ended while calls are answered.
        for server in self._servers:
            server.stop(grace)
        self._opened.close()

    def _open_record(
        self, settings: Settings, key: bytes, clock: Clock, telemetry: Telemetry
    ) -> tuple[DecisionLog, Callable[[], bool]]:
        """Open the decision log; return it, and what says whether it is kept as the settings want."""
        from pdp.audit.noting import HeadNoter, signed  # noqa: PLC0415 - embedded use has no need of it
        from pdp.audit.sharing import SharedCopies  # noqa: PLC0415 - see above
        from pdp.record import SigningKey  # noqa: PLC0415 - see above
        from pdp.starting import heads_of  # noqa: PLC0415 - see above

        heads = heads_of(settings)
        if heads is None:
            log = open_record(settings, key=key, clock=clock, on_failure=telemetry.record_failed)
            self._opened.callback(log.close)
            return log, lambda: log.healthy
        self._opened.enter_context(closing(heads))
        heads.prepare()
        noted = heads.read()
        log = open_record(settings, key=key, clock=clock, on_failure=telemetry.record_failed, noted=noted)
        signer = SigningKey.load(settings.record_signing_key)
        noter = HeadNoter(
            heads,
            reached=lambda: log.reached,
            sign=lambda head: signed(head, noted.deployment, signer),
            replica=settings.replica,
            clock=clock,
            every=settings.record.checkpoint_seconds,
            folder=log.folder,
            anchors=settings.record_anchors,
            on_failure=telemetry.head_failed,
            copies=SharedCopies(log.folder, settings.record_shared) if settings.record_shared else None,
        )
        # Before a call is answered, and not at the first checkpoint that is due.
        log.tick()
        noter.announce()
        # Ended after the log, so that it notes the end of the chain.
        self._opened.enter_context(noter)
        self._opened.callback(log.close)
        return log, lambda: log.healthy and not noter.problem

    def _coverage(self, settings: Settings) -> Coverage:
        from pdp.audit.coverage import Coverage  # noqa: PLC0415 - embedded use has no need of it
        from pdp.starting import heads_of  # noqa: PLC0415 - see above

        # A connection of its own: a question waits for no note.
        noted = heads_of(settings)
        if noted is not None:
            self._opened.enter_context(closing(noted))
        return Coverage(noted.read if noted else None, *settings.record_folders, own=settings.record_folder)

    def _open_stores(
        self, settings: Settings, log: DecisionLog, clock: SharedClock, fences: Fences
    ) -> tuple[SessionStore, SessionHistory]:
        sessions = _open_store(settings, log, clock, fences)
        self._opened.callback(sessions.close)
        self._complete_record(settings, log, sessions)
        history = _open_history(settings, sessions, lambda: no_earlier(clock.now(), sessions.high_water_at()))
        self._opened.callback(history.close)
        return sessions, history

    def _complete_record(self, settings: Settings, log: DecisionLog, sessions: SessionStore) -> None:
        """Record what processes before this one were killed before they recorded, and go on with that."""
        if settings.sessions.store != "postgres":
            return
        from pdp.audit.completing import Completing  # noqa: PLC0415 - embedded use has no need of it
        from pdp.sessions.postgres import PostgresSessionStore  # noqa: PLC0415 - an extra brings its driver

        assert isinstance(sessions, PostgresSessionStore)  # noqa: S101 - the settings say so
        completing = Completing(sessions.unrecorded, log, every=settings.record.checkpoint_seconds)
        # Before anything is answered: whoever asks what has become of a change finds it recorded.
        completing.turn()
        self._opened.enter_context(completing)

    def _open_replicas(self, settings: Settings, worker: int, sessions: SessionStore) -> PostgresReplicas | None:
        """Return the other servers on the same database; None where there can be none."""
        if settings.sessions.store != "postgres":
            return None
        from pdp.postgressettings import replicas_of  # noqa: PLC0415 - an extra brings its driver

        replicas = replicas_of(settings, sessions, worker)
        self._opened.callback(replicas.close)
        return replicas

    def _send_messages(self, settings: Settings, clock: Clock, telemetry: Telemetry) -> None:
        if not settings.tells:
            return
        from pdp.messagesettings import sender_of  # noqa: PLC0415 - embedded use has no need of it

        sender = sender_of(
            settings,
            sessions=self.embedded.sessions,
            history=self.embedded.history,
            clock=clock,
            on_attempt=telemetry.message_tried,
        )
        telemetry.watch_messages(sender.standings)
        self._opened.enter_context(sender)

    def _sums(self, watchers: Observer, count: Callable[[Event], None]) -> Observer:
        """Return the observer of requests: it sums up refusals, and never waits."""
        from pdp.serving.notices import Notices  # noqa: PLC0415 - of no concern to embedded use
        from pdp.serving.refusals import SUM_SECONDS, RefusalSums  # noqa: PLC0415 - the same

        notices = Notices(watchers)
        self._opened.callback(notices.close)
        sums = RefusalSums(notices, count=count)
        self._opened.callback(sums.flush)
        self._opened.enter_context(Repeater("refusals", sums.flush, every=SUM_SECONDS, at_once=False))
        return sums

    def _renew_certificate(self, folder: Path) -> None:
        from pdp.serving.localtls import write_local_certificate  # noqa: PLC0415 - embedded use has no need of it

        # The machine's own clock, against which clients check the certificate.
        clock = SystemClock()

        def renew() -> None:
            try:
                write_local_certificate(folder, now=clock.now().wall_at)
            except ConfigurationError as error:
                _LOG.error("the certificate could not be renewed: %s", error)

        self._opened.enter_context(Repeater("certificate", renew, every=_RENEW_SECONDS))

    def _purge(self, purge: Purge) -> None:
        def sweep() -> None:
            self._finish_revocations()
            try:
                removed = purge.run(sweeper.pause)
            except PDPError as error:
                _LOG.error("sessions that are over could not be removed: %s", error)
            else:
                if removed:
                    _LOG.info("removed %d sessions that have been over for a long time", removed)

        sweeper = Repeater("purge", sweep, every=_PURGE_SECONDS)
        self._opened.enter_context(sweeper)

    def _finish_revocations(self) -> None:
        try:
            finished = self.embedded.registrar.finish_revocations()
        except PDPError as error:
            _LOG.error("a revocation that a process had begun could not be finished: %s", error)
        else:
            if finished:
                _LOG.warning("revoked %d sessions whose revocation a process had begun, and not finished", finished)


def _servers(settings: Settings, serve: Callable[..., PDPServer], *, worker: int, control: bool) -> Iterator[PDPServer]:
    """Yield the servers of one process: for calls, and for ending authority, alone or together."""
    from pdp.callersettings import tls_files_of  # noqa: PLC0415 - of no concern to embedded use
    from pdp.serving.listener import Listener  # noqa: PLC0415 - the same

    tls = tls_files_of(settings)
    if not control:
        main = Listener(address=settings.server.address, tls=tls, plaintext=settings.server.plaintext)
        yield serve(main, share_port=worker > 0)
    if control or not worker:
        # A Unix socket needs no certificate: its folder identifies it.
        address = settings.control_address
        beside = None if address.startswith("unix:") else tls
        yield serve(Listener(address=address, tls=beside, plaintext=settings.server.plaintext), control=True)


def build(
    settings: Settings,
    *,
    clock: Clock | None = None,
    observer: Observer | None = None,
    worker: int = 0,
    control: bool = False,
    peers: Peers | None = None,
) -> App:
    """Build the server from its settings; nothing listens before `App.start`.

    `worker` is the number of a worker that shares the port, from 1; 0 for a server with its own port. With `control` it
    is the process that serves the control address for all workers, numbered after them. `peers` are the others. Raise
    `ConfigurationError`, `BundleError` or `StoreUnavailableError`.
    """
    return App(settings, clock=clock, observer=observer, worker=worker, control=control, peers=peers)


def supervise(settings: Settings, *, count: int) -> Supervisor:
    """Build the supervisor of `count` server processes on one port. None runs before `Supervisor.start`.

    Raise `ConfigurationError` when the port is not available.
    """
    from pdp.workers.cores import bound, core_of, usable_cores  # noqa: PLC0415 - of no concern to one server
    from pdp.workers.process import Job, WorkerProcess  # noqa: PLC0415 - see above
    from pdp.workers.supervisor import Supervisor  # noqa: PLC0415 - see above

    port = _held("server.address", settings.server.address)
    control_address = settings.control_address
    if not control_address.startswith("unix:"):
        # One process listens there alone; check now whether it can.
        _held("server.control_address", control_address).close()
    server = replace(settings.server, address=port.address, control_address=control_address)
    shared = replace(settings, server=server)
    cores, most = usable_cores(), bound()

    def spawn(number: int) -> WorkerProcess:
        control = number > count
        core = None if control else core_of(number, cores, most)
        job = Job(settings=shared, number=number, core=core, control=control)
        return WorkerProcess(_WORKER, job.written())

    return Supervisor(spawn, count=count, port=port, control=True)


def _held(setting: str, address: str) -> SharedPort:
    from pdp.workers.port import SharedPort  # noqa: PLC0415 - of no concern to one server

    try:
        return SharedPort(address)
    except ConfigurationError as error:
        raise ConfigurationError(f"`{setting}`: {error}") from None


def record_key(settings: Settings) -> bytes:
    """Return the deployment's key for digests in logs and traces. Raise `ConfigurationError` when missing."""
    path = settings.record_digest_key
    try:
        require_own(path, "anyone could choose the key of digests")
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigurationError(f"there is no `{path}`; run `pdp init`") from None
    except OSError as error:
        raise ConfigurationError(f"cannot read `{path}`: {reason_of(error)}") from None


def open_record(
    settings: Settings,
    *,
    key: bytes,
    clock: Clock,
    on_failure: Callable[[], None] | None = None,
    noted: NotedHeads | None = None,
) -> DecisionLog:
    """Open the decision log of a deployment; `noted` is what servers have noted in the database that they share.

    Raise `ConfigurationError` when it cannot be written.
    """
    from pdp.record import DecisionLog, Rotation, SigningKey  # noqa: PLC0415 - embedded use has no need of it
    from pdp.record.segments import Head  # noqa: PLC0415 - the same

    return DecisionLog(
        settings.record_folder,
        key=key,
        signer=SigningKey.load(settings.record_signing_key),
        clock=clock,
        durability=settings.record.durability,
        rotation=Rotation(bytes=settings.record.segment_bytes, seconds=settings.record.segment_seconds),
        reserve_bytes=settings.record.reserve_bytes,
        checkpoint_seconds=settings.record.checkpoint_seconds,
        anchors=settings.record_anchors,
        elsewhere={one.chain: Head(one.seq, one.hash) for one in noted.heads} if noted else {},
        origin={"deployment": noted.deployment, "replica": settings.replica} if noted else {},
        attributes=frozenset(settings.record.attributes),
        terms=frozenset(settings.record.terms),
        on_failure=on_failure,
    )


def _open_history(settings: Settings, sessions: SessionStore, now: Callable[[], Instant]) -> SessionHistory:
    # Also in a control process: there too people refuse calls, and take approvals back.
    if settings.sessions.store == "memory":
        return MemorySessionHistory(tells=settings.tells)

    def reopen() -> SessionHistory:
        if settings.sessions.store == "postgres":
            from pdp.sessions.postgres import PostgresSessionStore  # noqa: PLC0415 - an extra brings its driver
            from pdp.sessions.postgreshistory import PostgresSessionHistory  # noqa: PLC0415 - see above
            from pdp.starting import postgres_of  # noqa: PLC0415 - see above

            return PostgresSessionHistory(
                postgres_of(settings),
                busy_seconds=_HISTORY_BUSY_SECONDS,
                tells=settings.tells,
                wall_at=lambda: now().wall_at,
                beside=sessions if isinstance(sessions, PostgresSessionStore) else None,
            )
        from pdp.sessions.sqlitehistory import SQLiteSessionHistory  # noqa: PLC0415 - embedded use may not need it

        return SQLiteSessionHistory(
            settings.history_file,
            busy_seconds=_HISTORY_BUSY_SECONDS,
            reserve_bytes=settings.sessions.reserve_bytes,
            tells=settings.tells,
            wall_at=lambda: now().wall_at,
        )

    def failed(error: StoreUnavailableError) -> None:
        _LOG.error("calls cannot be reported, and those with a budget are denied: %s", error)

    return ReopeningHistory(reopen, on_failure=failed)


def _open_store(settings: Settings, log: DecisionLog, clock: SharedClock, fences: Fences) -> SessionStore:
    if settings.sessions.store == "memory":
        return MemorySessionStore(bundles_kept=settings.policies.kept, tells=settings.tells)
    store: PostgresSessionStore | SQLiteSessionStore
    if settings.sessions.store == "postgres":
        from pdp.postgressettings import open_postgres  # noqa: PLC0415 - an extra brings its driver

        store = open_postgres(settings, log, clock, fences, busy_seconds=_BUSY_SECONDS)
    else:
        store = _open_sqlite(settings, log)
    log.watch_store(store.acknowledged)
    return store


def _watched_lease(settings: Settings, sessions: SessionStore, telemetry: Telemetry) -> Callable[[], bool]:
    """Return what says whether this machine has its lease, which telemetry reports; True where it needs none."""
    if not settings.sessions.lease_seconds:
        return lambda: True
    from pdp.sessions.postgres import PostgresSessionStore  # noqa: PLC0415 - an extra brings its driver

    lease = sessions.lease_standing if isinstance(sessions, PostgresSessionStore) else None
    if lease is None:
        return lambda: True
    telemetry.watch_lease(lease.age)
    return lease.held


def _open_sqlite(settings: Settings, log: DecisionLog) -> SQLiteSessionStore:
    from pdp.sessions.sqlite import SQLiteSessionStore  # noqa: PLC0415 - embedded use may have no need of it

    return SQLiteSessionStore(
        settings.sessions_file,
        bundles_kept=settings.policies.kept,
        reserve_bytes=settings.sessions.reserve_bytes,
        tells=settings.tells,
        busy_seconds=_BUSY_SECONDS,
        known_revision=log.store_revision,
    )
