"""`pdp check` and `pdp schema`: examine a policy folder without a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from pdp import __version__
from pdp.app.embedded import compile_once
from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_json, print_table, progress
from pdp.cli.problems import problems_in
from pdp.cli.root import NO
from pdp.config.settings import Settings
from pdp.limits import Limits
from pdp.policy.contents import overlooked, read_contents, read_folder
from pdp.policy.loading import inspect_bundle, load_bundle
from pdp.policy.schema import full_schema
from pdp.workbench.checking import reading_rows, report_json, report_sarif, text_lines


@click.command(epilog="Example:  pdp check policies --deny warnings")
@click.argument("folder", metavar="[DIR]", required=False)
@json_option
@click.option("--sarif", "as_sarif", is_flag=True, help="Print SARIF 2.1.0, for code review.")
@click.option(
    "--reads", is_flag=True, help="Show for each tool what policies read of its calls, and how decisions are cached."
)
@click.option("--deny", type=click.Choice(["warnings"]), help="Also exit with 1 for warnings.")
@with_settings("policies.folder")
def check(
    *, settings: Settings, folder: str | None, as_json: bool, as_sarif: bool, reads: bool, deny: str | None
) -> None:
    """Check a policy folder.

    Finds errors that keep it from loading, and probable mistakes that do not. Prints each problem with its line, a
    caret and advice. Exits with 0 when there is no error, 1 when there is one, and 2 when nothing could be checked.
    """
    if as_json and as_sarif:
        raise click.UsageError("pass `--json` or `--sarif`, not both")
    if reads and as_sarif:
        raise click.UsageError("pass `--reads` or `--sarif`, not both")
    path = Path(folder or settings.policies.folder)
    with problems_in(path):
        files = read_folder(path, settings.limits)
    with progress(f"checking {path}"):
        report = inspect_bundle(files, settings.limits, compile_once())
    report = replace(report, warnings=(*report.warnings, *overlooked(path)))
    bundle = load_bundle(files, settings.limits, compile_once()) if reads and not report.errors else None
    if as_json:
        print_json(report_json(report, bundle))
    elif as_sarif:
        print_json(report_sarif(report, path, tool_version=__version__))
    else:
        for line in text_lines(report, path, files):
            click.echo(line)
        if bundle:
            print_table(("tool", "answers", "read of a call", "by"), reading_rows(bundle))
    if report.errors or (deny and report.warnings):
        raise click.exceptions.Exit(NO)


@click.command(epilog="Example:  pdp schema policies > whole.cedarschema")
@click.argument("folder", metavar="[DIR]", required=False)
@with_settings("policies.folder")
def schema(*, settings: Settings, folder: str | None) -> None:
    """Print the whole Cedar schema of a policy folder.

    Prints the author's part and the actions that follow from the tools, for use with other Cedar tools.
    """
    path = Path(folder or settings.policies.folder)
    with problems_in(path):
        click.echo(_whole_schema(read_folder(path, settings.limits), settings.limits), nl=False)


def _whole_schema(files: Mapping[str, bytes], limits: Limits) -> str:
    contents = read_contents(files, limits)
    if any("context.counts" in text or "context.done" in text for text in contents.policies.values()):
        # What is counted is declared too, and only parsed policies tell it.
        return load_bundle(files, limits, compile_once()).schema_text()
    tools = tuple(contents.catalogue.tools.values())
    return full_schema(contents.schema, contents.caller_facts, tools, contents.groups)
