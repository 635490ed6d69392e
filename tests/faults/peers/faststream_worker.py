"""The job on FastStream: `python -m faststream run tests.faults.peers.faststream_worker:app`.

PEER=default   what its tutorial shows: a durable queue, the default acknowledgement policy (REJECT_ON_ERROR), and the
               result published by the decorator.
PEER=careful   what its pages on acknowledgement, queue arguments and publishing say for work that must not be lost:
               NACK_ON_ERROR "to retry messages in case of failure", a quorum queue that dead-letters, RejectMessage
               for what will never work, a persistent completion, and idempotent writing. The temp file goes last.
"""

import asyncio
import os
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.exceptions import RejectMessage
from faststream.rabbit import Channel, ExchangeType, QueueType, RabbitBroker, RabbitExchange, RabbitQueue

from tests.faults.peers import job

CAREFUL = os.environ["PEER"] == "careful"
AT_ONCE = 10

images = RabbitExchange(job.EXCHANGE, type=ExchangeType.TOPIC, durable=True)
broker = RabbitBroker(os.environ["AMQP_URL"], default_channel=Channel(prefetch_count=AT_ONCE))
app = FastStream(broker)

if CAREFUL:
    work = RabbitQueue(
        "peer",
        queue_type=QueueType.QUORUM,
        durable=True,
        routing_key="image.generated",
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "peer.dead"},
    )
    completions = broker.publisher(exchange=images, routing_key=job.COMPLETED, persist=True, mandatory=False)

    @broker.subscriber(work, images, ack_policy=AckPolicy.NACK_ON_ERROR)
    async def store_carefully(event: dict[str, Any]) -> None:
        """The event is stored and its completion published, or it is given back, or rejected for good."""
        try:
            completed = await asyncio.to_thread(job.store, event, once=True)
        except job.FAULTS_OF_THE_WORLD as error:
            if getattr(getattr(error, "response", None), "status_code", 500) < 500:
                raise RejectMessage from error
            raise
        except Exception as error:
            raise RejectMessage from error
        await completions.publish(completed)
        await asyncio.to_thread(job.discard, event)

    @app.after_startup
    async def declare_dead_letters() -> None:
        """There is a queue for what is rejected."""
        await broker.declare_queue(RabbitQueue("peer.dead", queue_type=QueueType.QUORUM, durable=True))

else:

    @broker.subscriber(RabbitQueue("peer", durable=True, routing_key="image.generated"), images)
    @broker.publisher(exchange=images, routing_key=job.COMPLETED, mandatory=False)
    async def store(event: dict[str, Any]) -> dict[str, Any]:
        """The event is stored; what is returned is published."""
        completed = await asyncio.to_thread(job.store, event, once=False)
        await asyncio.to_thread(job.discard, event)
        return completed
