"""The way through the demo: everything starts, the jobs are done, everything stops."""

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Final

from sandbox.demo.jobs import gallery, jobs
from sandbox.demo.proof import OnResult, Report, prove, publish
from sandbox.demo.screen import Screen
from sandbox.process import DidNotStartError, NotInstalledError, Process
from sandbox.samples import Sample, samples
from sandbox.system import System
from sandbox.worker import Worker

_NOT_AS_IT_MUST_BE: Final = 1
_INTERRUPTED: Final = 130
_LOOK_EVERY_S: Final = 0.5


def run(home: Path) -> int:
    """The demo is over, and nothing of it runs any more; the exit code.

    Its services live in a directory of their own in `home`, which is removed, unless something went wrong: then the
    logs are kept until the next demo.
    """
    screen = Screen()
    # Both end it in the same way: by an exception here, which stops what was started.
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    directory = _fresh_directory(home.absolute())
    code = _INTERRUPTED
    try:
        with _stage(directory, screen.tell) as (system, worker):
            report = _perform(system, worker, screen)
            code = _NOT_AS_IT_MUST_BE if report.problems else 0
            if code == 0 and screen.is_terminal and not _stay(report, system, worker, screen):
                code = _NOT_AS_IT_MUST_BE
    except KeyboardInterrupt:
        pass  # before the report it is an interruption, after it the way out
    except (DidNotStartError, NotInstalledError) as error:
        screen.problem(str(error))
        code = _NOT_AS_IT_MUST_BE
    screen.over(interrupted=code == _INTERRUPTED)
    if code != _NOT_AS_IT_MUST_BE:
        _remove(directory)
    return code


def _fresh_directory(home: Path) -> Path:
    for left_over in home.glob("demo-*"):
        if Process.of(int(left_over.name.removeprefix("demo-"))) is None:
            _remove(left_over)
    directory = home / f"demo-{os.getpid()}"
    directory.mkdir(parents=True)
    return directory


def _remove(directory: Path) -> None:
    system = System(directory, attached=True)
    for service in (system.rabbitmq, system.object_store, system.postgres):
        service.remove()
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _stage(directory: Path, tell: Callable[[str], None]) -> Iterator[tuple[System, Worker]]:
    """The services and a worker run; afterwards none does, and they die with this process in any case."""
    system = System(directory, attached=True)
    with ExitStack() as stack:
        stack.callback(system.down, tell)
        system.up(tell)
        worker = Worker(directory / "worker", system.environment())
        stack.callback(worker.stop)
        tell("starting the worker")
        stack.callback(tell, "stopping the worker")
        worker.start()
        yield system, worker


def _perform(system: System, worker: Worker, screen: Screen) -> Report:
    """The jobs are done, and shown."""
    pictures = samples()
    with screen.progress(len(pictures) + 2) as on_result:
        report = asyncio.run(_play(system, pictures, on_result))
    screen.show(report)
    if report.problems:
        screen.log(worker.log)
    return report


async def _play(system: System, pictures: list[Sample], on_result: OnResult) -> Report:
    settings = system.environment()
    async with gallery(pictures) as gallery_url:
        plan = jobs(pictures, gallery_url, system.temp_dir, run_id=token_hex(3))
        return await prove(await publish(plan, settings["AMQP_URL"], on_result), settings)


def _stay(report: Report, system: System, worker: Worker, screen: Screen) -> bool:
    """Everything stays up for whoever wants to look, until Ctrl-C raises, or the worker ends, which is false."""
    sample = system.temp_dir.parent / "sample.png"
    sample.write_bytes(next(result.job.content for result in report.results if "PNG" in result.job.about))
    screen.addresses(system.environment(), worker, sample)
    while worker.running:
        time.sleep(_LOOK_EVERY_S)
    screen.problem("the worker has ended")
    screen.log(worker.log)
    return False
