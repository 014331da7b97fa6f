"""What the workers of one server send each other: a bundle before it becomes active, and what the source holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from pdp import __version__
from pdp.bundles.delivery import Delivery, Signature
from pdp.bundles.packing import pack, unpack
from pdp.errors import Problem
from pdp.limits import Limits
from pdp.policy.bundle import CompiledParts
from pdp.policy.loading import policy_json, policy_source

_BUNDLE, _SOURCE = "bundle", "source"


class Peers(Protocol):
    """The other workers of this server. Safe for threads."""

    def begin(self, hear: Callable[[bytes], None]) -> None:
        """Call `hear` with the news of the other workers, one at a time, in a separate thread."""
        ...

    def tell(self, news: bytes) -> None:
        """Send news to all other workers, and return when each has processed it.

        The wait is bounded. Never raises: a worker that misses the news learns it from the store.
        """
        ...

    def leave(self, news: bytes) -> None:
        """Keep news for the workers that begin later, instead of what was left before. Never raises."""
        ...

    def left(self) -> bytes | None:
        """Return what a worker of this server has left last; None when there is nothing. Never raises."""
        ...

    def close(self) -> None:
        """Stop waiting for the others, now and later."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A bundle that one worker has compiled, so that the others need not."""

    delivery: Delivery
    parts: CompiledParts

    def written(self) -> bytes:
        """Return it as bytes, for `read_news`."""
        content = pack(self.delivery.files, self.delivery.signature)
        policies = (json.dumps(policy_json(policy)).encode() for policy in self.parts.policies)
        head = _head(_BUNDLE, {"bytes": len(content), "terms": self.parts.terms})
        return b"\n".join((head, content, *policies))

    @classmethod
    def read(cls, head: Mapping[str, Any], body: bytes, limits: Limits) -> Self:
        """Read what follows the first line. Raise `BundleError` unless it is a bundle within the limits."""
        delivery = unpack(body[: head["bytes"]], limits)
        # One by one, so that the interpreter's lock is never held for long.
        policies = [policy_source(json.loads(line)) for line in body[head["bytes"] + 1 :].splitlines()]
        return cls(delivery=delivery, parts=CompiledParts(policies=tuple(policies), terms=head["terms"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What distinguishes one delivery from another."""

    version: str
    signature: Signature | None

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        """Return what distinguishes a delivery from others."""
        return cls(version=delivery.version, signature=delivery.signature)

    def as_json(self) -> dict[str, Any]:
        """Return it for `from_json`."""
        one = self.signature
        signature = one and {"key_id": one.key_id, "number": one.number, "value": one.value.hex()}
        return {"version": self.version, "signature": signature}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `as_json` returned."""
        one = value["signature"]
        signature = one and Signature(key_id=one["key_id"], number=one["number"], value=bytes.fromhex(one["value"]))
        return cls(version=value["version"], signature=signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceView:
    """What the source held when it was last read: the good bundle, and the bad one with its problems.

    `load_errors` says why the last load failed; it is empty when the load succeeded.
    """

    good: Seen | None = None
    bad: Seen | None = None
    bad_problems: tuple[Problem, ...] = ()
    load_errors: tuple[Problem, ...] = ()

    def holds(self, version: str) -> bool:
        """Return whether the source held a version, good or bad."""
        return any(seen is not None and seen.version == version for seen in (self.good, self.bad))

    def written(self) -> bytes:
        """Return it as bytes, for `read_news`."""
        return _head(
            _SOURCE,
            {
                "good": self.good and self.good.as_json(),
                "bad": self.bad and self.bad.as_json(),
                "bad_problems": [problem.as_json() for problem in self.bad_problems],
                "load_errors": [problem.as_json() for problem in self.load_errors],
            },
        )

    @classmethod
    def read(cls, head: Mapping[str, Any]) -> Self:
        """Read what `written` returned."""
        return cls(
            good=head["good"] and Seen.from_json(head["good"]),
            bad=head["bad"] and Seen.from_json(head["bad"]),
            bad_problems=_problems(head["bad_problems"]),
            load_errors=_problems(head["load_errors"]),
        )


def read_news(news: bytes, limits: Limits) -> Compiled | SourceView:
    """Read the news that another worker has written.

    Raise `ValueError` when that worker runs another release, `BundleError` for a bad bundle or one beyond the limits.
    """
    line, _, body = news.partition(b"\n")
    head = json.loads(line)
    # Another release may interpret the findings about a policy in another way.
    if not isinstance(head, dict) or head.get("program") != __version__:
        raise ValueError(f"it runs another release than this worker, which runs `{__version__}`")
    return Compiled.read(head, body, limits) if head["kind"] == _BUNDLE else SourceView.read(head)


def _head(kind: str, facts: Mapping[str, Any]) -> bytes:
    return json.dumps({"program": __version__, "kind": kind, **facts}).encode()


def _problems(values: list[Mapping[str, Any]]) -> tuple[Problem, ...]:
    return tuple(Problem(**value) for value in values)
