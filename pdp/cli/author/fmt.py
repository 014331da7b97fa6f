"""`pdp fmt`: give the policies of a folder one layout."""

from __future__ import annotations

from dataclasses import asdict
from difflib import unified_diff
from pathlib import Path
from typing import Any

import click

from pdp.cli.options import with_settings
from pdp.cli.output import replace_file
from pdp.cli.problems import problems_in
from pdp.cli.root import NO
from pdp.config.settings import Settings
from pdp.errors import BundleError, Problem
from pdp.foundation.printable import visible
from pdp.limits import Limits
from pdp.policy.child.process import run_once
from pdp.policy.contents import read_folder, require_sizes

_FORMAT_SECONDS = 60.0


@click.command(epilog="Example:  pdp fmt policies  |  pdp fmt policies --check")
@click.argument("folder", metavar="[DIR]", required=False)
@click.option(
    "--check", is_flag=True, help="Change nothing; show what would change, and exit with 1 if anything would."
)
@with_settings("policies.folder")
def fmt(*, settings: Settings, folder: str | None, check: bool) -> None:
    """Format the policies of a folder.

    Uses Cedar's own formatter with 120 columns, and keeps comments. The meaning of a policy never changes. Exits with
    2, and changes nothing, if a policy cannot be read.
    """
    path = Path(folder or settings.policies.folder)
    with problems_in(path):
        before = _read(path, settings.limits)
        after = _formatted(before, settings.limits)
    changed = [name for name in sorted(before) if before[name] != after[name]]
    for name in changed:
        if check:
            _show(str(path / name), before[name], after[name])
        else:
            replace_file(path / name, after[name].encode("utf-8"))
            click.echo(f"formatted {path / name}")
    if check and changed:
        click.echo(f"{path}: {len(changed)} of {len(before)} files would change; `pdp fmt {path}` formats them")
        raise click.exceptions.Exit(NO)


def _read(folder: Path, limits: Limits) -> dict[str, str]:
    files = {name: content for name, content in read_folder(folder, limits).items() if name.endswith(".cedar")}
    require_sizes(files, limits)
    texts: dict[str, str] = {}
    for name, content in files.items():
        try:
            texts[name] = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BundleError((Problem(name, content.count(b"\n", 0, error.start) + 1, "not UTF-8"),)) from None
    return texts


def _formatted(files: dict[str, str], limits: Limits) -> dict[str, str]:
    result: dict[str, Any] = run_once("format", {"files": files, "limits": asdict(limits)}, timeout=_FORMAT_SECONDS)
    if "problems" in result:
        raise BundleError(tuple(Problem(**problem) for problem in result["problems"]))
    texts: dict[str, str] = result["files"]
    return texts


def _show(name: str, before: str, after: str) -> None:
    for line in unified_diff(before.split("\n"), after.split("\n"), name, name, lineterm="", n=1):
        click.echo(visible(line))
