"""Pages from templates: all text is escaped, and text from others cannot hide, move or imitate what is around it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from pdp.client import budgetwords, connectionwords, enumwords
from pdp.clock import Clock
from pdp.console import words
from pdp.console.assets import Assets
from pdp.foundation.counting import counted
from pdp.foundation.printable import visible

_MINUTE = 60


class Pages:
    """The templates of the console, and what they may use.

    A template shows what others wrote only through `said` (in a line) and `quoted` (in several): both isolate the
    direction of the text, and show characters that draw nothing. `has_accounts` says whether people connect accounts.
    """

    def __init__(self, assets: Assets, clock: Clock, *, has_accounts: bool = False) -> None:
        self._clock = clock
        texts = {
            file.name: file.read_text(encoding="utf-8") for file in files("pdp.console").joinpath("templates").iterdir()
        }
        self._environment = Environment(
            loader=DictLoader(texts),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "said": said,
            "quoted": quoted,
            "moment": moment,
            "left": self._left,
            "span": words.span,
            "first_line": words.first_line,
        }
        self._environment.globals |= {
            "asset": assets.path,
            "counted": counted,
            "now": lambda: round(clock.now().wall_at),
            "enums": enumwords,
            "budgets": budgetwords,
            "connections": connectionwords,
            "words": words,
            "has_accounts": has_accounts,
        }

    def page(self, name: str, status: int = 200, **given: Any) -> HTMLResponse:  # noqa: ANN401 - what a template shows is any value
        """Return the page of a template."""
        return HTMLResponse(self._environment.get_template(name).render(given), status_code=status)

    def _left(self, until: words.Moment) -> Markup:
        seconds = words.unix(until) - self._clock.now().wall_at
        # In whole minutes while there are some: what counts every second takes the eye away.
        rounded = seconds // _MINUTE * _MINUTE if seconds >= _MINUTE else seconds
        return Markup('<span class="counting" data-until="{}">{}</span>').format(
            round(words.unix(until)), words.span(rounded)
        )


def said(text: str) -> Markup:
    """Return what others wrote as part of a line."""
    return Markup("<bdi>{}</bdi>").format(visible(text))


def quoted(text: str) -> Markup:
    """Return what others wrote with its lines, as a block of its own."""
    lines = text.replace("\r\n", "\n").split("\n")
    shown = Markup("\n").join(escape(visible(line, kept="\t")) for line in lines)
    return Markup('<bdi class="quoted" dir="auto">{}</bdi>').format(shown)


def moment(at: words.Moment) -> Markup:
    """Return a time in UTC; the console's script adds it in the zone of the reader."""
    text = words.iso(words.unix(at))
    return Markup('<time datetime="{}">{} UTC</time>').format(text, text[:16].replace("T", " "))
