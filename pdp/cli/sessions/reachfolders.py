"""Compare what a session that is asked for now can reach by two policy folders, without a server."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from pdp.app.embedded import compile_once
from pdp.cli.output import print_json, print_table
from pdp.config.settings import Settings
from pdp.decision.explainer import SupposedSession
from pdp.policy.bundle import Bundle
from pdp.policy.contents import read_folder
from pdp.policy.loading import load_bundle
from pdp.registry.reach import MOST_TOOLS, ReachedTool, ceiling
from pdp.workbench.revisions import opened

# For a tool that is above the agent's ceiling, or in no catalogue.
_ABSENT = "absent"


def print_changes(against: str, settings: Settings, *, user: str, agent: str, terms: str, as_json: bool) -> None:
    """Print the tools whose visibility or policies differ in the policy folder from another bundle.

    Raise `ConfigurationError` for what is no bundle, `BundleError` for one that cannot be loaded, and
    `InvalidRequestError` for a user or agent that is not in both directories.
    """
    folder, supposed = settings.policies.folder, SupposedSession(user=user, agent=agent, terms_json=terms.encode())
    with ExitStack() as stack:
        folders = (stack.enter_context(opened(against, folder=folder)), Path(folder))
        bundles = [load_bundle(read_folder(one, settings.limits), settings.limits, compile_once()) for one in folders]
        before, after = (_tools(bundle, supposed) for bundle in bundles)
    names = sorted(name for name in {*before, *after} if _told(before.get(name)) != _told(after.get(name)))
    if as_json:
        changes = [{"tool": name, "before": _told(before.get(name)), "after": _told(after.get(name))} for name in names]
        print_json({"before": bundles[0].version, "after": bundles[1].version, "tools": changes})
        return
    if not names:
        click.echo("nothing has changed")
        return
    rows = [(name, *_words(before.get(name)), *_words(after.get(name))) for name in names]
    print_table(("tool", "before", "by", "now", "by"), rows)


def _tools(bundle: Bundle, supposed: SupposedSession) -> dict[str, ReachedTool]:
    found, at, after = dict[str, ReachedTool](), time.time(), ""
    while True:
        page = ceiling(bundle, supposed, tenant="default", wall_at=at, after=after, size=MOST_TOOLS)
        found |= {one.tool.action: one for one in page.tools}
        if not page.more:
            return found
        after = max(found)


def _told(one: ReachedTool | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "risk": one.tool.risk,
        "visibility": one.visibility.value,
        "policy_ids": list(one.policies),
        "opened_by": list(one.opened_by),
    }


def _words(one: ReachedTool | None) -> tuple[str, str]:
    return (_ABSENT, "") if one is None else (one.visibility.value, " ".join(one.policies))
