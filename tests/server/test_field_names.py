"""What the core refuses has a name in the message of every RPC that can ask for it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import pdp
from pdp.decision.authorizer import Authorizer
from pdp.decision.explainer import Explainer
from pdp.model import CallRequest
from pdp.policy.child import evaluation
from pdp.registry.access import Approvals
from pdp.registry.outcomes import OutcomeReport
from pdp.registry.registrar import Registrar
from pdp.registry.words import Selector, SessionRequest
from pdp.server.fields import FIELDS
from pdp.server.rpcs import RPCS
from pdp.serving.rpc import RPC
from pdp.sessions import access
from pdp.v1.authorization_pb2 import AuthorizeRequest

PACKAGE = Path(pdp.__file__).parent
# What refuses fields of messages, or is no part of the server.
ABOVE_THE_CORE = ("server", "serving", "client", "cli", "console", "broker", "v1")
# What only the command line asks for, and what lies within the text of a field.
NO_ATTRIBUTES = {"selector", "*.context"}


def attributes_of(asked: type | Callable[..., Any], before: str = "") -> Iterator[str]:
    """Yield the path of each attribute of a value, or of each argument of a method, and of what these hold."""
    for name, kind in get_type_hints(asked).items():
        if name != "return":
            yield before + name
            for held in (kind, *get_args(kind)):
                if is_dataclass(held):
                    yield from attributes_of(held, f"{before}{name}.")  # type: ignore[arg-type]  # a class


PAGES = {"page_size", "page_token"}
# What each RPC asks of the core, by its method; the others ask nothing of which an attribute is refused.
ASKED: dict[str, set[str]] = {
    "Authorize": {*attributes_of(CallRequest)},
    "AuthorizeStream": {*attributes_of(CallRequest)},
    # A trace decides nothing, and a revision is refused where its text is read, so the core refuses neither.
    "BatchAuthorize": {
        one for one in attributes_of(Authorizer.batch) if not one.startswith(("requests.parent", "requests.least"))
    },
    "ReportOutcome": {*attributes_of(OutcomeReport)},
    "RequestSession": {*attributes_of(SessionRequest)},
    "ApproveSession": {*attributes_of(Registrar.approve)},
    "ReviewSession": {*attributes_of(Registrar.review)},
    "ListSessions": {*attributes_of(Registrar.list)},
    "NarrowSession": {*attributes_of(Registrar.narrow)},
    "RevokeSessions": {*attributes_of(Selector, "selector.")},
    "ApproveCall": {*attributes_of(Approvals.approve), *attributes_of(access.approve)},
    "ListAccessRequests": {*attributes_of(Approvals.list)},
    "Evaluate": {*re.findall(r'job\.get\("(\w+)"', inspect.getsource(evaluation)), "template_links.new_id"},
    "Explain": {*attributes_of(Explainer.explain), *attributes_of(Explainer.suppose)},
    "ListRecords": PAGES,
    "ListTouched": PAGES,
    "PlanRevocation": PAGES,
    "GetReach": PAGES,
}


@cache
def refused() -> frozenset[str]:
    """Return what the core refuses; what a function is told to name was seen where it is told so."""
    return frozenset(refused_in_sources()) - {"*"}


def refused_in_sources() -> Iterator[str]:
    """Yield each attribute that the core refuses, without indexes; `*` is what is known only when it is refused."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if path.relative_to(PACKAGE).parts[0] in ABOVE_THE_CORE or "InvalidRequestError(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "InvalidRequestError":
                attribute = node.args[0]
                parts = attribute.values if isinstance(attribute, ast.JoinedStr) else [attribute]
                text = "".join(str(one.value) if isinstance(one, ast.Constant) else "*" for one in parts)
                yield text.replace("[*]", "")


def refused_of(method: str) -> set[str]:
    """Return the attributes of what an RPC asks that the core may refuse."""
    return {one for one in ASKED[method] if any(fnmatchcase(one, known) for known in refused())}


def is_field(message: Any, path: str) -> bool:
    """Say whether a message has a field at a path."""
    name, _, rest = path.partition(".")
    field = message.fields_by_name.get(name)
    return field is not None and (not rest or (field.message_type is not None and is_field(field.message_type, rest)))


@pytest.mark.parametrize("row", [row for row in RPCS.values() if row.method in ASKED], ids=lambda row: row.method)
def test_what_is_refused_is_a_field_of_the_message(row: RPC) -> None:
    """Under the core's own name, or that of the table; and nothing is in the table that the core does not refuse."""
    # Of a stream, a refusal is about the one question in its message.
    message = AuthorizeRequest if row.method == "AuthorizeStream" else row.request
    renamed, attributes = FIELDS.get(row.method, {}), refused_of(row.method)

    assert attributes
    assert set() == {one for one in attributes if not is_field(message.DESCRIPTOR, renamed.get(one, one))}
    assert attributes >= renamed.keys()


def test_the_core_refuses_attributes_of_its_own() -> None:
    """Each is one of a value or an argument that an RPC asks with; no name of a field that the core does not have."""
    asked = {one for attributes in ASKED.values() for one in attributes}

    assert NO_ATTRIBUTES == {known for known in refused() if not any(fnmatchcase(one, known) for one in asked)}


def test_the_table_is_about_rpcs() -> None:
    """A row of an RPC that is called otherwise would do nothing."""
    assert {*FIELDS, *ASKED} <= {row.method for row in RPCS.values()}
