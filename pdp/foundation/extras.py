"""Say what brings a module that is missing: an extra of the distribution, or another system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

DISTRIBUTION: Final = "agent-pdp"

# By import name. A test compares this with pyproject.toml.
EXTRA_OF: Final[Mapping[str, str]] = {
    "apsw": "server",
    "cachetools": "server",
    "cedarpy": "server",
    "cryptography": "server",
    "grpc_reflection": "server",
    "joserfc": "server",
    "jsonschema_rs": "server",
    "opentelemetry": "server",
    "prometheus_client": "server",
    "authlib": "console",
    "httpx2": "console",
    "jinja2": "console",
    "starlette": "console",
    "httpcore2": "mcp",
    "mcp": "demo",
    "ngh2": "loop",
    "pkcs11": "pkcs11",
    "psycopg": "postgres",
    "pyrage": "age",
    "agents": "openai-agents",
    "claude_agent_sdk": "claude-agent",
    "fastmcp": "fastmcp",
    "google.adk": "google-adk",
    "langchain": "langchain",
    "pydantic_ai": "pydantic-ai",
    "strands": "strands",
    "pyarrow": "parquet",
    "uvicorn": "authzen",
}

# Parts of Python that Windows lacks. What decides, serves or keeps files needs them; what asks a server does not.
UNIX_ONLY: Final = frozenset({"fcntl", "grp", "pwd", "resource", "termios"})


def missing(error: ImportError) -> str | None:
    """Return what is missing and what brings it, in one line; None when neither an extra nor a system does."""
    if error.name in UNIX_ONLY:
        return "this needs Linux or macOS, or a container or WSL on Windows; `pdp.client` asks a server from there"
    for library, extra in EXTRA_OF.items():
        if f"{error.name}.".startswith(f"{library}."):
            return f"`{library}` is not installed: pip install '{DISTRIBUTION}[{extra}]'"
    return None
