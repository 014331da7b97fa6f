"""Tokens of an application's installation, as GitHub gives them: for some repositories, with some permissions.

The application proves who it is by a signature, and says in JSON what the token is for. A permission is written as a
scope: `issues:write`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

from pdp.broker.oauth.answers import Granted, read_token, said_in
from pdp.broker.oauth.asking import send
from pdp.broker.oauth.assertions import signed
from pdp.broker.words import App, Secret, TokenRefusedError, TokenSource, TokensUnavailableError
from pdp.foundation.egress import Roots

_LOG: Final = logging.getLogger("pdp.broker")
# A provider whose clock is behind takes no statement from its future, and none that counts for more than ten minutes.
_BACK_SECONDS, _AHEAD_SECONDS = 60, 240
_MADE, _NO_LONGER = 201, 401
_ENDED: Final = (200, 204)


def ask_for_installation_token(source: TokenSource, key: Secret, scopes: Collection[str], roots: Roots) -> Granted:
    """Return a token with these permissions, for the repositories of the application.

    Raise `TokenRefusedError`, also for one that can more or less, and `TokensUnavailableError`.
    """
    repositories, permissions = _repositories_of(source), _permissions_of(scopes)
    headers = {**_headers(_statement(source, key)), "content-type": "application/json"}
    body = json.dumps({"repositories": repositories, "permissions": permissions}).encode()
    status, answer = send("POST", source.endpoint, source, headers, body, roots)
    if status != _MADE:
        raise TokenRefusedError(f"it answers `{status}`")
    said = said_in(answer)
    if said is None:
        raise TokenRefusedError("it answers with something else than a JSON object")
    token = read_token(said.get("token"))
    try:
        return Granted(secret=token, seconds=_seconds_of(said, permissions, repositories))
    except TokenRefusedError:
        # It was given, and nobody will have it.
        try:
            end_installation_token(source, token, roots)
        except (TokenRefusedError, TokensUnavailableError) as error:
            _LOG.warning("`%s` gave a token that is refused, and cannot end it: %s", source.host, error)
        raise


def _seconds_of(said: Mapping[str, Any], permissions: Mapping[str, str], repositories: Collection[str]) -> float:
    """Return how long a token is good for. Raise `TokenRefusedError` for one that can more or less."""
    if said.get("permissions") != permissions:
        raise TokenRefusedError("it gives a token with other permissions than the scopes of the call")
    if sorted(_names_in(said.get("repositories"))) != sorted(repositories):
        raise TokenRefusedError("it gives a token for other repositories than the connection names")
    return _seconds_until(said.get("expires_at"))


def end_installation_token(source: TokenSource, token: Secret, roots: Roots) -> bool:
    """End a token with itself, and say whether its provider proves that: it took it for that, and no longer takes it.

    Raise `TokenRefusedError` and `TokensUnavailableError`: then try again.
    """
    if not source.revocation:
        return False
    status = _end(source, token, roots)
    if status == _NO_LONGER:
        # It counts no longer, or never did.
        return False
    if status not in _ENDED:
        raise TokenRefusedError(f"it answers `{status}`")
    return _end(source, token, roots) == _NO_LONGER


def is_permission(scope: str) -> bool:
    """Say whether a scope is a permission, such as `issues:write`."""
    name, _, level = scope.partition(":")
    return bool(name and level) and ":" not in level


def _statement(source: TokenSource, key: Secret) -> str:
    now = int(time.time())
    return signed(key, {"iss": source.client_id, "iat": now - _BACK_SECONDS, "exp": now + _AHEAD_SECONDS})


def _end(source: TokenSource, token: Secret, roots: Roots) -> int:
    return send("DELETE", source.revocation, source, _headers(token.reveal().decode()), None, roots)[0]


def _headers(bearer: str) -> dict[str, str]:
    known = {"accept": "application/vnd.github+json", "accept-encoding": "identity", "user-agent": "pdp-broker"}
    return {**known, "authorization": f"Bearer {bearer}"}


def _repositories_of(source: TokenSource) -> list[str]:
    return list((source.app or App()).repositories)


def _permissions_of(scopes: Collection[str]) -> Mapping[str, str]:
    pairs = [scope.partition(":") for scope in scopes]
    permissions = {name: level for name, _, level in pairs}
    if len(permissions) != len(pairs) or not all(map(is_permission, scopes)):
        raise TokenRefusedError("it is not asked: scopes are no permissions such as `issues:write`, each named once")
    return permissions


def _names_in(repositories: object) -> list[str]:
    """Return the names of repositories; for what is no list of them one that no repository has."""
    rows: list[Any] = repositories if isinstance(repositories, list) else [None]
    return [str(row.get("name", "")) if isinstance(row, dict) else "" for row in rows]


def _seconds_until(text: object) -> float:
    try:
        ends_at = datetime.fromisoformat(str(text))
    except ValueError:
        ends_at = None
    if ends_at is None or ends_at.tzinfo is None:
        raise TokenRefusedError("it gives a token without an end")
    return max(ends_at.timestamp() - time.time(), 0.0)
