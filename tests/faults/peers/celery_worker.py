"""The job on Celery: `python -m celery -A tests.faults.peers.celery_worker worker`.

PEER=default   what "First Steps with Celery" shows: a task, nothing set, which is acknowledged before it runs.
PEER=careful   what its user guide and FAQ say for work that must not be lost: `acks_late` with
               `task_reject_on_worker_lost`, automatic retries with exponential backoff for errors of other services,
               five of them as in its example, a confirmed completion, and idempotent writing. The temp file goes last.
"""

import os
from typing import Any

from celery import Celery
from kombu import Exchange

from tests.faults.peers import job

CAREFUL = os.environ["PEER"] == "careful"

app = Celery("peer", broker=os.environ["AMQP_URL"])
app.conf.broker_connection_retry_on_startup = True
images = Exchange(job.EXCHANGE, type="topic", durable=True)

if CAREFUL:
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        broker_transport_options={"confirm_publish": True},
    )


def announce(completed: dict[str, Any]) -> None:
    """The completion is published."""
    with app.producer_pool.acquire(block=True) as producer:
        producer.publish(completed, exchange=images, routing_key=job.COMPLETED, serializer="json", retry=CAREFUL)


if CAREFUL:

    @app.task(name="store", autoretry_for=job.FAULTS_OF_THE_WORLD, retry_backoff=True, retry_kwargs={"max_retries": 5})
    def store_carefully(event: dict[str, Any]) -> None:
        """The event is stored and its completion published, or it comes again."""
        announce(job.store(event, once=True))
        job.discard(event)

else:

    @app.task(name="store")
    def store(event: dict[str, Any]) -> None:
        """The event is stored and its completion published."""
        announce(job.store(event, once=False))
        job.discard(event)
