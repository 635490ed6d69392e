"""Which dead letters, or which rows, are meant."""

from dataclasses import dataclass
from datetime import datetime

from consumer.core.dead_letter import DeadLetter


@dataclass(frozen=True, slots=True)
class Choice:
    """What is not named is not asked for; a letter that tells no time is outside of every span of time."""

    reasons: tuple[str, ...] = ()
    job_id: str | None = None
    user_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is named."""
        return self == Choice()

    def includes(self, letter: DeadLetter) -> bool:
        """Whether the letter is meant."""
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (self.job_id is None or letter.job_id == self.job_id)
            and (self.user_id is None or letter.user_id == self.user_id)
            and (self.since is None or (letter.failed_at is not None and letter.failed_at >= self.since))
            and (self.until is None or (letter.failed_at is not None and letter.failed_at < self.until))
        )
