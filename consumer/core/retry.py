"""The ladder: what an error makes of a delivery."""

from collections.abc import Sequence

from consumer.core.errors import DependencyError, PermanentError, TransientError
from consumer.core.outcome import Failed, Hold, Retry
from schemas.reasons import Reason


def outcome_of(error: Exception, attempt: int, delays_s: Sequence[int]) -> Hold | Retry | Failed:
    """The outcome of an attempt, counted from 1, that ended in `error`.

    A neighbour's fault holds, the message's fault fails, and anything else climbs the ladder until its rungs are
    used up. An error that no adapter has named is a defect of ours: it is retried too, since a new release may mend it.
    """
    match error:
        case DependencyError():
            return Hold(error.reason, error.detail, delays_s[0])
        case PermanentError():
            return Failed(error.reason, error.detail)
        case TransientError():
            if attempt > error.rungs:
                return Failed(error.reason, error.detail)
            return _climb(error.reason, error.detail, attempt, delays_s, error.not_before_s)
        case TimeoutError():
            return _climb(Reason.TIMED_OUT, "the try took longer than HANDLER_TIMEOUT_S", attempt, delays_s)
        case _:
            return _climb(Reason.UNEXPECTED, f"{type(error).__name__}: {error}", attempt, delays_s)


def _climb(
    reason: Reason, detail: str, attempt: int, delays_s: Sequence[int], not_before_s: float = 0
) -> Retry | Failed:
    if attempt > len(delays_s):
        return Failed(reason, detail)
    # Who asks for more time than the ladder has gets its longest rung; a try costs one attempt, however long the wait.
    later = delays_s[attempt - 1 :]
    return Retry(reason, detail, next((delay_s for delay_s in later if delay_s >= not_before_s), delays_s[-1]))
