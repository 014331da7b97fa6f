"""Pages that a test has made, served as the console serves its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.responses import HTMLResponse
from starlette.types import Receive, Scope, Send

from pdp.console.assets import Assets
from pdp.console.shell import Place, Shell
from pdp.serving import weblistener
from pdp.serving.weblistener import LoopbackListener
from tests.console.desk import LOOP, stop


@contextmanager
def served(shown: dict[str, str]) -> Iterator[dict[str, str]]:
    """Serve pages within the headers and with the assets of the console, and provide their addresses by their names."""
    paths = {name: f"/{number}" for number, name in enumerate(shown)}
    by_path = {path: shown[name] for name, path in paths.items()}

    async def show(scope: Scope, receive: Receive, send: Send) -> None:
        await HTMLResponse(by_path.get(scope["path"], ""))(scope, receive, send)

    with LoopbackListener() as listener:
        place = Place(f"http://localhost:{listener.port}")

        async def begin() -> asyncio.Future[None]:
            return asyncio.ensure_future(weblistener.serve(Shell(show, place, Assets()), listener))

        serving = LOOP.run(begin())
        try:
            yield {name: place.origin + path for name, path in paths.items()}
        finally:
            LOOP.run(stop(serving))
