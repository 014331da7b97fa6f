"""The sessions of access tokens, as `pdp mcp --access-tokens` has them. Needs the extra `server`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from pdp.callersettings import denied_of, deny_list_reader, issuer_keys, rules_of
from pdp.client import AsyncClient
from pdp.clock import SystemClock
from pdp.config.settings import Settings
from pdp.doors.accesstokens import AccessTokens, read_identities
from pdp.doors.tokensessions import TokenSessions
from pdp.errors import ConfigurationError


def token_sessions(
    opened: AsyncExitStack,
    client: AsyncClient,
    settings: Settings,
    file: Path,
    *,
    servers: Sequence[str],
    pdp_command: Callable[[str], str],
    wait: float,
) -> TokenSessions:
    """Return what opens sessions for access tokens, until `opened` closes."""
    jwt = settings.jwt
    if not jwt.issuer:
        raise ConfigurationError(
            "--access-tokens needs the settings `jwt.issuer`, `jwt.audience` and the issuer's keys"
        )
    identities = read_identities(file, servers)
    clock = SystemClock()
    keys, refresher, close = issuer_keys(jwt, clock)
    opened.enter_context(refresher)
    opened.callback(close)
    denied = denied_of(settings)
    opened.enter_context(deny_list_reader(denied))
    tokens = AccessTokens(keys, rules_of(jwt), identities, clock=clock, denied=denied)
    sessions = TokenSessions(client, tokens, identities, pdp_command=pdp_command, wait_for_approval=wait)
    opened.push_async_callback(sessions.close)
    return sessions
