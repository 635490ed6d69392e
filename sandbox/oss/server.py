"""The server: a socket, the rules of failure, and the way from a request to its answer."""

import json
import secrets
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from aiohttp import web

from sandbox.oss.address import Address
from sandbox.oss.answer import Answer, hang_up, never, reset, send
from sandbox.oss.bucket import delete_many, list_objects
from sandbox.oss.errors import OssError
from sandbox.oss.faults import Fault, Faults, Kind
from sandbox.oss.objects import delete, get, head, put
from sandbox.oss.signature import Credentials, Message, authenticate
from sandbox.oss.store import Store

# A query parameter that names another operation; any other unknown one is ignored, as the service does.
_OTHER_OPERATIONS: Final = frozenset(
    ("acl", "append", "restore", "symlink", "tagging", "uploadId", "uploads", "versionId", "x-oss-process")
)
_CONTROL: Final = "-"  # no bucket may have this name
_SHUTDOWN_TIMEOUT_S: Final = 0.5  # a stalled request would hold a longer one up


class OssServer:
    """A server that answers inside `async with`, at `url`.

    `faults` and `requests` are the same rules and counters as those of the control API. `lives_at` is the host (and
    port) of another endpoint that has the bucket: this one then refuses, as that of another region does.
    """

    def __init__(
        self,
        data: Path,
        credentials: Credentials,
        *,
        bucket: str,
        region: str = "cn-hangzhou",
        private: bool = False,
        lives_at: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.bucket = bucket
        self._data = data
        self._credentials = credentials
        self._region = region
        self._private = private
        self._lives_at = lives_at
        self._host = host
        self._port = port

    async def __aenter__(self) -> Self:
        self._store = Store(self._data)
        server = web.Server(
            self._handle,
            access_log=None,
            auto_decompress=False,  # Content-Encoding is the object's, not the transfer's
            handler_cancellation=True,  # an upload whose client is gone is given up
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            self._store.close()
            raise
        self._port = self._runner.addresses[0][1]  # a server that is started again keeps its port
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        self._store.close()

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://{self._host}:{self._port}"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        address = Address.of(request.host, request.raw_path)
        if address.bucket == _CONTROL:
            return await self._control(request, address.key)
        self.requests[request.method] += 1
        request_id = secrets.token_hex(12).upper()
        try:
            answer = await self._answer(request, address)
        except OssError as error:
            xml = error.xml(request_id, request.host)
            headers = error.headers(xml, is_head=request.method == "HEAD")
            answer = Answer(error.status, headers, body=xml)
        answer.headers |= {"Server": "AliyunOSS", "x-oss-request-id": request_id}
        return await send(request, answer)

    async def _answer(self, request: web.BaseRequest, address: Address) -> Answer:
        fault = self.faults.take(request.method, address.key)
        if fault is not None:
            await _fail(request, fault)
        if address.bucket != self.bucket:
            raise OssError("NoSuchBucket", fields={"BucketName": address.bucket})
        if self._lives_at:
            raise OssError(
                "AccessDenied",
                "The bucket you are attempting to access must be addressed using the specified endpoint. "
                "Please send all future requests to this endpoint.",
                ec="0003-00001403",
                fields={"Bucket": address.bucket, "Endpoint": self._lives_at},
            )
        self._authorize(request, address)
        answer = await _perform(self._store, self.faults, request, address)
        if fault is not None:
            await _spoil(request, answer, fault)
        return answer

    def _authorize(self, request: web.BaseRequest, address: Address) -> None:
        message = Message(
            method=request.method,
            bucket=address.bucket,
            key=address.key,
            query=address.query,
            headers={name.lower(): value for name, value in request.headers.items()},
        )
        if authenticate(message, self._credentials, self._region, datetime.now(UTC)):
            return
        is_reading = request.method in ("GET", "HEAD") and bool(address.key)
        if self._private or not is_reading:
            raise OssError("AccessDenied")

    async def _control(self, request: web.BaseRequest, path: str) -> web.Response:
        match request.method, path:
            case "GET", "requests":
                return web.json_response(self.requests)
            case "GET", "faults":
                return web.json_response(self.faults.as_json())
            case "DELETE", "faults":
                self.faults.clear()
                return web.Response(status=204)
            case "PUT", "faults":
                try:
                    self.faults.replace(json.loads(await request.read()))
                except (TypeError, ValueError) as error:
                    return web.Response(status=400, text=f"{error}\n")
                return web.Response(status=204)
            case _:
                return web.Response(status=404, text="GET requests, GET, PUT or DELETE faults\n")


async def _fail(request: web.BaseRequest, fault: Fault) -> None:
    """Nothing, if the rule is about what happens later.

    Raises:
        OssError: the answer that the rule wants.
    """
    refusal = fault.refusal(request.method)
    if refusal is not None:
        raise refusal
    if fault.kind is Kind.STALL:
        await never()
    if fault.kind is Kind.RESET:
        await reset(request)


async def _spoil(request: web.BaseRequest, answer: Answer, fault: Fault) -> None:
    match fault.kind:
        case Kind.COMMIT_THEN_DROP:
            await hang_up(request)
        case Kind.CUT:
            answer.cut_after = fault.after_bytes
        case Kind.WRONG_CRC if crc64 := answer.headers.get("x-oss-hash-crc64ecma"):
            answer.headers["x-oss-hash-crc64ecma"] = str(int(crc64) ^ 1)


async def _perform(store: Store, faults: Faults, request: web.BaseRequest, address: Address) -> Answer:
    """The operation that the request names has happened.

    Raises:
        OssError: it has not.
    """
    query = address.query
    if not _OTHER_OPERATIONS.isdisjoint(query) or "x-oss-copy-source" in request.headers:
        raise OssError("NotImplemented")
    match request.method, bool(address.key):
        case "PUT", True:
            return await put(store, request, address.key)
        case "GET", True:
            return get(store, request, address.key)
        case "HEAD", True:
            return head(store, request, address.key)
        case "DELETE", True:
            return delete(store, address.key)
        case "POST", False if "delete" in query:
            return await delete_many(store, faults, request, query)
        case "GET", False if query.get("list-type") == "2":
            return list_objects(store, address)
        case _:
            raise OssError("NotImplemented")
