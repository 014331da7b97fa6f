"""What a secret looks like, and what it opens: by the form that its issuer gives it, or by the name that it has.

The forms are those that issuers document so that scanners find them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pdp.broker.words import MOST_SECRET_BYTES, NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A kind of secret.

    `kind` is a name for its connections, and `upstream` where it is usually sent, or empty when that is not known.
    `header` and `scheme` say how. `uncovered` says why the broker cannot use it, or is empty.
    """

    kind: str
    upstream: str = ""
    header: str = "Authorization"
    scheme: str = "Bearer"
    uncovered: str = ""


OTHER: Final = "other"
_SIGNS: Final = "whoever has it signs requests with it, and the broker sends secrets in headers alone"
_AWS: Final = Shape(kind="aws", uncovered=_SIGNS)
_LOGIN: Final = "it is a login of something that does not speak HTTP"
_POSTGRES: Final = (
    "it is a login of a database: `pdp-broker connection add --database` has short-lived ones made instead"
)

_FORMS: Final[tuple[tuple[re.Pattern[str], Shape], ...]] = tuple(
    (re.compile(form), shape)
    for form, shape in (
        (r"gh[opsur]_[A-Za-z0-9]{30,255}", Shape(kind="github", upstream="https://api.github.com")),
        (r"github_pat_[A-Za-z0-9_]{22,255}", Shape(kind="github", upstream="https://api.github.com")),
        (r"gl(?:pat|oas|dt|rt|ptt|soat)-[A-Za-z0-9_.-]{20,}", Shape(kind="gitlab", upstream="https://gitlab.com")),
        (r"xox[abeprs]-[A-Za-z0-9-]{10,}", Shape(kind="slack", upstream="https://slack.com")),
        (
            r"sk-ant-[A-Za-z0-9_-]{20,}",
            Shape(kind="anthropic", upstream="https://api.anthropic.com", header="x-api-key", scheme=""),
        ),
        (r"sk-[A-Za-z0-9_-]{20,}", Shape(kind="openai", upstream="https://api.openai.com")),
        (r"[rs]k_(?:live|test)_[A-Za-z0-9]{10,}", Shape(kind="stripe", upstream="https://api.stripe.com")),
        (r"hf_[A-Za-z0-9]{30,}", Shape(kind="huggingface", upstream="https://huggingface.co")),
        (r"ntn_[A-Za-z0-9]{40,}", Shape(kind="notion", upstream="https://api.notion.com")),
        (r"lin_api_[A-Za-z0-9]{32,}", Shape(kind="linear", upstream="https://api.linear.app", scheme="")),
        (r"AIza[A-Za-z0-9_-]{35}", Shape(kind="google", header="x-goog-api-key", scheme="")),
        (r"A(?:KIA|SIA)[A-Z0-9]{16}", _AWS),
        (r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*", Shape(kind="private-key", uncovered=_SIGNS)),
        (r"eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", Shape(kind="jwt")),
    )
)
_PASSWORD = re.compile(r".*(?:password|passwd|passphrase)|(?:.*_)?pwd")
_NAMED = re.compile(r"(?:.*_)?(?:token|secret|apikey|key|credentials?|authorization|pat)")
# They end like a secret, and are none.
_PUBLIC = re.compile(r"(?:.*_)?(?:public|primary|sort|partition|foreign|cache|idempotency)_key")
_SUFFIX = re.compile(
    r"_?(?:personal|access|api|secret|auth|bearer|app|bot|token|key|pat|password|passwd|pwd|authorization)\Z"
)
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")
_SCHEME = re.compile(r"(?i)(?:bearer|token|basic|apikey)\s+(?=\S)")
# `${NAME}`, `$NAME`, `{{ key }}`, `<your key>`, `%NAME%`, `***`, a place in a vault, and the words of examples.
_PLACEHOLDER = re.compile(
    r"(?is)\$.*|\{\{.*|<.*>|%[a-z0-9_]+%|[*x.]+|(?:op|vault|env|file|keychain)://.*|change_?me|pdp-placeholder.*|"
    r"(?:your|my|example|placeholder|change|insert|replace|dummy|todo)[-_ ].*"
)
_LOCATION = re.compile(r"[./~\\].*|[A-Za-z]:\\.*|https?://.*")
_SHORTEST, _SHORTEST_PASSWORD = 12, 4
_LONGEST_NAME = 128
_WEB: Final = ("http", "https")


def recognised(name: str, value: str) -> Shape | None:
    """Return what kind of secret a value under a name is, or `None` when it is none that can be told."""
    found = bare(value)
    if len(found) > MOST_SECRET_BYTES:
        return None
    return _in_url(found) or _plain(name, found)


def bare(value: str) -> str:
    """Return a value without the word before it that a header has, such as `Bearer`."""
    return _SCHEME.sub("", value.strip(), count=1)


def _plain(name: str, value: str) -> Shape | None:
    if not value or _PLACEHOLDER.fullmatch(value):
        return None
    return next((shape for form, shape in _FORMS if form.fullmatch(value)), None) or _by_name(name, value)


def _in_url(value: str) -> Shape | None:
    """Return the kind of a login, or of a key, in a URL."""
    if "://" not in value:
        return None
    try:
        parts = urlsplit(value)
        password = parts.password or ""
        origin = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return None
    if password and not _PLACEHOLDER.fullmatch(password):
        return _login(parts, origin)
    shape = next((found for name, one in parse_qsl(parts.query) if (found := _plain(name, one))), None)
    return replace(shape, upstream=shape.upstream or origin) if shape and parts.scheme in _WEB else None


def _login(parts: SplitResult, origin: str) -> Shape:
    kind = parts.scheme.partition("+")[0]
    if kind in _WEB:
        return Shape(kind=kind_of(parts.hostname or ""), upstream=origin, scheme="Basic")
    return Shape(kind=kind_of(kind), uncovered=_POSTGRES if kind in ("postgres", "postgresql") else _LOGIN)


def _by_name(name: str, value: str) -> Shape | None:
    words = "_".join(_WORDS.split(name[:_LONGEST_NAME].strip("-"))).lower()
    is_password = _PASSWORD.fullmatch(words) is not None
    if not is_password and (not _NAMED.fullmatch(words) or _PUBLIC.fullmatch(words)):
        return None
    if re.search(r"\s", value) or _LOCATION.fullmatch(value) or value.lower() in ("true", "false", "none", "null"):
        return None
    if len(value) < (_SHORTEST_PASSWORD if is_password else _SHORTEST):
        return None
    while (shorter := _SUFFIX.sub("", words)) != words:
        words = shorter
    kind = kind_of(words.removeprefix("x_"))
    if name.lower().startswith("x-"):
        return Shape(kind=kind, header=name.lower(), scheme="")
    return Shape(kind=kind, uncovered=_SIGNS if kind == _AWS.kind else "")


def kind_of(text: str) -> str:
    """Return a text as a name for connections, or `other`."""
    kind = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")
    return kind if NAME.fullmatch(kind) and kind != "x" else OTHER
