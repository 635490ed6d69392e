"""Messages as they went over the wire once; each must decode for ever. Files are added, never changed."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas.asyncapi import exported
from schemas.events import EVENTS, CloudEvent, ImageGenerated

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("*.json"))
MODELS = {event.TYPE: event for event in EVENTS}

every_golden_message = pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)


def decoded(path: Path) -> CloudEvent[Any]:
    body = path.read_bytes()
    return MODELS[json.loads(body)["type"]].model_validate_json(body)


def generated(name: str) -> ImageGenerated:
    event = decoded(Path(__file__).parent.parent / "golden" / f"image.generated-{name}.json")
    assert isinstance(event, ImageGenerated)
    return event


@every_golden_message
def test_a_golden_message_decodes_and_survives_being_sent_on(path: Path) -> None:
    event = decoded(path)
    assert type(event).model_validate_json(event.body()) == event


@every_golden_message
def test_the_exported_schema_accepts_a_golden_message(path: Path) -> None:
    message = json.loads(path.read_bytes())
    schema = json.loads(exported()[f"{message['type']}.schema.json"])
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(message)


@pytest.mark.parametrize("path", [path for path in GOLDEN if "image.upload" in path.stem or "expired" in path.stem])
def test_what_we_send_is_encoded_as_it_was(path: Path) -> None:
    assert json.loads(decoded(path).body()) == json.loads(path.read_bytes())


def test_every_event_type_has_a_golden_message() -> None:
    assert {decoded(path).type for path in GOLDEN} == set(MODELS)


def test_numbers_are_taken_as_their_digits() -> None:
    data = generated("numeric-ids").data
    assert (data.job_id, data.user_id) == ("4711", "12345678901234567890")


def test_an_offset_time_is_kept_as_utc_in_microseconds() -> None:
    event = json.loads(generated("offset-time").body())
    assert event["time"] == "2026-11-22T13:18:41.123456Z"
    assert event["data"]["expiresAt"] == "2026-11-23T05:30:00.000000Z"


def test_what_is_left_out_is_null() -> None:
    assert generated("minimal") == generated("explicit-nulls")


def test_unknown_fields_change_nothing() -> None:
    assert generated("unknown-fields") == generated("minimal")


def test_metadata_comes_through_as_it_was_sent() -> None:
    assert generated("full").data.metadata == {
        "model": "sdxl",
        "seed": 18446744073709551615,
        "steps": 30,
        "guidance": 7.5,
        "tags": ["fox", "snow"],
        "nested": {"upscaled": False, "parent": None},
    }
