"""The ingress as its users call it; every answer must be one that its OpenAPI document has."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from jsonschema import Draft202012Validator
from multidict import CIMultiDictProxy

from producer.api.openapi import document

PASSWORD: Final = "CANARY-correct horse"
_PATIENCE_S: Final = 60


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    json: Any
    headers: CIMultiDictProxy[str]

    @property
    def reason(self) -> str:
        """Why not."""
        assert set(self.json) == {"error"}, self.json
        reason: str = self.json["error"]["reason"]
        return reason


@dataclass
class ApiClient:
    """Calls with a token, if it has one; `heard` is all that was ever answered."""

    url: str
    http: aiohttp.ClientSession
    token: str | None = None
    heard: list[str] = field(default_factory=list)

    async def login(self, email: str, password: str = PASSWORD) -> Answer:
        """Later calls are this user's, if the answer is a token."""
        answer = await self.post("/auth/login", {"email": email, "password": password})
        if answer.status == 200:
            self.token = answer.json["token"]
        return answer

    async def generate(self, image_url: str, prompt: str = "a red fox", key: str | None = None) -> Answer:
        """The answer to `POST /ai/generate-image`."""
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.post("/ai/generate-image", {"prompt": prompt, "imageUrl": image_url}, headers)

    async def job(self, job_id: str) -> Answer:
        """The answer to `GET /ai/jobs/{jobId}`."""
        return await self.get(f"/ai/jobs/{job_id}")

    async def job_when(self, job_id: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What is known of the job once it is so."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                answer = await self.job(job_id)
                if answer.status == 200 and is_so(answer.json):
                    job: dict[str, Any] = answer.json
                    return job
                await asyncio.sleep(0.05)

    async def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Answer:
        """The answer to a POST of JSON, or of what is sent as it is if it is bytes."""
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        headers = {"Content-Type": "application/json", **self._authorization(), **(headers or {})}
        return await self._checked("post", path, self.http.post(self.url + path, data=data, headers=headers))

    async def get(self, path: str) -> Answer:
        """The answer to a GET."""
        return await self._checked("get", path, self.http.get(self.url + path, headers=self._authorization()))

    def _authorization(self) -> dict[str, str]:
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    async def _checked(self, method: str, path: str, sent: Awaitable[aiohttp.ClientResponse]) -> Answer:
        response = await sent
        text = await response.text()
        self.heard.append(f"{response.headers} {text}")
        answer = Answer(response.status, json.loads(text), response.headers)
        _conforms(method, path, answer)
        return answer


def _conforms(method: str, path: str, answer: Answer) -> None:
    described = document()
    name = "/ai/jobs/{jobId}" if path.startswith("/ai/jobs/") else path
    operation = described["paths"].get(name, {}).get(method)
    if operation is None:
        assert answer.status in (404, 405), answer
        return
    content = operation["responses"][str(answer.status)]["content"]["application/json"]["schema"]
    Draft202012Validator({**content, "components": described["components"]}).validate(answer.json)
