"""Dead letters, sent through again or given up."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from consumer.adapters.file_source import FileSource
from consumer.adapters.rabbit_dead_letters import DeadLetters, RabbitDeadLetter
from consumer.adapters.rabbit_publisher import RabbitPublisher
from consumer.core.dead_letter import DeadLetter
from consumer.core.errors import DependencyError, PermanentError
from consumer.core.ports import Broker
from consumer.operate.choice import Choice
from consumer.operate.display import progress
from consumer.operate.pace import paced
from schemas import topology
from schemas.reasons import Reason


class Deed(Protocol):
    """What is done with a letter; after it, the letter has been acked or goes back."""

    async def __call__(self, letter: RabbitDeadLetter) -> None:
        """It is done."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Another run: the copy counts the replay, which gives the run's rows ids of their own.

    A crash before the ack leaves the letter where it was. Replayed again, it makes a second copy of the same run,
    and one run has one row.
    """

    broker: Broker

    async def __call__(self, letter: RabbitDeadLetter) -> None:
        """The work queue has the event, and the dead queue has it no longer.

        Raises:
            BrokerError: the copy was not confirmed; the letter stays.
        """
        headers = {topology.X_ATTEMPT: 1, topology.X_REPLAYS: letter.replays + 1}
        await self.broker.copy(letter, topology.WORK_QUEUE, headers)
        await letter.ack()


@dataclass(frozen=True, slots=True)
class Discard:
    """Giving up; the failure's row stays."""

    temp_dir: Path

    async def __call__(self, letter: RabbitDeadLetter) -> None:
        """The event's temp file and the letter are gone; a file that another event of that name has stays.

        Raises:
            DependencyError: this machine does not have the directory where the file is; the letter stays.
            TransientError: the file cannot be deleted; the letter stays.
        """
        url = letter.cause.image_url
        is_its_own = letter.letter.reason != Reason.CONFLICTING_EVENT
        if url is not None and url[:5].lower() == "file:" and is_its_own:
            await asyncio.to_thread(self._free, url)
        await letter.ack()

    def _free(self, url: str) -> None:
        if not self.temp_dir.is_dir():
            detail = f"TEMP_DIR {self.temp_dir} is not here: discard on a machine that shares it with the workers"
            raise DependencyError("temp_dir", Reason.SOURCE_UNAVAILABLE, detail)
        # What was refused as an event may name what is no URL, or no file of TEMP_DIR: there is nothing to free.
        with suppress(ValueError, PermanentError):
            FileSource(self.temp_dir, max_bytes=0).delete(url)


async def rehearse(_letter: RabbitDeadLetter) -> None:
    """Nothing is done; the letter goes back."""


@dataclass(frozen=True, slots=True)
class Order:
    """Which letters, at most how many of them, how quickly, and whether for real."""

    choice: Choice
    limit: int | None = None
    per_second: float | None = None
    is_rehearsal: bool = False

    @property
    def is_everything(self) -> bool:
        """Whether all letters are meant."""
        return self.limit is None and self.choice.is_everything


@dataclass(slots=True)
class Tally:
    """What was done, as far as it came: it is right after an interruption too."""

    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """How many letters."""
        return self.reasons.total()


async def replay(url: str, order: Order, tally: Tally) -> None:
    """The letters that are meant are in the work queue, for another run.

    Raises:
        StartError: the broker refuses us.
        BrokerError: it is away; what is not in the tally is where it was.
    """
    publisher = RabbitPublisher(url, "image-uploads replay")
    try:
        await work_off(url, order, Replay(publisher), tally)
    finally:
        await publisher.close()


async def discard(url: str, temp_dir: Path, order: Order, tally: Tally) -> None:
    """The letters that are meant are gone, and their temp files with them.

    Raises:
        StartError, BrokerError: as `replay`.
        DependencyError: this machine does not have the directory.
    """
    await work_off(url, order, Discard(temp_dir), tally)


async def work_off(url: str, order: Order, deed: Deed, tally: Tally) -> None:
    """The deed is done with each letter that is meant, unless it is a rehearsal, and the tally says so."""
    async with DeadLetters.opened(url) as letters:
        with progress("dead letters", letters.count) as show:

            async def do(letter: RabbitDeadLetter) -> None:
                await (rehearse if order.is_rehearsal else deed)(letter)
                tally.reasons[letter.letter.reason] += 1
                show(letters.read)

            await paced(chosen(letters, order.choice, order.limit), do, order.per_second)


async def chosen(letters: DeadLetters, choice: Choice, limit: int | None = None) -> AsyncIterator[RabbitDeadLetter]:
    """The letters that are meant; the others stay taken until `letters` is closed, and go back then."""
    count = 0
    async with aclosing(aiter(letters)) as each:
        async for letter in each:
            if choice.includes(letter.letter):
                yield letter
                count += 1
                if count == limit:
                    return


@dataclass(slots=True)
class Group:
    """All letters of one reason."""

    example: DeadLetter
    count: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None

    def add(self, letter: DeadLetter) -> None:
        """The letter is one more; the example is the newest of all."""
        self.count += 1
        time = letter.failed_at
        if time is None:
            return
        self.oldest = min(self.oldest or time, time)
        if self.newest is None or time >= self.newest:
            self.newest, self.example = time, letter


async def grouped(url: str, choice: Choice, limit: int | None = None) -> dict[str, Group]:
    """The letters that are meant by reason, the largest group first.

    Raises:
        StartError, BrokerError: as `replay`.
    """
    groups: dict[str, Group] = {}
    async with DeadLetters.opened(url) as letters:
        async for found in chosen(letters, choice, limit):
            letter = found.letter
            groups.setdefault(letter.reason, Group(letter)).add(letter)
    return dict(sorted(groups.items(), key=lambda item: -item[1].count))


async def listed(url: str, choice: Choice, limit: int | None = None) -> list[DeadLetter]:
    """The letters that are meant, without their bodies.

    Raises:
        StartError, BrokerError: as `replay`.
    """
    async with DeadLetters.opened(url) as letters:
        return [found.letter async for found in chosen(letters, choice, limit)]


@dataclass(frozen=True, slots=True)
class Opened:
    """A letter with its body and headers, all of it."""

    ids: set[str]
    letter: DeadLetter
    headers: dict[str, object]
    body: bytes


async def named(url: str, names: Collection[str]) -> list[Opened]:
    """The letters with such an event, job or message id.

    Raises:
        StartError, BrokerError: as `replay`.
    """
    async with DeadLetters.opened(url) as letters:
        return [
            Opened(found.ids, found.letter, dict(found.headers), found.body)
            async for found in chosen(letters, Choice())
            if not found.ids.isdisjoint(names)
        ]
