"""ID tokens: when a person last authenticated, and nothing else (OpenID Connect Core 1.0, sections 2 and 3.1.3.7)."""

from __future__ import annotations

from dataclasses import replace

from pdp.clock import Clock
from pdp.identity.denied import DenyList
from pdp.identity.keysets import KeySet
from pdp.identity.tokens import Kind, TokenRefusedError, TokenRules, verify

# The metadata field of a call that holds an ID token.
ID_TOKEN_FIELD = "pdp-id-token"  # noqa: S105 - the name of a field

_ID_TOKEN = Kind(
    name="an ID token",
    foreign_claims=("events",),
    kind_claims={"typ": "ID", "token_use": "id"},
    for_its_client=True,
)


class IDTokens:
    """The ID tokens that one client, the console, receives from the issuer of the access tokens.

    `rules` are those of the access tokens. Without a client no ID token is accepted.
    """

    def __init__(self, rules: TokenRules, client: str, *, clock: Clock, denied: DenyList) -> None:
        types = frozenset({"", "jwt", "application/jwt"})
        # INVARIANT: nothing but the time of the log-in is read, so no claim of an ID token gives a role or a person.
        self._rules = replace(
            rules,
            kind=_ID_TOKEN,
            audience=client,
            types=types,
            person_claim="",
            groups_claim="",
            user_group_prefix="",
            id_claim="sub",
        )
        self._clock = clock
        self._denied = denied

    def authenticated_at(self, id_token: str, keys: KeySet, *, subject: str) -> float:
        """Return when the subject last authenticated, in unix seconds. Raise `TokenRefusedError`.

        The message may be shown to a caller whose access token has this subject.
        """
        if not self._rules.audience:
            raise TokenRefusedError("this server knows no client with ID tokens (`jwt.console_client`)")
        token = verify(id_token, keys, self._rules)
        if token.subject != subject:
            raise TokenRefusedError("its `sub` is not that of the access token")
        token.require_time(self._clock.now().wall_at)
        if part := self._denied.token(digests=token.digests, jwt_id=token.token_id):
            raise TokenRefusedError(f"the {part} is on the deny-list")
        if not token.authenticated_at:
            raise TokenRefusedError("it does not say when the person authenticated (`auth_time`)")
        return token.authenticated_at
