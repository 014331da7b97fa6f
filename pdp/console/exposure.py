"""The page of who used a secret: for the day on which it may have leaked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.responses import Response

from pdp.broker.v1.exposure_pb2 import GetExposureResponse
from pdp.client import InvalidRequestError, NotFoundError
from pdp.client.broker import AsyncBrokerClient
from pdp.console.paging import MOST_SHOWN
from pdp.console.search import moment_of
from pdp.console.visits import Desk, Visit
from pdp.console.words import iso

_BAD_REQUEST = 400
FIELDS = ("connection", "version", "since")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class Exposures:
    """Who used a secret, for those who may read the record: the broker decides who does."""

    def __init__(self, desk: Desk, broker: AsyncBrokerClient) -> None:
        self._desk, self._broker = desk, broker

    async def show(self, visit: Visit) -> Response:
        """Show the uses of a connection's secret, or the form that asks for it."""
        given, found, problem, since_at = visit.given(FIELDS), None, "", 0.0
        try:
            if given["since"]:
                # To the second, as the links to further pages name it.
                since_at = float(math.floor(moment_of(given["since"], self._desk.clock.now().wall_at)))
            if given["connection"]:
                found = await self._found(given, since_at, visit.request.query_params.get("page", ""))
        except (InvalidRequestError, NotFoundError) as error:
            problem = str(error)
        chosen = {name: value for name, value in given.items() if value}
        since = {"since": iso(since_at)} if since_at else {}
        return self._desk.show(
            visit,
            "exposure.html",
            _BAD_REQUEST if problem else 200,
            given=given,
            found=found,
            problem=problem,
            since=since,
            earlier=urlencode({**chosen, **since, "page": found.next_page_token})
            if found and found.next_page_token
            else "",
        )

    async def _found(self, given: Mapping[str, str], since_at: float, page: str) -> GetExposureResponse:
        if given["version"] and not _VERSION.fullmatch(given["version"]):
            raise InvalidRequestError(f"`{given['version']}` is not a version of a secret, such as `2`")
        return await self._broker.get_exposure(
            given["connection"],
            version=int(given["version"] or 0),
            since_at=since_at,
            page_size=MOST_SHOWN,
            page_token=page,
        )
