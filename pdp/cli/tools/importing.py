"""`pdp tools import`: write the catalogue of a tool server, and propose its overlay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import click

from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_json, replace_file
from pdp.cli.tools.toollist import (
    AsksServer,
    ToolDefinitions,
    ToolListOptions,
    policies_option,
    read_tool_lists,
    tool_list_options,
)
from pdp.config.settings import Settings
from pdp.errors import BundleError
from pdp.foundation.printable import visible
from pdp.foundation.yamltext import Section, load_section
from pdp.policy.lint.tools import CATALOGUE_LINTS
from pdp.policy.tools.catalogue import Catalogue, load_catalogue
from pdp.policy.tools.importing import catalogue_file, propose_overlay


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The changes of an import in the catalogue of one server: names of tools, sorted."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


@click.command(
    "import",
    cls=AsksServer,
    short_help="Write the catalogue of a tool server.",
    epilog='Example:  pdp tools import git --command "python -m mcp_server_git"',
)
@click.argument("server", required=False)
@tool_list_options
@policies_option
@click.option("--force", is_flag=True, help="Also replace the overlay with a new proposal.")
@json_option
@with_settings()
def import_tools(
    *,
    settings: Settings,
    server: str | None,
    tool_list: ToolListOptions,
    policies: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the catalogue of a tool server, and propose an overlay if there is none.

    Takes a `tools/list` answer from a file, from stdin (`-`), or from the MCP server itself, which it starts or asks at
    a URL. With --servers it takes those of all servers in the file, or of the one that is named; if one of them does
    not answer, nothing is written.
    """
    lists = read_tool_lists(server, tool_list)
    if policies is not None and not Path(policies).is_dir():
        raise click.UsageError(f"the policy folder `{policies}` does not exist")
    folder = Path(policies or settings.policies.folder) / "tools"
    imports = [_Import.prepared(name, definitions, folder, force=force) for name, definitions in lists]
    folder.mkdir(parents=True, exist_ok=True)
    for one in imports:
        one.write()
    if as_json:
        facts = [one.facts() for one in imports]
        print_json(facts[0] if server is not None else facts)
        return
    for one in imports:
        one.report()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Import:
    """What an import makes of the tools of one server. With `proposed` it also writes an overlay."""

    server: str
    folder: Path
    content: bytes
    new: Catalogue
    change: Change
    proposed: bytes | None

    @classmethod
    def prepared(cls, server: str, definitions: ToolDefinitions, folder: Path, *, force: bool) -> Self:
        """Return the import. Raise `BundleError` for tools that make no catalogue."""
        content = catalogue_file(definitions)
        new = load_catalogue({f"tools/{server}.json": content})
        proposed = force or not (folder / f"{server}.yaml").exists()
        return cls(
            server=server,
            folder=folder,
            content=content,
            new=new,
            change=_change(_known(server, folder / f"{server}.json"), new),
            proposed=propose_overlay(server, definitions).encode("utf-8") if proposed else None,
        )

    @property
    def catalogue(self) -> Path:
        return self.folder / f"{self.server}.json"

    @property
    def overlay(self) -> Path:
        return self.folder / f"{self.server}.yaml"

    def write(self) -> None:
        replace_file(self.catalogue, self.content)
        if self.proposed is not None:
            replace_file(self.overlay, self.proposed)

    def facts(self) -> Mapping[str, Any]:
        """Return what is reported, as JSON."""
        now = self._now()
        return {
            "catalogue": str(self.catalogue),
            "tools": len(self.new.tools),
            "added": self.change.added,
            "changed": self.change.changed,
            "removed": self.change.removed,
            "overlay": str(self.overlay),
            "overlay_written": self.proposed is not None,
            "not_in_overlay": self._unmentioned(),
            "opaque": {tool.name: tool.input.opaque_labels() for tool in now.tools.values()},
            "warnings": _warnings(now),
        }

    def report(self) -> None:
        """Print what came of it."""
        now = self._now()
        _report(self.catalogue, len(self.new.tools), self.change)
        _report_overlay(self.overlay, self._unmentioned(), proposed=self.proposed is not None)
        _report_unseen(now)
        for warning in _warnings(now):
            click.echo(f"warning: {visible(warning)}")

    def _now(self) -> Catalogue:
        return _with_overlay(self.server, self.content, self.overlay) or self.new

    def _unmentioned(self) -> tuple[str, ...]:
        return () if self.proposed is not None else _unmentioned(self.overlay, self.new)


def _warnings(catalogue: Catalogue) -> list[str]:
    return [problem.message for lint in CATALOGUE_LINTS.values() for problem in lint(catalogue)]


def _known(server: str, path: Path) -> Catalogue:
    """Return the server's catalogue before the import; empty when it cannot be read."""
    try:
        return load_catalogue({f"tools/{server}.json": path.read_bytes()})
    except (FileNotFoundError, BundleError):
        return Catalogue(tools={})


def _with_overlay(server: str, content: bytes, overlay: Path) -> Catalogue | None:
    """Return the catalogue with its overlay; `pdp check` reports a broken overlay."""
    try:
        return load_catalogue({f"tools/{server}.json": content, f"tools/{server}.yaml": overlay.read_bytes()})
    except BundleError:
        return None


def _report_unseen(catalogue: Catalogue) -> None:
    for tool in catalogue.tools.values():
        for label, reason in tool.input.opaque_labels().items():
            click.echo(visible(f"policies cannot see `{label}` of {tool.name}: {reason}"))


def _change(old: Catalogue, new: Catalogue) -> Change:
    before = {tool.name: tool.definition_digest for tool in old.tools.values()}
    after = {tool.name: tool.definition_digest for tool in new.tools.values()}
    return Change(
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(name for name in after.keys() & before.keys() if after[name] != before[name])),
        removed=tuple(sorted(before.keys() - after.keys())),
    )


def _unmentioned(overlay: Path, new: Catalogue) -> tuple[str, ...]:
    """Return the tools without an entry; `pdp check` reports a broken overlay."""
    try:
        mentioned = load_section(str(overlay), overlay.read_bytes()).get("tools")
    except BundleError:
        return ()
    names = mentioned if isinstance(mentioned, Section) else {}
    return tuple(sorted(tool.name for tool in new.tools.values() if tool.name not in names))


def _report(catalogue: Path, count: int, change: Change) -> None:
    counts = f"{len(change.added)} added, {len(change.changed)} changed, {len(change.removed)} removed"
    click.echo(f"{catalogue}: {count} tools: {counts}")
    for sign, names in (("+", change.added), ("~", change.changed), ("-", change.removed)):
        for name in names:
            click.echo(f"  {sign} {name}")


def _report_overlay(overlay: Path, unmentioned: Sequence[str], *, proposed: bool) -> None:
    if proposed:
        click.echo(f"{overlay}: proposed; review its risk groups before you rely on them")
    elif unmentioned:
        click.echo(f"{overlay}: kept; it does not name {', '.join(unmentioned)}, so these count as destructive")
    else:
        click.echo(f"{overlay}: kept")
