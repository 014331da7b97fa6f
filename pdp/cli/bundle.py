"""`pdp check` and `pdp schema`: look at a policy folder without a server."""

from __future__ import annotations

from pathlib import Path

import click

from pdp.app import compile_once
from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_json
from pdp.cli.root import NO
from pdp.config import Settings
from pdp.errors import BundleError
from pdp.policy.bundle import load_bundle
from pdp.policy.contents import read_contents, read_folder
from pdp.policy.schema import full_schema


@click.command(epilog="Example:  pdp check policies --json")
@click.argument("folder", metavar="[DIR]", required=False)
@json_option
@with_settings("policies.folder")
def check(*, settings: Settings, folder: str | None, as_json: bool) -> None:
    """Check a policy folder.

    Prints one line for each problem, `file:line: message`, and exits with 1 when there are any.
    """
    path = Path(folder or settings.policies.folder)
    try:
        bundle = load_bundle(read_folder(path, settings.limits), settings.limits, compile_once())
    except BundleError as error:
        if as_json:
            problems = [{"file": one.file, "line": one.line, "message": one.message} for one in error.problems]
            print_json({"valid": False, "version": "", "problems": problems})
        else:
            for problem in error.problems:
                click.echo(str(problem))
        raise click.exceptions.Exit(NO) from None
    if as_json:
        print_json({"valid": True, "version": bundle.version, "problems": []})
    else:
        click.echo(f"{path}: {len(bundle.policies)} policies, {len(bundle.catalogue.tools)} tools, {bundle.version}")


@click.command(epilog="Example:  pdp schema policies > whole.cedarschema")
@click.argument("folder", metavar="[DIR]", required=False)
@with_settings("policies.folder")
def schema(*, settings: Settings, folder: str | None) -> None:
    """Print the whole Cedar schema of a policy folder.

    The author's part, and the actions that follow from the tools; for other Cedar tools.
    """
    files = read_folder(Path(folder or settings.policies.folder), settings.limits)
    contents = read_contents(files, settings.limits)
    tools = tuple(contents.catalogue.tools.values())
    click.echo(full_schema(contents.schema, contents.caller_facts, tools), nl=False)
