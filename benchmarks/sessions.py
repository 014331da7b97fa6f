"""Measure a store of 100,000 live sessions beside one of ten, the control: `python -m benchmarks.sessions`.

How long a server takes to start, what a call costs, what a session keeps in memory, and how long others wait while many
sessions are changed at once. A call's cost is CPU time: of the calling thread, in process without tracing and record,
and of the whole server process with everything on. Every answer is checked.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import statistics
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from secrets import token_urlsafe

import apsw
import grpc

from pdp.app.embedded import Embedded, open_embedded
from pdp.bench.processes import cores, cpu_seconds
from pdp.bench.receiver import receiving
from pdp.bench.servers import serving
from pdp.client import Client
from pdp.clock import SystemClock
from pdp.foundation.ids import handle_digest
from pdp.model import Call, Caller, CallRequest, Role
from pdp.registry.words import SessionRequest
from pdp.sessions import lifecycle
from pdp.sessions.rows import row_of
from pdp.sessions.sqlite import SQLiteSessionStore
from pdp.sessions.values import SessionFilter
from pdp.testing.bundles import bundle_files, compile_here, tool
from pdp.testing.inprocess import write_folder
from pdp.v1 import authorization_pb2, decision_pb2

_FEW = 10
_USERS = 1_000
# The number of sessions with calls in one round; each has its entities parsed, at most 4,096 at a time.
_CALLED = 1_000
_CALLS = 8_000
_PROPERTIES = {"item": {"type": "string"}}
_NO_TELEMETRY = {"OTEL_SDK_DISABLED": "true"}
_PEP = Caller(id="pep", kind="embedded", roles=frozenset({Role.PEP}))
_APPROVER = Caller(id="approver", kind="embedded", roles=frozenset({Role.APPROVER}))


class Deployment:
    """A folder with policies and a store of live sessions, of a thousand users; `handles` are theirs."""

    def __init__(self, folder: Path, sessions: int) -> None:
        self.name = f"{sessions} sessions"
        self.policies, self.data = folder / "policies", folder / "data"
        self.handles = [token_urlsafe(32) for _ in range(sessions)]
        self.write()
        # A first start creates keys, tokens and store, and activates the bundle.
        with self.server(_NO_TELEMETRY):
            pass
        self._fill()

    @property
    def store(self) -> Path:
        """Return the file of the store."""
        return self.data / "sessions.sqlite"

    def write(self, *, teams: str = "a", more: str = "") -> None:
        """Write the policies; the directory states the team of each user."""
        write_folder(self.policies, _files(teams, more))

    @property
    def token(self) -> str:
        """Return the token of the caller that asks."""
        return (self.data / "tokens" / "pep.token").read_text(encoding="ascii").strip()

    @contextmanager
    def server(self, telemetry: Mapping[str, str]) -> Iterator[tuple[str, int]]:
        """Run the server on the first core while the `with` block runs; yield its address and process."""
        one = "--server-workers=1"
        with serving(self.data, self.policies, one, core=cores()[0], environment=telemetry) as server:
            yield server

    @contextmanager
    def embedded(self) -> Iterator[Embedded]:
        """Open the PDP in this process while the `with` block runs."""
        pdp = open_embedded(self.policies, sessions=SQLiteSessionStore(self.store), compile_files=compile_here)
        with closing(pdp):
            yield pdp

    def _fill(self) -> None:
        # One is opened as usual; the others are written as copies of it, in one transaction.
        with self.embedded() as pdp:
            wanted = SessionRequest(user="user0", agent="worker", purpose="benchmark", tool_patterns=("bench/*",))
            view, _ = pdp.registrar.request(wanted, _PEP)
            pdp.registrar.approve(view.session.id, request_digest=view.request_digest, grants=(), caller=_APPROVER)
            first, known = pdp.sessions.get(view.session.id)[0], pdp.keeper.current().directory
            users = {user: known.capture(user, "worker") or "" for user in (f"user{n}" for n in range(_USERS))}
        with closing(apsw.Connection(str(self.store))) as connection, connection:
            for number, handle in enumerate(self.handles):
                user = f"user{number % _USERS}"
                session = replace(
                    first,
                    id=f"ses_{number:026}",
                    handle_digest=handle_digest(handle),
                    user=user,
                    entities_json=users[user],
                    requested_at=first.requested_at + number / 1000,
                )
                row = row_of(session)
                names = ", ".join(f":{name}" for name in row)
                connection.execute(f"INSERT INTO sessions ({', '.join(row)}) VALUES ({names})", row)  # noqa: S608 - ours


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=100_000, help="live sessions of the large store")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is repeated, in turns")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pdp-bench-") as folder:
        both = [Deployment(Path(folder) / str(sessions), sessions) for sessions in (_FEW, chosen.sessions)]
        _print_starts(both, chosen.rounds)
        _print_memory(both[1])
        _print_calls(both, chosen.rounds)
        _print_served(both, chosen.rounds)
        _print_changes(both[1])
    return 0


def _print_starts(both: Sequence[Deployment], rounds: int) -> None:
    """Time a start, from the command to the first right answer: the clock and its CPU."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for one in both:
            started = time.perf_counter()
            with (
                one.server(_NO_TELEMETRY) as (address, pid),
                Client(address, token=one.token, timeout=60, plaintext=True) as client,
            ):
                if not client.authorize(one.handles[-1], "bench", "read_item", {"item": "x"}).allowed:
                    raise SystemExit("an answer is wrong")
                took = time.perf_counter() - started, _cpu_with_children(pid)
                found.setdefault(one.name, []).append(took)
    print("| stored | start to the first right answer, s | CPU s |\n|---|---|---|")
    for name, times in found.items():
        print(
            f"| {name} | "
            + " | ".join(f"{statistics.median(column):.2f}" for column in zip(*times, strict=True))
            + " |"
        )


def _print_memory(one: Deployment) -> None:
    """Read every session once, print the memory of each; repeat with `tracemalloc`."""
    digests = [handle_digest(handle) for handle in one.handles]

    def open_and_view() -> SQLiteSessionStore:
        store = SQLiteSessionStore(one.store, sessions_kept=len(digests))
        for digest in digests:
            store.view(digest)
        gc.collect()
        return store

    gc.collect()
    before = _resident_bytes()
    with closing(open_and_view()):
        resident = _resident_bytes() - before
    tracemalloc.start()
    with closing(open_and_view()):
        traced = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    print(f"\n| a session that was read once | bytes |\n|---|---|\n| resident | {resident / len(digests):.0f} |")
    print(f"| allocated by the interpreter | {traced / len(digests):.0f} |")


def _print_calls(both: Sequence[Deployment], rounds: int) -> None:
    """Time calls: of the ten sessions, and of sessions drawn from all."""
    random, fresh = Random(1), count()  # noqa: S311 - a load, not a secret
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for one in both:
            called = random.sample(one.handles, min(_CALLED, len(one.handles)))
            with one.embedded() as pdp:
                ask = partial(_ask, pdp)
                found.setdefault((one.name, "first call"), []).append(_microseconds(ask, [(h, "x") for h in called]))
                hits = [(random.choice(called), "x") for _ in range(_CALLS)]
                misses = [(random.choice(called), str(next(fresh))) for _ in range(_CALLS)]
                found.setdefault((one.name, "hit"), []).append(_microseconds(ask, hits))
                found.setdefault((one.name, "miss"), []).append(_microseconds(ask, misses))
    _print_pairs("in process, µs", both, found, ("first call", "hit", "miss"))


def _print_served(both: Sequence[Deployment], rounds: int) -> None:
    """Time calls over loopback, with everything on."""
    random, fresh = Random(2), count()  # noqa: S311 - a load, not a secret
    found: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as opened:
        telemetry = {"OTEL_EXPORTER_OTLP_ENDPOINT": opened.enter_context(receiving("take"))}
        servers = [(one, *opened.enter_context(one.server(telemetry))) for one in both]
        for _ in range(rounds):
            for one, address, pid in servers:
                called = random.sample(one.handles, min(_CALLED, len(one.handles)))
                hits = [(random.choice(called), "x") for _ in range(_CALLS)]
                misses = [(random.choice(called), f"served-{next(fresh)}") for _ in range(_CALLS)]
                for what, questions in (("", [(h, "x") for h in called]), ("hit", hits), ("miss", misses)):
                    before = cpu_seconds(pid)
                    asyncio.run(_ask_server(address, one.token, questions))
                    found.setdefault((one.name, what), []).append((cpu_seconds(pid) - before) / len(questions) * 1e6)
    _print_pairs("served, everything on, µs", both, found, ("hit", "miss"))


async def _ask_server(address: str, token: str, questions: Sequence[tuple[str, str]]) -> None:
    """Ask a server, sixteen questions at a time."""
    pending = iter(questions)
    async with grpc.aio.insecure_channel(address) as channel:
        authorize = channel.unary_unary("/pdp.v1.AuthorizationService/Authorize")

        async def work() -> None:
            for handle, item in pending:
                arguments = b'{"item": "%s"}' % item.encode()
                call = decision_pb2.Call(
                    session_handle=handle, server="bench", tool="read_item", arguments_json=arguments
                )
                wire = authorization_pb2.AuthorizeRequest(call=call).SerializeToString()
                while True:
                    try:
                        answer = await authorize(wire, metadata=(("authorization", f"Bearer {token}"),))
                        break
                    except grpc.aio.AioRpcError as error:
                        # On a machine that is busy with other work a call may have to be repeated.
                        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                            raise
                decision = authorization_pb2.AuthorizeResponse.FromString(answer).decision
                if decision.outcome != decision_pb2.OUTCOME_ALLOW:
                    raise SystemExit("an answer is wrong")

        await asyncio.gather(*(work() for _ in range(16)))


def _print_pairs(
    title: str, both: Sequence[Deployment], found: Mapping[tuple[str, str], Sequence[float]], whats: Sequence[str]
) -> None:
    few, many = both
    print(f"\n| {title} | {few.name} | {many.name} | ratio |\n|---|---|---|---|")
    for what in whats:
        pairs = list(zip(found[few.name, what], found[many.name, what], strict=True))
        small, large = (statistics.median(pair[index] for pair in pairs) for index in (0, 1))
        ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
        print(f"| {what} | {small:.1f} | {large:.1f} | {ratio:.2f} |")


def _print_changes(one: Deployment) -> None:
    """Change many sessions at once, and print how long another process waits.

    It waits to read, and to write.
    """
    other = '@id("bench/other") forbid (principal, action, resource is Server) when { context.input.item == "other" };'
    print("\n| what | takes, s | longest read elsewhere, ms | longest write elsewhere, s |\n|---|---|---|---|")
    with one.embedded() as pdp, closing(SQLiteSessionStore(one.store, busy_seconds=60.0)) as elsewhere:
        now = SystemClock().now()

        def revoke(which: SessionFilter) -> None:
            change = lifecycle.revoke(now, by="admin", reason="benchmark")
            pdp.sessions.change_where(which, change, wall_at=now.wall_at)

        def reload(**changes: str) -> None:
            one.write(**changes)
            pdp.keeper.reload(by="admin")

        changes: list[tuple[str, Callable[[], object]]] = [
            ("list a page", lambda: pdp.sessions.select(SessionFilter(), limit=100)),
            ("count by state", pdp.sessions.count_by_state),
            ("revoke a user's", lambda: revoke(SessionFilter(user="user1"))),
            ("reload, other policies", lambda: reload(more=other)),
            ("reload, all users changed", lambda: reload(teams="b")),
            ("revoke an agent's: all", lambda: revoke(SessionFilter(agent="worker"))),
        ]
        for what, change in changes:
            with _waiting(elsewhere, handle_digest(one.handles[0]), now.wall_at) as waited:
                started = time.perf_counter()
                change()
                took = time.perf_counter() - started
            print(f"| {what} | {took:.2f} | {waited['read'] * 1e3:.0f} | {waited['write']:.2f} |")


@contextmanager
def _waiting(store: SQLiteSessionStore, digest: bytes, wall_at: float) -> Iterator[dict[str, float]]:
    """Read and write repeatedly in other threads; yield each one's longest time in seconds."""
    waited, stopped = {"read": 0.0, "write": 0.0}, threading.Event()

    def repeat(what: str, work: Callable[[], object]) -> None:
        while not stopped.wait(0.01):
            started = time.perf_counter()
            work()
            waited[what] = max(waited[what], time.perf_counter() - started)

    works = {"read": lambda: store.view(digest), "write": lambda: store.touch(wall_at=wall_at)}
    threads = [threading.Thread(target=repeat, args=work) for work in works.items()]
    for thread in threads:
        thread.start()
    try:
        yield waited
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def _ask(pdp: Embedded, handle: str, item: str) -> None:
    call = Call(
        session_handle=handle, server="bench", tool="read_item", arguments_json=b'{"item": "%s"}' % item.encode()
    )
    if not pdp.authorizer.authorize(CallRequest(call=call), _PEP).allowed:
        raise SystemExit("an answer is wrong")


def _microseconds(ask: Callable[[str, str], None], questions: Sequence[tuple[str, str]]) -> float:
    """Return the CPU time of one call; wall-clock time would include other processes."""
    started = time.thread_time()
    for handle, item in questions:
        ask(handle, item)
    return (time.thread_time() - started) / len(questions) * 1e6


def _cpu_with_children(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


def _files(teams: str, more: str) -> dict[str, bytes]:
    """Return a bundle: ten policies about its tool; none forbids the asked arguments."""
    users = "".join(
        f"  user{n}: {{groups: [staff, group{n % 20}], attributes: {{team: {teams}{n % 7}}}}}\n" for n in range(_USERS)
    )
    groups = "".join(f"  group{n}: {{parents: [staff]}}\n" for n in range(20))
    policies = '@id("bench/staff") permit (principal in UserGroup::"staff", action, resource is Server);\n' + "".join(
        f'@id("bench/not-{n}") forbid (principal, action, resource is Server) '
        f'when {{ context.input.item like "forbidden{n}*" }};\n'
        for n in range(9)
    )
    return bundle_files(
        policies={"bench": policies + more},
        tools={"bench": [tool("read_item", {"item": {"type": "string"}}, ["item"])]},
        overlays={"bench": "risk: read_only\n"},
        directory=f"user_groups:\n  staff: {{}}\n{groups}users:\n{users}agents: {{worker: {{ceiling: ['bench/*']}}}}\n",
    )


if __name__ == "__main__":
    raise SystemExit(main())
