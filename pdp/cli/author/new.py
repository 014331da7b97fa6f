"""`pdp new`: create a policy folder."""

from __future__ import annotations

from pathlib import Path

import click

from pdp.cli.tools.toollist import ToolListOptions, read_tool_list
from pdp.workbench.scaffold import EXAMPLE_SERVER, example_bundle, example_definitions, scaffold


@click.command(epilog="Example:  pdp new my-policies --server git --tools git.tools.json")
@click.argument("folder", metavar="DIR")
@click.option("--server", metavar="NAME", help="The tool server that the policies cover. [an example server]")
@click.option("--tools", metavar="FILE|-", help="The server's answer to `tools/list`.")
@click.option("--example", is_flag=True, help="Write the example bundle of the guide: git, GitHub, files and time.")
def new(*, folder: str, server: str | None, tools: str | None, example: bool) -> None:
    """Create a policy folder.

    Writes a bundle that passes `pdp check` and `pdp test`: a first set of policies, a directory, the tools, each with a
    proposed risk group, and tests. DIR must be new or empty.
    """
    if (server is None) != (tools is None):
        raise click.UsageError("pass --server and --tools together, or neither for an example server")
    if example and server is not None:
        raise click.UsageError("--example cannot be combined with --server and --tools: it has its own servers")
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise click.ClickException(f"`{folder}` exists and is not an empty folder")
    if example:
        files = example_bundle()
    elif server is None:
        files = scaffold(EXAMPLE_SERVER, example_definitions())
    else:
        files = scaffold(server, read_tool_list(server, ToolListOptions(source=tools)))
    for name, content in sorted(files.items()):
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        click.echo(f"wrote {file}")
    _say_what_next(folder)


def _say_what_next(folder: str) -> None:
    click.echo(
        f"\nnext:\n"
        f"  pdp check {folder}   find mistakes in the policies\n"
        f"  pdp test {folder}    run the tests\n"
        f"  name your people and agents in {Path(folder) / 'directory.yaml'}\n"
        f"  review each risk group in {Path(folder) / 'tools'}: it is a proposal\n"
        f"  pdp serve --policies-folder {folder}"
    )
