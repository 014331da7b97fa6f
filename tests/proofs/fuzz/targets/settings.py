"""The configuration: whatever file, environment and flags say, there are settings, or one printable line per mistake.

The data holds the file and then, each after a NUL, variables (`PDP_…=…`) and flags (`name=…`).
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from pdp.config.reading import describe, dump, load, restore
from pdp.errors import ConfigurationError

WORDS = (
    *(f"{row.name}=" for row in describe()),
    *(f"{row.environment}=" for row in describe()),
    "\x00",
    ": ",
    "{",
    "&a",
)
SEEDS = (
    b"cache: {max_ttl: 5}\nserver:\n  address: 127.0.0.1:1\n",
    b"server: {address: 'unix:/run/pdp.sock', workers: 0}\nsessions: {store: memory}\n",
    b"jwt: {issuer: a, audience: b, keys_file: c, algorithms: [ES256, Ed25519]}\n",
    b"\0cache.max_ttl=1e3\0PDP_SERVER__THREADS=8\0server.reflection=true",
    b"\0server.address=[::1]:0\0jwt.algorithms=ES256,RS256\0limits.message_bytes=1",
    b"a: &a [*a]\n<<: {}\n? [1]\n: 2\n",
    b"cach: 1\ncache: 1\n",
    b"policies: {url: 'https://h/x', poll_seconds: .inf}\n",
    b"record: {durability: durable}\nrecord: {folder: a}\n",
)
_FOLDER = Path(tempfile.mkdtemp(prefix="pdp-fuzz-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)


def run(data: bytes) -> None:
    """Load settings."""
    text, *others = data.split(b"\0")
    file = _FOLDER / "pdp.yaml"
    file.write_bytes(text)
    environ: dict[str, str] = {}
    flags: dict[str, str] = {}
    for other in others:
        name, _, value = other.decode("utf-8", "surrogateescape").partition("=")
        (environ if name.startswith("PDP_") else flags)[name] = value
    environ.pop("PDP_CONFIG", None)
    try:
        settings = load(environ=environ, flags=flags, file=file)
    except ConfigurationError as error:
        assert all(line.isprintable() for line in str(error).split("\n")), "a message that is not printable"
        return
    assert settings == restore(dump(settings))
