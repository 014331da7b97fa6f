"""Cedar's own tests, Cedar's examples and AuthZEN's Todo decisions, as jobs and what is expected of them.

The material was written by others and is read in place; `README.md` beside it names its quirks.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

JSON = dict[str, Any]
# Runs a job of `pdp.policy.child.evaluation.evaluate`, wherever that is.
Run = Callable[[JSON], JSON]
ReadText = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What one request must give; `None` where the material does not say."""

    decision: str
    reasons: tuple[str, ...] | None = None
    erroring_policies: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One job and what is expected of it; `valid` is `None` where the material does not say.

    A job that is `refused` cannot be read, so there are no answers.
    """

    name: str
    job: JSON
    expected: tuple[Expected, ...]
    valid: bool | None = None
    refused: bool = False


def disagreements(case: Case, result: Mapping[str, Any]) -> list[str]:
    """Return one line for everything in a result that is not as expected."""
    if case.refused or "invalid" in result:
        return [] if case.refused and "invalid" in result else [f"{case.name}: {result}"]
    found = []
    if case.valid is not None and result["valid"] != case.valid:
        found.append(f"{case.name}: valid: {result['valid']}, expected {case.valid}")
    if len(result["evaluations"]) != len(case.expected):
        found.append(f"{case.name}: {len(result['evaluations'])} answers to {len(case.expected)} requests")
    for n, (evaluation, expected) in enumerate(zip(result["evaluations"], case.expected, strict=False)):
        got = Expected(
            decision=evaluation["decision"],
            reasons=None if expected.reasons is None else tuple(evaluation["reasons"]),
            erroring_policies=None if expected.erroring_policies is None else tuple(evaluation["erroring_policies"]),
        )
        if got != expected:
            found.append(f"{case.name}[{n}]: {got}, expected {expected}")
    return found


def hand_written(folder: Path) -> Iterator[Case]:
    """Yield Cedar's hand-written cases."""
    for path in sorted((folder / "tests").rglob("*.json")):
        name = path.relative_to(folder).as_posix()
        yield from _integration(name, _json(path), lambda place: _text(folder / place))


def corpus(archive: Path) -> Iterator[Case]:
    """Yield Cedar's fuzz corpus, sorted by name, read from its archive."""
    with tarfile.open(archive) as opened:
        texts = {
            member.name: stream.read().decode("utf-8") for member in opened if (stream := opened.extractfile(member))
        }
    for name in sorted(texts):
        if name.endswith(".json") and not name.endswith(".entities.json"):
            yield from _integration(name, json.loads(texts[name]), texts.__getitem__)


def _integration(name: str, case: JSON, read: ReadText) -> Iterator[Case]:
    # Checking a request against the schema is a setting of the job, so a case may become two.
    for checked in (True, False):
        requests = [one for one in case["requests"] if one.get("validateRequest", True) is checked]
        if requests:
            yield Case(
                name=name,
                job={
                    "policies": read(case["policies"]),
                    "schema": read(case["schema"]),
                    "entities_json": read(case["entities"]),
                    "requests_json": [_request(one, one["context"]) for one in requests],
                    "skip_request_validation": not checked,
                    "validate": True,
                },
                expected=tuple(_expected(one) for one in requests),
                valid=case["shouldValidate"],
            )


def _expected(request: JSON) -> Expected:
    return Expected(
        decision=request["decision"].capitalize(),
        reasons=tuple(sorted(request["reason"])),
        erroring_policies=tuple(sorted(request["errors"])),
    )


# The entities of these two do not conform to their schemas.
_WITHOUT_SCHEMA = ("github_example", "document_cloud")
_SURFACE_UID = re.compile(r'(?P<type>[\w:]+)::"(?P<id>[^"\\]*)"')


def examples(folder: Path) -> Iterator[Case]:
    """Yield one case for each request of Cedar's example applications."""
    for path in sorted(folder.rglob("*.json")):
        if path.parent.name in ("ALLOW", "DENY"):
            request = _json(path)
            uids = {name: _uid(request[name]) for name in ("principal", "action", "resource")}
            yield Case(
                name=path.relative_to(folder).as_posix(),
                job=_application(path.parent.parent) | {"requests_json": [_request(uids, request["context"])]},
                expected=(Expected(decision=path.parent.name.capitalize()),),
            )


def _application(folder: Path) -> JSON:
    (policies,) = folder.glob("*.cedar")
    (schema,) = folder.glob("*.cedarschema")
    (entities,) = folder.glob("*entities.json")
    links = folder / "linked"
    return {
        "policies": _text(policies),
        "schema": "" if folder.name in _WITHOUT_SCHEMA else _text(schema),
        "entities_json": _text(entities),
        "template_links": [_link(link) for link in _json(links)] if links.exists() else [],
    }


def _link(link: JSON) -> JSON:
    return {
        "template_id": link["template_id"],
        "new_id": link["link_id"],
        "principal": _uid(link["args"]["?principal"]),
        "resource": _uid(link["args"]["?resource"]),
    }


def _uid(text: str) -> JSON:
    match = _SURFACE_UID.fullmatch(text)
    assert match, text
    return match.groupdict()


# The entities file of the Cedar policies hides the people of the decision file behind other names.
_AUTHZEN_PEOPLE = {
    "richard_roe@example.com": "rick@the-citadel.com",
    "jane_doe@example.com": "beth@the-smiths.com",
    "john_doe@example.com": "morty@the-citadel.com",
    "nikki_wolf@example.com": "summer@the-smiths.com",
    "jorge_souza@example.com": "jerry@the-smiths.com",
}


def authzen(folder: Path) -> Iterator[Case]:
    """Yield AuthZEN's Todo decisions, single and batch, with somebody's Cedar policies for them."""
    policies = "\n".join(_text(path) for path in sorted((folder / "aws-cedar").glob("*.cedar")))
    schema = _text(folder / "aws-cedar" / "cedarschema")
    entities = json.loads(_original_names(_text(folder / "aws-cedar" / "cedarentities.json")))
    decisions = _json(folder / "decisions-authorization-api-1_0-02.json")
    for kind in ("evaluation", "evaluations"):
        for n, decision in enumerate(decisions[kind]):
            request = decision["request"]
            items = [request | item for item in request.get("evaluations", [{}])]
            todos = {
                item["resource"]["id"]: _todo(item["resource"]) for item in items if "todo" in item["resource"]["type"]
            }
            expected = decision["expected"]
            yield Case(
                name=f"authzen/{kind}[{n}]",
                job={
                    "policies": policies,
                    "schema": schema,
                    "entities_json": json.dumps([*entities, *todos.values()]),
                    "requests_json": [_authzen_request(item, entities) for item in items],
                },
                expected=tuple(
                    Expected(decision="Allow" if allowed else "Deny")
                    for allowed in ([one["decision"] for one in expected] if isinstance(expected, list) else [expected])
                ),
            )


def _original_names(text: str) -> str:
    for hidden, name in _AUTHZEN_PEOPLE.items():
        text = text.replace(hidden, name)
    return text


def _todo(resource: JSON) -> JSON:
    return {
        "uid": {"type": "todo", "id": resource["id"]},
        "attrs": {"ownerID": resource.get("properties", {}).get("ownerID", "")},
        "parents": [],
    }


def _authzen_request(item: JSON, entities: list[JSON]) -> str:
    # A person is named by id as subject and by address as resource; the entities know the id.
    ids = {entity["attrs"]["id"]: entity["uid"]["id"] for entity in entities if entity["uid"]["type"] == "user"}
    resource = {"type": item["resource"]["type"], "id": ids.get(item["resource"]["id"], item["resource"]["id"])}
    uids = {
        "principal": {"type": item["subject"]["type"], "id": item["subject"]["id"]},
        "action": {"type": "Action", "id": item["action"]["name"]},
        "resource": resource,
    }
    return _request(uids, {})


def _request(uids: JSON, context: JSON) -> str:
    return json.dumps({name: uids[name] for name in ("principal", "action", "resource")} | {"context": context})


def _json(path: Path) -> Any:
    return json.loads(_text(path))


def _text(path: Path) -> str:
    # Bytes, because reading as text would change the ends of lines within strings.
    return path.read_bytes().decode("utf-8")
