"""The exported files say what the models say."""

import json

import pytest
from jsonschema import Draft202012Validator, ValidationError

from schemas.__main__ import DIRECTORY
from schemas.asyncapi import EXAMPLES, exported
from schemas.events import EVENTS
from schemas.topology import EXCHANGE

GOOD = {
    "specversion": "1.0",
    "id": "1",
    "source": "/generators/1",
    "type": "image.generated",
    "time": "2026-11-22T13:18:41Z",
    "data": {"jobId": "abc123", "userId": "a@b.com", "imageUrl": "https://cdn.example.com/fox.png"},
}


def image_generated_schema() -> Draft202012Validator:
    return Draft202012Validator(json.loads(exported()["image.generated.schema.json"]))


def test_the_exported_files_are_in_step_with_the_models() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in DIRECTORY.iterdir()}
    assert written == exported(), "run `python -m schemas`"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.TYPE)
def test_every_json_schema_is_valid(event: type) -> None:
    Draft202012Validator.check_schema(json.loads(exported()[f"{event.TYPE}.schema.json"]))  # type: ignore[attr-defined]


def test_every_event_type_has_an_example_that_its_schema_accepts() -> None:
    assert [example.TYPE for example in EXAMPLES] == [event.TYPE for event in EVENTS]
    for example in EXAMPLES:
        schema = json.loads(exported()[f"{example.TYPE}.schema.json"])
        Draft202012Validator(schema).validate(json.loads(example.body()))


def test_the_schema_accepts_what_the_model_accepts() -> None:
    image_generated_schema().validate(GOOD)
    image_generated_schema().validate({**GOOD, "data": {**GOOD["data"], "jobId": 4711}})  # type: ignore[dict-item]


@pytest.mark.parametrize("missing", ["specversion", "id", "source", "type", "time", "data"])
def test_the_schema_requires_what_a_sender_must_send(missing: str) -> None:
    with pytest.raises(ValidationError, match="is a required property"):
        image_generated_schema().validate({name: value for name, value in GOOD.items() if name != missing})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("jobId", "a..b"),
        ("jobId", "-a"),
        ("jobId", "j" * 129),
        ("jobId", -1),
        ("userId", "a/b"),
        ("userId", "u" * 255),
        ("imageUrl", "ftp://host/fox.png"),
        ("imageUrl", "https://host/red fox.png"),
        ("metadata", [1]),
    ],
)
def test_the_schema_refuses_what_the_model_refuses(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        image_generated_schema().validate({**GOOD, "data": {**GOOD["data"], field: value}})  # type: ignore[dict-item]


def test_the_asyncapi_document_has_a_channel_for_each_event_type_on_our_exchange() -> None:
    channels = json.loads(exported()["asyncapi.json"])["channels"]
    assert [channel["address"] for channel in channels.values()] == [event.TYPE for event in EVENTS]
    assert {channel["bindings"]["amqp"]["exchange"]["name"] for channel in channels.values()} == {EXCHANGE}
