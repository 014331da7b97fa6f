"""What servers that share a database note in it of their records: how far each chain reaches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedHead:
    """How far a chain of the record reaches, as its writer has noted it.

    `replica` is the machine of the writer. `seq` and `hash` are of the latest record that was signed and on the disk
    `at` a time in unix seconds, by the writer's clock. The key with the id `key` has made the `signature` of all this.
    `silent` says that the writer has neither noted more when that was due nor ended the chain.
    """

    chain: str
    replica: str
    seq: int
    hash: str
    at: float
    key: str = ""
    signature: str = ""
    silent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NotedHeads:
    """All that is noted, and the id of the deployment whose servers have noted it."""

    deployment: str
    heads: tuple[NotedHead, ...]
