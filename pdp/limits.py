"""The limits on every input. Each is a setting, and each refusal names the limit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T", int, float)


def _limit(default: T, text: str) -> T:
    bound: T = field(default=default, metadata={"help": text})
    return bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what callers and policy files may send; the texts say of what, and in which unit."""

    message_bytes: int = _limit(256 * 1024, "bytes of one message")
    metadata_bytes: int = _limit(8 * 1024, "bytes of the metadata of one call; gRPC itself refuses more")
    arguments_bytes: int = _limit(128 * 1024, "bytes of the arguments of one call, and of the facts")
    arguments_depth: int = _limit(32, "levels of objects and lists in arguments")
    arguments_nodes: int = _limit(4096, "values in arguments")
    string_bytes: int = _limit(32 * 1024, "bytes of one string in arguments")
    batch_size: int = _limit(100, "calls in one batch")
    text_characters: int = _limit(512, "characters of free text in one line, such as a reason")
    purpose_characters: int = _limit(4096, "characters of a purpose, which may have several lines")
    resource_id_characters: int = _limit(1024, "characters of a resource's id")
    policy_file_bytes: int = _limit(1024 * 1024, "bytes of one policy file")
    bundle_bytes: int = _limit(8 * 1024 * 1024, "bytes of a bundle")
    policy_depth: int = _limit(32, "levels of brackets and attributes in a policy")
    policy_terms: int = _limit(200, "operators of one policy")
    tool_patterns: int = _limit(64, "tool patterns of one session")
    session_tools: int = _limit(2048, "tools that the patterns of one session may match")
    attributes_bytes: int = _limit(16 * 1024, "bytes of the attributes of a user that a gateway vouches for")
    terms_bytes: int = _limit(16 * 1024, "bytes of the terms of a session")
    session_seconds: float = _limit(8 * 3600.0, "seconds that a session may live")
    delegation_depth: int = _limit(3, "sessions above a delegated one")
    live_sessions: int = _limit(10_000, "sessions of one gateway that wait for approval or are active")
    streams: int = _limit(32, "open streams")
    stream_idle_seconds: float = _limit(300.0, "seconds without a message after which a stream is closed")
    concurrent_calls: int = _limit(512, "calls that are being answered or are waiting at one time")
    wait_seconds: float = _limit(
        2.0, "seconds that a call may wait for its turn; after that it is refused without a decision"
    )
    message_seconds: float = _limit(5.0, "seconds from the beginning of a call within which its message must arrive")
    connection_calls: int = _limit(100, "calls and streams that are open on one connection; more wait in the client")
    connections: int = _limit(1000, "open connections; gRPC itself closes more")
    connection_age_seconds: float = _limit(300.0, "seconds after which a connection is closed and must be opened again")
    connection_idle_seconds: float = _limit(120.0, "seconds without a call after which a connection is closed")


DEFAULT_LIMITS = Limits()

# No line of the record is longer: a longer one is damage and is not read into memory. API clients accept no more.
RECORD_LINE_BYTES = 4 * 1024 * 1024

# Labels of a session, given and inherited: each narrowing can add some, and every decision reads all of them.
MOST_LABELS = 256
# Attributes of `SessionTerms` in a schema, those of its records included.
MOST_TERMS = 64
# Policy ids that an answer, its span and its record name; beyond this they say how many are left out.
MOST_POLICIES = 64
# The same for one of the tools in a review, of which there can be thousands.
MOST_POLICIES_OF_TOOL = 8
# Obligations of one policy, and of one decision: a ruling with more is a deny.
MOST_OBLIGATIONS = 16
# Lines of advice from policies in one answer.
MOST_ADVICE = 8
# Groups in which a session's user is by their own token, and characters of one by its name in the directory.
MOST_USER_GROUPS, USER_GROUP_CHARACTERS = 32, 128
# Labels in one request, and grants of one approval.
MOST_AT_ONCE = 64

# As limited by the API and the catalogue: characters of an id, of a tool server and of a tool's name.
_ID, _SERVER, _TOOL = 128, 64, 128
# What a character can take in the record, which escapes all but printable ASCII, and what a byte of JSON can.
_ESCAPED, _ESCAPED_BYTE = 12, 6
# The digest of a term, with the quotes and the comma. Its name is within the bytes of the terms.
_DIGEST = len('"":"hmac-sha256:",') + 64
# Names of fields, ids, times and digests.
_REST = 16 * 1024


def largest_session_bytes(limits: Limits) -> int:
    """Return how long a line of the record about a session can be, at most, by what the limits admit."""
    tools = (limits.tool_patterns + limits.session_tools) * (len('"/",') + _SERVER + _TOOL * _ESCAPED)
    ids = (2 * MOST_LABELS + MOST_AT_ONCE) * (len('"",') + _ID)
    groups = MOST_USER_GROUPS * (len('"",') + USER_GROUP_CHARACTERS * _ESCAPED)
    # The purpose and the reason.
    texts = 2 * limits.text_characters * _ESCAPED
    values = (limits.attributes_bytes + limits.terms_bytes) * _ESCAPED_BYTE + MOST_TERMS * _DIGEST
    return tools + ids + groups + texts + values + _REST
