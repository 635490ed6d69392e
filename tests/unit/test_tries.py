import itertools

import pytest

from producer.api.errors import ApiError
from producer.api.tries import Tries


def tries_left(tries: Tries, address: str, name: str) -> int:
    made = itertools.count()
    with pytest.raises(ApiError) as caught:  # noqa: PT012 it is the first of many that is refused
        while True:
            tries.count(address, name)
            next(made)
    assert caught.value.status == 429
    assert 0 < int(caught.value.headers["Retry-After"]) <= 15 * 60
    return next(made)


def test_a_name_has_ten_tries_from_an_address_whatever_its_case() -> None:
    tries = Tries()
    assert tries_left(tries, "192.0.2.1", "Fox") == 10
    assert tries_left(tries, "192.0.2.1", " fox ") == 0
    assert tries_left(tries, "192.0.2.2", "fox") == 10


def test_an_address_has_three_hundred() -> None:
    tries = Tries()
    for number in range(300):
        tries.count("192.0.2.1", f"user-{number}")
    assert tries_left(tries, "192.0.2.1", "another") == 0


def test_a_right_password_makes_up_for_the_wrong_ones_before_it() -> None:
    tries = Tries()
    for _ in range(9):
        tries.count("192.0.2.1", "fox")
    tries.forgive("192.0.2.1", "fox")
    assert tries_left(tries, "192.0.2.1", "fox") == 10


def test_right_passwords_never_count() -> None:
    tries = Tries()
    for number in range(1000):
        tries.count("192.0.2.1", f"user-{number}")
        tries.forgive("192.0.2.1", f"user-{number}")
    assert tries_left(tries, "192.0.2.1", "fox") == 10
