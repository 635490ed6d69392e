"""The yardstick: what a good engineer writes in an hour, with no promise kept.

Takes a message, fetches, uploads, inserts, announces, acks, 64 at a time. It validates, checks, logs, counts and
retries nothing. A program of its own: `python bare_loop.py QUEUE`, with the worker's environment.
"""

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from uuid import uuid4

import aio_pika
import aiohttp
import asyncpg
from aio_pika.abc import AbstractIncomingMessage

PREFETCH = 64
INSERT = """
    INSERT INTO bare_outputs (id, "jobId", "userId", "eventSource", "eventId", "eventFingerprint", "ossBucket",
        "ossKey", url, "contentType", "sizeBytes", width, height, crc64, prompt, metadata, "createdAt")
    VALUES ($1, $2, $3, $4, $5, '', $6, $7, $8, 'image/png', $9, 0, 0, $10, $11, $12, $13)"""


async def main(queue_name: str) -> None:
    bucket, endpoint = os.environ["OSS_BUCKET"], os.environ["OSS_ENDPOINT"]
    connection = await aio_pika.connect_robust(os.environ["AMQP_URL"])
    channel = await connection.channel()  # with publisher confirms, which is the library's default
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.get_queue(queue_name)
    images = await channel.get_exchange("images")

    async with (
        connection,
        asyncpg.create_pool(os.environ["DATABASE_URL"]) as pool,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):

        async def handle(message: AbstractIncomingMessage) -> None:
            event = json.loads(message.body)
            data = event["data"]
            async with session.get(data["imageUrl"]) as response:
                response.raise_for_status()
                image = await response.read()

            key = f"users/{data['userId']}/jobs/{data['jobId']}/{event['id']}.png"
            url = f"{endpoint}/{bucket}/{key}"
            async with session.put(url, data=image, headers={"Content-Type": "image/png"}) as response:
                response.raise_for_status()
                crc64 = response.headers["x-oss-hash-crc64ecma"]

            now = datetime.now(UTC)
            output_id, completion_id = uuid4(), str(uuid4())
            await pool.execute(
                INSERT,
                output_id,
                data["jobId"],
                data["userId"],
                event["source"],
                event["id"],
                bucket,
                key,
                url,
                len(image),
                crc64,
                data["prompt"],
                json.dumps(data["metadata"]),
                now,
            )
            completed = {
                "specversion": "1.0",
                "id": completion_id,
                "source": "/bare-loop",
                "type": "image.upload.completed",
                "time": now.isoformat(),
                "data": {
                    "outputId": str(output_id),
                    "causeId": event["id"],
                    "causeSource": event["source"],
                    "jobId": data["jobId"],
                    "userId": data["userId"],
                    "imageUrl": url,
                    "ossBucket": bucket,
                    "ossKey": key,
                    "contentType": "image/png",
                    "sizeBytes": len(image),
                    "crc64": crc64,
                    "prompt": data["prompt"],
                    "metadata": data["metadata"],
                    "createdAt": now.isoformat(),
                },
            }
            await images.publish(
                aio_pika.Message(
                    json.dumps(completed).encode(),
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    message_id=completion_id,
                ),
                "image.upload.completed",
                mandatory=False,
            )
            await message.ack()

        await queue.consume(handle)
        print("taking deliveries", file=sys.stderr, flush=True)  # noqa: T201 the bench waits for it
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
