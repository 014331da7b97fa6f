"""What `check` prints is a golden file for each kind of problem: read them as a newcomer would.

`GOLDEN=write` writes them anew; look at the difference before you commit it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pdp.limits import DEFAULT_LIMITS
from pdp.policy.lint.table import ALLOW, LINTS, OTHER_LINTS
from pdp.policy.loading import inspect_bundle
from pdp.testing.bundles import SCHEMA, compile_here, tool, with_terms
from pdp.workbench.checking import summaries, text_lines
from tests.policy.lint.material import AGENT, DIRECTORY, GOLDEN, files, policy
from tests.policy.lint.mistakes import MISTAKES, bundle_of, text_of

PERMIT = "permit (principal, action, resource)"
FORBID = 'forbid (principal, action == Action::"bank/transfer", resource)'

NO_POLICIES = files("")


def with_tool(name: str, properties: dict[str, Any], **more: Any) -> dict[str, bytes]:
    """Return the bank's bundle with one more server, of one tool."""
    listed = json.dumps({"tools": [tool(name, properties) | more]})
    return {**NO_POLICIES, "tools/shop.json": listed.encode(), "tools/shop.yaml": b"risk: mutating\n"}


# One bundle for each file below `golden/`.
CASES: dict[str, dict[str, bytes]] = {
    "open-permit": files("// Everybody may do everything.\n" + policy(PERMIT)),
    "no-agent": files(policy('permit (principal in UserGroup::"tellers", action, resource)')),
    "caller-only": files(
        policy('permit (principal, action in Action::"read_only", resource)', 'when { context.caller.id == "gateway" }')
    ),
    "raw-string": files(policy(FORBID, 'when { context.input.to == "mallory" }')),
    "raw-resource": files(
        policy('forbid (principal, action == Action::"files/write", resource == Thing::"/etc/passwd")')
    ),
    "opaque-parameter": files(
        policy(FORBID, 'when { context.input has amount && context.input.amount.greaterThan(decimal("500.0")) }')
    ),
    "opaque-parameter-read": files(policy(FORBID, 'when { context.input.amount.greaterThan(decimal("500.0")) }')),
    "raw-relative": bundle_of(
        policy('forbid (principal, action == Action::"files/read", resource == Thing::"/safe")', name="x").replace(
            "bank/x", "rules/x"
        )
    ),
    "overflow": files(policy(FORBID, "when { context.input.cents * 100 > 5000 }")),
    "optional-attribute": files(policy(FORBID, 'when { context.input.note like "*secret*" }')),
    "optional-attribute-of-user": files(policy(FORBID, "when { principal.level < 3 }")),
    "never-matches": files(
        policy('permit (principal, action == Action::"bank/transfer", resource == Server::"files")', AGENT)
    ),
    "never-matches-group": files(policy('forbid (principal, action in Action::"destructive", resource)')),
    "never-matches-validator": files(policy(FORBID, "when { principal has shoe && principal.shoe == 3 }")),
    "never-matches-scope": files(
        policy('permit (principal in Agent::"clerk", action == Action::"bank/transfer", resource)', AGENT)
    ),
    "idle-run": files(policy(FORBID, note='@step_up("May it?")\n@step_up_run("5")')),
    "shadowed": files(
        policy('permit (principal, action == Action::"bank/transfer", resource)', AGENT) + policy(FORBID, name="y")
    ),
    "shadowed-duplicate": files(
        policy('permit (principal, action == Action::"bank/transfer", resource)', AGENT)
        + policy('permit (principal, action == Action::"bank/transfer", resource)', AGENT, name="y")
    ),
    "unknown-name": files(policy('permit (principal in UserGroup::"teller", action, resource)', AGENT)),
    "mixed-script": files(policy(FORBID, 'unless { context.session in Grant::"approvеd" }')),  # noqa: RUF001 - the point
    "unknown-reference": files("", directory=DIRECTORY.replace("id: ann}", "id: anna}")),
    "unneeded-allow": files(policy(FORBID, note='@allow("overflow: cents are few")')),
    "annotation": files(policy(PERMIT, AGENT, note="@obligation(\"redact_resul: {fields: ['[].email']}\")")),
    "annotation-advice": files(policy(PERMIT, AGENT, note='@advice("Ask the owner.")')),
    "count": files(policy(FORBID, 'when { context.counts["bank/transfr"] > 2 && context.done.isEmpty() }')),
    "unknown-attribute": files(policy(FORBID, "when { context.input.cent > 5 }")),
    "unknown-attribute-of-user": files(policy(FORBID, "when {\n  principal has level &&\n  principal.shoe == 3\n}")),
    "unknown-action": files(policy('permit (principal, action == Action::"bank/transfr", resource)', AGENT)),
    "unknown-type": files(policy("forbid (principal, action, resource is Account)")),
    "optional-attribute-negated": files(
        policy(FORBID, 'when { !(context.input has note) || context.input.note like "*secret*" }')
    ),
    "optional-attribute-second": files(
        policy(
            FORBID,
            "// Not `context.input.note`, which is guarded.",
            'when { (context.input has note && context.input.note == "a") ||',
            '       (context.input.cents > 5 && context.input.note == "b") }',
        )
    ),
    "type-condition": files(policy(FORBID, "when { context.input.to }")),
    "type-decimal": files(policy(FORBID, 'when { context.input.cents > decimal("5.0") }')),
    "type-text": files(policy(FORBID, 'when { context.input.to.contains("secret") }')),
    "type-time": files(policy(FORBID, "when { context.now.toTime() > 8 }")),
    "type-engine": files(policy(FORBID, 'when { principal in "tellers" }')),
    "no-constant": files(policy(FORBID, 'when { datetime("2026-13-01") < context.now }')),
    "syntax-method": files(policy(FORBID, 'when { context.input.to.startsWith("x") }')),
    "syntax-variable": files(policy(FORBID, "when { principal in UserGroup }")),
    "type-mismatch": files(policy(FORBID, 'when { context.input.cents == "5" }')),
    "id": files("permit (principal, action, resource);"),
    "syntax": files(policy("permit (principal, action, resource)", "when { context.input.to = 3 }")),
    "syntax-open": files('@id("bank/x")\npermit (principal, action, resource'),
    "template": files(policy("permit (principal == ?principal, action, resource)")),
    "limit": files(policy(FORBID, "when { " + "(" * 40 + "true" + ")" * 40 + " }")),
    "schema": files("", schema=SCHEMA.replace("entity Grant;", "")),
    "directory": files("", directory=DIRECTORY.replace("[tellers]", "[teller]")),
    "directory-deep": files("", directory="users: " + "[" * 20_000),
    "overlay": files("", bank="tools:\n  transfr: {risk: mutating}\n"),
    "unsummed": files("", schema=with_terms("max_sum?: Long")),
    "unnamed-tool": files("", bank="tools: {transfer: {risk: mutating}}\n"),
    "unusable-tool": with_tool("buy", {}, inputSchema={"type": "array"}),
    "unchecked-pattern": with_tool("buy", {"item": {"type": "string", "pattern": "(?=a)b"}}),
    "twin-names": with_tool("buy", {"item": {"type": "string"}, "itеm": {"type": "string"}}),  # noqa: RUF001 - the point
    "manifest": {**files(""), "bundle.yaml": b"nme: bank\n"},
    "catalogue": {**files(""), "tools/bank.json": b"{"},
}
CASES |= {one.code: bundle_of(text_of(one, one.wrong)) for one in reversed(MISTAKES.values()) if one.code not in CASES}


@pytest.mark.parametrize("name", CASES)
def test_message_is_the_golden_one(name: str) -> None:
    """Each problem is printed as its golden file says: place, line, caret, what to do, summary."""
    checked = inspect_bundle(CASES[name], DEFAULT_LIMITS, compile_here)
    text = "".join(f"{line}\n" for line in text_lines(checked, Path("policies"), CASES[name]))
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text, encoding="utf-8")

    assert golden.read_text(encoding="utf-8") == text


def test_every_lint_has_a_golden_file() -> None:
    """What an author may read has been read before."""
    assert {*(lint.code for lint in LINTS), ALLOW, *OTHER_LINTS} <= CASES.keys()


def test_every_code_that_is_printed_has_a_summary() -> None:
    """Each code of the golden files is explained, for code review and for the page."""
    printed = {
        line.partition("[")[2].partition("]")[0]
        for name in CASES
        for line in (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        if line.startswith("policies") and "[" in line
    }

    assert printed <= summaries().keys()
    assert len(printed) > len(LINTS)


def test_golden_files_have_cases() -> None:
    """No golden file is left over."""
    assert {f"{name}.txt" for name in CASES} == {path.name for path in GOLDEN.iterdir()}
