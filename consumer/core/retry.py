"""The ladder: what an error makes of a delivery."""

from collections.abc import Sequence

from consumer.core.errors import ALL_RUNGS, BusyError, DependencyError, PermanentError, TransientError, UploadError
from consumer.core.outcome import Failed, Hold, Retry
from schemas.reasons import Reason


def outcome_of(
    error: Exception, attempt: int, delays_s: Sequence[int], *, is_away: bool = True
) -> Hold | Retry | Failed:
    """The outcome of an attempt, counted from 1, that ended in `error`.

    A neighbour's fault holds, the message's fault fails, and anything else climbs the ladder until its rungs are
    used up: so does what the store refuses while it takes something else (it is not `is_away`). An error that no
    adapter has named is a defect of ours: it is retried too, since a new release may mend it.
    """
    match error:
        case BusyError():
            return Hold(error.reason, error.detail, _rung(delays_s, error.not_before_s))
        case DependencyError() if is_away or error.reason is not Reason.STORAGE_REFUSED:
            return Hold(error.reason, error.detail, delays_s[0])
        case PermanentError():
            return Failed(error.reason, error.detail)
        case TransientError():
            return _climb(error, attempt, delays_s, rungs=error.rungs, not_before_s=error.not_before_s)
        case _:
            return _climb(_named(error), attempt, delays_s)


def _named(error: Exception) -> UploadError:
    match error:
        case UploadError():
            return error
        case TimeoutError():
            return UploadError(Reason.TIMED_OUT, "the try took longer than HANDLER_TIMEOUT_S")
        case _:
            return UploadError(Reason.UNEXPECTED, f"{type(error).__name__}: {error}")


def _climb(
    error: UploadError, attempt: int, delays_s: Sequence[int], *, rungs: int = ALL_RUNGS, not_before_s: float = 0
) -> Retry | Failed:
    if attempt > min(rungs, len(delays_s)):
        return Failed(error.reason, error.detail)
    # A try costs one attempt, however long the wait.
    return Retry(error.reason, error.detail, _rung(delays_s[attempt - 1 :], not_before_s))


def _rung(delays_s: Sequence[int], not_before_s: float) -> int:
    """The first of the delays that is long enough; who asks for more than there is gets the longest."""
    return next((delay_s for delay_s in delays_s if delay_s >= not_before_s), delays_s[-1])
