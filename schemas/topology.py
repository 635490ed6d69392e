"""What exists in the broker: names and arguments, as frozen values.

Arguments cannot change without deleting a queue, and a queue that differs from what is declared closes the
channel. Treat every value here as frozen once released.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

Argument: TypeAlias = str | int | bool
Arguments: TypeAlias = MappingProxyType[str, Argument]

EXCHANGE: Final = "images"
"""The durable topic exchange of all events, in and out; the routing key is the event's type."""

WORK_QUEUE: Final = "image-uploads"
DEAD_QUEUE: Final = "image-uploads.dead"
CLEANUP_QUEUE: Final = "cleanup"
CLEANUP_SCHEDULE_QUEUE: Final = "cleanup.schedule"

X_ATTEMPT: Final = "x-attempt"
"""Which attempt a delivery is, from 1. Absent: 1. Ours, because brokers count deliveries in three ways."""
X_REPLAYS: Final = "x-replays"
"""How often an operator has moved this message back from the dead queue. Absent: 0."""
X_SUSPECT: Final = "x-suspect"
"""Whether the message came back unsettled so often that each try of it is noted. Absent: it did not."""
X_REASON: Final = "x-reason"
X_DETAIL: Final = "x-detail"
X_FAILED_AT: Final = "x-failed-at"
X_WORKER: Final = "x-worker"

_DELIVERY_LIMIT: Final = 100  # the last fence against a message that kills whoever takes it
_NO_DELIVERY_LIMIT: Final = 1_000_000  # absent would be 20 on RabbitMQ 4, and reading must not delete


@dataclass(frozen=True, slots=True)
class Queue:
    """One durable queue: its arguments, and the routing keys that bind it to the exchange."""

    name: str
    arguments: Arguments
    bindings: tuple[str, ...] = ()


CLASSIC_QUEUES: Final = (CLEANUP_QUEUE, CLEANUP_SCHEDULE_QUEUE)
"""Those that are away while their node is: a cluster has one copy of each."""


def rung_queue(delay_s: int) -> str:
    """Name of the queue that holds a message for `delay_s` seconds."""
    return f"{WORK_QUEUE}.retry.{delay_s}s"


def queues(retry_delays_s: Sequence[int]) -> tuple[Queue, ...]:
    """Every queue, dead-letter targets before what dead-letters into them.

    A source whose target is missing tries again only after three minutes, hence the order.
    """
    return (
        Queue(DEAD_QUEUE, _quorum({"x-delivery-limit": _NO_DELIVERY_LIMIT})),
        Queue(
            WORK_QUEUE,
            _quorum({**_moves_into(DEAD_QUEUE), "x-delivery-limit": _DELIVERY_LIMIT}),
            bindings=("image.generated",),
        ),
        *(
            Queue(
                rung_queue(delay_s),
                _quorum(
                    {
                        **_moves_into(WORK_QUEUE),
                        "x-delivery-limit": _NO_DELIVERY_LIMIT,
                        "x-message-ttl": delay_s * 1000,
                    }
                ),
            )
            for delay_s in retry_delays_s
        ),
        Queue(
            CLEANUP_QUEUE,
            _classic({"x-max-length": 16, "x-overflow": "reject-publish", "x-single-active-consumer": True}),
            bindings=("cleanup.requested",),
        ),
        # Classic on purpose: it alone takes exactly one of fifty racing publishers, which is what makes the
        # schedule's one pending message. A tick that is lost is armed again.
        Queue(
            CLEANUP_SCHEDULE_QUEUE,
            _classic(
                {
                    "x-max-length": 1,
                    "x-overflow": "reject-publish",
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": CLEANUP_QUEUE,
                }
            ),
        ),
    )


def _moves_into(target: str) -> dict[str, Argument]:
    # At most once, which is the default, loses what moves while a node dies.
    # Source: RabbitMQ documentation, "Quorum Queues", at-least-once dead lettering.
    return {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": target,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def _quorum(arguments: dict[str, Argument]) -> Arguments:
    return MappingProxyType({"x-queue-type": "quorum"} | arguments)


def _classic(arguments: dict[str, Argument]) -> Arguments:
    return MappingProxyType({"x-queue-type": "classic"} | arguments)
