"""The answer of a token endpoint: refused in a line of our own, or with the token that a plain reader finds."""

from __future__ import annotations

import json

from pdp.broker.oauth.answers import granted, refusal, require_scopes
from pdp.broker.words import TokenRefusedError

WORDS = (
    *(
        "access_token",
        "refresh_token",
        "id_token",
        "token_type",
        "expires_in",
        "scope",
        "error",
        "Bearer",
        "invalid_client",
        "issues pulls",
    ),
    *('{"', '":', '",', "}", "null", "true", "1e999", "-1", "NaN", "\\u000d", "\\ud800", "\\u00e9"),
)
WANTED = ("issues", "pulls")
SEEDS = (
    b'{"access_token":"t","token_type":"Bearer","expires_in":600,"scope":"pulls issues"}',
    b'{"access_token":"t","token_type":"bearer"}',
    b'{"access_token":"t","token_type":"Bearer","refresh_token":"r","id_token":"i"}',
    b'{"access_token":"t","token_type":"Bearer","scope":"issues pulls admin"}',
    b'{"access_token":"a\\r\\nb","token_type":"Bearer","expires_in":1e999}',
    b'{"access_token":"a","access_token":"b","token_type":"Bearer"}',
    b'{"error":"invalid_client","error_description":"s3cr3t"}',
    b"[[[[",
)
# What no answer may bring into an error.
_CANARY = "s3cr3t"


def run(data: bytes) -> None:
    """Read an answer, as one that gives a token and as one that refuses."""
    code = refusal(data)
    assert code == "" or (code.isascii() and code.encode() in data), "a code that was not there"
    try:
        got = granted(data)
        require_scopes(got, WANTED)
    except TokenRefusedError as error:
        assert str(error).isprintable(), "a problem that is not one printable line"
        assert _CANARY not in str(error), "a problem that quotes the answer"
        return
    said, token = json.loads(data), got.secret.reveal().decode()
    assert token == said["access_token"], "another token than that of the answer"
    assert token.isprintable(), "a token that ends a header"
    assert {*said.get("scope", "issues pulls").split()} == {*WANTED}, "other scopes than those that are wanted"
    refresh = got.refresh.reveal().decode() if got.refresh else None
    assert refresh == said.get("refresh_token"), "another refresh token than that of the answer"
    assert got.seconds == said.get("expires_in", 0), "another end than that of the answer"
