from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import pytest

from consumer.adapters import oss_xml
from consumer.core.errors import DependencyError
from consumer.core.ports import ListedObject

DELETED = b"<DeleteResult><EncodingType>url</EncodingType><Deleted><Key>users/a%2Bb%20c</Key></Deleted></DeleteResult>"
LISTED = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult><IsTruncated>true</IsTruncated><EncodingType>url</EncodingType><Contents><Key>users/%F0%9F%A6%8A</Key>
<LastModified>2026-11-22T13:18:41.000Z</LastModified><Size>7</Size></Contents></ListBucketResult>"""


def test_a_request_names_every_key_as_it_is() -> None:
    keys = ["users/a&b", "users/<x>", "users/\"'🦊"]
    document = ET.fromstring(oss_xml.deletion(keys))
    assert [element.text for element in document.iter("Key")] == keys
    assert document.findtext("Quiet") == "false"


def test_answers_are_read_percent_decoded() -> None:
    assert oss_xml.deleted(DELETED) == {"users/a+b c"}
    fox = ListedObject("users/🦊", 7, datetime(2026, 11, 22, 13, 18, 41, tzinfo=UTC))
    assert oss_xml.listed(LISTED) == ([fox], False)
    assert oss_xml.listed(LISTED.replace(b"true", b"false")) == ([fox], True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Welcome to the hotel</html>",
        b"<html><br></html>",
        DELETED[:-3],
        DELETED.replace(b"url", b""),  # were it another encoding, other keys would be meant
        LISTED,
    ],
)
def test_what_is_no_answer_of_the_service_tells_of_nothing_that_is_gone(body: bytes) -> None:
    with pytest.raises(DependencyError, match="OSS answered what cannot be read"):
        oss_xml.deleted(body)


@pytest.mark.parametrize("change", [(b"<Size>7", b"<Size>many"), (b"2026", b"long ago"), (b"LastModified", b"Date")])
def test_an_object_that_is_not_told_whole_is_no_listing(change: tuple[bytes, bytes]) -> None:
    with pytest.raises(DependencyError):
        oss_xml.listed(LISTED.replace(*change))
