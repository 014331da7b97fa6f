"""This server without telemetry and record: `python -m pdp.bench.bareserver POLICIES DATA`.

No setting turns the record off, so this module builds the server from the same parts as `pdp.app`. It prints its
address and serves until its input ends.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from pathlib import Path

from pdp.app.embedded import open_embedded
from pdp.bench.plan import LASTING_SECONDS
from pdp.clock import SystemClock
from pdp.decision.cache import DecisionCache
from pdp.decision.observers import Observers
from pdp.identity.authentication import TokenAuthenticator
from pdp.identity.callers import KnownCallers
from pdp.identity.callersfile import init_callers
from pdp.policy.child.process import PolicyChild
from pdp.server.service import PDPServer
from pdp.serving.listener import Listener
from pdp.sessions.sqlite import SQLiteSessionStore

_EVALUATE_SECONDS = 30.0


def main() -> None:
    """Serve until standard input ends."""
    policies, data = map(Path, sys.argv[1:])
    data.mkdir(mode=0o700)
    callers_file = init_callers(data, development=True)
    silence, clock = Observers(), SystemClock()
    with ExitStack() as opened:
        embedded = open_embedded(
            policies,
            sessions=SQLiteSessionStore(data / "sessions.sqlite"),
            clock=clock,
            observer=silence,
            cache=DecisionCache(max_ttl=LASTING_SECONDS),
        )
        opened.enter_context(closing(embedded))
        server = PDPServer(
            Listener(address="127.0.0.1:0", plaintext=True),
            authorizer=embedded.authorizer,
            registrar=embedded.registrar,
            outcomes=embedded.outcomes,
            call_tokens=embedded.call_tokens,
            approvals=embedded.approvals,
            freezer=embedded.freezer,
            following=embedded.following,
            reaching=embedded.reaching,
            keeper=embedded.keeper,
            evaluator=opened.enter_context(closing(PolicyChild(timeout=_EVALUATE_SECONDS))),
            explainer=embedded.explainer,
            authenticator=TokenAuthenticator(KnownCallers(callers_file, development=True)),
            observer=silence,
            clock=clock,
            healthy=embedded.keeper.serves,
        )
        opened.enter_context(server)
        print(f"listening on {server.address}", flush=True)  # noqa: T201 - how whoever started it learns the port
        sys.stdin.read()


if __name__ == "__main__":
    main()
