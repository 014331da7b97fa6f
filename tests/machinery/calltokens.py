"""Makes call tokens, good ones and others, and values that their arguments can hold."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final

from hypothesis import strategies as st

from pdp.calltokens.canonical import arguments_digest
from pdp.calltokens.claims import ALGORITHM, TYPE, CallClaims, Presenter, encoded, written
from pdp.calltokens.keys import CallKey, PublicCallKey
from pdp.calltokens.refusals import CallTokenRefusedError, Reason
from pdp.calltokens.uses import MemoryUses
from pdp.calltokens.verifying import PublishedKeys, Verifier
from pdp.client.calltokens import fetch_keys, live_check
from pdp.testing.inprocess import RunningServer

NOW: Final = 1_800_000_000.0
SALT: Final = bytes(range(16))
ARGUMENTS: Final = {"path": "/srv/notes", "lines": 3}
PRESENTER: Final = Presenter(certificate="c" * 43)
KEY: Final = CallKey()
CLAIMS: Final = CallClaims(
    issuer="pdp.example",
    audience="https://git.example",
    id="j" * 43,
    issued_at=int(NOW),
    expires_at=int(NOW) + 15,
    decision_id="dec_1",
    session_id="ses_1",
    session_epoch=2,
    ancestor_ids=("ses_0",),
    user="alice",
    agent="coder",
    tenant="acme",
    environment="prod",
    server="git",
    tool="git_commit",
    definition_digest="sha256:" + "d" * 64,
    arguments_digest=arguments_digest(ARGUMENTS, SALT),
    salt=SALT,
    resource_type="Checkout",
    resource_id="/srv/notes",
    bundle_version="sha256:" + "b" * 64,
    presenter=PRESENTER,
)


TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES: Final = st.recursive(
    st.none() | st.booleans() | _NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


# Of servers that issue tokens.
ISSUER, AUDIENCE = "https://pdp.example", "https://tools.example"


def server_verifier(
    server: RunningServer, by: str = "broker", *, audience: str = AUDIENCE, live: bool = True
) -> Verifier:
    """Return the verifier of a tool server, which asks as a caller of this name, and whose clock is the server's."""
    client = server.client(by)
    return Verifier(
        issuer=ISSUER,
        audience=audience,
        keys=PublishedKeys(fetch_keys(client)),
        uses=MemoryUses(wall=lambda: 0.0),
        live=live_check(client) if live else None,
        wall=lambda: server.clock.now().wall_at,
    )


def refusal_of(by: Verifier, token: str, **call: Any) -> Reason | None:
    """Return why a tool server refuses a token for a call; None where it does not."""
    try:
        by.verify(token, **call)
    except CallTokenRefusedError as refused:
        return refused.reason
    return None


class OneKey:
    """The published keys of a deployment that has one."""

    def key(self, key_id: str) -> PublicCallKey:
        """Return the key with an id."""
        if key_id != KEY.public.id:
            raise CallTokenRefusedError(Reason.UNKNOWN_KEY, "not published")
        return KEY.public


def token(**changes: Any) -> str:
    """Return a good token, with other claims where they are given."""
    return KEY.signed(replace(CLAIMS, **changes))


def forged(header: dict[str, Any] | None = None, **said: Any) -> str:
    """Return a token with a good signature over any header and claims; None takes a claim away."""
    head = {"alg": ALGORITHM, "typ": TYPE, "kid": KEY.public.id} | (header or {})
    claims = {name: value for name, value in (json.loads(written(CLAIMS)) | said).items() if value is not None}
    message = ".".join(encoded(json.dumps(one).encode()) for one in (head, claims))
    return f"{message}.{encoded(KEY.private.sign(message.encode()))}"


def verifier(**options: Any) -> Verifier:
    """Return a verifier for what `token` is for; its memory began a minute ago."""
    known = {"issuer": CLAIMS.issuer, "audience": CLAIMS.audience, "keys": OneKey(), "wall": lambda: NOW + 1}
    return Verifier(**{"uses": MemoryUses(wall=lambda: NOW - 60), **known, **options})


def verify(text: str, by: Verifier | None = None, **options: Any) -> CallClaims:
    """Verify a token as the tool server for which it is does."""
    call = {"server": "git", "tool": "git_commit", "arguments": ARGUMENTS, "presenter": PRESENTER}
    return (by or verifier()).verify(text, **{**call, **options})
