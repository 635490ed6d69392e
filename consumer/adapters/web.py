"""What an operator and an orchestrator ask over HTTP: /metrics, /healthz, /readyz."""

import json
from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from consumer.core.errors import StartError


class StatusServer:
    """Serves metrics and health; `problems` names what keeps the program from being ready."""

    def __init__(self, exposition: Callable[[], bytes], problems: Callable[[], Mapping[str, str]]) -> None:
        self._exposition = exposition
        self._problems = problems
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, host: str, port: int) -> int:
        """The server answers; returns its port.

        Raises:
            StartError: the port is taken, or the address is not this machine's.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise StartError(
                f"{host}:{port} cannot be listened on ({error.strerror}): set METRICS_HOST and METRICS_PORT"
            ) from error
        bound: int = self._runner.addresses[0][1]
        return bound

    async def close(self) -> None:
        """The server no longer answers."""
        await self._runner.cleanup()

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        problems = self._problems()
        return web.Response(
            status=503 if problems else 200,
            text=json.dumps({"status": "not ready" if problems else "ready", "problems": dict(problems)}),
            content_type="application/json",
        )
