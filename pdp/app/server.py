"""The server: what decides, with its record, telemetry, stores and listeners, built from the settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pdp.app.embedded import open_embedded
from pdp.app.record import open_record, record_key
from pdp.app.stores import open_history, open_store, watched_lease
from pdp.audit.completing import Completing
from pdp.audit.coverage import Coverage
from pdp.audit.noting import HeadNoter, signed
from pdp.audit.searchable import SERVER_BYTES, SearchableRecord
from pdp.audit.sharing import SharedCopies
from pdp.bundles.following import BundleFollower
from pdp.bundles.peers import Peers
from pdp.bundlesettings import sourcing_of, trust_of
from pdp.callersettings import Identity, tls_files_of
from pdp.clock import Clock, SystemClock, no_earlier
from pdp.config.settings import Settings
from pdp.decision.cache import DecisionCache
from pdp.decision.observers import Observers
from pdp.errors import ConfigurationError, PDPError
from pdp.foundation.repeating import Repeater
from pdp.messagesettings import sender_of
from pdp.observer import Event, Observer
from pdp.policy.child.process import PolicyChild
from pdp.record import DecisionLog, SigningKey
from pdp.record.segmentcheck import SegmentCheck
from pdp.registry.outcomes import REPORT_SECONDS
from pdp.server.links import Links
from pdp.server.service import PDPServer
from pdp.serving.listener import Listener
from pdp.serving.localtls import write_local_certificate
from pdp.serving.notices import Notices
from pdp.serving.refusals import SUM_SECONDS, RefusalSums
from pdp.sessions.fences import Fences
from pdp.sessions.heartbeat import Heartbeat
from pdp.sessions.historycontract import SessionHistory
from pdp.sessions.purging import Purge
from pdp.sessions.sharedclock import SharedClock
from pdp.sessions.store import SessionStore
from pdp.starting import heads_of, more_keys_of, require, telemetry_of
from pdp.telemetry.build import build_telemetry
from pdp.telemetry.observer import Telemetry

if TYPE_CHECKING:
    from pdp.sessions.postgresreplicas import PostgresReplicas

_LOG = logging.getLogger("pdp")

_EVALUATE_SECONDS = 30.0
_HEARTBEAT_SECONDS = 10.0
_PURGE_SECONDS = 60.0
_RENEW_SECONDS = 3600.0


class App:
    """The server with everything that it needs, built from its settings. `start` it, `wait`, and `stop` it.

    `worker` is the number of a worker that shares the port, from 1; 0 for a server with its own port. With `control` it
    is the process that serves the control address for all workers, numbered after them. `peers` are the others. Nothing
    listens before `start`. Raise `ConfigurationError`, `BundleError` or `StoreUnavailableError`.
    """

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
            holds_lease = watched_lease(settings, sessions, telemetry)
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

        # A connection of its own: a question waits for no note.
        noted = heads_of(settings)
        if noted is not None:
            self._opened.enter_context(closing(noted))
        return Coverage(noted.read if noted else None, *settings.record_folders, own=settings.record_folder)

    def _open_stores(
        self, settings: Settings, log: DecisionLog, clock: SharedClock, fences: Fences
    ) -> tuple[SessionStore, SessionHistory]:
        sessions = open_store(settings, log, clock, fences)
        self._opened.callback(sessions.close)
        self._complete_record(settings, log, sessions)
        history = open_history(settings, sessions, lambda: no_earlier(clock.now(), sessions.high_water_at()))
        self._opened.callback(history.close)
        return sessions, history

    def _complete_record(self, settings: Settings, log: DecisionLog, sessions: SessionStore) -> None:
        """Record what processes before this one were killed before they recorded, and go on with that."""
        if settings.sessions.store != "postgres":
            return
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
        notices = Notices(watchers)
        self._opened.callback(notices.close)
        sums = RefusalSums(notices, count=count)
        self._opened.callback(sums.flush)
        self._opened.enter_context(Repeater("refusals", sums.flush, every=SUM_SECONDS, at_once=False))
        return sums

    def _renew_certificate(self, folder: Path) -> None:

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
    tls = tls_files_of(settings)
    if not control:
        main = Listener(address=settings.server.address, tls=tls, plaintext=settings.server.plaintext)
        yield serve(main, share_port=worker > 0)
    if control or not worker:
        # A Unix socket needs no certificate: its folder identifies it.
        address = settings.control_address
        beside = None if address.startswith("unix:") else tls
        yield serve(Listener(address=address, tls=beside, plaintext=settings.server.plaintext), control=True)
