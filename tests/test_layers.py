"""The structure: imports point down, and libraries stay behind the modules that own them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "pdp"

# A house imports itself and what is on the floors below; houses on one floor do not know each other.
FLOORS = (
    # Words: frozen values, errors, time, limits, and what observers are told.
    ("v1", "broker.v1", "__version__", "errors", "model", "clock", "limits", "observer", "quickvalues"),
    ("foundation", "calltokens"),
    ("policy.tools", "sessions", "record", "telemetry", "deployment", "identity"),
    ("policy", "serving"),
    ("policy.lint",),
    ("policy.refusals",),
    ("policy.child",),
    ("decision", "bundles", "audit", "messages"),
    ("registry",),
    ("server", "client"),
    ("doors", "console", "signals"),
    # Composition: `app` alone constructs the parts.
    ("config", "bundlesettings", "callersettings", "messagesettings", "postgressettings", "starting", "app", "workers"),
    ("testing",),
    ("workbench", "doctor", "bench"),
    ("cli",),
    # A program of its own: nothing imports it.
    ("broker",),
)
WORDS, COMPOSITION = FLOORS[0], FLOORS[-5]

# What a program that holds secrets may import of other houses: what decides stays out of its process.
OF_THE_BROKER = (
    "pdp.__version__",
    "pdp.errors",
    "pdp.model",
    "pdp.clock",
    "pdp.limits",
    "pdp.observer",
    "pdp.quickvalues",
    "pdp.v1",
    "pdp.foundation",
    "pdp.calltokens",
    "pdp.record",
    "pdp.identity",
    "pdp.serving",
    "pdp.client",
    "pdp.telemetry",
    # How commands look and fail, which both programs share.
    "pdp.cli.asking",
    "pdp.cli.groups",
    "pdp.cli.moments",
    "pdp.cli.output",
    "pdp.cli.root",
)

# Folders of tests about more than one house, or about none.
ABOUT_MORE = {
    "census",
    "composition",
    "dependencies",
    "docs",
    "example",
    "faults",
    "known_failures",
    "mutation",
    "proto",
}

# Who may import which library. What is not listed may be imported nowhere.
LIBRARIES = {
    "cedarpy": ("pdp.policy",),
    "jsonschema_rs": ("pdp.policy.tools.argumentcheck",),
    "yaml": ("pdp.foundation.yamltext", "pdp.doctor.gatewayfile"),
    "cachetools": ("pdp.sessions",),
    "apsw": (
        "pdp.foundation.sqlite",
        "pdp.foundation.database",
        "pdp.broker.store",
        "pdp.sessions",
        "pdp.audit",
        "pdp.messages.sqlitequeue",
        "pdp.signals.store",
        "pdp.doctor.machine",
    ),
    "pyarrow": ("pdp.audit",),
    "rfc8785": ("pdp.foundation.jsontext",),
    "grpc": (
        "pdp.serving",
        "pdp.server",
        "pdp.client",
        "pdp.broker.calls",
        "pdp.broker.personalcalls",
        "pdp.testing",
        "pdp.telemetry.transport_grpc",
        "pdp.bench",
        "pdp.doors.grpcport",
    ),
    "ngh2": ("pdp.serving.http2.nghttp2",),
    "grpc_health": ("pdp.serving.health", "pdp.server.rpcs", "pdp.client.health", "pdp.doors.grpcport"),
    "grpc_reflection": ("pdp.server",),
    "google": (
        "pdp.broker.calls",
        "pdp.broker.connectioncalls",
        "pdp.broker.exposurecalls",
        "pdp.broker.personalcalls",
        "pdp.broker.secretcalls",
        "pdp.serving",
        "pdp.server",
        "pdp.client",
        "pdp.telemetry",
        "pdp.testing",
        "pdp.bench",
        "pdp.doors.agentgateway.extmcp_pb2",
        "pdp.doors.envoy.extauthz_pb2",
        "pdp.doors.google_adk",
        "pdp.doors.grpcport",
    ),
    "opentelemetry": ("pdp.telemetry", "pdp.testing"),
    "prometheus_client": ("pdp.telemetry.scraping",),
    "cryptography": (
        "pdp.broker.oauth.assertions",
        "pdp.broker.sealing.aead",
        "pdp.calltokens.checkouts",
        "pdp.calltokens.keys",
        "pdp.foundation.keys",
        "pdp.foundation.sealing",
        "pdp.sessions.valuekeys",
        "pdp.identity.certificates",
        "pdp.serving.certificates",
        "pdp.identity.keysets",
        "pdp.serving.localtls",
        "pdp.doctor.certificate",
        "pdp.signals.github",
    ),
    "joserfc": ("pdp.identity.keysets", "pdp.identity.tokens", "pdp.console.provider", "pdp.console.published"),
    "click": ("pdp.cli", "pdp.broker.cli"),
    "rich": ("pdp.cli",),
    "psycopg": ("pdp.broker.checkouts.postgres", "pdp.sessions.postgresconnection"),
    "pyrage": ("pdp.broker.providers.age",),
    "pkcs11": ("pdp.broker.providers.pkcs11",),
    "mcp": ("pdp.cli",),
    "pytest": ("pdp.testing",),
    "anyio": ("pdp.cli",),
    "httpcore2": ("pdp.doors.mcp.connections", "pdp.doors.mcp.upstream"),
    "uvicorn": ("pdp.serving.webconnections", "pdp.serving.weblistener"),
    "h11": ("pdp.serving.webconnections", "pdp.serving.webrequests"),
    "starlette": ("pdp.console",),
    "jinja2": ("pdp.console.pages",),
    "markupsafe": ("pdp.console.pages",),
    "authlib": ("pdp.console.provider",),
    "httpx2": ("pdp.console.outward", "pdp.console.provider", "pdp.console.published"),
    # Each framework has one adapter, and no other module needs it.
    "langchain": ("pdp.doors.langchain",),
    "langchain_core": ("pdp.doors.langchain",),
    "langgraph": ("pdp.doors.langchain",),
    "agents": ("pdp.doors.openai_agents",),
    "claude_agent_sdk": ("pdp.doors.claude_agent",),
    "fastmcp": ("pdp.doors.fastmcp",),
    "mcp_types": ("pdp.doors.fastmcp",),
    "pydantic_ai": ("pdp.doors.pydantic_ai",),
    "pydantic_core": ("pdp.doors.pydantic_ai",),
    "strands": ("pdp.doors.strands",),
}


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the name and file of every module that people write."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not name.startswith(("pdp.v1", "pdp.broker.v1")):
            yield name, path


@cache
def imports(path: Path) -> tuple[tuple[int, str], ...]:
    """Return line and name of every module that a file imports."""
    return tuple(_imports(path))


def statements(within: ast.AST) -> Iterator[ast.AST]:
    """Yield every statement, those within others too, and no expression: these are most of a tree."""
    for node in ast.iter_child_nodes(within):
        if isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
            yield node
            yield from statements(node)


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.lineno, node.module or ""
            # `from pdp.policy import engine` imports a module too.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def house(name: str) -> tuple[int, str]:
    """Return a module's floor and house. The words, and what composes, know each other."""
    found = [
        (len(one), floor, "words" if names is WORDS else "composition" if names is COMPOSITION else one)
        for floor, names in enumerate(FLOORS)
        for one in names
        if f"{name}.".startswith(f"pdp.{one}.")
    ]
    assert found, f"`{name}` has no house"
    return max(found)[1:]


def test_imports_point_down() -> None:
    """A module imports only its own house and the floors below."""
    wrong = [
        f"{path}:{line}: {imported}"
        for name, path in modules()
        if name != "pdp"  # lazy exports: the imports there are for type checkers only
        for floor, own in [house(name)]
        for line, imported in imports(path)
        if imported.startswith("pdp.")
        for other_floor, other in [house(imported)]
        if other != own and other_floor >= floor
    ]

    assert wrong == []


def test_the_broker_imports_nothing_that_decides() -> None:
    """The process that holds downstream secrets has no engine, no sessions and no policies in it."""
    wrong = [
        f"{path}:{line}: {imported}"
        for name, path in modules()
        if f"{name}.".startswith("pdp.broker.")
        for line, imported in imports(path)
        if imported.startswith("pdp.") and not f"{imported}.".startswith("pdp.broker.")
        if not any(f"{imported}.".startswith(f"{allowed}.") for allowed in OF_THE_BROKER)
    ]

    assert [] == wrong


def test_a_module_has_a_house() -> None:
    """On top there are only words and composition, at most 12 modules."""
    top = {name.removeprefix("pdp.") for name, path in modules() if path.parent == PACKAGE}

    assert top == {"pdp", *WORDS, *COMPOSITION} - {"v1", "broker.v1", "__version__", "config", "app", "workers"}
    assert len(top) <= 12


def test_libraries_stay_with_their_owner() -> None:
    """A library is imported only by the parts that own it."""
    wrong = [
        f"{path}:{line}: {imported}"
        for name, path in modules()
        for line, imported in imports(path)
        for library in [imported.partition(".")[0]]
        if library not in sys.stdlib_module_names and library != "pdp"
        if not any(name == owner or name.startswith(owner + ".") for owner in LIBRARIES.get(library, ()))
    ]

    assert wrong == []


def test_nothing_imports_a_test() -> None:
    """What several tests need lives in a module that holds none; what several folders need is machinery."""
    wrong = [
        f"{path}:{line}: {imported}"
        for path in sorted(TESTS.rglob("*.py"))
        for line, imported in imports(path)
        if imported.startswith("tests.")
        if ".test_" in imported or imported.split(".")[1] not in ("machinery", path.relative_to(TESTS).parts[0])
    ]

    assert wrong == []


def test_each_file_of_tests_has_a_name_of_its_own() -> None:
    """Folders without `__init__.py` share their modules: pytest collects only one of two files with the same name."""
    names = sorted(path.name for path in TESTS.rglob("test_*.py"))

    assert [] == sorted({name for name in names if names.count(name) > 1})


def test_tests_mirror_the_houses() -> None:
    """The tests of a house are in the folder of its name, and doors have one each; what is about more is named here."""
    houses = {name for names in FLOORS for name in names}
    folders = {".".join(path.parent.relative_to(TESTS).parts) for path in TESTS.rglob("test_*.py")}

    apart = ("proofs", "doors.", "console.", "broker.", "sessions.", "serving.")
    assert {one for one in folders if one and not one.startswith(apart)} - houses == ABOUT_MORE
    assert [] == list((TESTS / "machinery").rglob("test_*.py"))


@pytest.mark.parametrize(
    ("statement", "blocked"),
    [
        ("from pdp import Authorizer", "grpc"),
        ("from pdp import open_embedded", "grpc"),
        ("import pdp.client", "cedarpy"),
        ("import pdp.client", "opentelemetry"),
        ("import pdp.doors.core", "opentelemetry"),
        ("import pdp.doors.core", "cedarpy"),
        ("import pdp.cli", "cedarpy"),
        ("sys.modules['prometheus_client'] = None; import pdp.cli.operate.worker, pdp.app.server", "rich"),
        ("import pdp.cli.operate.worker, pdp.app.server", "opentelemetry.sdk.metrics"),
        ("import pdp.cli.operate.worker, pdp.app.server", "opentelemetry.proto"),
    ],
)
def test_part_works_without_library(statement: str, blocked: str) -> None:
    """Embedded use needs no gRPC, the client no engine, and a worker by default what only adds to its start."""
    code = f"import sys; sys.modules[{blocked!r}] = None; {statement}"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert (0, "") == (done.returncode, done.stderr)
