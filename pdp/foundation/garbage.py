"""Keep Python's garbage collector from holding up the start and the calls of a server."""

from __future__ import annotations

import gc


def collect_later() -> None:
    """Have the collector look at nothing until `keep_what_there_is`: what a start makes stays until the end."""
    gc.disable()


def keep_what_there_is() -> None:
    """Have the collector look at nothing that this process has now: for a server that has started.

    Else it looks at all of it now and then, with the interpreter's lock held: every call waits that long. What has no
    references any more is freed as before; of the rest, only what came later is ever looked for.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
