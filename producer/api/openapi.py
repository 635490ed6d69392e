"""The ingress described for other programs.

Source: OpenAPI 3.1.
"""

from functools import cache
from importlib.metadata import version
from typing import Any, Final, TypeAlias, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from producer.api.errors import ApiReason
from producer.api.messages import (
    Delayed,
    Failed,
    GenerateImage,
    Login,
    Pending,
    Problem,
    Stored,
    StoredImage,
    Token,
)
from schemas.events import MAX_BODY_BYTES
from schemas.reasons import Reason

Json: TypeAlias = dict[str, Any]

_REF: Final = "#/components/schemas/{model}"
_SENT: Final = (Login, GenerateImage)
_UNAUTHORIZED: Final = "The token is missing, wrong or expired."
_TOO_LARGE: Final = f"The body is larger than {MAX_BODY_BYTES} bytes."
_ANSWERED: Final = (Token, StoredImage, Pending, Delayed, Stored, Failed, Problem)


@cache
def document() -> Json:
    """The OpenAPI document, which is what `/openapi.json` answers."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "image-uploads ingress",
            "version": version("image-uploads-worker"),
            "description": "Announces images to the image-uploads worker, and tells what became of them.",
        },
        "paths": {
            "/auth/login": {"post": _login()},
            "/ai/generate-image": {"post": _generate_image()},
            "/ai/jobs/{jobId}": {"get": _job()},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "schemas": _schemas(),
        },
    }


def _login() -> Json:
    return {
        "summary": "A token for an email and its password.",
        "operationId": "login",
        "requestBody": _body(Login),
        "responses": {
            "200": _response("The token.", Token),
            **_problems(
                {
                    400: "The request is invalid.",
                    401: "The email or the password is wrong.",
                    404: "Tokens come from another backend here.",
                    413: _TOO_LARGE,
                    429: "Too many tries; `Retry-After` says for how long.",
                    503: "Nobody can log in now.",
                }
            ),
        },
    }


def _generate_image() -> Json:
    return {
        "summary": "Stores an image for the caller.",
        "description": "Answers when the image is stored or has failed; 202 when that takes longer than the wait.",
        "operationId": "generateImage",
        "security": [{"token": []}],
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "A request that is repeated with the same key stores one image, and is answered alike.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            }
        ],
        "requestBody": _body(GenerateImage),
        "responses": {
            "200": _response("The image is stored.", StoredImage),
            "202": {
                **_response("It takes longer; ask at `Location`.", Pending, Delayed),
                "headers": {"Location": {"schema": {"type": "string"}, "description": "Where to ask."}},
            },
            **_problems(
                {
                    400: "The request is invalid.",
                    401: _UNAUTHORIZED,
                    410: "It repeats a request whose image has expired.",
                    413: f"{_TOO_LARGE} Or the image is larger than allowed.",
                    422: "The image was refused, or is not there.",
                    500: "A defect of this product.",
                    502: "The image's server, or the storage, did not answer as it should, time and again.",
                    503: "Nothing can be accepted now. With `Location`: it is not known whether it was.",
                    504: "The image took too long, time and again.",
                }
            ),
        },
    }


def _job() -> Json:
    return {
        "summary": "What is known of a job of the caller's.",
        "operationId": "job",
        "security": [{"token": []}],
        "parameters": [{"name": "jobId", "in": "path", "required": True, "schema": {"type": "string"}}],
        "responses": {
            "200": _response("What is known.", Pending, Delayed, Stored, Failed),
            **_problems(
                {
                    401: _UNAUTHORIZED,
                    404: "The caller has no such job.",
                    410: "The image has expired.",
                    503: "Nothing can be known now.",
                }
            ),
        },
    }


def _body(model: type[BaseModel]) -> Json:
    return {"required": True, "content": _content(model)}


def _response(description: str, *models: type[BaseModel]) -> Json:
    return {"description": description, "content": _content(*models)}


def _content(*models: type[BaseModel]) -> Json:
    references = [{"$ref": _REF.format(model=model.__name__)} for model in models]
    return {"application/json": {"schema": references[0] if len(references) == 1 else {"oneOf": references}}}


def _problems(descriptions: dict[int, str]) -> Json:
    return {str(status): _response(text, Problem) for status, text in descriptions.items()}


def _schemas() -> Json:
    _, definitions = models_json_schema(
        [*((model, "validation") for model in _SENT), *((model, "serialization") for model in _ANSWERED)],
        ref_template=_REF,
    )
    schemas: Json = definitions["$defs"]
    schemas["Error"]["properties"]["reason"]["enum"] = sorted({*map(str, Reason), *get_args(ApiReason)})
    return schemas
