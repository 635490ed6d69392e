"""Queue arguments freeze with the first release: the literals here must never change."""

from hypothesis import given
from hypothesis import strategies as st

from schemas import topology

MOVES_ON = {"x-dead-letter-exchange": "", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}


def test_the_queues_are_what_they_were_on_the_first_day() -> None:
    found = {queue.name: (dict(queue.arguments), queue.bindings) for queue in topology.queues((5, 30))}
    rung = (
        MOVES_ON
        | {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
        | {"x-dead-letter-routing-key": "image-uploads"}
    )
    assert found == {
        "image-uploads": (
            MOVES_ON
            | {
                "x-queue-type": "quorum",
                "x-delivery-limit": 100,
                "x-dead-letter-routing-key": "image-uploads.dead",
            },
            ("image.generated",),
        ),
        "image-uploads.retry.5s": (rung | {"x-message-ttl": 5000}, ()),
        "image-uploads.retry.30s": (rung | {"x-message-ttl": 30000}, ()),
        "image-uploads.dead": ({"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}, ()),
        "cleanup": (
            {
                "x-queue-type": "classic",
                "x-max-length": 16,
                "x-overflow": "reject-publish",
                "x-single-active-consumer": True,
            },
            ("cleanup.requested",),
        ),
        "cleanup.schedule": (
            {
                "x-queue-type": "classic",
                "x-max-length": 1,
                "x-overflow": "reject-publish",
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "cleanup",
            },
            (),
        ),
    }


@given(st.lists(st.integers(1, 604_800), min_size=1, max_size=10, unique=True))
def test_a_queue_is_declared_after_the_queue_it_dead_letters_into(delays_s: list[int]) -> None:
    declared: set[str] = set()
    for queue in topology.queues(delays_s):
        target = queue.arguments.get("x-dead-letter-routing-key")
        assert target is None or target in declared
        declared.add(queue.name)
