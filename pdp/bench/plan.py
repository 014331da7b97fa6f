"""The measurements of a run, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

BATCH = 50

# The names of the servers under measurement. The control decides nothing.
CONTROL = "empty handler"
# This server without any observer, which no setting makes: the cost of decisions alone.
BARE = "no trace, no record"
RECORDED = "tracing off"
FULL = "everything on"
# The same with `server.listener: loop`.
FULL_LOOP = "everything on, loop"
# The same with TLS, asked by raw frames alone: all others speak plain text.
LOOP_TLS = "everything on, loop, TLS"
# Everything on, and a door before the server: that of Envoy, asked as Envoy asks it.
DOOR = "everything on, door of Envoy"
# The same with the door of MCP, which a client calls in the place of the tool server.
MCP_DOOR = "everything on, door of MCP"
# A tool server that is called without a door: the control of calls over MCP.
TOOL_SERVER = "tool server alone"
# Everything on, and a call of another system after the answer. The control has the key itself, and a broker has it
# sealed, or holds an access token that it got for it, or adds it to a request that passes through.
BROKER = "everything on, broker"
OWN_KEY = "everything on, a key of its own"
SEALED_KEY, HELD_TOKEN, ADDED_KEY = (f"{BROKER} with {what}" for what in ("a key", "an access token", "a proxy"))
# In process, the control is Python code that parses and digests the same arguments.
LOOP = "parse and digest"
OBSERVED = "trace, metrics and record"

ALL_HITS, ALL_MISSES = 0.0, 1.0


class Shape(Enum):
    """The way that questions reach the server.

    Raw frames are unary calls too, by a load of our own that costs less than the client of gRPC. The client library
    sends each call by itself, or those that wait at the same time together, as it does by default.
    A call over MCP, and a brokered one, is the whole call and not the question alone.
    """

    UNARY = "unary"
    FRAMES = "raw frames"
    STREAM = "stream"
    BATCH = "batch"
    CLIENT_ALONE = "client by itself"
    CLIENT_TOGETHER = "client together"
    MCP = "call over MCP"
    BROKERED = "brokered call"
    IN_PROCESS = "in process"


# Only this server has a client library.
CLIENT_SHAPES = (Shape.CLIENT_ALONE, Shape.CLIENT_TOGETHER)
# Only this setup is asked in such a way, beside a control of its own.
SETUP_OF = {Shape.MCP: MCP_DOOR, Shape.BROKERED: BROKER}
_CONTROLS = {Shape.IN_PROCESS: LOOP, Shape.MCP: TOOL_SERVER, Shape.BROKERED: OWN_KEY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One way of asking, which every server under measurement gets in turn.

    With a `rate`, in calls a second, it is an open loop; otherwise a closed one with `concurrency` calls in progress on
    all `connections` together; only raw frames have several.
    `misses` is the share of questions that were never asked before; None leaves it to the workload.
    """

    shape: Shape
    concurrency: int = 1
    connections: int = 1
    rate: float | None = None
    misses: float | None = ALL_HITS

    @property
    def title(self) -> str:
        """Return its name in tables, results and comparisons."""
        shape = f"batch of {BATCH}" if self.shape is Shape.BATCH else self.shape.value
        parts = [shape, _mix(self.misses)]
        if self.rate is not None:
            parts.append(f"{self.rate:g} calls/s")
        elif self.shape is not Shape.IN_PROCESS:
            parts.append(f"{self.concurrency} at a time")
        if self.connections > 1:
            parts.append(f"{self.connections} connections")
        return ", ".join(part for part in parts if part)

    @property
    def control(self) -> str:
        """Return the name of what all others are compared with."""
        return _CONTROLS.get(self.shape, CONTROL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """The length of a run: the number of rounds, and the seconds of each measurement in a round."""

    rounds: int
    seconds: float


USUAL = Effort(rounds=5, seconds=1.0)
SHORT = Effort(rounds=3, seconds=0.2)

SHORT_LADDER = (16,)
LADDER = (1, 4, 16, 64)
CONNECTIONS = (1, 4, 16)
RATE = 1000.0
# How long sessions and what is remembered last: an answer that ended during a measurement would be no hit.
LASTING_SECONDS = 7200


def planned(
    shapes: Sequence[Shape],
    *,
    ladder: Sequence[int],
    rate: float | None,
    mixes: Sequence[float | None],
    connections: Sequence[int] = (1,),
) -> tuple[Measurement, ...]:
    """Return the measurements of a run.

    The ladder is climbed by unary calls, by raw frames and by the client library with the first mix; the other mixes
    use its middle step, and the client library does without them.
    Streams, calls over MCP and brokered ones use its first and its middle step, batches the first, and the open loop
    has unary calls and raw frames. Raw frames climb the ladder again with each further number of `connections`, from
    the step on that has a call for each. Brokered calls are one call again and again, so no mix is theirs.
    """
    first, middle = ladder[0], ladder[len(ladder) // 2]
    listed: list[Measurement] = []
    if Shape.IN_PROCESS in shapes:
        listed += [Measurement(shape=Shape.IN_PROCESS, misses=mix) for mix in mixes]
    for shape in (Shape.UNARY, Shape.FRAMES):
        if shape in shapes:
            listed += [Measurement(shape=shape, concurrency=step, misses=mixes[0]) for step in ladder]
            listed += [Measurement(shape=shape, concurrency=middle, misses=mix) for mix in mixes[1:]]
            listed += [Measurement(shape=shape, rate=rate, misses=mixes[0])] if rate else []
    if Shape.FRAMES in shapes:
        listed += [
            Measurement(shape=Shape.FRAMES, concurrency=step, connections=many, misses=mixes[0])
            for many in connections
            for step in ladder
            if step >= many > 1
        ]
    for shape in (Shape.STREAM, Shape.MCP, Shape.BROKERED):
        if shape in shapes:
            mix = None if shape is Shape.BROKERED else mixes[0]
            listed += [
                Measurement(shape=shape, concurrency=step, misses=mix) for step in dict.fromkeys((first, middle))
            ]
    for shape in CLIENT_SHAPES:
        if shape in shapes:
            listed += [Measurement(shape=shape, concurrency=step, misses=mixes[0]) for step in ladder]
    if Shape.BATCH in shapes:
        listed.append(Measurement(shape=Shape.BATCH, concurrency=1, misses=mixes[0]))
    return tuple(listed)


def _mix(misses: float | None) -> str:
    if misses is None:
        return ""
    return {ALL_HITS: "hits", ALL_MISSES: "misses"}.get(misses, f"{misses:.0%} misses")
