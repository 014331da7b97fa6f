"""What the tests know of an RPC: one row, in which each suite finds what it needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from google.protobuf.message import Message

# Stated by hand: a new role must be thought about.
EVERYONE = ("pep", "approver", "author", "auditor", "admin", "broker", "revoker", "operator")
# A revoker reads nothing.
READERS = tuple(role for role in EVERYONE if role != "revoker")
WATCHFUL = ("approver", "auditor", "admin")

# Where what the PDP was sent may be found again.
RECORD, TRACES, LOGS, STORE, ERROR = "record", "traces", "otlp logs", "store", "error"


class Named(Protocol):
    """A session by everything that an RPC may name it by."""

    @property
    def handle(self) -> str:
        """Return the secret handle."""
        ...

    @property
    def id(self) -> str:
        """Return the public id."""
        ...

    @property
    def digest(self) -> str:
        """Return the digest of what an approver was shown."""
        ...

    @property
    def decision_id(self) -> str:
        """Return the id of a decision about a call in the session."""
        ...

    @property
    def outcome_token(self) -> str:
        """Return the token of an allowed call in the session, as the usual caller of reports got it."""
        ...

    @property
    def access_request_id(self) -> str:
        """Return the id of an access request in the session, which waits if the session is live."""
        ...

    @property
    def access_digest(self) -> str:
        """Return the digest of what an approver is shown of that request."""
        ...

    @property
    def access_session_id(self) -> str:
        """Return the public id, of a session that has such a request."""
        ...

    @property
    def bundle_version(self) -> str:
        """Return the version of the bundle that is active."""
        ...


class Cells(NamedTuple):
    """What comes of an RPC about four sessions: an answer in a word, or the name of a status.

    `own` is an active session that the caller opened, or for callers that open none a gateway of their tenant;
    `other` is one of another gateway of the tenant, `foreign` one of another tenant, `unknown` one of nobody.
    """

    own: str
    other: str
    foreign: str
    unknown: str


REFUSED = Cells(*["PERMISSION_DENIED"] * 4)
# Belongs to no session.
ANY = Cells(*["OK"] * 4)
# A handle is all that counts, whichever gateway of the tenant holds it.
CALL = Cells("permit", "permit", "session_not_found", "session_not_found")


def tenant(answer: str, *, hidden: str = "NOT_FOUND") -> Cells:
    """Return the cells of what anybody of the tenant may do."""
    return Cells(answer, answer, hidden, hidden)


def opener(answer: str, *, hidden: str = "NOT_FOUND") -> Cells:
    """Return the cells of what only the gateway that opened the session may do."""
    return Cells(answer, hidden, hidden, hidden)


class Wrapped(NamedTuple):
    """A method of the client: how it is called, what the server gets and says, and what the caller gets."""

    call: Callable[[Any], Any]
    request: Message
    reply: Message
    result: Any


def _ok(*_: object) -> str:
    return "OK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One RPC.

    `ask` makes a question about a session that is answered without an error, about ada, her coder and the tool
    `git/log`; `said` puts the answer in a word. `roles` says which role may do what to whose session: what is not
    there is refused. The first role is the one that usually calls. `states` says what comes of it in each state of
    the session. `wrong` holds messages that are wrong in one field, and its name: each field of a request is wrong in
    one of them. `wrapped` is its method of the client. `seen_again` names the fields whose texts are found again in
    some place, and the places. The session that is asked about `waits` for approval, or is active; one that an answer
    `spends` cannot be asked about again. `without_store` and `without_bundle` are the status while either is away, and
    `status` that of the question otherwise.
    """

    ask: Callable[[Named], Message]
    roles: Mapping[str, Cells]
    said: Callable[[Any, Named], str] = _ok
    states: Mapping[str, str] = field(default_factory=dict)
    wrong: Sequence[tuple[Message, str]] = ()
    wrapped: Wrapped | None = None
    seen_again: Mapping[str, Collection[str]] = field(default_factory=dict)
    waits: bool = False
    spends: bool = False
    status: str = "OK"
    without_store: str = "UNAVAILABLE"
    without_bundle: str = "UNAVAILABLE"
