"""Find where a policy reads what a session has called before in another form than by fixed names."""

from __future__ import annotations

from collections.abc import Iterator

from pdp.foundation.nearest import nearest
from pdp.policy.contents import Contents
from pdp.policy.counting import COUNTS, DONE, CountedNames
from pdp.policy.lint.facts import Finding, LintPolicy
from pdp.policy.tools.catalogue import RISKS
from pdp.policy.tools.parameters import cedar_string

_FORMS = {
    COUNTS: 'write `context.counts["SERVER/TOOL"]` with the name of a tool or of a group of tools: a number',
    DONE: 'write `context.done.contains("SERVER/TOOL")`, or `containsAll` or `containsAny` with a set of such names',
}


def count_findings(policy: LintPolicy, contents: Contents, *, counts: bool) -> list[Finding]:
    """Return what is wrong in what a policy reads of earlier calls; `counts` says whether any policy reads them."""
    return list(_findings(policy, contents, counts=counts))


def _findings(policy: LintPolicy, contents: Contents, *, counts: bool) -> Iterator[Finding]:
    reads, of_tools = policy.reads, any(one.tool for one in policy.environments)
    if reads is None:
        # It would compare counts that it does not name.
        if counts and of_tools:
            yield Finding(
                message=f"policy `{policy.id}` reads `context` as a whole, and others read counts from it",
                help="name the attributes: `context.session`, `context.input.…`",
                at=[("context",)],
            )
        return
    for form, words in _FORMS.items():
        name = form.removesuffix(".")
        if reads & {name, f"has {name.removeprefix('context.')}"}:
            yield Finding(
                message=f"policy `{policy.id}` uses `{name}` without fixed names: what is counted is known when a "
                "bundle is loaded",
                help=words,
                at=[tuple(name.split("."))],
            )
    if policy.counted and any(one.tool is None for one in policy.environments):
        yield Finding(
            message=f"policy `{policy.id}` reads what was called before, and matches steps of a session as well, which "
            "have no calls",
            help='name tools or groups in its scope: `action in [Action::"read_only", Action::"mutating", '
            'Action::"destructive"]` for all tools',
            at=[("context", "counts"), ("context", "done")],
        )
    named, known = CountedNames.of([reads]).all, {*RISKS, *contents.groups, *contents.catalogue.tools}
    for name in sorted(named - known):
        near = nearest(name, known)
        yield Finding(
            message=f"policy `{policy.id}` reads how often `{name}` was called: no tool and no group has this name",
            help=f"did you mean `{near}`?" if near else "`pdp tools list` shows the tools and their groups",
            at=[cedar_string(name)],
        )
