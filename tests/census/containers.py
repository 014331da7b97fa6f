"""Every container of a worker that outlives a call, the most memory that it may take, and what fills it.

Each is filled by its own code with the largest input that the limits admit. What callers and agents cannot grow is not
here: the bundle and what is parsed of it, callers, keys and settings.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cedarpy
from opentelemetry.sdk.resources import Resource

from pdp.app.server import App
from pdp.audit.index import AuditIndex
from pdp.cli.operate.init import prepare
from pdp.clock import Deadline, Instant
from pdp.config.settings import PolicySettings, ServerSettings, Settings
from pdp.decision.cache import DecisionCache, RequestMemory
from pdp.decision.expirynotices import ExpiryNotices
from pdp.decision.observers import Observers
from pdp.foundation.names import KINDS, Name
from pdp.foundation.quickcaches import SmallCache
from pdp.limits import DEFAULT_LIMITS
from pdp.model import Basis, CacheResult, Call, Caller, Decision, Outcome, TraceParent
from pdp.observer import Event, EventKind
from pdp.policy.budgets import BudgetMemory
from pdp.policy.directory import Directory, Entity
from pdp.policy.entities import EntityMemory, SessionContent, SessionEntities, SliceEntities
from pdp.policy.provenance import Provenances
from pdp.record import DecisionLog, SigningKey
from pdp.record.disk import Disk
from pdp.record.entry import Entries
from pdp.registry.outcomes import _MOST_RECORDED
from pdp.server.decisionmessages import DecisionMessages
from pdp.serving.refusals import MOST_KINDS, RefusalSums
from pdp.sessions.rows import row_of, session_of
from pdp.sessions.watching import RecentSessions
from pdp.telemetry.encoder import RecordEncoder, SpanEncoder
from pdp.telemetry.limits import AttributeLimits
from pdp.telemetry.metrics import Metrics
from pdp.telemetry.observer import Telemetry
from pdp.telemetry.pipeline import Pipeline, QueueSettings, Sent
from pdp.telemetry.wire import Source
from pdp.testing.decisions import a_decision
from pdp.testing.stores.samples import make_session
from pdp.v1 import decision_pb2

MIB = 1024 * 1024
KEY = b"k" * 32
NOW = Instant(wall_at=1000.0, boot_at=100.0, boot_id="boot-1")
FAR = Deadline.after(NOW, 1e6)
NO_PARENT = TraceParent()
# A character that takes four bytes in memory.
WIDE = "\U0001f600"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container: what it keeps, by what it is bounded, how many MiB it takes at most, and what fills it.

    `fill` returns what must live on for the container to be full.
    """

    keeps: str
    bound: str
    most: int
    fill: Callable[[Path], object]


def largest(number: int, **changes: Any) -> Decision:
    """Return a decision with the largest texts that an agent can put into one, each different."""
    own = f"{number:08}"
    texts: dict[str, Any] = {
        "id": f"dec_{own}",
        "tool": own + WIDE * 120,
        "tool_call_id": own + WIDE * (DEFAULT_LIMITS.text_characters - 8),
        "request_id": own * 16,
        "resource_id": own + WIDE * (DEFAULT_LIMITS.resource_id_characters - 8),
        "logged_arguments": tuple((f"argument_{name}", own + "x" * 500) for name in range(8)),
        "session_id": f"ses_{own}",
        "ancestor_ids": tuple(f"ses_{own}_{above}" for above in range(3)),
        "arguments_digest": f"sha256:{own * 8}",
        "trace_id": own * 4,
        "span_id": own * 2,
    }
    return a_decision(**(texts | changes))


def requests(_: Path) -> object:
    """Claim request ids for calls with the largest names and arguments."""
    memory = RequestMemory()
    for number in range(10_000):
        call = Call(session_handle="h", server="files", tool=WIDE * 6_000, arguments_json=b"x" * 1024)
        caller = Caller(id="gateway".ljust(128, "x"), kind="token", roles=frozenset())
        memory.claim(caller, f"{number:08}" * 16, call, f"dec_{number:010}".ljust(30), Outcome.ALLOW, NOW)
    return memory


def rulings(_: Path) -> object:
    """Remember rulings whose keys and texts are as long as they may be."""
    cache = DecisionCache()
    for number in range(65_536):
        decided = largest(number, server=WIDE * 128, opened_by=f"{number:08}".ljust(128, "x"))
        sessions = tuple((f"ses_{number}_{above}".ljust(30, "x"), 1) for above in range(4))
        texts = (f"{number:08}".encode() * 128, f"{number:07}-".encode() * 128)
        key = ("call", f"sha256:{number:064}", sessions, (1, 2), "gateway", "files", WIDE * 128, *texts)
        cache.put(key, decided.ruling, FAR, NOW, decided.matter)
    return cache


def entities(_: Path) -> object:
    """Parse the entities of sessions with as many labels as a session may have, and each for several actions."""
    memory, mark = EntityMemory(), object()
    schema = cedarpy.Schema.from_str("entity Session = { labels: Set<String> };")
    for number in range(4000):
        labels = [f"{number:04}-{label:04}".ljust(128, "x") for label in range(16)]
        one = {"uid": {"type": "Session", "id": str(number)}, "attrs": {"labels": labels}, "parents": []}
        known = SessionEntities.parsed({("Session", str(number)): one}, schema)
        handle = known.handle.with_added_json_str("[]")
        beside = SliceEntities(session=known, handle=handle, entities=dict(known.entities))
        # Each key holds texts of its own, as where a store reads a session again and again.
        content, again = (
            SessionContent.of(make_session(str(number), labels=tuple(labels), entities_json=json.dumps([one])), "")
            for _ in range(2)
        )
        memory.of_sessions.keep((mark, content), known)
        memory.of_actions.keep((mark, "files/read", again), beside)
    return memory


def budgets(_: Path) -> object:
    """Read the budgets of terms as long as they may be, and of short ones."""
    memory = BudgetMemory()
    for number in range(2000):
        filling = "x" * (DEFAULT_LIMITS.terms_bytes - 64) if number % 2 else ""
        memory.of(json.dumps({"filling": f"{number:06}{filling}", "max_calls": number}, separators=(",", ":")))
        groups = {f"max_calls_of_group_{group:03}": number for group in range(60)}
        memory.of(json.dumps(groups, separators=(",", ":")))
    return memory


def sessions(_: Path) -> object:
    """Read sessions with the longest purpose and as many labels as there may be."""
    recent = RecentSessions(100_000)
    for number in range(10_000):
        labels = tuple(f"{number:05}-{label:03}".ljust(128, "x") for label in range(64))
        purpose = f"{number:05}" + WIDE * (DEFAULT_LIMITS.text_characters - 5)
        session = make_session(f"{number:05}", purpose=purpose, labels=labels)
        recent.keep(session_of(str(row_of(session)["session_json"]), lambda _: None))  # type: ignore[arg-type, return-value]  # no scope
    return recent


def names_of_sessions(_: Path) -> object:
    """Look for targets of each kind in sessions with the longest purposes and terms."""
    found = Provenances((), Directory())
    # Seven of these fill what is kept.
    for number in range(16):
        targets = [f"{one:03}" for one in range(2500)]
        purpose = f"{number:05}" + WIDE * (DEFAULT_LIMITS.purpose_characters - 5)
        session = make_session(f"{number:05}", purpose=purpose, terms_json=json.dumps({"targets": targets}))
        for kind in KINDS:
            found._own_words((session,), (Name(kind, "e_1"),))
    return found


def names_that_users_know(_: Path) -> object:
    """Look for targets of each kind among what many users know: in each form it is another text."""
    # One list for all: the directory is the bundle's, and not counted here.
    attributes = {"contacts": [f"{one:03}" for one in range(2500)]}
    # Two of these fill what is kept.
    users = [("User", f"{number:05}") for number in range(6)]
    entities = {uid: Entity(uid=uid, json={"attrs": attributes}, refers_to=frozenset()) for uid in users}
    found = Provenances(("contacts",), Directory(entities=entities))
    for _kind, name in users:
        session = make_session(name, user=name)
        for kind in KINDS:
            found._own_words((session,), (Name(kind, "e_1"),))
    return found


def reported(_: Path) -> object:
    """Remember the calls that were reported, as `Outcomes` does."""
    ids: SmallCache[str, None] = SmallCache(_MOST_RECORDED)
    for number in range(2 * _MOST_RECORDED):
        ids.keep(f"dec_{number:026}", None)
    return ids


def notices(_: Path) -> object:
    """Notice the expiry of as many sessions as are remembered."""
    noticed = ExpiryNotices(Observers())
    for number in range(65_536):
        noticed.event(Event(kind=EventKind.SESSION_EXPIRED, at=1.0, session_id=f"ses_{number:026}"))
    return noticed


def late_records(folder: Path) -> object:
    """Let records wait for a disk that takes none."""
    log = DecisionLog(folder / "record", key=KEY, signer=SigningKey.generate(), disk=Disk())
    log._chain._disk = replace(Disk(), write=_full)
    for number in range(10_000):
        log.decision(largest(number), NO_PARENT)
    return log


def forms(_: Path) -> object:
    """Write records, spans and log records of remembered rulings with the longest texts."""
    entries, limits = Entries(KEY), AttributeLimits()
    encoders = SpanEncoder(KEY, limits), RecordEncoder(KEY, limits)
    for number in range(3000):
        entries.decision(largest(number, cache_result=CacheResult.HIT, recurs=True))
        for encode in encoders:
            # Of equal texts, so that parts that repeat are one each: these are kept with what waits to be sent.
            encode((largest(0, cache_result=CacheResult.HIT, recurs=True), NO_PARENT))
    return entries, encoders


def answers(_: Path) -> object:
    """Write answers by remembered rulings with the longest texts."""
    messages = DecisionMessages()
    for number in range(3000):
        messages.write(largest(number, cache_result=CacheResult.HIT, recurs=True), decision_pb2.Decision())
    return messages


def telemetry(_: Path) -> object:
    """Let decisions wait for a receiver that takes none, and learn as many parts as are remembered."""
    limits, stuck = AttributeLimits(), _Stuck()
    encoders = SpanEncoder(KEY, limits), RecordEncoder(KEY, limits)
    for number in range(4096):
        for encode in encoders:
            encode((largest(number, tool=f"{number:08}" + WIDE * 120), NO_PARENT))
    spans, records = (
        Pipeline("census", encode, Source(resource=b"", scope=b""), stuck, QueueSettings(delay=3600.0))
        for encode in encoders
    )
    metrics = Metrics(Resource.create({}), "1")
    shown = Telemetry(spans=spans.put, records=records.put, metrics=metrics)
    bases = [(outcome, basis, cache) for outcome in Outcome for basis in Basis for cache in CacheResult]
    for number in range(17_000):
        outcome, basis, cache = bases[number % len(bases)]
        parent = TraceParent(traceparent=f"00-{number:032x}-{number:016x}-01", tracestate="a=" + f"{number:08}" * 60)
        decision = largest(number, cache_result=cache, duration_us=2.0 ** (number % 20), outcome=outcome, basis=basis)
        shown.decision(decision, parent)
    # Until a batch of each is encoded ahead.
    for waiting in (spans, records) * 500:
        waiting.encode_ahead()
    return shown, stuck, metrics


def refusals(_: Path) -> object:
    """Sum up refusals of more kinds than are told apart."""
    sums = RefusalSums(Observers())
    for number in range(2 * (MOST_KINDS + 10)):
        facts = {"rpc": "r" * 64, "status": str(number // 2), "traceparent": "0" * 8000 + str(number)}
        sums.event(Event(kind=EventKind.REQUEST_REFUSED, at=1.0, caller_id=f"{number:0128}", facts=facts))
    return sums


def names(folder: Path) -> object:
    """Index names as long as a record holds them."""
    folder.mkdir(exist_ok=True)
    index = AuditIndex(folder, folder / "index.sqlite")
    for chunk in range(40):
        with index._lock, index._writing():
            index._numbers({f"{chunk:04}-{number:05}" + WIDE * 500 for number in range(1000)})
    return index


CONTAINERS = (
    Container(keeps="request ids and the digests of their calls", bound="10,000", most=12, fill=requests),
    Container(keeps="remembered answers", bound="64 MiB, `cache.size`", most=68, fill=rulings),
    Container(
        keeps="parsed entities of sessions", bound="16 MiB, and 32 MiB with those of an action", most=52, fill=entities
    ),
    Container(keeps="sessions last used", bound="48 MiB, 100,000", most=54, fill=sessions),
    Container(
        keeps="names in purposes and terms of sessions, and those that users know",
        bound="8 MiB and 10 MiB, 1,024 each",
        most=20,
        fill=lambda folder: (names_of_sessions(folder), names_that_users_know(folder)),
    ),
    Container(keeps="ids of calls that were reported", bound="10,000", most=2, fill=reported),
    Container(keeps="budgets of sessions", bound="1 MiB", most=2, fill=budgets),
    Container(keeps="ids of sessions that have expired", bound="65,536", most=12, fill=notices),
    Container(keeps="records that wait for the disk", bound="16 MiB, 10,000", most=20, fill=late_records),
    Container(
        keeps="forms of records, spans and log records of remembered answers",
        bound="8 MiB and twice 2 MiB, 2,048 of each",
        most=16,
        fill=forms,
    ),
    Container(keeps="what answers to equal calls have in common", bound="2 MiB, 2,048", most=4, fill=answers),
    Container(
        keeps="what waits to be sent as telemetry, and what repeats of it, encoded",
        bound="16,384 decisions, 8,192 parts; texts cut to 128 characters",
        most=92,
        fill=telemetry,
    ),
    Container(keeps="sums of refusals", bound="256 kinds, one event each", most=2, fill=refusals),
    Container(
        keeps="names and pages of the index of the record",
        bound="24 MiB of names, 24 MiB of pages",
        most=50,
        fill=names,
    ),
)


def _full(_: int, __: bytes) -> int:
    raise OSError(28, "no space left on device")


class _Stuck:
    """A receiver that takes nothing and never says so."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def send(self, _: bytes) -> Sent:
        """Wait for the end."""
        self.ended.wait()
        return Sent()

    def hurry(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """End the waiting."""
        self.ended.set()


def resident() -> int:
    """Return how many bytes of memory this process takes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def say(line: str) -> None:
    """Write a line for whoever started this."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(folder: Path) -> None:
    """Serve, fill one container after the other, and say of each how many bytes the process has grown by.

    When all are full, the server is asked once more.
    """
    settings = Settings(
        data_dir=str(folder / "data"),
        server=ServerSettings(address="127.0.0.1:0"),
        policies=PolicySettings(folder=str(Path(__file__).parents[2] / "policies"), watch=False),
    )
    prepare(settings, development=True)
    app, kept = App(settings), list[object]()
    app.start()
    say(f"before {resident()}")
    for place, container in enumerate(CONTAINERS):
        gc.collect()
        before = resident()
        kept.append(container.fill(folder / str(place)))
        gc.collect()
        say(f"{place} {resident() - before}")
    if not app.embedded.keeper.serves():
        raise AssertionError("the server does not serve")
    say(f"after {resident()}")
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
