"""A server inside a door: one machine, one person, and no server to run.

Doors with the same data folder share it. One of them serves, on a socket in that folder; when it ends, another takes
over. People approve at the same socket; the commands that they are told name it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pdp.cli.operate.init import prepare
from pdp.config.reading import load
from pdp.config.settings import CallTokenSettings, Settings
from pdp.errors import ConfigurationError
from pdp.foundation.files import open_private, replacing
from pdp.foundation.ownership import require_own

if TYPE_CHECKING:
    from pdp.app.server import App

_SETTINGS_FILE = "embedded.yaml"
_LOCK, _SOCKET = "embedded.lock", "server.sock"
_GRACE_SECONDS = 1.0
# The `iss` of call tokens.
ISSUER = "pdp-embedded"
_FILE = """# Written by `pdp mcp --embedded`, for the commands of the person who approves.
data_dir: {data_dir}
server:
  address: {address}
  workers: 1
policies:
  folder: {folder}
log:
  level: warning
"""


def data_folder(policies: Path, environ: Mapping[str, str]) -> Path:
    """Return where the embedded server for a folder of policies keeps its data if nothing else is said."""
    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    whole = policies.resolve()
    return Path(state) / "pdp" / f"{whole.name}-{hashlib.sha256(os.fsencode(whole)).hexdigest()[:12]}"


def embedded_settings(folder: Path, policies: Path) -> Settings:
    """Write the settings of the embedded server, and return them.

    Raise `ConfigurationError` when there are no such policies, the folder is that of other policies, or others could
    write to it.
    """
    # INVARIANT: before anything is written. Else a mistyped name would take the data folder from the right policies.
    if not policies.is_dir():
        raise ConfigurationError(f"`{policies}` is no folder of policies; `pdp new` creates one")
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    require_own(folder, "others could answer instead of the server")
    file = folder / _SETTINGS_FILE
    words = {"data_dir": folder, "address": f"unix:{folder / _SOCKET}", "folder": policies.resolve()}
    text = _FILE.format(**{name: json.dumps(str(word)) for name, word in words.items()}).encode()
    if file.exists():
        if file.read_bytes() != text:
            raise ConfigurationError(f"`{folder}` is the data folder of other policies: pass another --data-dir")
    else:
        with replacing(file) as written:
            written.write(text)
    # Not in the file: one that an earlier version has written stays as it is.
    return replace(load(environ={}, flags={}, file=str(file)), call_tokens=CallTokenSettings(issuer=ISSUER))


class EmbeddedServer:
    """The server of a data folder: `prepare` the folder, `start` the server, and `stop` it at the end.

    A door that finds another one serving waits, and serves when that one ends.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = Path(settings.data_dir)
        self._app: App | None = None
        self._failure: Exception | None = None
        self._stopped = False
        self._turn = threading.Lock()

    def prepare(self) -> None:
        """Write tokens and keys if there are none."""
        lock = open_private(self._folder / "prepare.lock")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            prepare(self._settings, development=True)
        finally:
            os.close(lock)

    def start(self, *, on_failure: Callable[[], object]) -> None:
        """Begin to serve, in a thread, once no other door does. If it cannot, `stop` raises why."""

        def run() -> None:
            try:
                self._serve()
            except Exception as error:  # noqa: BLE001 - `stop` raises it
                self._failure = error
                on_failure()

        # A daemon, since another door may serve for days.
        threading.Thread(target=run, name="pdp-embedded", daemon=True).start()

    def stop(self) -> None:
        """Serve no longer. Raise what kept this server from serving."""
        with self._turn:
            self._stopped = True
            if self._app is not None:
                self._app.stop(_GRACE_SECONDS)
            if self._failure is not None:
                raise self._failure

    def _serve(self) -> None:
        from pdp.app.server import App  # noqa: PLC0415 - it takes a moment, which the client does not wait for

        # Kept open, and so locked, until the process ends.
        fcntl.flock(open_private(self._folder / _LOCK), fcntl.LOCK_EX)
        with self._turn:
            if not self._stopped:
                # One that a killed server has left.
                (self._folder / _SOCKET).unlink(missing_ok=True)
                app = App(self._settings)
                app.start()
                self._app = app
