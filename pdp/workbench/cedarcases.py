"""Read and run the JSON test files of Cedar's own command line, `cedar run-tests`.

A file is a list of `{"name"?, "request": {principal, action, resource, context}, "entities", "decision", "reason",
"num_errors"}`: <https://github.com/cedar-policy/cedar>, `cedar-policy-cli`. A case is judged as there: the decision,
the named reasons (there can be more), and the number of policies with errors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdp.errors import BundleError, InvalidRequestError, Problem, reason_of
from pdp.limits import Limits
from pdp.model import Basis, Outcome, Ruling
from pdp.policy.bundle import Bundle
from pdp.policy.child.evaluation import policy_ids
from pdp.workbench.runner import CaseResult
from pdp.workbench.suite import Case, Expectation

Evaluate = Callable[[Mapping[str, Any]], dict[str, Any]]

_KEYS = {"name", "request", "entities", "decision", "reason", "num_errors"}
_REQUEST_KEYS = ("principal", "action", "resource")
_UID = re.compile(r'([A-Za-z_]\w*(?:::[A-Za-z_]\w*)*)::"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u\{([0-9A-Fa-f]{1,6})\}|x([0-7][0-9A-Fa-f])|(.))", re.DOTALL)
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "\\": "\\", '"': '"', "'": "'"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CedarCase:
    """One case of a file. `request_json` and `entities_json` are Cedar's JSON."""

    case: Case
    request_json: str
    entities_json: str
    reasons: tuple[str, ...]
    errors: int


def read_cedar_cases(path: Path, limits: Limits) -> tuple[CedarCase, ...]:
    """Read a test file of Cedar's command line. Raise `BundleError` naming every problem."""
    file = str(path)
    tests = _load(path, file, limits)
    if not isinstance(tests, list):
        raise BundleError((Problem(file, 0, "must be a list of tests"),))
    found: list[CedarCase] = []
    problems: list[Problem] = []
    for number, test in enumerate(tests, 1):
        try:
            found.append(_case(file, number, test, path.parent, limits))
        except ValueError as error:
            problems.append(Problem(file, 0, f"test {number}: {error}"))
    if problems:
        raise BundleError(tuple(problems))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainCedar:
    """Policies and a schema as Cedar's own tools take them; `ids` are the policies', in their order."""

    policies: str
    schema: str
    ids: tuple[str, ...]


def plain_of(bundle: Bundle) -> PlainCedar:
    """Return a bundle's policies, and its whole schema."""
    text = "\n".join(policy.text for policy in bundle.policies.values())
    return PlainCedar(policies=text, schema=bundle.schema_text(), ids=tuple(bundle.policies))


def read_plain(folder: Path, limits: Limits) -> PlainCedar:
    """Read a folder of plain Cedar.

    It holds `*.cedar` files, in the order of their names, and at most one `*.cedarschema`. Raise `BundleError` when
    the folder holds no policies, more than one schema, or a file that cannot be read.
    """
    policies, schemas = (sorted(folder.glob(f"*.{kind}")) for kind in ("cedar", "cedarschema"))
    if not policies:
        raise BundleError((Problem(str(folder), 0, "holds no `*.cedar` file"),))
    if len(schemas) > 1:
        raise BundleError((Problem(str(schemas[1]), 0, f"is a second schema, beside `{schemas[0].name}`"),))
    text = "\n".join(_text(path, limits) for path in policies)
    try:
        ids = policy_ids(text)
    except InvalidRequestError as error:
        raise BundleError((Problem(str(folder), 0, error.problem),)) from None
    return PlainCedar(policies=text, schema="".join(_text(path, limits) for path in schemas), ids=ids)


def run_cedar_cases(plain: PlainCedar, cases: Iterable[CedarCase], evaluate: Evaluate) -> tuple[CaseResult, ...]:
    """Run cases against policies and their schema, by `evaluate` in a child process.

    Raises what `evaluate` raises.
    """
    job = {"policies": plain.policies, "schema": plain.schema}
    return tuple(_result(one, evaluate({**job, **_facts(one)}), plain.ids) for one in cases)


def _facts(one: CedarCase) -> dict[str, Any]:
    return {"entities_json": one.entities_json, "requests_json": [one.request_json]}


def _result(one: CedarCase, answer: Mapping[str, Any], ids: tuple[str, ...]) -> CaseResult:
    if "invalid" in answer:
        invalid = answer["invalid"]
        return CaseResult(case=one.case, problems=(f"{invalid['field']}: {invalid['problem']}",))
    (said,) = answer["evaluations"]
    if said["decision"] == "NoDecision":
        return CaseResult(case=one.case, problems=("the request does not fit the schema",))
    ruling = _ruling(said, ids)
    return CaseResult(case=one.case, problems=tuple(_differences(one, ruling)), ruling=ruling)


def _ruling(said: Mapping[str, Any], ids: tuple[str, ...]) -> Ruling:
    policies, errors = (
        tuple(sorted(ids[int(policy.removeprefix("policy"))] for policy in said[key]))
        for key in ("reasons", "erroring_policies")
    )
    if said["decision"] == "Allow":
        return Ruling(outcome=Outcome.ALLOW, basis=Basis.PERMIT, policies=policies, errors=errors)
    basis = Basis.FORBID if policies else Basis.DEFAULT_DENY
    return Ruling(outcome=Outcome.DENY, basis=basis, policies=policies, errors=errors)


def _differences(one: CedarCase, ruling: Ruling) -> Iterable[str]:
    expected = one.case.expect.outcome
    if expected is not None and expected is not ruling.outcome:
        yield f"expected `{expected.value}`, got `{ruling.outcome.value}`"
    for name in one.reasons:
        if name not in ruling.policies:
            yield f"reason: `{name}` is missing"
    if one.errors != len(ruling.errors):
        yield f"expected {one.errors} errors, got {len(ruling.errors)}"


def _text(path: Path, limits: Limits) -> str:
    try:
        return _content(path, str(path), limits).decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError((Problem(str(path), 0, "not UTF-8"),)) from None


def _content(path: Path, file: str, limits: Limits) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(limits.bundle_bytes + 1)
    except OSError as error:
        raise BundleError((Problem(file, 0, f"cannot be read: {reason_of(error)}"),)) from None
    if len(content) > limits.bundle_bytes:
        raise BundleError((Problem(file, 0, f"larger than {limits.bundle_bytes} bytes (limit `bundle_bytes`)"),))
    return content


def _load(path: Path, file: str, limits: Limits) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(_content(path, file, limits))
    except json.JSONDecodeError as error:
        raise BundleError((Problem(file, error.lineno, f"not JSON: {error.msg.lower()}"),)) from None
    except (ValueError, RecursionError):
        raise BundleError((Problem(file, 0, "not JSON"),)) from None


def _case(file: str, number: int, test: Any, folder: Path, limits: Limits) -> CedarCase:  # noqa: ANN401 - any JSON value
    if not isinstance(test, dict):
        raise ValueError("must be an object")  # noqa: TRY004 - what is wrong with a test is a ValueError here
    if missing := _KEYS - {"name"} - test.keys():
        raise ValueError(f"`{min(missing)}` is missing")
    if test["decision"] not in ("allow", "deny"):
        raise ValueError("`decision` must be `allow` or `deny`")
    reasons, errors = test["reason"], test["num_errors"]
    if not isinstance(reasons, list) or not all(isinstance(one, str) for one in reasons):
        raise ValueError("`reason` must be a list of policy ids")
    if not isinstance(errors, int) or isinstance(errors, bool) or errors < 0:
        raise ValueError("`num_errors` must be a number of at least 0")
    name = test.get("name", f"test {number}")
    expect = Expectation(outcome=Outcome(test["decision"]), policies=tuple(sorted(reasons)))
    return CedarCase(
        case=Case(file=file, line=0, name=str(name), now=0.0, session="", expect=expect),
        request_json=json.dumps(_request(test["request"])),
        entities_json=json.dumps(_entities(test["entities"], folder, limits)),
        reasons=tuple(reasons),
        errors=errors,
    )


def _request(request: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    if not isinstance(request, dict):
        raise ValueError("`request` must be an object")  # noqa: TRY004 - as above
    uids = {key: _uid(key, request.get(key)) for key in _REQUEST_KEYS}
    return {**uids, "context": request.get("context", {})}


def _uid(key: str, text: Any) -> dict[str, str]:  # noqa: ANN401 - any JSON value
    match = _UID.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'`{key}` must be written `Type::"id"`')
    return {"type": match.group(1), "id": _ESCAPE.sub(_character, match.group(2))}


def _character(match: re.Match[str]) -> str:
    long, short, plain = match.groups()
    if plain is None:
        try:
            return chr(int(long or short, 16))
        except ValueError:
            raise ValueError(f"`{match.group()}` is not a character") from None
    if plain not in _PLAIN:
        raise ValueError(f"`{match.group()}` is not an escape of Cedar")
    return _PLAIN[plain]


def _entities(said: Any, folder: Path, limits: Limits) -> Any:  # noqa: ANN401 - any JSON value
    if not isinstance(said, str):
        return said
    path = (folder / said).resolve()
    # As in Cedar's command line: a test reads only files beside it.
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"`{said}` is outside the test's folder")
    try:
        return _load(path, said, limits)
    except BundleError as error:
        raise ValueError(str(error)) from None
