"""The limits on every input. Each is a setting, and each refusal names the limit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what callers and policy files may send. Sizes are bytes unless a name says otherwise."""

    message_bytes: int = 256 * 1024
    arguments_bytes: int = 128 * 1024
    arguments_depth: int = 32
    arguments_nodes: int = 4096
    string_bytes: int = 32 * 1024
    batch_size: int = 100
    text_characters: int = 512
    resource_id_characters: int = 1024
    policy_file_bytes: int = 1024 * 1024
    bundle_bytes: int = 8 * 1024 * 1024
    policy_depth: int = 32
    policy_terms: int = 200
    tool_patterns: int = 64
    session_seconds: float = 8 * 3600.0
    delegation_depth: int = 3
    streams: int = 32
    stream_idle_seconds: float = 300.0
    concurrent_calls: int = 512


DEFAULT_LIMITS = Limits()
