"""What may be given back of what calls have taken: only what the present server of the database is known to have.

A server that has taken the place of another one may lack what was taken there. What is given back to it then was never
taken, and others could take it once more. What is not given back costs a call, and grants nothing.
"""

from __future__ import annotations


class Taken:
    """When a process has taken anything, and on which timelines of its database. Its user holds a lock.

    A moment is that of the call, in unix seconds. A timeline is empty where there is only one.
    """

    def __init__(self) -> None:
        # That of what was taken last.
        self.timeline = ""
        # When the latest was taken, and when the latest on a timeline before.
        self._latest, self._latest_before = 0.0, 0.0

    def note(self, at: float, timeline: str) -> None:
        """Note that a call has taken something at a moment, or counts on what was taken then."""
        if timeline != self.timeline:
            self.timeline, self._latest_before = timeline, self._latest
        self._latest = max(self._latest, at)

    def may_lack(self, at: float, timeline: str) -> bool:
        """Say whether the server on a timeline may lack what was taken at a moment."""
        return timeline not in ("", self.timeline) or at <= self._latest_before
