"""The server as a process: `python -m sandbox.oss --data DIR --bucket NAME`."""

import asyncio
import os
import signal
from pathlib import Path

import click

from sandbox.oss import Credentials, OssServer

# Never OSS_*: those may be the keys of somebody's real bucket.
_SECRET = "SANDBOX_OSS_SECRET"  # noqa: S105 - the name of a variable
_TOKEN = "SANDBOX_OSS_SESSION_TOKEN"  # noqa: S105 - the name of a variable


@click.command(
    epilog=f"The access key's secret comes in {_SECRET}, an STS token that must go with it, if any, in {_TOKEN}."
    f"\n\nExample: {_SECRET}=secret python -m sandbox.oss --data /tmp/oss --bucket images"
)
@click.option("--data", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where objects are kept.")
@click.option("--bucket", required=True, help="The one bucket there is.")
@click.option("--region", default="cn-hangzhou", show_default=True, help="What signatures are scoped to.")
@click.option("--access-key", default="sandbox-key", show_default=True, help="The access key id.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--private", is_flag=True, help="Refuse to read without a signature.")
def main(*, data: Path, bucket: str, region: str, access_key: str, host: str, port: int, private: bool) -> None:
    """Serve one bucket by the protocol of Alibaba Cloud OSS, print the address, stop on SIGTERM."""
    secret = os.environ.get(_SECRET, "")
    if not secret:
        raise click.UsageError(f"set {_SECRET} to the secret of the access key")
    credentials = Credentials(access_key, secret, os.environ.get(_TOKEN, ""))
    server = OssServer(data, credentials, bucket=bucket, region=region, private=private, host=host, port=port)
    asyncio.run(_serve(server))


async def _serve(server: OssServer) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with server:
        print(server.url, flush=True)
        await stopped.wait()


if __name__ == "__main__":
    main()
