"""Dead letters, sent through again or given up."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from consumer.adapters.file_source import FileSource
from consumer.adapters.rabbit_dead_letters import DeadLetters, RabbitDeadLetter
from consumer.core.dead_letter import DeadLetter
from consumer.core.ports import Broker
from consumer.operate.choice import Choice
from consumer.operate.pace import Pace
from schemas import topology


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

    files: FileSource

    async def __call__(self, letter: RabbitDeadLetter) -> None:
        """The event's temp file and the letter are gone."""
        url = letter.cause.image_url
        if url is not None and url[:5].lower() == "file:":
            await asyncio.to_thread(self.files.discard, url)
        await letter.ack()


async def nothing(_letter: RabbitDeadLetter) -> None:
    """The letter goes back: a rehearsal."""


@dataclass(slots=True)
class Tally:
    """What was done, as far as it came: it is right after an interruption too."""

    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """How many letters."""
        return self.reasons.total()


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


async def work_off(letters: AsyncIterator[RabbitDeadLetter], deed: Deed, pace: Pace, tally: Tally) -> None:
    """The deed is done with each letter, and the tally says so."""
    async for letter in letters:
        await pace.step()
        await deed(letter)
        tally.reasons[letter.letter.reason] += 1


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


async def grouped(letters: AsyncIterator[RabbitDeadLetter]) -> dict[str, Group]:
    """By reason, the largest group first."""
    groups: dict[str, Group] = {}
    async for delivery in letters:
        letter = delivery.letter
        groups.setdefault(letter.reason, Group(letter)).add(letter)
    return dict(sorted(groups.items(), key=lambda item: -item[1].count))
