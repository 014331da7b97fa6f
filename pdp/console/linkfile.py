"""A link that only its owner reads: every user of a machine can read command lines, also that of a browser."""

from __future__ import annotations

import html
from pathlib import Path

from pdp.foundation.files import replacing

_FILE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={link}">
<title>{title}</title>
<p><a href="{link}">{title}.</a> {note}</p>
"""


def write_link(path: Path, link: str, *, title: str, note: str) -> None:
    """Write a page that leads to a link into a file for its owner alone. Raise `OSError`."""
    with replacing(path) as file:
        file.write(_FILE.format(link=html.escape(link), title=title, note=note).encode("ascii", "xmlcharrefreplace"))
