import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.errors import BusyError, DependencyError, PermanentError, TransientError
from consumer.core.outcome import Failed, Hold, Retry
from consumer.core.retry import outcome_of
from schemas.reasons import Reason

ladders = st.lists(st.integers(1, 10_000), min_size=1, max_size=8, unique=True).map(sorted)
waits_s = st.floats(0, 20_000)


@given(ladders)
def test_a_transient_error_climbs_every_rung_once_and_then_fails(delays_s: list[int]) -> None:
    error = TransientError(Reason.SOURCE_UNAVAILABLE, "503")
    outcomes = [outcome_of(error, attempt, delays_s) for attempt in range(1, len(delays_s) + 2)]
    assert [outcome.delay_s for outcome in outcomes if isinstance(outcome, Retry)] == delays_s
    assert outcomes[-1] == Failed(Reason.SOURCE_UNAVAILABLE, "503")


@given(ladders, st.integers(1, 1000))
def test_a_neighbours_fault_is_held_on_the_first_rung_however_often(delays_s: list[int], attempt: int) -> None:
    error = DependencyError("storage", Reason.STORAGE_UNAVAILABLE, "503")
    assert outcome_of(error, attempt, delays_s) == Hold(Reason.STORAGE_UNAVAILABLE, "503", delays_s[0])


@given(ladders, st.integers(1, 1000), waits_s)
def test_who_finds_no_room_is_held_until_there_will_be_some(delays_s: list[int], attempt: int, wait_s: float) -> None:
    outcome = outcome_of(BusyError(Reason.SOURCE_UNAVAILABLE, "busy", not_before_s=wait_s), attempt, delays_s)
    assert isinstance(outcome, Hold)
    assert outcome.delay_s == min((delay_s for delay_s in delays_s if delay_s >= wait_s), default=delays_s[-1])


@given(ladders, st.integers(1, 1000))
def test_the_messages_fault_fails_at_once(delays_s: list[int], attempt: int) -> None:
    assert outcome_of(PermanentError(Reason.TOO_LARGE, "big"), attempt, delays_s) == Failed(Reason.TOO_LARGE, "big")


@given(ladders, st.integers(1, 20), st.integers(1, 4))
def test_an_error_that_deserves_few_rungs_gets_no_more(delays_s: list[int], attempt: int, rungs: int) -> None:
    outcome = outcome_of(TransientError(Reason.SOURCE_GONE, "404", rungs=rungs), attempt, delays_s)
    assert isinstance(outcome, Retry) == (attempt <= min(rungs, len(delays_s)))


@given(ladders, waits_s, st.data())
def test_a_wait_that_the_source_asks_for_chooses_a_later_rung(
    delays_s: list[int], wait_s: float, data: st.DataObject
) -> None:
    attempt = data.draw(st.integers(1, len(delays_s)))
    outcome = outcome_of(TransientError(Reason.SOURCE_UNAVAILABLE, "429", not_before_s=wait_s), attempt, delays_s)
    assert isinstance(outcome, Retry)
    own_rung_s = delays_s[attempt - 1]
    assert outcome.delay_s in delays_s
    assert outcome.delay_s >= own_rung_s
    assert outcome.delay_s >= min(wait_s, delays_s[-1])
    shorter = [delay_s for delay_s in delays_s if own_rung_s <= delay_s < outcome.delay_s]
    assert all(delay_s < wait_s for delay_s in shorter), "a shorter rung would have been long enough"


@given(ladders, st.lists(waits_s, min_size=9, max_size=9), st.one_of(st.none(), st.integers(1, 9)))
def test_no_wait_changes_how_often_an_event_is_tried(
    delays_s: list[int], asked_s: list[float], rungs: int | None
) -> None:
    limit = {} if rungs is None else {"rungs": rungs}
    attempt = 1
    for wait_s in asked_s:
        error = TransientError(Reason.SOURCE_GONE, "404", not_before_s=wait_s, **limit)
        if isinstance(outcome_of(error, attempt, delays_s), Failed):
            break
        attempt += 1
    assert attempt == min(len(delays_s), rungs or len(delays_s)) + 1


@given(ladders, st.lists(st.booleans(), max_size=30))
def test_holds_in_between_take_no_rung(delays_s: list[int], holds: list[bool]) -> None:
    attempt, climbed = 1, []
    for is_held in (*holds, *[False] * len(delays_s)):
        error = (
            DependencyError("database", Reason.DATABASE_UNAVAILABLE, "away")
            if is_held
            else TransientError(Reason.SOURCE_UNAVAILABLE, "503")
        )
        outcome = outcome_of(error, attempt, delays_s)
        if isinstance(outcome, Retry):
            climbed.append(outcome.delay_s)
            attempt += 1
    assert climbed == delays_s


@pytest.mark.parametrize(
    ("error", "reason"), [(TimeoutError(), Reason.TIMED_OUT), (KeyError("a defect"), Reason.UNEXPECTED)]
)
def test_what_no_adapter_named_is_retried_under_its_reason(error: Exception, reason: Reason) -> None:
    outcome = outcome_of(error, 1, [5, 30])
    assert isinstance(outcome, Retry)
    assert (outcome.reason, outcome.delay_s) == (reason, 5)
    assert isinstance(outcome_of(error, 3, [5, 30]), Failed)


def test_every_attempt_beyond_a_ladder_that_was_shortened_fails() -> None:
    assert isinstance(outcome_of(TransientError(Reason.SOURCE_UNAVAILABLE, "503"), 99, [5]), Failed)
