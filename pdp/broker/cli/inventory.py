"""`pdp-broker inventory`: which secrets lie about, and how each gets behind the broker."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from pdp.broker.cli.opened import json_option
from pdp.broker.inventory.finding import Find, Inventory, take_inventory
from pdp.broker.words import Mode
from pdp.cli.output import moment_text, print_fields, print_json, progress
from pdp.foundation.counting import counted
from pdp.foundation.printable import visible

_DAY: Final = 24 * 3600


@click.command(epilog="Example:  pdp-broker inventory . ~/.cursor ~/.config --processes")
@click.argument("paths", metavar="PATH…", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--processes", is_flag=True, help="Look at the environment of each process that you may read, too.")
@json_option
@click.pass_context
def inventory(context: click.Context, *, paths: Sequence[Path], processes: bool, as_json: bool) -> None:
    """Find secrets in files of MCP clients, .env files and environments.

    Says of each what it is, where it lies, since when at least, who can read it, and by which commands it gets behind
    the broker. No value is shown. In folders, files with known names are read; a file that is named is read anyway. The
    exit code is 1 when there is any.
    """
    if not paths and not processes:
        raise click.UsageError("name files or folders, or `--processes`")
    with progress("looking for secrets"):
        found = take_inventory(paths, processes=processes)
    names = _connections(found.finds)
    if as_json:
        finds = [_plain(one, names[one.number]) for one in found.finds]
        unread = [{"file": str(file), "problem": problem} for file, problem in found.unread.items()]
        print_json({"finds": finds, "files_read": found.read, "unread": unread})
    else:
        _print(found, names)
    context.exit(1 if found.finds else 0)


def _connections(finds: Sequence[Find]) -> Mapping[int, str]:
    """Return a name for the connection of each secret."""
    taken: Counter[str] = Counter()
    names: dict[int, str] = {}
    for one in finds:
        if one.number not in names:
            kind = one.shape.kind
            taken[kind] += 1
            names[one.number] = kind if taken[kind] == 1 else f"{kind}-{taken[kind]}"
    return names


def _commands(find: Find, name: str) -> list[str]:
    shape = find.shape
    if shape.uncovered:
        return []
    add = ["pdp-broker", "connection", "add", name, "--kind", shape.kind, "--upstream", shape.upstream or "ORIGIN"]
    if shape.header != "Authorization":
        add += ["--header", shape.header]
    if shape.scheme != "Bearer":
        add += ["--scheme", shape.scheme]
    # Whatever holds the secret makes requests of its own, into which the broker puts it as they pass through.
    add += ["--mode", Mode.PROXY.value]
    return [shlex.join(add), shlex.join(["pdp-broker", "secret", "put", name])]


def _print(found: Inventory, names: Mapping[int, str]) -> None:
    first: dict[int, Find] = {}
    for one in found.finds:
        earlier = first.setdefault(one.number, one)
        again = earlier is not one
        click.echo(visible(f"{one.file}: {one.place}"))
        commands = _commands(one, names[one.number])
        print_fields(
            (
                ("  kind", one.shape.kind),
                ("  same as", f"{earlier.file}: {earlier.place}" if again else ""),
                ("  there since", f"{moment_text(one.since)}, {_age(one.since)} or longer"),
                ("  can be read by", one.readers + (", and in the history of git, if committed" if one.in_git else "")),
                ("  opens", one.shape.upstream),
                ("  move it", "" if again or not commands else commands[0]),
                ("  and then", "" if again or not commands else f"{commands[1]}   # type or paste it: it is not shown"),
                ("  not covered", one.shape.uncovered),
            )
        )
    for file, problem in found.unread.items():
        click.echo(visible(f"not read: {file}: {problem}"), err=True)
    secrets, places = len({one.number for one in found.finds}), len(found.finds)
    click.echo(
        f"{counted(secrets, 'secret')} in {counted(places, 'place')}; {counted(found.read, 'file')} read"
        + (f", {len(found.unread)} not" if found.unread else "")
    )


def _age(since: float) -> str:
    return counted(max(0, int((time.time() - since) // _DAY)), "day")


def _plain(find: Find, name: str) -> dict[str, object]:
    return {
        "secret": find.number,
        "kind": find.shape.kind,
        "file": str(find.file),
        "place": find.place,
        "user": find.user,
        "since": moment_text(find.since),
        "readers": find.readers,
        "in_git": find.in_git,
        "upstream": find.shape.upstream,
        "commands": _commands(find, name),
        "uncovered": find.shape.uncovered,
    }
