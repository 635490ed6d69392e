"""A service of one or more programs that lives in a directory: its ports, its data, and who runs it."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from sandbox.lifeline import tie
from sandbox.process import DidNotStartError, Ledger, Process, Program, free_port, is_free, signals_wait

_TRIES = 3


class Service(ABC):
    """What lives in one directory, started by this process or by another one.

    Everything that must be known is in the directory, so any process can look, stop, and start it again; ports and
    data are kept. Use it as a context manager to have it up for the block.

    Args:
        directory: Where its data, log and ledger are; made when missing.
        attached: It dies with this process, however that ends. Otherwise it stays until it is stopped.
    """

    title: ClassVar[str]
    port_names: ClassVar[Sequence[str]]

    def __init__(self, directory: Path, *, attached: bool = True) -> None:
        self.directory = directory.absolute()
        self._attached = attached
        self._ledger = Ledger(self.directory / "state.json")

    @abstractmethod
    def _programs(self, ports: Mapping[str, int]) -> Sequence[Program]:
        """Its programs on these ports, in the order in which they start; the last one has the data."""

    @abstractmethod
    def _prepare(self, ports: Mapping[str, int]) -> None:
        """All is in the directory that the programs need to start."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @property
    def running(self) -> bool:
        """Whether all of its programs are alive."""
        ports = self._ledger.ports()
        return bool(ports) and all(self._ledger.process(program.name) for program in self._programs(ports))

    @property
    def processes(self) -> list[Process]:
        """Those of its programs that are alive, the last started first."""
        programs = reversed(self._programs(self.ports)) if self._ledger.ports() else ()
        return [process for program in programs if (process := self._ledger.process(program.name))]

    @property
    def ports(self) -> Mapping[str, int]:
        """Its ports by name, as they were when it ran last.

        Raises:
            LookupError: It never ran.
        """
        ports = self._ledger.ports()
        if not ports:
            raise LookupError(f"{self.title} in {self.directory} has not been started yet")
        return ports

    def start(self) -> None:
        """It answers, on the same ports as before unless somebody else has them now; what ran goes on running.

        Raises:
            DidNotStartError: A program did not come up; none of its programs is left running.
            NotInstalledError: There is none on this machine.
        """
        for remaining in reversed(range(_TRIES)):
            if not self.running:
                self.stop()  # what is left when one of two programs has died
            try:
                self._start_all(self._choose_ports())
            except DidNotStartError as error:
                self.kill()
                if not (remaining and error.lost_its_port):
                    raise
            except BaseException:  # Ctrl-C while it starts
                self.kill()
                raise
            else:
                return

    def stop(self) -> None:
        """It has ended in order, and its data is kept. Nothing happens when it does not run."""
        self._end(crash=False)

    def kill(self) -> None:
        """It has crashed: without a chance to write what it had not written yet."""
        self._end(crash=True)

    def restart(self) -> None:
        """It has been stopped in order and answers again."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """It is stopped, and its directory and data are gone."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _choose_ports(self) -> Mapping[str, int]:
        ports = self._ledger.ports()
        if ports and (self.running or all(map(is_free, ports.values()))):
            return ports
        ports = {name: free_port() for name in self.port_names}
        self._ledger.keep_ports(ports)
        return ports

    def _start_all(self, ports: Mapping[str, int]) -> None:
        self._prepare(ports)
        for program in self._programs(ports):
            program.await_ready(self._ledger.process(program.name) or self._launch(program))

    def _launch(self, program: Program) -> Process:
        with signals_wait():  # or a program that runs already would be one that nobody knows of
            process = program.launch()
            if self._attached:
                tie(process)
            self._ledger.keep_process(program.name, process)
        return process

    def _end(self, *, crash: bool) -> None:
        ports = self._ledger.ports()
        if not ports:
            return
        for program in reversed(self._programs(ports)):
            if process := self._ledger.process(program.name):
                process.end(program.crash_signal if crash else program.stop_signal)
        self._ledger.forget_processes()
