import re

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from producer.api.job_id import is_of, new_job_id
from schemas.events import JobId

users = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9@+|:_-]{0,60}", fullmatch=True)
keys = st.none() | st.text(min_size=1, max_size=255)


@given(users, keys)
def test_every_job_id_is_one_that_events_may_carry(user: str, key: str | None) -> None:
    assert TypeAdapter(JobId).validate_python(new_job_id(user, key)) == new_job_id(user, key) or key is None
    assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]{16}", new_job_id(user, key))


@given(users, users, keys)
def test_it_tells_its_user_from_every_other(user: str, other: str, key: str | None) -> None:
    job_id = new_job_id(user, key)
    assert is_of(user, job_id)
    assert is_of(other, job_id) == (user == other)


@given(users, st.text(min_size=1), st.text(min_size=1))
def test_a_key_names_the_same_job_of_the_same_user_and_no_other(user: str, key: str, other_key: str) -> None:
    assert new_job_id(user, key) == new_job_id(user, key)
    assert (new_job_id(user, key) == new_job_id(user, other_key)) == (key == other_key)
    assert new_job_id(user, key) != new_job_id(f"{user}x", key)


@given(users)
def test_without_a_key_no_two_are_alike(user: str) -> None:
    assert new_job_id(user) != new_job_id(user)


@given(users, st.text())
def test_what_we_did_not_make_is_nobodys(user: str, text: str) -> None:
    assert not is_of(user, text)
