"""Python without what only Unix has, as a program finds it on Windows: `python -m tests.client.withoutunix PROGRAM`.

Libraries of others and of Python are imported before, because here they are those for Unix.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from types import ModuleType

import click
import grpc
import rich.console
from grpc import aio

from pdp.foundation.extras import UNIX_ONLY

LOADED = (aio, asyncio, click, grpc, rich.console, secrets, subprocess, tempfile)
MODULES = (*UNIX_ONLY, "crypt", "nis", "pty", "readline", "spwd", "syslog", "tty")
# By where they are, in the order of the documentation of Python.
NAMES = {
    os: """ctermid getegid geteuid getgid getgrouplist getgroups getpgid getpgrp getpriority getresuid getuid initgroups
        setegid seteuid setgid setpgid setsid setuid uname fchmod fchown fdatasync fpathconf fstatvfs lockf openpty
        posix_fadvise posix_fallocate pread preadv pwrite pwritev readv sendfile set_blocking writev chown chroot lchown
        major makedev minor mkfifo mknod pathconf statvfs sync fork forkpty killpg nice posix_spawn register_at_fork
        sched_getaffinity sched_setaffinity sched_yield wait3 wait4 confstr getloadavg sysconf getxattr listxattr
        memfd_create eventfd O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC O_TMPFILE ST_RDONLY WNOHANG""",
    time: "clock_getres clock_gettime CLOCK_BOOTTIME CLOCK_MONOTONIC CLOCK_REALTIME CLOCK_PROCESS_CPUTIME_ID tzset",
    signal: """SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 alarm setitimer pthread_sigmask
        ITIMER_REAL""",
}


def hide() -> None:
    """Take it all away."""
    for name in MODULES:
        # An import of it fails, as if it were not there.
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in NAMES.items():
        for name in names.split():
            _take(module, name)


def _take(module: ModuleType, name: str) -> None:
    if hasattr(module, name):
        delattr(module, name)


if __name__ == "__main__":
    hide()
    exec(sys.argv.pop(1))  # noqa: S102 - the program of a test
