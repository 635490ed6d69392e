"""What is known of events that are tried again: a hint that comes over the broker and has no record."""

from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final

from schemas.events import ImageUploadDelayed

_MOST = 10_000


class Delays:
    """The latest delay of each job, of the last ten thousand jobs that were delayed."""

    def __init__(self) -> None:
        self._of: Final[OrderedDict[tuple[str, str], ImageUploadDelayed]] = OrderedDict()

    def remember(self, news: ImageUploadDelayed) -> None:
        """The job is known to be delayed."""
        key = (news.data.user_id, news.data.job_id)
        self._of[key] = news
        self._of.move_to_end(key)
        if len(self._of) > _MOST:
            self._of.popitem(last=False)

    def of(self, user_id: str, job_id: str) -> ImageUploadDelayed | None:
        """The delay that the user's job is in; none once its next try has come."""
        news = self._of.get((user_id, job_id))
        return news if news is not None and news.data.next_try_at > datetime.now(UTC) else None
