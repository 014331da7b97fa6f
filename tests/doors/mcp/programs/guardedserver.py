"""A server of the real SDK that takes calls with call tokens alone: `guardedserver.py ADDRESS TOKEN_FILE FOLDER`.

It keeps in the folder which tokens were used, and what each message said about itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer

from pdp.calltokens.mcp import CallTokens
from pdp.calltokens.uses import FileUses
from pdp.calltokens.verifying import PublishedKeys, Verifier
from pdp.client import Client
from pdp.client.calltokens import fetch_keys, live_check

AUDIENCE = "https://notes.example"
ISSUER = "pdp-embedded"


def server_of(verifier: Verifier, seen: Path) -> MCPServer:
    """Return the server."""
    server = MCPServer("notes")

    async def noting(ctx: Any, call_next: Any) -> Any:
        with seen.open("a", encoding="utf-8") as file:
            file.write(json.dumps((ctx.params or {}).get("_meta")) + "\n")
        return await call_next(ctx)

    server.middleware.extend([noting, CallTokens(verifier, server="notes")])

    @server.tool()
    def write(text: str) -> str:
        """Return the text."""
        return f"wrote {text}"

    return server


def main() -> None:
    """Serve stdin and stdout."""
    address, token_file, folder = sys.argv[1:]
    with Client(address, token_file=token_file, plaintext=True) as client:
        verifier = Verifier(
            issuer=ISSUER,
            audience=AUDIENCE,
            keys=PublishedKeys(fetch_keys(client)),
            # What was used before is known from the file, so that nobody need wait for the first five seconds.
            uses=FileUses(Path(folder) / "uses", wall=lambda: 0.0),
            live=live_check(client),
        )
        server_of(verifier, Path(folder) / "seen").run()


if __name__ == "__main__":
    main()
