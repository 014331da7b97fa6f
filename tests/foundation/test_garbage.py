"""What the garbage collector looks for, and where."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: what it keeps is kept for as long as the process lives.
_KEEPS = """
import gc, weakref
from pdp.foundation.garbage import collect_later, keep_what_there_is

class Ring:
    def __init__(self):
        self.ring = self

collect_later()
there = Ring()
lost = weakref.ref(Ring())
rings = [Ring() for _ in range(10_000)]
del rings
print(lost() is not None)
keep_what_there_is()
looked_at = {id(one) for one in gc.get_objects()}
later = Ring()
gone = weakref.ref(later)
del later
gc.collect()
print(lost() is None, id(there) in looked_at, gone() is None, gc.isenabled())
"""


def test_only_what_comes_later_is_looked_at() -> None:
    """What was garbage is gone, but not before; what is there is not looked at; what becomes garbage later is found."""
    done = subprocess.run([sys.executable, "-c", _KEEPS], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["True", "True", "False", "True", "True"]
