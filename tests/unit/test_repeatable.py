import pytest

from producer.api.errors import ApiError
from producer.api.messages import GenerateImage
from producer.api.repeatable import Repeatable

FOX = GenerateImage(prompt="a fox", imageUrl="https://x.example/fox.png")
CAT = GenerateImage(prompt="a cat", imageUrl="https://x.example/fox.png")


def test_a_repeated_request_was_made_when_it_was_made_first() -> None:
    requests = Repeatable()
    assert requests.time_of("job-1", FOX) == requests.time_of("job-1", FOX)
    assert requests.time_of("job-1", FOX) != requests.time_of("job-2", FOX)


def test_another_request_with_the_key_is_a_conflict_unless_the_first_was_refused() -> None:
    requests = Repeatable()
    requests.time_of("job-1", FOX)
    with pytest.raises(ApiError) as caught:
        requests.time_of("job-1", CAT)
    assert (caught.value.status, caught.value.reason) == (422, "conflicting_event")
    requests.forget("job-1")
    requests.time_of("job-1", CAT)


def test_the_last_ten_thousand_are_remembered_and_no_more() -> None:
    requests = Repeatable()
    first, second = requests.time_of("job-1", FOX), requests.time_of("job-2", FOX)
    for number in range(9_998):
        requests.time_of(f"more-{number}", FOX)
    assert requests.time_of("job-1", FOX) == first
    requests.time_of("one too many", FOX)
    assert requests.time_of("job-1", FOX) == first
    assert requests.time_of("job-2", FOX) != second
