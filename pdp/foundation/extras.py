"""Find the extra of the distribution that brings a library missing from the small installation."""

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


def missing(error: ImportError) -> str | None:
    """Return the missing library and the extra that brings it, in one line; None when no extra does."""
    for library, extra in EXTRA_OF.items():
        if f"{error.name}.".startswith(f"{library}."):
            return f"`{library}` is not installed: pip install '{DISTRIBUTION}[{extra}]'"
    return None
