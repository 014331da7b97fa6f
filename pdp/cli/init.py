"""`pdp init`, and what a first `pdp serve` does of it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import click

from pdp.cli.options import with_settings
from pdp.config import Settings
from pdp.errors import ConfigurationError
from pdp.server.authentication import CALLERS_FILE, init_callers

RECORD_KEY_FILE = "record.key"
_KEY_BYTES = 32


@click.command(epilog="Example:  pdp init --data-dir /var/lib/pdp")
@with_settings("data_dir")
def init(*, settings: Settings) -> None:
    """Write a token for each role, and the key of the decision log.

    What is there already stays as it is.
    """
    written = prepare(settings)
    for path in written:
        click.echo(f"wrote {path}")
    if not written:
        click.echo(f"nothing to do: `{settings.data_dir}` is complete")


def prepare(settings: Settings) -> tuple[Path, ...]:
    """Make sure that the data folder holds callers and the key, and return what was written. Overwrites nothing."""
    folder = Path(settings.data_dir)
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"`data_dir` must be a folder, and `{folder}` is none")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    written: list[Path] = []
    if not (folder / CALLERS_FILE).exists():
        written += [init_callers(folder), settings.tokens_folder]
    if _write_key(folder / RECORD_KEY_FILE):
        written.append(folder / RECORD_KEY_FILE)
    return tuple(written)


def _write_key(path: Path) -> bool:
    """Write a fresh key unless there is one, whole or not at all."""
    if path.exists():
        return False
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        # A link, because a rename would replace the key of a process that was faster.
        path.hardlink_to(partial)
    except FileExistsError:
        return False
    finally:
        partial.unlink()
    return True
