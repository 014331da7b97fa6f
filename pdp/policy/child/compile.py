"""Compile a bundle: parse, validate and analyse it. Runs in a child process, since policy text can crash it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cedarpy

from pdp.errors import BundleError, Problem, UnsafePolicyError, one_line
from pdp.limits import Limits
from pdp.policy.analysis import action_scope, findings
from pdp.policy.child.schemaline import syntax_problem
from pdp.policy.child.terms import declared_terms
from pdp.policy.child.validation import all_valid
from pdp.policy.contents import MANIFEST, SCHEMA, Contents, read_contents
from pdp.policy.counting import NOTHING, CountedNames
from pdp.policy.directory import FILE as DIRECTORY
from pdp.policy.directory import Entity
from pdp.policy.labels import Label
from pdp.policy.lint.annotations import annotated
from pdp.policy.lint.counting import count_findings
from pdp.policy.lint.facts import Environment, LintBundle, LintPolicy, environments, matching
from pdp.policy.lint.labels import label_finding
from pdp.policy.lint.table import problem_of, run_lints, with_impossible
from pdp.policy.locate import in_line
from pdp.policy.refusals.wording import HELP, by_policy, plainly, refusals, syntax_help
from pdp.policy.safety import PolicyText, scan, scan_schema
from pdp.policy.schema import SESSION_ATTRIBUTES, SESSION_DECLARATION, full_schema, preamble
from pdp.policy.terms import ATTRIBUTE, TYPE, cedar_terms, sample_terms
from pdp.policy.tools.catalogue import RISKS
from pdp.policy.tools.typing import terms_type

_ID = re.compile(r"[a-z0-9._/-]{1,128}\Z")
_QUOTED = re.compile(r"`([^`]+)`")
# The tokens and handles that this program issues.
_SECRET = re.compile(r"\b(pdp[ts]_)[A-Za-z0-9_-]+")

Policy = dict[str, Any]


def compile_bundle(job: Mapping[str, Any]) -> dict[str, Any]:
    """Compile the files of a bundle.

    `job` holds `files` (path to text), `limits` (fields of `Limits`) and, when lints are wanted, `lint`. Return either
    `{"problems": […]}` with the fields of `Problem`, or `{"policies": […]}` with `id`, `effect`, `file`, `line`,
    `column`, `text`, `obligations`, `advice`, `step_up`, `step_up_run` and the result of `analysis.findings` for each
    policy, in the order of their files, `tools`, the number of tools, and `terms`, those that the schema declares for
    sessions (`declared_terms`). With `lint` both also hold `warnings`: problems that do not prevent the bundle from
    loading.
    """
    compilation = _Compilation(Limits(**job["limits"]), lint=bool(job.get("lint")))
    files: Mapping[str, str] = job["files"]
    try:
        policies = compilation.run({path: text.encode("utf-8", "surrogateescape") for path, text in files.items()})
        result: dict[str, Any] = {"policies": policies, "tools": compilation.tools, "terms": compilation.terms}
    except BundleError as error:
        result = {"problems": _placed(error.problems, files)}
    if job.get("lint"):
        result["warnings"] = _placed(compilation.warnings, files)
    return result


class _Compilation:
    """One run of the compiler; `warnings` holds the findings of lints, if the run came that far."""

    def __init__(self, limits: Limits, *, lint: bool) -> None:
        self._limits = limits
        self._lint = lint
        self.warnings: list[Problem] = []
        self.tools = 0
        self.terms: dict[str, Any] | None = None

    def run(self, files: Mapping[str, bytes]) -> list[Policy]:
        contents = read_contents(files, self._limits)
        self.tools = len(contents.catalogue.tools)
        schema = _schema(contents, self._limits)
        own = _parsed(contents, contents.schema + "\n" + preamble(contents.caller_facts, contents.groups))
        self.terms = declared_terms(contents.schema, own, contents.groups)
        _check_entities(contents, schema, self.terms)
        parsed = parsed_policies(contents.policies, self._limits)
        _check_ids(parsed)
        known = environments(contents.catalogue)
        policies = [one.linted(known) for one in parsed]
        miscounted, counted = _counted(policies, contents)
        if counted:
            schema = _schema(contents, self._limits, counted)
        # The validator refuses what can match nothing. A group without tools is no mistake; a lint tells of it.
        matching = [one for one in policies if one.id not in miscounted and not _waits_for_tools(one, contents)]
        valid = all_valid(matching, contents, schema, counted)
        refused = miscounted | ({} if valid else _refusals(matching, schema, known))
        refused |= _widened([one for one in policies if one.id not in refused], contents.labels)
        asked, misasked = _asked(policies, contents)
        refused |= {name: [*refused.get(name, ()), *found] for name, found in misasked.items()}
        if self._lint:
            sound = tuple(one for one in policies if one.id not in refused)
            self.warnings = run_lints(
                with_impossible(LintBundle(contents=contents, policies=sound, terms=self._term_names()), schema)
            )
        if refused:
            problems = [problem for found in refused.values() for problem in found]
            raise BundleError(tuple(sorted(problems, key=lambda one: (one.file, one.line))))
        return [{**one.result(), **asked[one.id]} for one in parsed]

    def _term_names(self) -> frozenset[str]:
        return frozenset(one.name for one in terms_type(self.terms).parameters) if self.terms else frozenset()


def _placed(problems: Iterable[Problem], files: Mapping[str, str]) -> list[dict[str, str | int]]:
    """Return problems as JSON: one line each, with a code, and a column if it can be found."""
    lines: dict[str, list[str]] = {}
    placed = []
    for problem in problems:
        problem.code = problem.code or _code(problem.file)
        problem.message = _one_line(problem.message)
        problem.help = _one_line(problem.help) or HELP.get(problem.code, "")
        if problem.line and not problem.column:
            if problem.file not in lines:
                lines[problem.file] = files.get(problem.file, "").split("\n")
            if problem.line <= len(lines[problem.file]):
                text = lines[problem.file][problem.line - 1]
                problem.column, problem.width = in_line(text, problem.message)
        placed.append(problem.as_json())
    return placed


def _code(file: str) -> str:
    kinds = {MANIFEST: "manifest", SCHEMA: "schema", DIRECTORY: "directory"}
    if file.startswith("tools/"):
        return "catalogue" if file.endswith(".json") else "overlay"
    return kinds.get(file, "policy" if file.endswith(".cedar") else "bundle")


def _one_line(message: str) -> str:
    # The engine quotes text of files, which may hold line breaks, characters that hide or reorder others, and secrets.
    message = _SECRET.sub(r"\1…", message)
    return " ".join(one_line(message).split())


def _schema(contents: Contents, limits: Limits, counted: CountedNames = NOTHING) -> cedarpy.Schema:
    try:
        scan_schema(contents.schema, limits)
    except UnsafePolicyError as error:
        raise BundleError((Problem(SCHEMA, error.line, str(error)),)) from None
    tools = tuple(contents.catalogue.tools.values())
    return _parsed(contents, full_schema(contents.schema, contents.caller_facts, tools, contents.groups, counted))


def _parsed(contents: Contents, text: str) -> cedarpy.Schema:
    """Return a schema that contains the author's part; a problem is shown in the author's part."""
    try:
        return cedarpy.Schema.from_str(text)
    except ValueError as error:
        line, message = syntax_problem(contents.schema, str(error))
        hint = ""
        if "resolve" in message:
            hint = "; `User`, `Agent`, `Session`, `Grant`, `Server` and each mapped resource type must be declared"
        line = line or _line_of(contents.schema, message, 1)
        raise BundleError((Problem(SCHEMA, line, message + hint),)) from None


def _check_entities(contents: Contents, schema: cedarpy.Schema, terms: Mapping[str, Any] | None) -> None:
    attributes = {name: _sample(kind) for name, kind in SESSION_ATTRIBUTES.items()}
    if terms is not None:
        # Every declared term, so that the engine confirms how its types were read.
        declared = terms_type(terms)
        attributes[ATTRIBUTE] = cedar_terms(declared, json.dumps(sample_terms(declared)))
    sample = {
        "uid": {"type": "Session", "id": "sample"},
        "attrs": attributes,
        "parents": [{"type": "Grant", "id": "sample"}],
    }
    if not _fits([sample], schema):
        own = SESSION_DECLARATION if terms is None else SESSION_DECLARATION.replace(" };", f", {ATTRIBUTE}: {TYPE} }};")
        message = f"a session must have exactly these required attributes in the schema: {own}"
        raise BundleError((Problem(SCHEMA, _line_of(contents.schema, "`Session`", 1), message),))
    _check_resources(contents, schema)
    _check_directory(contents, schema)


def _check_resources(contents: Contents, schema: cedarpy.Schema) -> None:
    server = {"type": "Server", "id": "sample"}
    types = sorted({tool.resource_type for tool in contents.catalogue.tools.values()} - {"Server"})
    wrong = [
        name
        for name in types
        if not _fits([{"uid": {"type": name, "id": ""}, "attrs": {}, "parents": [server]}], schema)
    ]
    if wrong:
        # A resource that is not in the directory has no attributes, and is always below its server.
        message = "a type to which calls are mapped must be declared `in [Server]`, with only optional attributes"
        raise BundleError(
            tuple(Problem(SCHEMA, _line_of(contents.schema, f"`{w}`", 1), f"`{w}`: {message}") for w in wrong)
        )


def _check_directory(contents: Contents, schema: cedarpy.Schema) -> None:
    # All entities are checked at once; only when that fails, each is checked alone, to name the wrong ones.
    entities = contents.directory.entities.values()
    if _fits([one.json for one in entities], schema):
        return
    wrong = [one for one in entities if not _fits([one.json], schema)]
    raise BundleError(tuple(_entity_problem(one) for one in wrong) or (_mixed_problem(),))


def _entity_problem(one: Entity) -> Problem:
    return Problem("directory.yaml", one.line, f"`{one.uid[0]}::{one.uid[1]}` does not fit the schema")


def _mixed_problem() -> Problem:
    return Problem("directory.yaml", 0, "the entities contradict each other; is there a cycle of parents?")


def _fits(entities: list[Mapping[str, Any]], schema: cedarpy.Schema) -> bool:
    try:
        cedarpy.Entities.from_json_str(json.dumps(entities), schema)
    except ValueError:
        return False
    return True


def _sample(kind: str) -> object:
    return {"String": "", "Long": 0, "Set<String>": []}[kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedPolicy:
    """One policy of a file: its text and its tree."""

    file: str
    part: PolicyText
    tree: Any

    @property
    def id(self) -> str:
        """Return the `@id`, empty without one."""
        name: str = self.tree.get("annotations", {}).get("id") or ""
        return name

    def linted(self, known: Mapping[str, Environment]) -> LintPolicy:
        """Return the policy with the actions that it can match, for lints and validator."""
        return LintPolicy(
            id=self.id,
            effect=self.tree["effect"],
            file=self.file,
            line=self.part.line,
            column=self.part.column,
            text=self.part.text,
            tree=self.tree,
            environments=matching(action_scope(self.tree), known),
        )

    def result(self) -> Policy:
        """Return the description of the policy in the result of `compile_bundle`."""
        return {
            "id": self.id,
            "effect": self.tree["effect"],
            "file": self.file,
            "line": self.part.line,
            "column": self.part.column,
            "text": self.part.text,
            **findings(self.tree),
        }


def parsed_policies(texts: Mapping[str, str], limits: Limits) -> list[ParsedPolicy]:
    """Return the policies of some files. Raise `BundleError` naming all that cannot be read."""
    found: list[ParsedPolicy] = []
    problems: list[Problem] = []
    for file, text in texts.items():
        try:
            parts = scan(text, limits)
        except UnsafePolicyError as error:
            problems.append(Problem(file, error.line, str(error), code="limit" if "limit" in str(error) else "syntax"))
            continue
        for part in parts:
            try:
                found.append(ParsedPolicy(file=file, part=part, tree=_tree(file, part)))
            except BundleError as error:
                problems += error.problems
    if problems:
        raise BundleError(tuple(problems))
    return found


def _tree(file: str, part: PolicyText) -> Any:  # noqa: ANN401 - Cedar's JSON
    try:
        tree = json.loads(cedarpy.policies_to_json_str(part.text))
    except ValueError as error:
        said = plainly(str(error))
        line = part.line + _line_of(part.text, said, 1) - 1
        problem = Problem(file, line, f"not a policy: {said}", code="syntax", help=syntax_help(said))
        raise BundleError((problem,)) from None
    if tree.get("templates"):
        raise BundleError((Problem(file, part.line, "templates are not allowed; use groups", code="template"),))
    (policy,) = tree["staticPolicies"].values()
    return policy


def _check_ids(policies: list[ParsedPolicy]) -> None:
    problems: list[Problem] = []
    first: dict[str, str] = {}
    for policy in policies:
        name, stem, line = policy.id, policy.file.removesuffix(".cedar"), policy.part.line
        message = ""
        if not _ID.match(name):
            message = f"`@id` must match [a-z0-9._/-]{{1,128}}: `{name[:128]}`" if name else "a policy needs an `@id`"
        elif not name.startswith(stem):
            message = f"`@id` must start with the name of its file, `{stem}`: `{name}`"
        elif name in first:
            message = f"`@id` appears twice: `{name}`; first at {first[name]}"
        if message:
            problems.append(Problem(policy.file, line, message, code="id", help=f'write `@id("{stem}/…")` above it'))
        first.setdefault(name, f"{policy.file}:{line}")
    if problems:
        raise BundleError(tuple(problems))


def _waits_for_tools(policy: LintPolicy, contents: Contents) -> bool:
    """Return whether a policy is only about groups of actions that no tool is in."""
    scope = action_scope(policy.tree)
    return not policy.environments and scope is not None and {*RISKS, *contents.groups}.issuperset(scope)


def _refusals(
    policies: Sequence[LintPolicy], schema: cedarpy.Schema, known: Mapping[str, Environment]
) -> dict[str, list[Problem]]:
    """Return the validator's problems by policy."""
    result = cedarpy.validate_policies("\n".join(policy.text for policy in policies), schema)
    if result.validation_passed:
        return {}
    refused: dict[str, list[Problem]] = {}
    for index, messages in by_policy((error.policy_id, error.error) for error in result.errors):
        if index is None:
            refused[""] = [Problem("", 0, message, code="validation") for message in messages]
        else:
            refused[policies[index].id] = refusals(policies[index], messages, known)
    return refused


def _widened(policies: Iterable[LintPolicy], labels: Mapping[str, Label]) -> dict[str, list[Problem]]:
    """Return, by policy, the problems of those that may permit more for a label that does not widen."""
    found = ((one, label_finding(one, labels)) for one in policies)
    return {one.id: [problem_of(one, "label-widens", said, "error")] for one, said in found if said}


def _counted(policies: Sequence[LintPolicy], contents: Contents) -> tuple[dict[str, list[Problem]], CountedNames]:
    """Return, by policy, the problems of what it reads of earlier calls, and what the others read of them."""
    counts = any(one.counted for one in policies)
    found = {one.id: count_findings(one, contents, counts=counts) for one in policies}
    refused = {
        one.id: [problem_of(one, "count", said, "error") for said in found[one.id]] for one in policies if found[one.id]
    }
    return refused, CountedNames.of(one.reads for one in policies if one.id not in refused)


def _asked(
    policies: Iterable[LintPolicy], contents: Contents
) -> tuple[dict[str, dict[str, Any]], dict[str, list[Problem]]]:
    """Return, by policy, what it asks of gateways and people, and the problems of its annotations."""
    asked, refused = {}, {}
    for one in policies:
        asked[one.id], found = annotated(one, contents.obligations)
        if found:
            refused[one.id] = [problem_of(one, "annotation", said, "error") for said in found]
    return asked, refused


def _line_of(text: str, message: str, default: int) -> int:
    """Return the line of the first word that the engine's message quotes and the text holds.

    The engine gives no positions; for most messages this is the right line.
    """
    for match in _QUOTED.finditer(message):
        at = text.find(match.group(1))
        if at >= 0:
            return text.count("\n", 0, at) + 1
    return default
