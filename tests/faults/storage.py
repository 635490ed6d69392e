"""The bucket of a fault run: it can be made to refuse a share of what is uploaded, and knows when it answered."""

import time
from bisect import bisect_left
from pathlib import Path
from random import Random

from aiohttp import web

from sandbox.oss.address import Address
from sandbox.oss.answer import Answer
from sandbox.oss.errors import OssError
from tests.e2e.watched_oss import WatchedOss


class Storage(WatchedOss):
    """Answers 503 to `refused_share` of the uploads, and counts those in `refused`."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self.refused_share = 0.0
        self.refused = 0
        self._good_answers_at: list[float] = []
        self._random = Random(1)

    async def _answer(self, request: web.BaseRequest, address: Address) -> Answer:
        if request.method == "PUT" and self._random.random() < self.refused_share:
            self.refused += 1
            raise OssError("UploadTrafficRateLimitExceeded")
        answer = await super()._answer(request, address)
        self._good_answers_at.append(time.monotonic())
        return answer

    def first_good_answer(self, since: float) -> float | None:
        """When it first gave a good answer at or after that time, if it has."""
        return next(iter(self._good_answers_at[bisect_left(self._good_answers_at, since) :]), None)
