from openapi_spec_validator import validate

from producer.api.errors import STATUS_OF
from producer.api.jobs import Jobs
from producer.api.openapi import document
from producer.api.routes import Routes
from producer.api.rows import Rows
from producer.api.tokens import Tokens
from producer.settings import TokenSettings
from schemas.reasons import Reason


def test_the_document_is_valid() -> None:
    validate(document())


async def test_it_has_every_route_but_those_of_operators() -> None:
    jobs = Jobs("amqp://localhost", Rows(None), 1)  # type: ignore[arg-type] # no request is made
    routes = Routes(jobs, Tokens(TokenSettings(), "x" * 32), None, 60).application().router.routes()
    there = {(route.method.lower(), route.resource.canonical) for route in routes if route.resource}
    described = {
        (method, path.replace("jobId", "job_id"))
        for path, operations in document()["paths"].items()
        for method in operations
    }
    operators = {"/metrics", "/healthz", "/readyz", "/openapi.json"}
    assert {(method, path) for method, path in there if path not in operators and method != "head"} == described


def test_every_reason_of_a_failure_has_a_status_that_the_document_knows() -> None:
    responses = document()["paths"]["/ai/generate-image"]["post"]["responses"]
    assert all(str(int(STATUS_OF.get(reason, 422))) in responses for reason in Reason)
