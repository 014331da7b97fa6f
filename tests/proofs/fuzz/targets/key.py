"""Keys of the cache: two calls have one key exactly if everything that is in a key is the same.

The data holds bytes and two lists of borders. Both calls are cut from the same bytes, so that they differ in nothing
but where one part ends and the next begins: what an encoding by joining takes for equal.
"""

from __future__ import annotations

import json
from dataclasses import replace

from pdp.clock import Deadline
from pdp.decision.cache import Key, call_key, read_key
from pdp.model import Call, Caller, Role, Session, SessionState
from pdp.policy.reading import Reading

WORDS = ("a/b", ",", '"', "\x1f", "\x00", "1", "1.0", "true", "[]", '","')
SEEDS = (
    bytes(32) + b"abcdefgh",
    bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] * 2) + b'server/tool{"x": ["a,b"]}',
    bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]) + b"aaaaaaaaaaaaaaaaaaaaaa",
    bytes(24) + b"x" * 1500,
)
_PARTS = 10
_NUMBERS = 2
_HEAD = _PARTS + _NUMBERS
_SESSION = Session(
    id="ses_a",
    handle_digest=b"",
    state=SessionState.ACTIVE,
    epoch=1,
    user="alice",
    agent="coder",
    purpose="",
    tool_patterns=(),
    duration=1.0,
    requested_at=0.0,
    deadline=Deadline(wall_at=1.0, boot_at=1.0, boot_id=""),
    opened_by="gateway",
    tenant="default",
    environment="",
)
_READING = Reading.of([("p", frozenset({"context.input", "context.opaque", "context.caller", "resource"}), ())])


def run(data: bytes) -> None:
    """Make the keys of two calls that are cut from the same bytes, and compare."""
    first, second, text = data[:_HEAD], data[_HEAD : 2 * _HEAD], data[2 * _HEAD :]
    if len(second) < _HEAD:
        return
    one, other = _Cut(first, text), _Cut(second, text)
    assert (one.meant == other.meant) == (one.call_key == other.call_key)
    assert (one.read == other.read) == (one.read_key == other.read_key)
    assert (one.seen == other.seen) == (one.part == other.part)
    assert one.call_key != other.read_key
    for key in (one.call_key, one.read_key):
        _require_plain(key)
        hash(key)


class _Cut:
    """One call, cut from bytes: its keys, and beside them what they stand for, as JSON."""

    def __init__(self, head: bytes, text: bytes) -> None:
        borders = sorted(place % (len(text) + 1) for place in head[:_PARTS])
        parts = [text[a:b] for a, b in zip([0, *borders], [*borders, len(text)], strict=True)]
        version, session_id, parent_id, caller_id, server, tool = (part.decode("latin-1") for part in parts[:6])
        arguments, facts, rest, resource, opaque = parts[6:11]
        epoch, moment = head[_PARTS] % 3, head[_PARTS + 1] % 3
        chain = [replace(_SESSION, id=session_id, epoch=epoch)]
        chain += [replace(_SESSION, id=parent_id)] if parent_id else []
        place = tuple(range(moment))
        call = Call(session_handle="", server=server, tool=tool, arguments_json=arguments, facts_json=facts)
        caller = Caller(id=caller_id, kind="", roles=frozenset({Role.PEP}))
        context = {
            "input": {"x": [rest.decode("latin-1"), epoch], "y": bool(moment)},
            "opaque": [opaque.decode("latin-1")],
            "caller": {"id": caller_id, "n": moment},
        }
        mapped = ("Thing", resource.decode("latin-1"))
        self.call_key = call_key(version, tuple(chain), call, caller, place)
        self.part = _READING.part(mapped, context)
        self.read_key = read_key(version, tuple(chain), call, self.part, place)
        where = [version, [[one.id, one.epoch] for one in chain], list(place), server, tool]
        self.meant = json.dumps([where, caller_id, arguments.decode("latin-1"), facts.decode("latin-1")])
        self.seen = json.dumps([context["input"], context["opaque"], context["caller"], mapped])
        self.read = json.dumps([where, self.seen])


def _require_plain(key: Key) -> None:
    for part in key:
        if type(part) is tuple:
            _require_plain(part)
        else:
            assert type(part) in {str, bytes, int}
