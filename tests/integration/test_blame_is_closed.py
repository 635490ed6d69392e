"""Every reason has a row in a table of blame, or a word on where it comes from instead."""

from typing import Final

from schemas.reasons import Reason
from tests.integration import test_blame_of_database as database
from tests.integration import test_blame_of_sources as sources
from tests.integration import test_blame_of_storage as storage

# What no driver's error leads to, and what does.
ELSEWHERE: Final = {
    Reason.UNDECODABLE: "the body, before any driver is asked: test_decode",
    Reason.UNSUPPORTED_EVENT: "the body: test_decode",
    Reason.CONFLICTING_EVENT: "the rows: test_store_image",
    Reason.IMAGE_REJECTED: "the image itself: test_inspect",
    Reason.TIMED_OUT: "our own deadline: test_dispatch",
    Reason.CRASH_LOOP: "how often it was seen: test_worker",
}


def test_every_reason_has_a_row_or_comes_from_elsewhere() -> None:
    rows = [*database.VERDICTS, *sources.VERDICTS, *storage.VERDICTS]
    told = {Reason(verdict.split()[1]) for verdict in rows}
    assert told | ELSEWHERE.keys() == set(Reason)
    assert not told & ELSEWHERE.keys()
