"""`pdp diff`: the changes of policies and of calls, from one bundle to another."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pdp.app.embedded import compile_once
from pdp.cli.options import json_option, with_settings
from pdp.cli.output import print_json, progress
from pdp.cli.root import ERROR, NO, YES
from pdp.config.settings import Settings
from pdp.foundation.printable import visible
from pdp.policy.bundle import Bundle
from pdp.policy.contents import read_folder
from pdp.policy.loading import load_bundle
from pdp.record import read_records
from pdp.workbench.attribution import Judged, judge_files, judge_policies
from pdp.workbench.bundlediff import (
    CallChange,
    CallsDifference,
    Effect,
    PolicyChange,
    by_policy,
    compare_calls,
    compare_files,
    compare_policies,
)
from pdp.workbench.logreplay import LogDifference, compare_records
from pdp.workbench.reading import read_suites
from pdp.workbench.revisions import opened
from pdp.workbench.suite import Suite

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_SHOWN = 20
UNDECIDED = 3


@click.command(
    short_help="Compare the policies and decisions of two bundles.",
    epilog="Example:  pdp diff HEAD policies  |  pdp diff v1.2:policies policies --allow-widening",
)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.option("--tests", metavar="DIR", help="Replay the test cases of this bundle instead of those of OLD and NEW.")
@click.option("--log", metavar="DIR", help="Also replay a decision log as far as possible; it holds no arguments.")
@click.option("--allow-widening", is_flag=True, help="Do not fail when a call becomes newly allowed.")
@click.option("--allow-undecided", is_flag=True, help="Do not fail for a change that no call shows.")
@click.option("--all", "everything", is_flag=True, help=f"Show all calls, not only {_SHOWN} of each group.")
@json_option
@with_settings()
def diff(
    *,
    settings: Settings,
    old: str,
    new: str,
    tests: str | None,
    log: str | None,
    allow_widening: bool,
    allow_undecided: bool,
    everything: bool,
    as_json: bool,
) -> int:
    """Show what changes from the bundle OLD to the bundle NEW.

    Each is a folder, a git revision, or REVISION:FOLDER. Both bundles decide every call of the test cases, whatever the
    cases expect; a call without a decision counts as denied. For a changed policy that no case shows, calls are
    generated from the cases, the tools and the values that the policy compares, and those whose decision changes are
    shown.

    Exit code 2: a call is newly allowed, allowed with fewer obligations, or newly liftable by a person, without
    --allow-widening. 1: a call is newly erring. 3: no call shows what a change does, without --allow-undecided. 0:
    otherwise.
    """
    with ExitStack() as stack:
        before, after = (
            stack.enter_context(opened(source, folder=_folder(other, settings)))
            for source, other in ((old, new), (new, old))
        )
        old_files, new_files = (read_folder(folder, settings.limits) for folder in (before, after))
        old_bundle = load_bundle(old_files, settings.limits, compile_once())
        same = old_files == new_files
        new_bundle = old_bundle if same else load_bundle(new_files, settings.limits, compile_once())
        suites = (
            read_suites(Path(tests), settings.limits)
            if tests
            else _united(read_suites(before, settings.limits), read_suites(after, settings.limits))
        )
        policies = compare_policies(old_bundle, new_bundle)
        others = compare_files(old_files, new_files)
        with progress("deciding the calls of the test cases"):
            calls = compare_calls(old_bundle, new_bundle, suites, limits=settings.limits)
        with progress("examining each change"):
            judged = (
                *judge_policies(old_bundle, new_bundle, policies, suites, limits=settings.limits),
                *judge_files(
                    old_files,
                    new_files,
                    new_bundle,
                    others,
                    suites,
                    load=lambda files: load_bundle(files, settings.limits, compile_once()),
                    limits=settings.limits,
                ),
            )
        recorded = _recorded(old_bundle, new_bundle, log) if log else None
    found = [("of the test cases", calls)]
    if recorded is not None:
        found.append(("of the decision log", CallsDifference(compared=recorded.decided, changes=recorded.changes)))
    searched = tuple(change for one in judged for change in one.by_search)
    if searched:
        found.append(("that were generated", CallsDifference(compared=len(searched), changes=searched)))
    undecided = [one.what for one in judged if one.undecided]
    if as_json:
        print_json({**_json(policies, others, calls, recorded), **_judged_json(judged)})
    else:
        _print_bundle(policies, others)
        for origin, difference in found:
            _print_calls(origin, difference, everything=everything)
        for reason, count in sorted(recorded.undecided.items()) if recorded else ():
            click.echo(f"{count} calls of the log cannot be decided: {reason}")
        for what in undecided:
            click.echo(f"undecided: no call shows what the change of `{visible(what)}` does; write a test case for it")
    wider = (Effect.NEWLY_ALLOWED, Effect.LESS_OBLIGED, Effect.NEWLY_LIFTABLE)
    if any(one.having(effect) for _, one in found for effect in wider) and not allow_widening:
        return ERROR
    if any(one.having(Effect.NEWLY_ERRING) for _, one in found):
        return NO
    return UNDECIDED if undecided and not allow_undecided else YES


def _recorded(old: Bundle, new: Bundle, folder: str) -> LogDifference:
    if not Path(folder).is_dir():
        raise click.UsageError(f"--log: `{folder}` is not a folder")
    return compare_records(old, new, (one.record for one in read_records(Path(folder))))


def _folder(other: str, settings: Settings) -> str:
    """Return the folder for a bare revision: that of the other side or the settings."""
    return other if Path(other).is_dir() else other.partition(":")[2] or settings.policies.folder


def _united(old: Iterable[Suite], new: Iterable[Suite]) -> list[Suite]:
    """Return the suites of both sides, because a deleted case can show a change."""
    suites = {suite.file: suite for suite in new}
    gone = [suite for suite in old if suites.get(suite.file) != suite]
    return [*suites.values(), *gone]


def _print_bundle(policies: Iterable[PolicyChange], others: Iterable[str]) -> None:
    for policy in policies:
        click.echo(f"{_SIGNS[policy.kind]} {policy.effect} {policy.id}  {policy.file}:{policy.line}")
    for name in others:
        click.echo(f"~ {visible(name)}")


def _print_calls(origin: str, calls: CallsDifference, *, everything: bool) -> None:
    if not calls.compared:
        click.echo(f"no calls {origin} to compare")
        return
    counts = ", ".join(
        f"{count} {effect.value}"
        for effect in Effect
        if (count := len(calls.having(effect)))
        or effect in (Effect.NEWLY_ALLOWED, Effect.NEWLY_DENIED, Effect.NEWLY_ERRING)
    )
    click.echo(f"{calls.compared} calls {origin} compared: {counts}")
    for effect in Effect:
        for (was, now), group in by_policy(calls.having(effect)).items():
            click.echo(f"\n{effect.value}: {len(group)}")
            click.echo(f"    was: {visible(was)}")
            click.echo(f"    now: {visible(now)}")
            shown = group if everything else group[:_SHOWN]
            for change in shown:
                click.echo(f"      {visible(change.what)}  {visible(change.name)}")
            if len(group) > len(shown):
                click.echo(f"      and {len(group) - len(shown)} more; --all shows them")


def _json(
    policies: Iterable[PolicyChange], others: Iterable[str], calls: CallsDifference, recorded: LogDifference | None
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "policies": [asdict(change) for change in policies],
        "files": list(others),
        "compared": calls.compared,
        "changes": [_call_json(change) for change in calls.changes],
    }
    if recorded is not None:
        result["log"] = {
            "decisions": recorded.decisions,
            "compared": recorded.decided,
            "undecided": dict(recorded.undecided),
            "changes": [_call_json(change) for change in recorded.changes],
        }
    return result


def _judged_json(judged: Iterable[Judged]) -> dict[str, Any]:
    known = tuple(judged)
    return {
        "generated": [{"change": one.what, **_call_json(change)} for one in known for change in one.by_search],
        "undecided": [one.what for one in known if one.undecided],
    }


def _call_json(change: CallChange) -> dict[str, Any]:
    return {
        "call": change.name,
        "what": change.what,
        "effect": change.effect.name.lower(),
        "was": asdict(change.was),
        "now": asdict(change.now),
    }
