"""No more than so many a second."""

import asyncio


class Pace:
    """Waits between two steps, where a rate is set; the first one need not wait."""

    def __init__(self, per_second: float | None) -> None:
        self._interval_s = 1 / per_second if per_second else 0.0
        self._due = 0.0

    async def step(self) -> None:
        """It is time for the next step."""
        now = asyncio.get_running_loop().time()
        if self._due > now:
            await asyncio.sleep(self._due - now)
        self._due = max(self._due, now) + self._interval_s
