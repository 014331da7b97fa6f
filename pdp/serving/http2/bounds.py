"""What one peer may use of a connection, and what all peers may use together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds of one connection; times are seconds.

    `incoming_bytes` are those of messages that have begun and not ended, `unasked_bytes` those of one for which nobody
    has asked, as much as the window of gRPC's own server lets through. A peer that leaves more than `waiting_bytes`
    unread must take some of them each `waiting_seconds`, and all of an answer `reading_seconds` after it ended. More
    than `resets`, or `controls` (pings and settings while nothing is answered), in `flood_seconds` end a connection. Of
    calls that are refused before they have come whole, `refused` at a time have `refused_seconds` to come.
    """

    message_bytes: int = 256 * 1024
    incoming_bytes: int = 1024 * 1024
    unasked_bytes: int = 64 * 1024
    header_bytes: int = 8 * 1024
    streams: int = 100
    resets: int = 200
    controls: int = 100
    flood_seconds: float = 10.0
    waiting_bytes: int = 1024 * 1024
    waiting_seconds: float = 1.0
    reading_seconds: float = 20.0
    refused: int = 16
    refused_seconds: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When connections end, in seconds: `handshake` for TLS and the preface, `age` with a tenth of jitter.

    A connection on which nothing comes is asked for a sign of life after `ping`, and has `ping_answer` to give it.
    One that is told to end has `grace` for its open calls.
    """

    handshake: float = 10.0
    age: float = 300.0
    idle: float = 120.0
    grace: float = 60.0
    announced: float = 1.0
    ping: float = 60.0
    ping_answer: float = 20.0
