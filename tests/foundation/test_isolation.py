"""What a process knows stays in it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_HOLDS = """
import sys
from pdp.foundation.isolation import keep_secrets_here
if sys.argv[1] == "closed":
    keep_secrets_here()
print(flush=True)
sys.stdin.read()
"""
# Root may read the memory of every process; without this capability it is a user like any other.
_AS_A_USER = () if os.geteuid() else ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not have it")
@pytest.mark.parametrize(("how", "code"), [("open", 0), ("closed", 1)])
def test_memory_is_closed_to_others_of_the_user(how: str, code: int) -> None:
    """No program of the same user looks into it, nor has `gcore` a core of it; one that does not ask for it is open."""
    command = [*_AS_A_USER, sys.executable, "-c", _HOLDS, how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        # Looking at this needs what attaching to a process needs.
        looked = subprocess.run([*_AS_A_USER, "cat", f"/proc/{holder.pid}/io"], capture_output=True, check=False)
        holder.kill()

    assert code == looked.returncode
