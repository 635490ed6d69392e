"""How often a password may be tried."""

import math
import time
from http import HTTPStatus
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from producer.api.errors import ApiError

_WINDOW_MIN: Final = 15
# Behind a proxy all users share an address, so that it gets more tries than one user's name from there.
_OF_ADDRESS: Final = RateLimitItemPerMinute(300, _WINDOW_MIN)
_OF_NAME: Final = RateLimitItemPerMinute(10, _WINDOW_MIN)


class Tries:
    """Counts wrong passwords of this process: ten of one name from one address in a quarter of an hour, 300 from it."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._limiter = FixedWindowRateLimiter(self._storage)

    def count(self, address: str, name: str) -> None:
        """One more try is made, which counts as wrong, since others go on beside it, until it is forgiven.

        Raises:
            ApiError: 429, with the seconds to wait.
        """
        self._hit(_OF_ADDRESS, address)
        self._hit(_OF_NAME, address, name.strip().lower())

    def forgive(self, address: str, name: str) -> None:
        """The password was right: neither this try nor those of the name before it count."""
        self._storage.decr(_OF_ADDRESS.key_for(address))
        self._limiter.clear(_OF_NAME, address, name.strip().lower())

    def _hit(self, limit: RateLimitItem, *who: str) -> None:
        if self._limiter.hit(limit, *who):
            return
        wait_s = max(1, math.ceil(self._limiter.get_window_stats(limit, *who).reset_time - time.time()))
        raise ApiError(
            HTTPStatus.TOO_MANY_REQUESTS,
            "too_many_tries",
            f"too many tries: wait {wait_s} s",
            headers={"Retry-After": str(wait_s)},
        )
