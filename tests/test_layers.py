"""The structure: imports point down, and libraries stay behind the modules that own them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pdp"

# First match wins. Siblings of layer 1 do not import each other.
LAYERS = [
    ("pdp.v1", 0, "v1"),
    ("pdp.__version__", 0, "words"),
    ("pdp.testing", 5, "testing"),
    ("pdp.errors", 0, "words"),
    ("pdp.extras", 0, "words"),
    ("pdp.model", 0, "words"),
    ("pdp.clock", 0, "words"),
    ("pdp.limits", 0, "words"),
    ("pdp.jsontext", 0, "words"),
    ("pdp.observer", 0, "words"),
    ("pdp.escaping", 0, "words"),
    ("pdp.nearest", 0, "words"),
    ("pdp.loopback", 0, "words"),
    ("pdp.ids", 0, "words"),
    ("pdp.webfile", 0, "words"),
    ("pdp.diskroom", 0, "words"),
    ("pdp.stacks", 0, "words"),
    ("pdp.ownership", 0, "words"),
    ("pdp.policy", 1, "policy"),
    ("pdp.sessions", 1, "sessions"),
    ("pdp.cache", 1, "cache"),
    ("pdp.telemetry", 1, "telemetry"),
    ("pdp.deployment", 1, "deployment"),
    ("pdp.record", 1, "record"),
    ("pdp.audit", 2, "audit"),
    ("pdp.advice", 2, "decision"),
    ("pdp.gate", 2, "decision"),
    ("pdp.expiry", 2, "decision"),
    ("pdp.ruling", 2, "decision"),
    ("pdp.explanation", 2, "decision"),
    ("pdp.explainer", 2, "decision"),
    ("pdp.gatewords", 2, "decision"),
    ("pdp.authorizer", 2, "decision"),
    ("pdp.registrar", 2, "decision"),
    ("pdp.scoping", 2, "decision"),
    ("pdp.labelling", 2, "decision"),
    ("pdp.visibility", 2, "decision"),
    ("pdp.reviewing", 2, "decision"),
    ("pdp.sessionpolicies", 2, "decision"),
    ("pdp.sessionevents", 2, "decision"),
    ("pdp.paging", 2, "decision"),
    ("pdp.keeper", 2, "decision"),
    ("pdp.activation", 2, "decision"),
    ("pdp.peers", 2, "decision"),
    ("pdp.loaded", 2, "decision"),
    ("pdp.follower", 2, "decision"),
    ("pdp.heartbeat", 2, "decision"),
    ("pdp.server", 3, "server"),
    ("pdp.client", 3, "client"),
    ("pdp.config", 4, "assembly"),
    ("pdp.sourcing", 4, "assembly"),
    ("pdp.identity", 4, "assembly"),
    ("pdp.starting", 4, "assembly"),
    ("pdp.app", 4, "assembly"),
    ("pdp.workers", 4, "assembly"),
    ("pdp.workbench", 5, "workbench"),
    ("pdp.doctor", 5, "doctor"),
    ("pdp.bench", 6, "bench"),
    ("pdp.cli", 7, "cli"),
    ("pdp", 9, "package"),
]

# Who may import which library. What is not listed may be imported nowhere.
LIBRARIES = {
    "cedarpy": ("pdp.policy",),
    "jsonschema_rs": ("pdp.policy.argumentcheck",),
    "yaml": ("pdp.policy", "pdp.config"),
    "cachetools": ("pdp.cache", "pdp.sessions"),
    "apsw": ("pdp.sessions", "pdp.audit", "pdp.doctor.machine"),
    "pyarrow": ("pdp.audit",),
    "rfc8785": ("pdp.jsontext",),
    "grpc": ("pdp.server", "pdp.client", "pdp.app", "pdp.testing", "pdp.telemetry.transport_grpc", "pdp.bench"),
    "grpc_health": ("pdp.server", "pdp.client.health"),
    "grpc_reflection": ("pdp.server",),
    "google": ("pdp.server", "pdp.client", "pdp.telemetry", "pdp.testing", "pdp.bench"),
    "opentelemetry": ("pdp.telemetry", "pdp.testing"),
    "prometheus_client": ("pdp.telemetry.scraping",),
    "cryptography": (
        "pdp.record.keys",
        "pdp.policy.signing",
        "pdp.server.callercertificates",
        "pdp.server.certificates",
        "pdp.server.keys",
        "pdp.server.localtls",
        "pdp.doctor.certificate",
    ),
    "joserfc": ("pdp.server.keys", "pdp.server.tokens"),
    "click": ("pdp.cli",),
    "rich": ("pdp.cli",),
    "mcp": ("pdp.cli",),
    "pytest": ("pdp.testing",),
    "anyio": ("pdp.cli",),
    "httpx2": ("pdp.cli.mcpserver",),
}


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the name and file of every module that people write."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not name.startswith("pdp.v1"):
            yield name, path


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and name of every module that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.lineno, node.module or ""
            # `from pdp.policy import engine` imports a module too.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def layer(name: str) -> tuple[int, str]:
    """Return a module's layer and part."""
    for prefix, number, part in LAYERS:
        if name == prefix or name.startswith(prefix + "."):
            return number, part
    raise AssertionError(name)


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_imports_point_down(name: str, path: Path) -> None:
    """A module imports only its own part and the layers below."""
    if name == "pdp":
        return  # lazy exports: the imports there are for type checkers only
    number, part = layer(name)

    wrong = [
        f"{path}:{line}: {imported}"
        for line, imported in imports(path)
        if imported.startswith("pdp.")
        for other_number, other_part in [layer(imported)]
        if other_part != part and other_number >= number
    ]

    assert wrong == []


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_libraries_stay_with_their_owner(name: str, path: Path) -> None:
    """A library is imported only by the parts that own it."""
    wrong = [
        f"{path}:{line}: {imported}"
        for line, imported in imports(path)
        for library in [imported.partition(".")[0]]
        if library not in sys.stdlib_module_names and library != "pdp"
        if not any(name == owner or name.startswith(owner + ".") for owner in LIBRARIES.get(library, ()))
    ]

    assert wrong == []


@pytest.mark.parametrize(
    ("statement", "blocked"),
    [
        ("from pdp import Authorizer", "grpc"),
        ("from pdp import open_embedded", "grpc"),
        ("import pdp.client", "cedarpy"),
        ("import pdp.client", "opentelemetry"),
        ("import pdp.cli", "cedarpy"),
    ],
)
def test_part_works_without_library(statement: str, blocked: str) -> None:
    """Embedded use needs no gRPC, and the client needs no engine."""
    code = f"import sys; sys.modules[{blocked!r}] = None; {statement}"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)

    assert (0, "") == (done.returncode, done.stderr)
