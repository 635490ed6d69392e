"""The OSS-protocol server, watched."""

from collections import Counter
from pathlib import Path
from typing import Final

from aiohttp import web

from sandbox.oss import Credentials, OssServer
from sandbox.oss.address import Address
from sandbox.oss.answer import Answer

ACCOUNT: Final = Credentials("e2e-key", "e2e-secret-that-nobody-may-see")


class WatchedOss(OssServer):
    """An empty bucket, readable by everybody; `puts` counts what was uploaded, by key."""

    def __init__(self, data: Path) -> None:
        super().__init__(data, ACCOUNT, bucket="e2e-images")
        self.puts: Counter[str] = Counter()

    @property
    def public_url(self) -> str:
        """What stands before a key in a URL."""
        return f"{self.url}/{self.bucket}"

    async def _answer(self, request: web.BaseRequest, address: Address) -> Answer:
        answer = await super()._answer(request, address)
        if request.method == "PUT" and not address.key.startswith("users/."):  # those are the worker's probes
            self.puts[address.key] += 1
        return answer
