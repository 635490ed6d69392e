from datetime import UTC, datetime, timedelta

from producer.api.delays import Delays
from schemas.events import ImageUploadDelayed, ImageUploadDelayedData
from schemas.reasons import Reason


def delay(job_id: str, user_id: str = "fox", in_s: float = 60) -> ImageUploadDelayed:
    now = datetime.now(UTC)
    data = ImageUploadDelayedData(
        cause_id="1",
        cause_source="/s",
        job_id=job_id,
        user_id=user_id,
        reason=Reason.SOURCE_GONE,
        attempt=1,
        held=False,
        next_try_at=now + timedelta(seconds=in_s),
    )
    return ImageUploadDelayed(id="d", time=now, data=data)


def test_a_delay_is_known_to_its_user_until_its_next_try() -> None:
    delays = Delays()
    delays.remember(delay("job-1", in_s=60))
    delays.remember(delay("job-2", in_s=-1))
    assert delays.of("fox", "job-1") is not None
    assert delays.of("cat", "job-1") is None
    assert delays.of("fox", "job-2") is None


def test_the_latest_delay_counts_and_the_last_ten_thousand_jobs() -> None:
    delays = Delays()
    first, latest = delay("job-1", in_s=60), delay("job-1", in_s=120)
    delays.remember(delay("oldest"))
    delays.remember(first)
    delays.remember(latest)
    for number in range(9_999):
        delays.remember(delay(f"more-{number}"))
    assert delays.of("fox", "job-1") == latest
    assert delays.of("fox", "oldest") is None
