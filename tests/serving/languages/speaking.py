"""Clients of other languages: each takes a plan, makes its calls at once, and tells what came of each.

They send and read bytes: what is tried is the transport of each language, and the messages are those of the test.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

_HERE = Path(__file__).parent
_PROGRAMS = _HERE.parents[2] / ".venv-languages"
_JARS = (
    *("grpc-api", "grpc-context", "grpc-core", "grpc-netty", "grpc-stub", "perfmark-api", "perfmark-impl", "guava"),
    *("failureaccess", "gson", "netty-buffer", "netty-codec", "netty-codec-http", "netty-codec-http2", "netty-common"),
    *(
        "netty-handler",
        "netty-handler-proxy",
        "netty-resolver",
        "netty-transport",
        "netty-transport-native-unix-common",
    ),
)
PATIENCE = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A call of a plan. `most` answers are waited for before the caller leaves; 0 means all of them."""

    path: str
    messages: Sequence[Message]
    metadata: Mapping[str, str]
    milliseconds: int = PATIENCE
    most: int = 0

    def written(self) -> dict[str, Any]:
        """Return it as programs read it."""
        wires = [b64encode(one.SerializeToString()).decode() for one in self.messages]
        return {"path": self.path, "metadata": dict(self.metadata), "messages": wires} | {
            "milliseconds": self.milliseconds,
            "most": self.most,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came of it; `details` are those that go out with a status."""

    messages: Sequence[bytes]
    code: int
    text: str
    details: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the server is, and files of what its callers know it by and present; empty without TLS."""

    target: str
    roots: str = ""
    certificate: str = ""
    key: str = ""


Language = Callable[[Place, Sequence[Asked]], Sequence[Answered]]


def _program(*command: str) -> Language:
    """Return a language whose program reads a plan, and writes what came of it."""

    def made(place: Place, calls: Sequence[Asked]) -> Sequence[Answered]:
        plan = json.dumps(asdict(place) | {"calls": [call.written() for call in calls]})
        if shutil.which(command[0]) is None:
            pytest.fail(f"`{command[0]}` is absent: run `make languages`")
        done = subprocess.run(command, input=plan, capture_output=True, text=True, timeout=300, check=False)
        assert 0 == done.returncode, done.stderr
        return [
            Answered(
                messages=[b64decode(wire) for wire in one["messages"]],
                code=one["code"],
                text=one["text"],
                details=b64decode(one["details"]),
            )
            for one in json.loads(done.stdout)
        ]

    return made


def _credentials(place: Place) -> grpc.ChannelCredentials | None:
    if not place.roots:
        return None
    own = [Path(path).read_bytes() if path else None for path in (place.roots, place.key, place.certificate)]
    return grpc.ssl_channel_credentials(*own)


def _answered(messages: list[bytes], ended: Any, trailers: Any) -> Answered:
    found = dict(trailers or ())
    return Answered(
        messages=messages,
        code=ended.code().value[0] if ended else 0,
        text=ended.details() if ended else "",
        details=found.get("grpc-status-details-bin", b""),
    )


def python(place: Place, calls: Sequence[Asked]) -> Sequence[Answered]:
    """Make the calls from threads."""
    credentials = _credentials(place)

    def made(asked: Asked) -> Answered:
        messages: list[bytes] = []
        call = channel.stream_stream(asked.path)(
            iter([one.SerializeToString() for one in asked.messages]),
            metadata=tuple(asked.metadata.items()),
            timeout=asked.milliseconds / 1000,
        )
        try:
            for wire in call:
                messages.append(wire)
                if len(messages) == asked.most:
                    call.cancel()
        except grpc.RpcError as error:
            return _answered(messages, error, call.trailing_metadata())
        return _answered(messages, None, None)

    with (
        grpc.insecure_channel(place.target)
        if credentials is None
        else grpc.secure_channel(place.target, credentials) as channel,
        ThreadPoolExecutor(len(calls)) as pool,
    ):
        return list(pool.map(made, calls))


def python_asyncio(place: Place, calls: Sequence[Asked]) -> Sequence[Answered]:
    """Make the calls from tasks."""
    credentials = _credentials(place)

    async def made(channel: grpc.aio.Channel, asked: Asked) -> Answered:
        messages: list[bytes] = []
        call = channel.stream_stream(asked.path)(
            iter([one.SerializeToString() for one in asked.messages]),
            metadata=tuple(asked.metadata.items()),
            timeout=asked.milliseconds / 1000,
        )
        try:
            async for wire in call:
                messages.append(wire)
                if len(messages) == asked.most:
                    call.cancel()
        except grpc.aio.AioRpcError as error:
            return _answered(messages, error, error.trailing_metadata())
        except asyncio.CancelledError:
            return Answered(messages=messages, code=grpc.StatusCode.CANCELLED.value[0], text="", details=b"")
        return _answered(messages, None, None)

    async def all_made() -> Sequence[Answered]:
        opened = (
            grpc.aio.insecure_channel(place.target)
            if credentials is None
            else grpc.aio.secure_channel(place.target, credentials)
        )
        async with opened as channel:
            return await asyncio.gather(*(made(channel, asked) for asked in calls))

    return asyncio.run(all_made())


LANGUAGES: Mapping[str, Language] = {
    "Python": python,
    "Python with asyncio": python_asyncio,
    "Node": _program("node", str(_PROGRAMS / "client.mjs")),
    "Go": _program(str(_PROGRAMS / "client-go")),
    "Java": _program(
        "java", "-cp", ":".join(f"/usr/share/java/{jar}.jar" for jar in _JARS), str(_HERE / "Client.java")
    ),
}
