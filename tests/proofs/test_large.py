"""A reload of a large bundle under load: 10,000 policies over 500 tools, in a server of its own."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from pdp.client import Answer
from pdp.model import Role
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import write_folder
from tests.machinery.servers.server_process import ServerProcess

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

SERVERS, TOOLS, POLICIES = 10, 50, 10_000
PATIENCE = 600.0
THREADS = 2
POLICY = """@id("{id}")
permit (principal == User::"u{user}", action == Action::"{tool}", resource)
when {{ context.input.path like "/{path}*" }};
"""


def bundle(newest: str, policies: int = POLICIES) -> dict[str, bytes]:
    """Return a bundle of many policies; `newest` is the id of the one that decides about what the test asks."""
    texts: dict[str, list[str]] = {f"s{server}": [] for server in range(SERVERS)}
    for number in range(policies - 1):
        server = f"s{number % SERVERS}"
        name = f"{server}/t{number // SERVERS % TOOLS}"
        texts[server].append(POLICY.format(id=f"{server}/p{number}", user=number % 7, tool=name, path=number))
    texts["s0"].append(f'@id("s0/{newest}") permit (principal == User::"alice", action, resource);\n')
    ceiling = ", ".join(f"{name}/*" for name in texts)
    properties = {"path": {"type": "string"}}
    return bundle_files(
        policies={name: "".join(lines) for name, lines in texts.items()},
        tools={name: [tool(f"t{number}", properties, ["path"]) for number in range(TOOLS)] for name in texts},
        directory=f"users: {{alice: {{}}}}\nagents: {{worker: {{ceiling: [{ceiling}]}}}}",
    )


def test_large_reload_under_load_drops_no_call(tmp_path: Path) -> None:
    """While 10,000 policies are compiled and swapped, and swapped back, each call is answered by one of the two."""
    write_folder(tmp_path / "policies", bundle("small", 1))
    enough = threading.Event()
    pauses: list[float] = []
    waits: list[float] = []
    times: dict[str, float] = {}

    with ServerProcess(tmp_path) as server, ExitStack() as opened:
        pep = opened.enter_context(server.client(Role.PEP))
        approver = opened.enter_context(server.client(Role.APPROVER))
        admin = opened.enter_context(server.client(Role.ADMIN, management_timeout=PATIENCE))
        write_folder(tmp_path / "policies", bundle("first"))
        first = admin.reload_bundle().bundle.version
        wanted = pep.request_session(user="alice", agent="worker", purpose="a lot", tools=["s0/*"])
        approver.approve_session(wanted.session.session_id, request_digest=wanted.session.request_digest)

        def ask(name: int) -> list[Answer]:
            answers: list[Answer] = []
            with server.client(Role.PEP, sleep=pauses.append) as client:
                session = client.attach(wanted.session_handle)
                while not enough.is_set():
                    path = f"/{name}/{len(answers)}"
                    begun = time.monotonic()
                    answers.append(session.authorize("s0", f"t{len(answers) % TOOLS}", {"path": path}))
                    waits.append(time.monotonic() - begun)
            return answers

        with ThreadPoolExecutor(THREADS) as threads:
            asking = [threads.submit(ask, name) for name in range(THREADS)]
            try:
                write_folder(tmp_path / "policies", bundle("second"))
                begun = time.monotonic()
                second = admin.reload_bundle().bundle.version
                times["reload"] = time.monotonic() - begun
                begun = time.monotonic()
                admin.activate_bundle(first)
                times["rollback"] = time.monotonic() - begun
            finally:
                enough.set()
            answers = [answer for one in asking for answer in one.result(PATIENCE)]

    times["longest call"] = max(waits)
    print({name: round(seconds, 2) for name, seconds in times.items()}, len(answers), "calls")  # noqa: T201 - figures
    right = {first: ("s0/first",), second: ("s0/second",)}
    assert [] == [answer for answer in answers if answer.error] + pauses
    assert [] == [answer for answer in answers if right[answer.bundle_version] != answer.policies]
