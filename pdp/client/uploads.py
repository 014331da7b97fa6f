"""Split a request that can be larger than one message, as `CheckBundle` and `Evaluate` accept it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from pdp.v1.policy_pb2 import BundleFile, CheckBundleRequest, EvaluateRequest, TemplateLink

T = TypeVar("T")

# Well below the server's limit for one message (`message_bytes`), and within one window of HTTP/2.
PIECE_BYTES = 32 * 1024
_CHARACTER_BYTES = 4


def bundle_upload(files: Mapping[str, bytes]) -> tuple[CheckBundleRequest, ...]:
    """Return the messages for the files of a bundle.

    A large file continues in the next message.
    """
    pieces = (
        BundleFile(path=path, content=content[start : start + PIECE_BYTES])
        for path, content in sorted(files.items())
        for start in range(0, len(content) or 1, PIECE_BYTES)
    )
    # A whole piece fills its message, so no message holds two pieces of one file.
    return tuple(CheckBundleRequest(files=group) for group in _groups(pieces, BundleFile.ByteSize)) or (
        CheckBundleRequest(),
    )


def evaluation_upload(whole: EvaluateRequest) -> tuple[EvaluateRequest, ...]:
    """Return the messages that together hold an evaluation, or the small one itself."""
    if whole.ByteSize() <= PIECE_BYTES:
        return (whole,)
    flags = EvaluateRequest(
        running_bundle=whole.running_bundle,
        validate=whole.validate,
        skip_request_validation=whole.skip_request_validation,
    )
    return (
        flags,
        *(EvaluateRequest(policies=piece) for piece in _pieces(whole.policies)),
        *(EvaluateRequest(schema=piece) for piece in _pieces(whole.schema)),
        *(EvaluateRequest(schema_json=piece) for piece in _pieces(whole.schema_json)),
        *(EvaluateRequest(entities_json=piece) for piece in _pieces(whole.entities_json)),
        *(EvaluateRequest(template_links=group) for group in _groups(whole.template_links, TemplateLink.ByteSize)),
        *(EvaluateRequest(requests_json=group) for group in _groups(whole.requests_json, _bytes)),
    )


def _pieces(text: str) -> Iterator[str]:
    characters = PIECE_BYTES // _CHARACTER_BYTES
    return (text[start : start + characters] for start in range(0, len(text), characters))


def _groups(values: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield values in groups of at most `PIECE_BYTES`; a larger value alone."""
    group, room = list[T](), PIECE_BYTES
    for value in values:
        taken = size(value)
        if group and taken > room:
            yield group
            group, room = [], PIECE_BYTES
        group.append(value)
        room -= taken
    if group:
        yield group


def _bytes(text: str) -> int:
    return len(text) * _CHARACTER_BYTES
