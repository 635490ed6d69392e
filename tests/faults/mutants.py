"""The lines that keep the promise, each changed for the worse: the tests that it names must notice."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from tests.faults.campaign import campaign
from tests.faults.ledger import Verdict
from tests.faults.services import Services
from tests.programs import ROOT

_LEFT_OUT: Final = shutil.ignore_patterns(".*", "node_modules", "__pycache__")
_TESTS_FAILED: Final = 1
_HANG_S: Final = 30
_TIMEOUT_S: Final = 600  # of all the tests together; a mutant takes some seconds

_SETTLE: Final = "consumer/runtime/settle.py"
_STORE_IMAGE: Final = "consumer/handlers/store_image.py"
_RETRY: Final = "consumer/core/retry.py"
_DISPATCH: Final = "consumer/runtime/dispatch.py"
_TRIAL: Final = "consumer/runtime/trial.py"
_TURNS: Final = "consumer/runtime/turns.py"
_WORKER: Final = "consumer/runtime/worker.py"
_CONSUMER: Final = "consumer/adapters/rabbit_consumer.py"
_PUBLISHER: Final = "consumer/adapters/rabbit_publisher.py"
_RECORDS: Final = "consumer/adapters/postgres_records.py"
_POSTGRES: Final = "consumer/adapters/postgres.py"
_EXPIRED: Final = "consumer/handlers/clean_expired.py"
_CLEANING: Final = "consumer/runtime/cleaning.py"
_TEMP: Final = "consumer/handlers/clean_temp.py"
_TEMP_DIR: Final = "consumer/adapters/temp_dir.py"
_CLEANUP_ROWS: Final = "consumer/adapters/postgres_cleanup.py"
_OSS: Final = "consumer/adapters/oss.py"
_SQL: Final = "consumer/sql/0001_outputs_and_failures.sql"
_TOPOLOGY: Final = "schemas/topology.py"
_ANNOUNCEMENTS: Final = "consumer/core/announcements.py"

_OF_SETTLE: Final = "tests/unit/test_settle.py"
_OF_HANDLER: Final = "tests/unit/test_store_image.py"
_OF_RETRY: Final = "tests/unit/test_retry.py"
_OF_WORKER: Final = "tests/unit/test_worker.py"
_OF_TURNS: Final = "tests/unit/test_turns.py"
_OF_RABBIT: Final = "tests/integration/test_rabbit.py"
_OF_BROKER: Final = "tests/contract/test_broker.py"
_OF_RECORDS: Final = "tests/contract/test_records.py"
_OF_POSTGRES: Final = "tests/integration/test_postgres.py"
_OF_TOPOLOGY: Final = "tests/unit/test_topology.py"
_OF_EXPIRED: Final = "tests/unit/test_clean_expired.py"
_OF_CLEANING: Final = "tests/unit/test_cleaning.py"
_OF_TEMP: Final = "tests/unit/test_clean_temp.py"
_OF_TEMP_DIR: Final = "tests/integration/test_temp_dir.py"
_OF_CLEANUP_ROWS: Final = "tests/contract/test_cleanup_records.py"
_OF_STORE: Final = "tests/contract/test_object_store.py"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change for the worse, and the tests that must go red."""

    worse: str
    file: str
    old: str
    new: str
    tests: str
    hangs: bool = False
    """Its tests do not fail: they never end."""


MUTANTS: Final = (
    Mutant(
        "acks before anything is settled",
        _SETTLE,
        "                settled = await self._settle(",
        "                await delivery.ack()\n                settled = await self._settle(",
        _OF_SETTLE,
    ),
    Mutant(
        "deletes the temp file before the completion is confirmed",
        _SETTLE,
        """        with self.meter.stage("announce"):
            await self.broker.announce(completed(output, current_url(output, self.store)))
        await self._discard(cause)

    async def _announce_again(""",
        """        await self._discard(cause)
        with self.meter.stage("announce"):
            await self.broker.announce(completed(output, current_url(output, self.store)))

    async def _announce_again(""",
        _OF_SETTLE,
    ),
    Mutant(
        "leaves the temp file of a stored event",
        _SETTLE,
        "            await self.source.discard(cause.image_url)",
        "            pass",
        _OF_SETTLE,
    ),
    Mutant(
        "announces no duplicate",
        _SETTLE,
        "                await self._announce_again(delivery, cause, output)",
        "                assert output",
        _OF_SETTLE,
    ),
    Mutant(
        "acks what is to be tried later without a copy of it",
        _SETTLE,
        "        await self.broker.copy(delivery, queue, headers)",
        "        assert queue",
        _OF_SETTLE,
    ),
    Mutant(
        "counts a hold as an attempt",
        _SETTLE,
        "delivery.attempt + isinstance(outcome, Retry)",
        "delivery.attempt + 1",
        _OF_SETTLE,
    ),
    Mutant(
        "counts no retry",
        _SETTLE,
        "delivery.attempt + isinstance(outcome, Retry)",
        "delivery.attempt",
        _OF_SETTLE,
    ),
    Mutant(
        "copies once more for a hint that was not published",
        _SETTLE,
        '            _log.warning("a hint was not published", error=redact(repr(error)))',
        "            raise BrokerError from error",
        _OF_SETTLE,
    ),
    Mutant(
        "gives up when a step of settling is refused",
        _SETTLE,
        '                _log.warning("settling is delayed", outcome=outcome.label, error=redact(str(error)))',
        "                raise",
        _OF_SETTLE,
    ),
    Mutant(
        "fails what is stored",
        _SETTLE,
        "        if isinstance(verdict, Output):",
        "        if isinstance(verdict, Output):\n            return outcome",
        _OF_SETTLE,
    ),
    Mutant(
        "announces no failure",
        _SETTLE,
        "        if event := failed(verdict):",
        "        if (event := failed(verdict)) and not self:",
        _OF_SETTLE,
    ),
    Mutant(
        "does the work of a decided event again",
        _STORE_IMAGE,
        "decided(cause, await self.records.find(cause))",
        "decided(cause, Recorded())",
        _OF_HANDLER,
    ),
    Mutant(
        "writes the row before the object",
        _STORE_IMAGE,
        """            with self.meter.stage("store"):
                await self.store.put(key, image, content_type=form.content_type, event_id=event.id)
        output = self._output(event, cause, key, image, form)
        with self.meter.stage("record"):
            recorded = await self.records.record(output)
""",
        """            output = self._output(event, cause, key, image, form)
            with self.meter.stage("record"):
                recorded = await self.records.record(output)
            with self.meter.stage("store"):
                await self.store.put(key, image, content_type=form.content_type, event_id=event.id)
""",
        _OF_HANDLER,
    ),
    Mutant(
        "deletes the object that the row names",
        _STORE_IMAGE,
        "        if not is_named or recorded.is_gone(datetime.now(UTC)):",
        "        if recorded:",
        _OF_HANDLER,
    ),
    Mutant(
        "leaves an object without a row",
        _STORE_IMAGE,
        "        if not is_named or recorded.is_gone(datetime.now(UTC)):",
        "        if recorded.is_gone(datetime.now(UTC)):",
        _OF_HANDLER,
    ),
    Mutant(
        "brings back the object of an output that is gone",
        _STORE_IMAGE,
        "        if not is_named or recorded.is_gone(datetime.now(UTC)):",
        "        if not is_named:",
        _OF_HANDLER,
    ),
    Mutant(
        "lets a neighbour's outage cost attempts",
        _RETRY,
        "            return Hold(error.reason, error.detail, delays_s[0])",
        "            return _climb(error, attempt, delays_s)",
        _OF_RETRY,
    ),
    Mutant(
        "holds for ever what the store refuses of one event alone",
        _RETRY,
        "DependencyError() if is_away or error.reason is not Reason.STORAGE_REFUSED:",
        "DependencyError():",
        f"{_OF_RETRY} tests/unit/test_dispatch.py",
    ),
    Mutant(
        "fails what may succeed later",
        _RETRY,
        "            return _climb(error, attempt, delays_s, rungs=error.rungs, not_before_s=error.not_before_s)",
        "            return Failed(error.reason, error.detail)",
        _OF_RETRY,
    ),
    Mutant(
        "skips the last rung",
        _RETRY,
        "    if attempt > min(rungs, len(delays_s)):",
        "    if attempt >= min(rungs, len(delays_s)):",
        _OF_RETRY,
    ),
    Mutant(
        "fails at once what nobody foresaw",
        _RETRY,
        "            return _climb(_named(error), attempt, delays_s)",
        "            return Failed(_named(error).reason, _named(error).detail)",
        _OF_RETRY,
    ),
    Mutant(
        "waits for a handler for ever",
        _DISPATCH,
        "asyncio.timeout(self.timeout_s)",
        "asyncio.timeout(None)",
        "tests/unit/test_dispatch.py",
        hangs=True,
    ),
    Mutant(
        "lets a defect end the worker",
        _DISPATCH,
        "        except Exception as error:",
        "        except UploadError as error:",
        "tests/unit/test_dispatch.py",
    ),
    Mutant(
        "notes no trial",
        _TRIAL,
        "                await self.trials.begin(suspect, trial)",
        "                assert trial",
        _OF_WORKER,
    ),
    Mutant(
        "tries at once again what has just ended its worker",
        _TRIAL,
        "        if crashes >= MOST_CRASHES or (crashes and delivery.is_returned):",
        "        if crashes >= MOST_CRASHES:",
        _OF_WORKER,
    ),
    Mutant(
        "forgets on a rung that it is a suspect",
        _SETTLE,
        "            headers[topology.X_SUSPECT] = 1",
        "            pass",
        _OF_WORKER,
    ),
    Mutant(
        "fails what may be innocent",
        _TRIAL,
        "        if crashes >= MOST_CRASHES or",
        "        if crashes >= 1 or",
        _OF_WORKER,
    ),
    Mutant(
        "never erases the note of a trial",
        _TRIAL,
        "                await self.trials.end(trial)",
        "                assert trial",
        _OF_WORKER,
    ),
    Mutant(
        "takes many at once after a start",
        _CONSUMER,
        "        self._is_careful = True",
        "        self._is_careful = False",
        _OF_RABBIT,
    ),
    Mutant(
        "works off what may kill its worker beside others",
        _TURNS,
        "                await self._nobody.wait()",
        "                assert self._nobody",
        _OF_WORKER,
    ),
    Mutant(
        "takes deliveries while a dependency is away",
        "consumer/runtime/intake.py",
        "            self._valve(paused=bool(self._away))",
        "            self._valve(paused=False)",
        "tests/unit/test_health.py",
    ),
    Mutant(
        "is slow to ask after trouble that a delivery came upon",
        "consumer/runtime/health.py",
        "            self._troubled[dependency].set()",
        "            assert self._troubled",
        "tests/unit/test_health.py",
    ),
    Mutant(
        "lets one silent host have the whole prefetch",
        "consumer/adapters/host_turns.py",
        "        return len(self.begun_at) < self.window",
        "        return bool(self.window)",
        "tests/unit/test_host_turns.py",
    ),
    Mutant(
        "waits for ever for a broker that delivers nothing",
        _CONSUMER,
        "            raise StalledError(",
        "            _log.error(",
        f"{_OF_RABBIT}::test_a_broker_that_keeps_them_all_the_same_is_given_up",
    ),
    Mutant(
        "keeps the broker's own headers on a copy",
        _CONSUMER,
        "            if not name.startswith(_OF_THE_BROKER) and",
        "            if",
        _OF_RABBIT,
    ),
    Mutant(
        "publishes copies that a restart forgets",
        _CONSUMER,
        "            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,",
        "            delivery_mode=aio_pika.DeliveryMode.NOT_PERSISTENT,",
        _OF_BROKER,
    ),
    Mutant(
        "publishes copies into nowhere",
        _PUBLISHER,
        'await self._publish(message, queue, exchange="", mandatory=True)',
        'await self._publish(message, queue, exchange="", mandatory=False)',
        _OF_BROKER,
    ),
    Mutant(
        "waits for no confirmation",
        _PUBLISHER,
        "publisher_confirms=True",
        "publisher_confirms=False",
        f"{_OF_BROKER} {_OF_RABBIT}",
    ),
    Mutant(
        "swaps the verdicts on copies of one message",
        _PUBLISHER,
        "        async with lock:\n",
        "        if lock:\n",
        _OF_BROKER,
    ),
    Mutant(
        "announces what a restart forgets",
        _PUBLISHER,
        "            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,",
        "            delivery_mode=aio_pika.DeliveryMode.NOT_PERSISTENT,",
        _OF_RABBIT,
    ),
    Mutant(
        "numbers rows in another order than they are committed",
        _RECORDS,
        '    await connection.execute("SELECT pg_advisory_xact_lock($1)", _NUMBERING_LOCK)',
        "    assert connection",
        _OF_POSTGRES,
    ),
    Mutant(
        "is silent about two outputs under one key",
        _RECORDS,
        'ON CONFLICT ("eventSource", "eventId") DO NOTHING',
        "ON CONFLICT DO NOTHING",
        _OF_POSTGRES,
    ),
    Mutant(
        "lets an event have two rows",
        _SQL,
        """    "deletedAt" timestamptz,
    UNIQUE ("eventSource", "eventId")
""",
        """    "deletedAt" timestamptz
""",
        _OF_RECORDS,
    ),
    Mutant(
        "lets a later failure of a run replace the first one",
        _RECORDS,
        "    ON CONFLICT (id) DO NOTHING",
        "    ON CONFLICT (id) DO UPDATE SET reason = EXCLUDED.reason, detail = EXCLUDED.detail",
        _OF_RECORDS,
    ),
    Mutant(
        "records a failure beside an output",
        _RECORDS,
        "            if output is not None and output.fingerprint == failure.fingerprint:",
        "            if output is not None and not failure:",
        _OF_RECORDS,
    ),
    Mutant(
        "leaves a failure unresolved when its event is stored",
        _RECORDS,
        """UPDATE job_failures SET "resolvedAt" = clock_timestamp() FROM inserted""",
        """UPDATE job_failures SET "resolvedAt" = NULL FROM inserted""",
        _OF_POSTGRES,
    ),
    Mutant(
        "blames the event for the database",
        _POSTGRES,
        """        detail = redact(f"PostgreSQL: {_words(error)}")
        raise DependencyError("database", Reason.DATABASE_UNAVAILABLE, detail) from error
""",
        """        raise ValueError(_words(error)) from error
""",
        _OF_POSTGRES,
    ),
    Mutant(
        "believes that what OSS stored is what was sent",
        _OSS,
        "    if stored != str(sent):",
        "    if not stored:",
        _OF_STORE,
    ),
    Mutant(
        "blames the event for a store in trouble",
        "consumer/adapters/oss_refusal.py",
        "        trouble = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR or",
        "        trouble =",
        "tests/integration/test_blame_of_storage.py",
    ),
    Mutant(
        "dead-letters at most once",
        _TOPOLOGY,
        '        "x-dead-letter-strategy": "at-least-once",\n',
        "",
        _OF_TOPOLOGY,
    ),
    Mutant(
        "gives every copy of a completion an id of its own",
        _ANNOUNCEMENTS,
        "id=str(derive_id(ImageUploadCompleted.TYPE, output.event_source, output.event_id)),",
        "id=str(derive_id(ImageUploadCompleted.TYPE, str(datetime.now()))),",
        "tests/unit/test_identity.py",
    ),
    Mutant(
        "overwrites an object with other bytes",
        "consumer/core/object_key.py",
        r'f"{event.source}\0{event.id}\0{crc64}"',
        r'f"{event.source}\0{event.id}"',
        "tests/unit/test_identity.py",
    ),
    Mutant(
        "tells of a completion whose object is gone",
        _SETTLE,
        "        if not is_gone or not delivery.is_first:",
        "        if delivery:",
        _OF_SETTLE,
    ),
    Mutant(
        "tells nobody of a completion, since its object is gone by now",
        _SETTLE,
        "        if not is_gone or not delivery.is_first:",
        "        if not is_gone:",
        _OF_SETTLE,
    ),
    Mutant(
        "does not tell that an output is gone",
        _SETTLE,
        "            await self.broker.announce(expired(output))",
        "            assert expired(output)",
        _OF_SETTLE,
    ),
    Mutant(
        "announces that an output is gone before it is",
        _EXPIRED,
        "        deleted = await self._delete([",
        "        await self._announce(outputs)\n        deleted = await self._delete([",
        _OF_EXPIRED,
    ),
    Mutant(
        "announces what the store has kept",
        _EXPIRED,
        "        gone = [output for output in outputs if output.oss_key in deleted]",
        "        gone = list(outputs)",
        _OF_EXPIRED,
    ),
    Mutant(
        "marks what the store has kept",
        _EXPIRED,
        "        await self.records.mark_deleted([output.id for output in gone])",
        "        await self.records.mark_deleted([output.id for output in outputs])",
        _OF_EXPIRED,
    ),
    Mutant(
        "marks before anybody has heard",
        _EXPIRED,
        """        for first in range(0, len(gone), _AT_ONCE):
            await self._announce(gone[first : first + _AT_ONCE])
        await self.records.mark_deleted([output.id for output in gone])
""",
        """        await self.records.mark_deleted([output.id for output in gone])
        for first in range(0, len(gone), _AT_ONCE):
            await self._announce(gone[first : first + _AT_ONCE])
""",
        _OF_EXPIRED,
    ),
    Mutant(
        "takes a broker's refusal for a confirmation",
        _EXPIRED,
        "                raise error  #",
        "                assert error  #",
        _OF_EXPIRED,
    ),
    Mutant(
        "lets one odd key keep all others from going",
        _EXPIRED,
        "            if len(keys) == 1:",
        "            if keys:",
        _OF_EXPIRED,
    ),
    Mutant(
        "removes in a rehearsal",
        _EXPIRED,
        "outputs if run.is_rehearsal else await self._remove(outputs, tally)",
        "await self._remove(outputs, tally)",
        _OF_EXPIRED,
    ),
    Mutant(
        "begins anew whenever its time was up",
        _EXPIRED,
        "None if tally.is_complete else str(place)",
        "None",
        _OF_EXPIRED,
    ),
    Mutant(
        "removes what is in another bucket",
        _CLEANUP_ROWS,
        """    WHERE "ossBucket" = $1 AND "deletedAt" IS NULL AND""",
        """    WHERE $1 <> '' AND "deletedAt" IS NULL AND""",
        _OF_CLEANUP_ROWS,
    ),
    Mutant(
        "removes what is not due",
        _CLEANUP_ROWS,
        """"expiresAt" <= least($2, now())""",
        """"expiresAt" <> least($2, now())""",
        _OF_CLEANUP_ROWS,
    ),
    Mutant(
        "removes what is due for a clock that is ahead",
        _CLEANUP_ROWS,
        "least($2, now())",
        "$2",
        _OF_CLEANUP_ROWS,
    ),
    Mutant(
        "removes again what is gone",
        _CLEANUP_ROWS,
        """    WHERE "ossBucket" = $1 AND "deletedAt" IS NULL AND""",
        """    WHERE "ossBucket" = $1 AND""",
        _OF_CLEANUP_ROWS,
    ),
    Mutant(
        "forgets since when an output is gone",
        _CLEANUP_ROWS,
        """id = ANY ($1) AND "deletedAt" IS NULL ORDER BY""",
        """id = ANY ($1) ORDER BY""",
        _OF_CLEANUP_ROWS,
    ),
    Mutant(
        "believes that all is gone that it asked for",
        _OSS,
        "            return deleted(await response.read()) & set(keys)",
        "            return deleted(await response.read()) | set(keys)",
        _OF_STORE,
    ),
    Mutant(
        "takes what others put into the bucket for its own",
        "consumer/core/object_key.py",
        "    return happened_at(key) is not None",
        """    return key.startswith("users/")""",
        "tests/unit/test_identity.py",
    ),
    Mutant(
        "takes an object whose row is still to come for an orphan",
        "consumer/handlers/find_orphans.py",
        " and found.modified_at <= run.now - self.grace]",
        "]",
        "tests/unit/test_find_orphans.py",
    ),
    Mutant(
        "is content with one look at an empty backlog",
        _TEMP,
        """            await self._leave_note(run.now.isoformat() if is_empty else None, run)
            return is_empty, None
""",
        """            await self._leave_note(run.now.isoformat() if is_empty else None, run)
            return is_empty, run.now if is_empty else None
""",
        _OF_TEMP,
    ),
    Mutant(
        "looks twice while the same event is in work",
        _TEMP,
        "        if seen_at > run.now - self.apart:",
        "        if seen_at > run.now:",
        _OF_TEMP,
    ),
    Mutant(
        "does not mind what waits",
        _TEMP,
        "        if seen_at is None or not is_empty:",
        "        if seen_at is None:",
        _OF_TEMP,
    ),
    Mutant(
        "removes what the replay of a failure will ask for",
        _TEMP,
        "(not use.is_wanted and self._is_older(file, empty_at))",
        "self._is_older(file, empty_at)",
        _OF_TEMP,
    ),
    Mutant(
        "takes a failure that is unresolved for a resolved one",
        _CLEANUP_ROWS,
        """"sourceFile" = file.path AND "resolvedAt" IS NULL""",
        """"sourceFile" = file.path AND "resolvedAt" IS NOT NULL""",
        _OF_CLEANUP_ROWS,
    ),
    Mutant(
        "removes a file that has changed since it was found",
        _TEMP_DIR,
        "not stat.S_ISREG(status.st_mode) or _told(file.path, status) != file:",
        "not stat.S_ISREG(status.st_mode):",
        f"{_OF_TEMP_DIR}::test_a_file_that_changed_since_it_was_found_stays",
    ),
    Mutant(
        "follows a link out of TEMP_DIR",
        _TEMP_DIR,
        "os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW",
        "os.O_RDONLY | os.O_DIRECTORY",
        f"{_OF_TEMP_DIR}::test_a_directory_that_became_a_link_leads_nowhere",
    ),
    Mutant(
        "takes what a link leads to for a file of TEMP_DIR",
        _TEMP_DIR,
        "entry.stat(follow_symlinks=False)",
        "entry.stat(follow_symlinks=True)",
        f"{_OF_TEMP_DIR}::test_of_a_hostile_directory_only_regular_files_are_told",
    ),
    Mutant(
        "acks a tick before the next one is armed",
        _CLEANING,
        "            await self._arm()\n        await delivery.ack()",
        "            await delivery.ack()\n            return await self._arm()\n        await delivery.ack()",
        _OF_CLEANING,
    ),
    Mutant(
        "acks a tick before its run",
        _CLEANING,
        "            await self._run(",
        "            await delivery.ack()\n            await self._run(",
        _OF_CLEANING,
    ),
    Mutant(
        "lets a task that fails keep the others from running",
        "consumer/handlers/clean_up.py",
        "            tally.break_off(redact(error.detail))",
        "            raise",
        "tests/unit/test_clean_up.py",
    ),
    Mutant(
        "goes on with what is somebody else's by now",
        _SETTLE,
        "            except Exception:  # noqa: BLE001 for a defect",
        "            except BaseException:  # noqa: BLE001 for a defect",
        _OF_SETTLE,
    ),
    Mutant(
        "does not pause between two tries of what is refused",
        _SETTLE,
        "            await asyncio.sleep(pause_s)",
        "            await asyncio.sleep(0 * pause_s)",
        _OF_SETTLE,
    ),
    Mutant(
        "forgets in a dead letter how often it was replayed",
        _SETTLE,
        "topology.X_REPLAYS: verdict.replays,",
        "topology.X_REPLAYS: 0,",
        _OF_SETTLE,
    ),
    Mutant(
        "tells in a dead letter another reason than in the row",
        _SETTLE,
        "topology.X_REASON: verdict.reason,",
        "topology.X_REASON: outcome.reason,",
        _OF_SETTLE,
    ),
    Mutant(
        "waits for ever for one alone whose connection was lost",
        _TURNS,
        """            try:
                await self._nobody.wait()
                yield
            finally:
                self._open.set()""",
        """            await self._nobody.wait()
            yield
            self._open.set()""",
        _OF_TURNS,
    ),
    Mutant(
        "begins beside one that is alone",
        _TURNS,
        "        while not self._open.is_set():",
        "        if not self._open.is_set():",
        _OF_TURNS,
    ),
    Mutant(
        "takes two messages of one id for one suspect",
        _TRIAL,
        "delivery.message_id.encode(), delivery.body)",
        "delivery.message_id.encode())",
        _OF_WORKER,
    ),
    Mutant(
        "takes every attempt for the first",
        _DISPATCH,
        "await self._outcome(event, cause, delivery.attempt)",
        "await self._outcome(event, cause, 1)",
        "tests/unit/test_dispatch.py",
    ),
    Mutant(
        "takes a note that the database did not let it erase for the end of a worker",
        _TRIAL,
        """            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)""",
        "            return None",
        _OF_WORKER,
    ),
    Mutant(
        "gives every copy of a message without an id another one",
        _CONSUMER,
        "message.message_id or fingerprint(message.body)",
        "message.message_id or ''",
        _OF_RABBIT,
    ),
    Mutant(
        "cannot settle what it cannot copy",
        _CONSUMER,
        "**writable(own)",
        "**own",
        _OF_RABBIT,
    ),
    Mutant(
        "waits for a queue that is away with its node",
        "consumer/adapters/rabbit.py",
        "asyncio.timeout(_ANSWER_TIMEOUT_S if is_classic else None)",
        "asyncio.timeout(None)",
        _OF_RABBIT,
    ),
    Mutant(
        "leaves the lock of the numbers to whoever fell silent",
        _POSTGRES,
        """"idle_in_transaction_session_timeout": "10s",""",
        "",
        _OF_POSTGRES,
    ),
    Mutant(
        "stalls over what a server says at length",
        "consumer/core/redact.py",
        "[a-z0-9+.-]{0,30}://",
        "[a-z0-9+.-]*://",
        "tests/unit/test_redact.py",
        hangs=True,
    ),
    Mutant(
        "lets names that nobody resolves take all threads",
        "consumer/app.py",
        "    asyncio.get_running_loop().set_default_executor(threads)",
        "",
        "tests/e2e/test_intake.py",
    ),
    Mutant(
        "stops only when everybody else has answered",
        "consumer/runtime/stop.py",
        "            loop.call_later(self._within_s, self._leave)",
        "",
        "tests/e2e/test_stopping.py",
    ),
    Mutant(
        "lets those that found no room pay with an attempt",
        _RETRY,
        "            return Hold(error.reason, error.detail, _rung(delays_s, error.not_before_s))",
        "            return _climb(error, attempt, delays_s, not_before_s=error.not_before_s)",
        _OF_RETRY,
    ),
    Mutant(
        "never gives back the room of a fetch that went wrong",
        "consumer/adapters/host_turns.py",
        """            try:
                yield
            finally:
                host.ended(fetch)""",
        """            yield
            host.ended(fetch)""",
        "tests/unit/test_host_turns.py",
    ),
    Mutant(
        "counts the fetches of all hosts as those of one",
        "consumer/adapters/http_source.py",
        """self._turns.of(urlsplit(url).netloc.rpartition("@")[2])""",
        """self._turns.of(urlsplit(url).scheme)""",
        "tests/integration/test_http_source.py",
    ),
    Mutant(
        "waits for ever for a probe's answer",
        "consumer/runtime/health.py",
        "asyncio.timeout(_TIMEOUT_S)",
        "asyncio.timeout(None)",
        "tests/unit/test_health.py",
    ),
    Mutant(
        "lets one that gave up keep its whole group waiting",
        "consumer/adapters/grouping.py",
        """        if not future.done():
            future.set_exception(error)""",
        "        future.set_exception(error)",
        "tests/unit/test_grouping.py",
    ),
    Mutant(
        "keeps of a refused event what no row can hold",
        "consumer/core/decode.py",
        " and image_url.isprintable() else",
        " else",
        "tests/unit/test_decode.py",
    ),
    Mutant(
        "takes what was lost for work, and so a stall for none",
        _CONSUMER,
        """        try:
            async with self._slots:
                await self._take(delivery)
        finally:
            self._in_hand -= 1""",
        """        async with self._slots:
            await self._take(delivery)
        self._in_hand -= 1""",
        f"{_OF_RABBIT}::test_a_channel_that_the_broker_closes_is_made_anew",
    ),
)


class Workshop:
    """A copy of the tree in which one line at a time is changed."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        shutil.copytree(ROOT, tree, ignore=_LEFT_OUT)

    def fate(self, mutant: Mutant) -> str:
        """`dead` if its tests noticed it."""
        path = self._tree / mutant.file
        original = path.read_text()
        if original.count(mutant.old) != 1:
            return "not to be made: its line is not there exactly once"
        path.write_text(original.replace(mutant.old, mutant.new))
        try:
            code = self.tested(mutant.tests.split(), _HANG_S if mutant.hangs else _TIMEOUT_S)
        finally:
            path.write_text(original)
        if code == (None if mutant.hangs else _TESTS_FAILED):
            return "dead"
        return "alive" if code == 0 else f"not to be tested: pytest ended with {code}"

    def tested(self, tests: Sequence[str], timeout_s: float) -> int | None:
        """The exit code of pytest over these tests; none if they did not end."""
        try:
            return subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
                cwd=self._tree,
                env={**os.environ, "PYTHONPATH": str(self._tree), "PYTHONDONTWRITEBYTECODE": "1"},
                timeout=timeout_s,
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ).returncode
        except subprocess.TimeoutExpired:
            return None


@campaign()
async def mutants(services: Services) -> Verdict:
    """Every line that keeps the promise is changed for the worse, one at a time."""
    workshop = Workshop(services.directory / "mutants")
    tests = sorted({test for mutant in MUTANTS for test in mutant.tests.split()})
    verdict = Verdict({"mutants": len(MUTANTS)}, [])
    verdict.check("red without a mutant", _red(workshop, tests))
    verdict.check("mutants that live", _alive(workshop))
    return verdict


def _red(workshop: Workshop, tests: Sequence[str]) -> list[str]:
    return [f"pytest ended with {code}: {' '.join(tests)}"] if (code := workshop.tested(tests, _TIMEOUT_S)) != 0 else []


def _alive(workshop: Workshop) -> Iterator[str]:
    for mutant in MUTANTS:
        fate = workshop.fate(mutant)
        click.echo(f"  {fate}: {Path(mutant.file).name} {mutant.worse}", err=True)
        if fate != "dead":
            yield f"{mutant.file} {mutant.worse}: {fate}"
