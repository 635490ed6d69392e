"""What freezes with the first release: ids, fingerprints and keys. The literals here must never change."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from consumer.core.announcements import completed, delayed, expired, failed
from consumer.core.object_key import happened_at, is_ours, object_key
from consumer.core.outcome import Hold
from consumer.core.records import Cause
from schemas.events import output_id
from schemas.reasons import Reason
from tests import samples

KEY = re.compile(
    r"users/[A-Za-z0-9][A-Za-z0-9._@+|:-]{0,253}/jobs/[A-Za-z0-9][A-Za-z0-9._-]{0,127}/image-\d+-[0-9a-f]{16}\.png"
)
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60)
user_ids = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._@+|:-]{0,60}\Z").filter(lambda name: ".." not in name)
job_ids = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,60}\Z").filter(lambda name: ".." not in name)
times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 bounds are naive
crcs = st.integers(0, 2**64 - 1)


def test_the_ids_and_the_key_of_a_known_event_are_what_they_were_on_the_first_day() -> None:
    event = samples.event(id="0c5e", source="/generators/sdxl-3")
    cause = Cause.of(event)
    output = samples.output(event)
    assert (
        object_key(event, 0x995DC9BBDF1939FA, "png")
        == "users/test@factory-buy.com/jobs/abc123/image-1795353521123-9a644d801d8d0328.png"
    )
    assert cause.fingerprint == "d66f4a9fbe8052cfd774c9a628235f3e"
    assert output_id(event.source, event.id) == UUID("f1f68e94-73b5-52be-a6c7-09f7c3c63a2f")
    assert completed(output, output.url).id == "54974902-6474-5c4f-8fdd-efea219873cb"
    assert expired(replace(output, expires_at=event.time)).id == "b490e39f-ce30-53fc-bb94-e0f5946fb7a3"
    assert cause.failure_id == UUID("62593c6f-08cb-5a27-a230-eb0977db1e20")
    assert Cause.of(event, replays=1).failure_id == UUID("72293685-3013-5c8f-86f8-1e7fe0d05aef")
    assert cause.conflict_id == UUID("9f464b1c-3c87-5bbd-b660-6b319465afc3")


@given(names, names, user_ids, job_ids, times, crcs)
def test_a_key_has_its_form_and_stays_under_its_job(
    source: str, event_id: str, user_id: str, job_id: str, time: datetime, crc64: int
) -> None:
    event = samples.event(source=source, id=event_id, user_id=user_id, job_id=job_id, time=time)
    key = object_key(event, crc64, "png")
    assert KEY.fullmatch(key)
    assert key.startswith(f"users/{user_id}/jobs/{job_id}/image-")
    assert key == object_key(event, crc64, "png")


@given(names, names, user_ids, job_ids, times, crcs, st.sampled_from(["jpg", "png", "webp", "gif"]))
def test_every_key_that_is_made_is_known_as_ours_with_its_time(
    source: str, event_id: str, user_id: str, job_id: str, time: datetime, crc64: int, extension: str
) -> None:
    event = samples.event(source=source, id=event_id, user_id=user_id, job_id=job_id, time=time)
    key = object_key(event, crc64, extension)
    assert is_ours(key)
    assert happened_at(key) == time.replace(microsecond=time.microsecond // 1000 * 1000)


OURS = "users/a@b.com/jobs/abc/image-1703123456789-1f3a9c02d4e5b677.png"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "users/.image-uploads/probe",
        OURS + "\n",
        OURS + "/x",
        "x" + OURS,
        "/" + OURS,
        OURS.upper(),
        OURS.replace(".png", ".jpeg"),
        OURS.replace(".png", ""),
        OURS.replace("users/", "user/"),
        OURS.replace("a@b.com", ""),
        OURS.replace("a@b.com", "a/b"),
        OURS.replace("a@b.com", ".a"),
        OURS.replace("a@b.com", "a..b"),
        OURS.replace("a@b.com", "a b"),
        OURS.replace("a@b.com", "ä"),
        OURS.replace("a@b.com", "a" * 255),
        OURS.replace("/abc/", "/a@b/"),
        OURS.replace("/abc/", "/" + "a" * 129 + "/"),
        OURS.replace("image-", "thumb-"),
        OURS.replace("1703123456789", "-1"),
        OURS.replace("1703123456789", "007"),
        OURS.replace("1703123456789", "999999999999999"),  # after 9999
        OURS.replace("1703123456789", "１７０３１２３"),  # noqa: RUF001 digits, to some
        OURS.replace("1f3a9c02d4e5b677", "1f3a9c02d4e5b67"),
        OURS.replace("1f3a9c02d4e5b677", "1F3A9C02D4E5B677"),
    ],
)
def test_a_key_that_is_nearly_ours_is_somebody_elses(key: str) -> None:
    assert is_ours(OURS)
    assert not is_ours(key)


@given(st.integers(0, len(OURS) - 1), st.characters(codec="utf-8"))
def test_a_key_with_one_other_character_is_ours_only_if_it_could_have_been_made(at: int, character: str) -> None:
    key = OURS[:at] + character + OURS[at + 1 :]
    assume(".." not in key)
    could = re.fullmatch(
        r"users/[A-Za-z0-9][A-Za-z0-9._@+|:-]*/jobs/[A-Za-z0-9][A-Za-z0-9._-]*/image-[1-9][0-9]{12}-[0-9a-f]{16}\.png",
        key,
    )
    assert is_ours(key) == bool(could)


@given(names, names, names, names, crcs, crcs)
def test_other_events_and_other_bytes_have_other_keys(
    source_a: str, id_a: str, source_b: str, id_b: str, crc_a: int, crc_b: int
) -> None:
    assume((source_a, id_a, crc_a) != (source_b, id_b, crc_b))
    a, b = samples.event(source=source_a, id=id_a), samples.event(source=source_b, id=id_b)
    assert object_key(a, crc_a, "png") != object_key(b, crc_b, "png")


@given(names, names, names, names)
def test_other_events_have_other_ids(source_a: str, id_a: str, source_b: str, id_b: str) -> None:
    assume((source_a, id_a) != (source_b, id_b))
    assert output_id(source_a, id_a) != output_id(source_b, id_b)
    assert Cause("f", 0, source_a, id_a).failure_id != Cause("f", 0, source_b, id_b).failure_id


@given(st.integers(0, 50), st.integers(0, 50))
def test_each_run_fails_under_an_id_of_its_own_and_every_copy_of_it_has_that_id(run: int, other: int) -> None:
    event = samples.event(id="0c5e")
    assert (Cause.of(event, run).failure_id == Cause.of(event, other).failure_id) == (run == other)
    failure = samples.failure(Cause.of(event, run))
    event_of_it = failed(failure)
    assert event_of_it == failed(failure)
    assert event_of_it is not None
    assert (event_of_it.id, event_of_it.time) == (str(failure.id), failure.failed_at)


def test_every_copy_of_a_completion_is_equal() -> None:
    output = samples.output(samples.event())
    event = completed(output, output.url)
    assert event.time == output.created_at
    assert event.body() == completed(output, output.url).body()


def test_every_delay_of_an_event_is_an_event_of_its_own() -> None:
    cause, hold = Cause.of(samples.event()), Hold(Reason.STORAGE_UNAVAILABLE, "503", 5)
    moments = [datetime(2026, 11, 22, 13, minute, tzinfo=UTC) for minute in range(3)]
    assert len({hint.id for moment in moments if (hint := delayed(cause, hold, 1, moment))}) == len(moments)


def test_messages_that_name_no_event_are_told_apart_by_their_bytes() -> None:
    assert Cause("aa").failure_id == Cause("aa").failure_id
    assert Cause("aa").failure_id != Cause("bb").failure_id
    assert Cause("aa", 1).failure_id != Cause("aa").failure_id


def test_a_conflicting_event_does_not_take_the_id_of_the_failure_it_conflicts_with() -> None:
    first, second = (Cause.of(samples.event(id="0c5e", job_id=job)) for job in ("one", "two"))
    assert first.failure_id == second.failure_id
    assert second.conflict_id not in (first.failure_id, first.conflict_id)


@given(st.tuples(job_ids, user_ids), st.tuples(job_ids, user_ids))
def test_a_fingerprint_follows_job_user_and_url(one: tuple[str, str], other: tuple[str, str]) -> None:
    a, b = (Cause.of(samples.event(job_id=job, user_id=user)) for job, user in (one, other))
    assert (a.fingerprint == b.fingerprint) == (one == other)
    assert Cause.of(samples.event(image_url="https://a.test/1")).fingerprint != a.fingerprint
