"""The ingress as a process: what is opened, in which order, and closed in reverse."""

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Final

import structlog
from aiohttp import web

from producer.api.jobs import Jobs
from producer.api.routes import Routes
from producer.api.rows import Rows
from producer.api.tokens import Tokens
from producer.api.users import UsersFile
from producer.settings import ApiSettings
from schemas import logs
from schemas.environment import SettingsError

_INTERRUPTED: Final = 130
_STOP_TIMEOUT_S: Final = 15  # more than publishing takes; waits end at once

_log = structlog.get_logger()


async def serve(settings: ApiSettings) -> int:
    """Requests are answered until SIGTERM or SIGINT; returns the exit code.

    Requests that wait then are answered with what is known so far. Neighbours that are away are waited for.

    Raises:
        SettingsError: A setting keeps the ingress from starting.
    """
    users = UsersFile(settings.api_users_file) if settings.issues_tokens else None
    secret = _token_secret(settings, users)
    logs.configure(settings, [*settings.secrets(), *([secret] if users else [])])
    async with AsyncExitStack() as stack:
        rows = await Rows.open(settings.database_url.get_secret_value())
        stack.push_async_callback(rows.close)
        jobs = Jobs(settings.amqp_url.get_secret_value(), rows, settings.api_wait_s)
        stack.push_async_callback(jobs.close)
        routes = Routes(jobs, Tokens(settings, secret), users, settings.api_token_lifetime_s)
        runner = await _listen(routes, settings.api_host, settings.api_port)
        stack.push_async_callback(runner.cleanup)
        hearing = asyncio.create_task(jobs.run())
        stack.push_async_callback(_end, hearing)  # which answers those who wait, so that nobody holds up the rest
        exit_code = await _signalled(hearing)
    _log.info("stopped")
    return exit_code


def _token_secret(settings: ApiSettings, users: UsersFile | None) -> str:
    if settings.jwt_secret is not None:
        return settings.jwt_secret.get_secret_value()
    return "" if users is None else users.token_secret()


async def _listen(routes: Routes, host: str, port: int) -> web.AppRunner:
    runner = web.AppRunner(
        routes.application(),
        access_log=None,
        shutdown_timeout=_STOP_TIMEOUT_S,
        handler_cancellation=True,  # who has left is not waited for, nor his image kept
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        message = f"{host}:{port} cannot be listened on ({error.strerror}): set API_HOST and API_PORT"
        raise SettingsError([message]) from error
    _log.info("serving /auth/login and /ai", host=host, port=runner.addresses[0][1])
    return runner


async def _end(task: "asyncio.Task[None]") -> None:
    """The task is cancelled, and has ended: the loop's own end would cancel the library's tasks below it as well."""
    task.cancel()
    await asyncio.wait((task,))


async def _signalled(hearing: "asyncio.Task[None]") -> int:
    """The exit code, once a signal has come."""
    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def set_once(exit_code: int) -> None:
        if not stop.done():
            stop.set_result(exit_code)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, set_once, 0)
    loop.add_signal_handler(signal.SIGINT, set_once, _INTERRUPTED)
    await asyncio.wait((stop, hearing), return_when=asyncio.FIRST_COMPLETED)
    if hearing.done():
        hearing.result()  # which ends by a defect alone, and that is raised here
    return stop.result()
