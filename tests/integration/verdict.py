"""What an adapter makes of its driver's errors, in two words: what becomes of the event, and the reason."""

from collections.abc import Awaitable

from consumer.core.errors import DependencyError, PermanentError
from consumer.core.outcome import Failed, Retry
from consumer.core.retry import outcome_of

_LADDER_S = (1, 2, 3, 4)


async def verdict(work: Awaitable[object]) -> str:
    """`fails`, `held` or `retried` with its reason; and how often, where that is not the whole ladder."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 whatever comes is judged
        return judged(error)
    raise AssertionError("it worked")


def judged(error: Exception) -> str:
    """The same, of an error."""
    outcome = outcome_of(error, 1, _LADDER_S)
    match error, outcome:
        case PermanentError(), Failed(reason):
            return f"fails {reason}"
        case DependencyError(dependency=dependency), _:
            assert outcome.label == "held"
            return f"held {outcome.reason} ({dependency})"
        case _, Retry(reason):
            tries = [outcome_of(error, attempt, _LADDER_S) for attempt in range(1, len(_LADDER_S) + 2)]
            rungs = sum(isinstance(each, Retry) for each in tries)
            return f"retried {reason}" if rungs == len(_LADDER_S) else f"retried {reason} on {rungs} rungs"
    raise AssertionError(f"{error!r} has no place in the table")
