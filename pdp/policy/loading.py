"""Make a bundle of its files: a child process compiles them, and what it finds becomes a bundle or a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pdp.errors import BundleError, Problem
from pdp.limits import Limits
from pdp.model import Obligation
from pdp.policy.bundle import Bundle, CompiledParts
from pdp.policy.contents import read_contents, require_sizes, version_of
from pdp.policy.entities import EntityMemory
from pdp.policy.policysource import PolicySource
from pdp.policy.stack import StackCheck

Compile = Callable[[Mapping[str, Any]], dict[str, Any]]


def load_bundle(
    files: Mapping[str, bytes], limits: Limits, compile_files: Compile, memory: EntityMemory | None = None
) -> Bundle:
    """Load a bundle from its files. `compile_files` runs `compile.compile_bundle` in a child process.

    Raise `BundleError` naming every problem found, and what `compile_files` raises.
    """
    return assemble(files, check_bundle(files, limits, compile_files), limits, memory)


def assemble(
    files: Mapping[str, bytes], parts: CompiledParts, limits: Limits, memory: EntityMemory | None = None
) -> Bundle:
    """Return the bundle of some files and of what was compiled from the same files."""
    return Bundle(version_of(files), read_contents(files, limits), parts, StackCheck(limits), memory)


def check_bundle(files: Mapping[str, bytes], limits: Limits, compile_files: Compile) -> CompiledParts:
    """Return what was compiled of a bundle that could be loaded. Raises what `load_bundle` raises.

    This checks the sizes of the files; only `compile_files` reads them, since an unchecked file may take long.
    """
    require_sizes(files, limits)
    result = compile_files(compile_job(files, limits))
    if "problems" in result:
        raise BundleError(tuple(Problem(**problem) for problem in result["problems"]))
    return CompiledParts(policies=tuple(map(policy_source, result["policies"])), terms=result.get("terms"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What is wrong with a bundle: `errors` prevent it from loading, `warnings` are the findings of lints.

    Without errors, `version` is the version that it would have, and `policies` and `tools` are counts.
    """

    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    version: str = ""
    policies: int = 0
    tools: int = 0


def inspect_bundle(files: Mapping[str, bytes], limits: Limits, compile_files: Compile) -> CheckReport:
    """Return what is wrong with a bundle, lints included. Raises what `compile_files` raises."""
    try:
        require_sizes(files, limits)
    except BundleError as error:
        return CheckReport(errors=error.problems)
    result = compile_files({**compile_job(files, limits), "lint": True})
    warnings = tuple(Problem(**problem) for problem in result["warnings"])
    if "problems" in result:
        return CheckReport(errors=tuple(Problem(**problem) for problem in result["problems"]), warnings=warnings)
    return CheckReport(
        warnings=warnings, version=version_of(files), policies=len(result["policies"]), tools=result["tools"]
    )


def compile_job(files: Mapping[str, bytes], limits: Limits) -> dict[str, Any]:
    """Return the job of a child process for a bundle whose sizes were checked."""
    return {
        "files": {name: content.decode("utf-8", "surrogateescape") for name, content in files.items()},
        "limits": {name: getattr(limits, name) for name in Limits.__slots__},
    }


def policy_source(policy: Mapping[str, Any]) -> PolicySource:
    """Return a policy from the description of a child process."""
    return PolicySource(
        id=policy["id"],
        effect=policy["effect"],
        file=policy["file"],
        line=policy["line"],
        column=policy["column"],
        text=policy["text"],
        actions=None if policy["actions"] is None else frozenset(policy["actions"]),
        reads=None if policy["reads"] is None else frozenset(policy["reads"]),
        entities=frozenset((uid[0], uid[1]) for uid in policy["entities"]),
        resource_type=policy["resource_type"],
        moments=None if policy["moments"] is None else tuple((m[0], m[1], m[2]) for m in policy["moments"]),
        obligations=tuple(Obligation(*one) for one in policy["obligations"]),
        advice=policy["advice"],
        step_up=policy["step_up"],
        step_up_run=policy["step_up_run"],
    )


def policy_json(policy: PolicySource) -> dict[str, Any]:
    """Return the description of a policy, for `policy_source`."""
    found = ((name, getattr(policy, name)) for name in PolicySource.__slots__)
    return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in found}
