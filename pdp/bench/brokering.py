"""A broker and what is around it: a server of ours, the other side, and two connections with their secrets."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from pdp.bench.brokered import AUDIENCE, BrokeredDialect, Calling, by_broker, through_proxy, with_own_key
from pdp.bench.dialects import PDPDialect
from pdp.bench.otherside import CLIENT, CLIENT_SECRET, GRANTED, KEY, KEYED, TOKEN_PATH
from pdp.bench.plan import ADDED_KEY, BROKER, HELD_TOKEN, OWN_KEY, SEALED_KEY
from pdp.bench.processes import listening, module_process
from pdp.bench.questions import Asker, Workload, question
from pdp.bench.servers import Target, data_of, pdp_server
from pdp.calltokens.uses import FileUses
from pdp.errors import UnavailableError
from pdp.testing.bundles import bundle_files, tool
from pdp.testing.inprocess import write_folder

_ISSUER = "https://pdp.bench"
_USER, _AGENT, _TOOL = "alice", "worker", "read"
_PROGRAM = "pdp.broker.cli"
# What was used before the memory of uses began is not known, so a broker takes no token of the time before that.
_BEGAN_SECONDS_AGO = 60.0
_SERVERS = (KEYED, GRANTED)


@contextmanager
def brokers(folder: Path, core: int | None, environment: Mapping[str, str]) -> Iterator[Sequence[Target]]:
    """Run all of it on one core; yield the ways to make the call. The CPU of each is that of what it needs."""
    workload, place = _workload(), folder / "broker"
    write_folder(place / "policies", workload.files)
    issuer = f"--call-tokens-issuer={_ISSUER}"
    with (
        pdp_server(BROKER, workload, place, core, environment, issuer) as server,
        module_process("pdp.bench.otherside", core=core) as other,
    ):
        address = listening(other, "the other side")
        _make(place, server.address, f"http://{address}")
        serve = ["serve", "--settings", str(place / "broker.yaml")]
        with module_process(_PROGRAM, serve, core=core, environment=environment) as broker:
            calls, requests = (
                listening(broker, "pdp-broker serve", says=f"listening for {what} at ")
                for what in ("calls", "requests")
            )
            yield [
                _way(OWN_KEY, server, KEYED, partial(with_own_key, address), other),
                _way(SEALED_KEY, server, KEYED, partial(by_broker, calls), other, broker),
                _way(HELD_TOKEN, server, GRANTED, partial(by_broker, calls), other, broker),
                _way(ADDED_KEY, server, KEYED, partial(through_proxy, requests), other, broker),
            ]


def _way(name: str, server: Target, asked: str, calling: Calling, *needed: subprocess.Popen[str]) -> Target:
    if not isinstance(server.dialect, PDPDialect):
        raise TypeError("this server is asked in its own words")
    dialect = BrokeredDialect(
        server.dialect.handles,
        server.dialect.token,
        question=question(asked, _TOOL, b"{}", allowed=True),
        calling=calling,
        with_token=name != OWN_KEY,
    )
    return replace(server, name=name, dialect=dialect, others=tuple(one.pid for one in needed))


def _workload() -> Workload:
    overlay = "audiences: [{audience}]\nconnection: {{kind: {kind}}}\ntools: {{{tool}: {{risk: read_only}}}}\n"
    ceiling = tuple(f"{name}/*" for name in _SERVERS)
    files = bundle_files(
        policies={"all": '@id("all") permit (principal, action, resource);'},
        tools={name: [tool(_TOOL)] for name in _SERVERS},
        overlays={name: overlay.format(audience=AUDIENCE, kind=name, tool=_TOOL) for name in _SERVERS},
        # JSON is YAML, here and below.
        directory=json.dumps({"users": {_USER: {}}, "agents": {_AGENT: {"ceiling": ceiling}}}),
    )
    return Workload(
        name="brokered",
        file="",
        files=files,
        askers=(Asker(user=_USER, agent=_AGENT),),
        tool_patterns=ceiling,
        repeated=(),
        fresh=None,
    )


def _make(place: Path, address: str, upstream: str) -> None:
    """Make the broker's folder as its operator does, with both connections."""
    _run(place, "init")
    modes = ("--mode", "connector", "--mode", "proxy")
    _run(place, "connection", "add", KEYED, "--kind", KEYED, "--upstream", upstream, *modes)
    _run(place, "secret", "put", KEYED, told=KEY)
    source = ("--token-endpoint", f"{upstream}{TOKEN_PATH}", "--client-id", CLIENT)
    _run(place, "connection", "add", GRANTED, "--kind", GRANTED, "--upstream", upstream, *source)
    _run(place, "secret", "put", GRANTED, told=CLIENT_SECRET)
    FileUses(place / "uses", wall=lambda: time.time() - _BEGAN_SECONDS_AGO).close()
    token = data_of(BROKER, place) / "tokens" / "broker.token"
    settings = {
        "issuer": _ISSUER,
        "audience": AUDIENCE,
        "calls": "unix:calls.sock",
        "http": "unix:http.sock",
        "pdp": {"address": address, "token_file": str(token), "plaintext": True},
    }
    rules: dict[str, dict[str, object]] = {
        name: {"kind": name, "tools": {_TOOL: {"method": "GET", "path": f"/{name}/{_TOOL}"}}} for name in _SERVERS
    }
    rules[KEYED]["proxy"] = {"methods": ["GET"], "paths": [f"/{KEYED}/"]}
    for file, content in (("broker.yaml", settings), ("rules.yaml", rules)):
        (place / file).write_text(json.dumps(content))
        (place / file).chmod(0o600)


def _run(place: Path, *command: str, told: str = "") -> None:
    """Run a command of the broker. Raise `UnavailableError` with what it says when it fails."""
    words = [sys.executable, "-P", "-m", _PROGRAM, *command, "--data-dir", str(place)]
    done = subprocess.run(words, input=told, capture_output=True, text=True, check=False)  # noqa: S603 - our own program
    if done.returncode:
        raise UnavailableError(f"`pdp-broker {' '.join(command[:2])}` failed: {done.stderr.strip()}")
