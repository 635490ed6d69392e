"""What users of the older backend do, and what goes wrong when they do it."""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import RSAAlgorithm

from producer.api.users import UsersFile
from sandbox.process import eventually
from tests.e2e.api_client import PASSWORD, ApiClient
from tests.e2e.conftest import StartApi, StartWorker
from tests.e2e.image_host import GONE, UNAVAILABLE, ImageHost
from tests.e2e.product_process import ApiProcess, WorkerProcess, basics
from tests.e2e.watched_oss import WatchedOss
from tests.e2e.wire import USER, Wire
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.real

OTHER_USER = "somebody@else.com"
SECRET = "CANARY-secret-that-signs-every-token"
CONNECTION_CLOSE_OK = bytes.fromhex("01 0000 00000004 000A 0033 CE")  # a frame of AMQP


@pytest.fixture(autouse=True)
def users_file(tmp_path: Path) -> Path:
    path = tmp_path / "users.json"
    for user in (USER, OTHER_USER):
        UsersFile(path).add(user, PASSWORD)
    return path


@asynccontextmanager
async def client_of(api: ApiProcess) -> AsyncIterator[ApiClient]:
    """A client that is nobody yet; no secret may ever have been answered, or logged."""
    async with aiohttp.ClientSession() as http:
        client = ApiClient(api.url, http)
        yield client
    assert "CANARY" not in "".join([*client.heard, api.log])


def token_of(user: str, secret: str = SECRET, **claims: Any) -> str:
    return jwt.encode({"sub": user, "exp": datetime.now(UTC) + timedelta(hours=1), **claims}, secret, "HS256")


async def test_the_quick_test_as_it_was(
    api: ApiProcess,
    image_url: str,
    png: bytes,
    temp_dir: Path,
    database: "asyncpg.Connection[asyncpg.Record]",
    http: aiohttp.ClientSession,
) -> None:
    async with client_of(api) as client:
        login = await client.login(USER)
        assert set(login.json) == {"token"}
        answer = await client.generate(image_url)
    assert answer.status == 200
    assert set(answer.json) == {"imageUrl", "jobId", "outputId"}

    assert f"/users/{USER}/jobs/{answer.json['jobId']}/image-" in answer.json["imageUrl"]
    async with http.get(answer.json["imageUrl"]) as response:
        assert await response.read() == png
    row = await database.fetchrow('SELECT * FROM job_outputs ORDER BY "createdAt" DESC LIMIT 1;')
    assert row is not None
    assert (str(row["id"]), row["jobId"], row["userId"], row["url"], row["prompt"]) == (
        answer.json["outputId"],
        answer.json["jobId"],
        USER,
        answer.json["imageUrl"],
        "a red fox",
    )
    assert list(temp_dir.iterdir()) == []  # noqa: ASYNC240 a directory of this machine


async def test_a_job_is_told_as_stored_after_the_ingress_was_started_anew(
    api: ApiProcess, start_api: StartApi, image_url: str
) -> None:
    async with client_of(api) as client:
        await client.login(USER)
        stored = await client.generate(image_url)
        token = client.token
    api.kill()

    again = start_api()
    again.await_ready()
    async with client_of(again) as client:
        client.token = token
        job = await client.job(stored.json["jobId"])
    assert job.json["status"] == "stored"
    assert {name: job.json[name] for name in stored.json} == stored.json


async def test_wrong_credentials_are_told_alike_for_known_and_unknown_users(api: ApiProcess) -> None:
    async with client_of(api) as client:
        wrong = await client.login(USER, "wrong")
        unknown = await client.login("nobody@factory-buy.com")
    assert wrong.status == unknown.status == 401
    assert wrong.reason == "wrong_credentials"
    assert wrong.json == unknown.json


async def test_a_password_can_be_tried_ten_times_and_others_still_log_in(api: ApiProcess) -> None:
    async with client_of(api) as client:
        tries = [await client.login(USER, "wrong") for _ in range(11)]
        assert [answer.status for answer in tries] == [401] * 10 + [429]
        assert tries[-1].reason == "too_many_tries"
        assert 0 < int(tries[-1].headers["Retry-After"]) <= 15 * 60
        assert (await client.login(USER)).status == 429
        assert (await client.login(OTHER_USER)).status == 200


async def test_a_user_who_is_added_can_log_in_at_once(api: ApiProcess, users_file: Path) -> None:
    run = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "producer", "users", "add", "new@factory-buy.com"],
        input=PASSWORD,
        env={**basics(users_file.parent), "API_USERS_FILE": str(users_file)},
        cwd=users_file.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "new@factory-buy.com may log in now\n"
    assert PASSWORD not in users_file.read_text()  # noqa: ASYNC240 as above
    async with client_of(api) as client:
        assert (await client.login("New@Factory-Buy.com")).status == 200


async def test_a_token_that_is_not_good_is_refused(start_api: StartApi) -> None:
    api = start_api(JWT_SECRET=SECRET)
    eventually(lambda: api.port is not None, 30)
    tokens = [
        (None, "is missing"),
        ("nonsense", "is not valid"),
        (token_of(USER, exp=datetime.now(UTC) - timedelta(minutes=1)), "has expired"),
        (token_of(USER, secret="CANARY-another-secret-of-somebody-else"), "is not valid"),
        (jwt.encode({"sub": USER}, "", "none"), "is not valid"),
        (token_of("no user/../id"), "is no valid userId"),
    ]
    async with client_of(api) as client:
        for token, says in tokens:
            client.token = token
            for answer in (await client.generate("https://x.example/a.png"), await client.job("some-job")):
                assert (answer.status, answer.reason) == (401, "unauthorized")
                assert says in answer.json["error"]["detail"]
                assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_token_of_bytes_that_are_no_text_is_refused(start_api: StartApi) -> None:
    api = start_api(JWT_SECRET=SECRET)
    eventually(lambda: api.port is not None, 30)
    connection = HTTPConnection("127.0.0.1", api.port, timeout=10)
    connection.request("GET", "/ai/jobs/any", headers={"Authorization": b"Bearer \xff\xfe"})
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["reason"]) == (401, "unauthorized")
    connection.close()


async def test_tokens_of_another_backend_are_good_by_its_public_key(start_api: StartApi, worker: WorkerProcess) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    api = start_api(
        JWT_PUBLIC_KEY=pem.decode().replace("\n", "\\n"),
        JWT_USER_CLAIM="userId",
        JWT_AUDIENCE="images",
        JWT_ISSUER="https://backend.example",
    )
    api.await_ready()
    claims = {"sub": 7, "userId": 42, "aud": "images", "iss": "https://backend.example"}
    async with client_of(api) as client:
        client.token = jwt.encode(claims, key, "RS256")
        assert (await client.job("any")).status == 404
        for wrong in ({"aud": "somebody else"}, {"iss": "https://somebody.else"}):
            client.token = jwt.encode({**claims, **wrong}, key, "RS256")
            assert "for somebody else" in (await client.job("any")).json["error"]["detail"]
        # Of another algorithm than the key is for.
        client.token = jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), "ES256")
        assert (await client.job("any")).status == 401
        # The public key is no secret, so it must not do as one.
        client.token = _signed_with(pem, claims)
        assert (await client.job("any")).status == 401
        login = await client.login(USER)
        assert (login.status, login.reason) == (404, "login_disabled")


async def test_tokens_of_another_backend_are_good_by_the_keys_it_publishes(
    start_api: StartApi, image_host: ImageHost, worker: WorkerProcess
) -> None:
    keys = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
    published = RSAAlgorithm.to_jwk(keys[0].public_key(), as_dict=True) | {"kid": "1", "use": "sig"}
    jwks = image_host.give("jwks.json", UNAVAILABLE, json.dumps({"keys": [published]}).encode())
    api = start_api(JWT_JWKS_URL=jwks)
    api.await_ready()
    claims = {"sub": 42}
    async with client_of(api) as client:
        client.token = jwt.encode(claims, keys[0], "RS256", headers={"kid": "1"})
        answer = await client.job("any")
        assert (answer.status, answer.reason) == (503, "keys_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert (await client.job("any")).status == 404
        client.token = jwt.encode(claims, keys[1], "RS256", headers={"kid": "1"})
        assert (await client.job("any")).status == 401
        client.token = jwt.encode(claims, keys[1], "RS256", headers={"kid": "2"})
        assert (await client.job("any")).status == 401


def _signed_with(public_key: bytes, claims: dict[str, Any]) -> str:
    """A token that a forger makes: HS256, with the public key as its secret."""
    import hashlib  # noqa: PLC0415 of no use to any other test
    import hmac  # noqa: PLC0415

    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    signed = f"{part(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}.{part(json.dumps(claims).encode())}"
    return f"{signed}.{part(hmac.digest(public_key, signed.encode(), hashlib.sha256))}"


async def test_nobody_sees_the_job_of_somebody_else(
    api: ApiProcess, image_host: ImageHost, image_url: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with client_of(api) as client:
        await client.login(USER)
        stored = (await client.generate(image_url)).json["jobId"]
        assert (await client.generate(image_host.give("text.png", b"hello"))).status == 422
        failed = await database.fetchval('SELECT "jobId" FROM job_failures')
        assert (await client.job(failed)).json["error"]["reason"] == "not_an_image"
        await client.login(OTHER_USER)
        for job_id in (stored, failed):
            answer = await client.job(job_id)
            assert (answer.status, answer.reason) == (404, "not_found")
        assert (await client.job("%00")).status == 404


async def test_what_is_no_image_is_told_as_such(api: ApiProcess, image_host: ImageHost) -> None:
    async with client_of(api) as client:
        await client.login(USER)
        answer = await client.generate(image_host.give("page.png", b"<html>"))
    assert (answer.status, answer.reason) == (422, "not_an_image")


async def test_a_request_that_is_wrong_is_told_what_is_wrong_with_it(start_api: StartApi) -> None:
    api = start_api(JWT_SECRET=SECRET)
    eventually(lambda: api.port is not None, 30)
    fine = "https://x.example/a.png"
    bodies: list[tuple[Any, str]] = [
        (b"{", "invalid JSON"),
        (b"[" * 200_000, "invalid JSON"),
        (b'"text"', "object"),
        ({"prompt": "a red fox"}, "imageUrl field required"),
        ({"prompt": 7, "imageUrl": fine}, "prompt should be a valid string"),
        ({"prompt": "a\0fox", "imageUrl": fine}, "prompt"),
        ({"prompt": "a fox", "imageUrl": "ftp://x.example/CANARY.png"}, "imageUrl"),
        ({"prompt": "a fox", "imageUrl": "file:///tmp/dream-factory/CANARY.png"}, "must be an https:, http: or data:"),
    ]
    bodies.append(({"prompt": "a fox", "imageUrl": "FILE:///tmp/dream-factory/x.png"}, "must be an https:"))
    bodies.append(({"prompt": "a fox", "image_url": fine}, "imageUrl field required"))
    async with client_of(api) as client:
        client.token = token_of(USER)
        for body, says in bodies:
            answer = await client.post("/ai/generate-image", body)
            assert (answer.status, answer.reason) == (400, "invalid_request")
            assert says.lower() in answer.json["error"]["detail"].lower()
        cut = await client.post("/ai/generate-image", b"no gzip", {"Content-Encoding": "gzip", "Connection": "close"})
        assert (cut.status, cut.reason) == (400, "invalid_request")


async def test_a_body_of_two_megabytes_is_too_large(api: ApiProcess) -> None:
    async with client_of(api) as client:
        await client.login(USER)
        for body in (b" " * 2_000_000, json.dumps({"imageUrl": f"data:image/png;base64,{'A' * 1_048_500}"}).encode()):
            answer = await client.post("/ai/generate-image", body)
            assert (answer.status, answer.reason) == (413, "too_large")


async def test_what_is_not_there_is_answered_in_json(api: ApiProcess) -> None:
    async with client_of(api) as client:
        assert (await client.get("/nowhere")).reason == "not_found"
        wrong = await client.get("/ai/generate-image")
        assert (wrong.status, wrong.reason) == (405, "method_not_allowed")


async def test_the_broker_away_accepts_nothing_and_says_so(
    start_api: StartApi, amqp_url: str, worker: WorkerProcess, image_url: str, wire: Wire
) -> None:
    async with Proxy(amqp_url) as proxy:
        api = start_api(AMQP_URL=proxy.url())
        await asyncio.to_thread(api.await_ready)
        async with client_of(api) as client:
            await client.login(USER)
            await proxy.down()
            await asyncio.to_thread(eventually, lambda: api.get("/readyz")[0] == 503, 30)
            assert "broker" in json.loads(api.get("/readyz")[1])["problems"]
            answer = await client.generate(image_url)
            assert (answer.status, answer.reason) == (503, "broker_unavailable")
            assert "not accepted" in answer.json["error"]["detail"]
            assert not wire.news

            await proxy.up()
            await asyncio.to_thread(api.await_ready)
            assert (await client.generate(image_url)).status == 200


async def test_a_broker_that_is_frozen_holds_nobody_up_and_leaves_nobody_sure(
    start_api: StartApi, amqp_url: str, worker: WorkerProcess, image_url: str
) -> None:
    async with Proxy(amqp_url) as proxy:
        api = start_api(AMQP_URL=proxy.url())
        await asyncio.to_thread(api.await_ready)
        async with client_of(api) as client:
            await client.login(USER)
            assert (await client.generate(image_url)).status == 200
            proxy.freeze()
            keys = [None, None, None, "order-9", "order-9", "order-9"]
            async with asyncio.timeout(14):  # one's turn and connecting, then the confirmation: 5 s each
                answers = await asyncio.gather(*(client.generate(image_url, key=key) for key in keys))
            for answer in answers:
                assert (answer.status, answer.reason) == (503, "broker_unavailable")
            assert "may or may not" in answers[0].json["error"]["detail"]
            assert {answer.headers["Location"] for answer in answers[3:]} == {answers[3].headers["Location"]}


async def test_a_database_that_is_frozen_holds_nobody_up(
    start_api: StartApi, database_url: str, worker: WorkerProcess
) -> None:
    async with Proxy(database_url) as proxy:
        api = start_api(DATABASE_URL=proxy.url())
        await asyncio.to_thread(api.await_ready)
        proxy.freeze()
        async with client_of(api) as client:
            await client.login(USER)
            async with asyncio.timeout(9):
                answers = await asyncio.gather(*(client.job("some-job") for _ in range(20)))
            assert {(answer.status, answer.reason) for answer in answers} == {(503, "database_unavailable")}
            assert {answer.headers["Retry-After"] for answer in answers} == {"5"}
            assert api.lines("the database does not answer")


async def test_a_connection_that_is_cut_during_the_wait_loses_nothing(
    start_api: StartApi, amqp_url: str, worker: WorkerProcess, image_host: ImageHost, png: bytes
) -> None:
    image_host.hold()
    url = image_host.give("slow.png", png)
    proxy = Proxy(amqp_url)
    await proxy.up()
    api = start_api(AMQP_URL=proxy.url(), API_WAIT_S="60")
    await asyncio.to_thread(api.await_ready)
    async with client_of(api) as client:
        await client.login(USER)
        waiting = asyncio.create_task(client.generate(url))
        await asyncio.to_thread(eventually, lambda: image_host.requests["slow.png"] == 1, 30)
        await proxy.down()
        answer = await waiting
        assert (answer.status, answer.json["status"]) == (202, "pending")
        image_host.release()
        await client.job_when(answer.json["jobId"], lambda job: job["status"] == "stored")


async def test_the_database_away_delays_no_upload_and_is_told_by_the_job(
    start_api: StartApi, database_url: str, worker: WorkerProcess, image_url: str
) -> None:
    async with Proxy(database_url) as proxy:
        api = start_api(DATABASE_URL=proxy.url())
        await asyncio.to_thread(api.await_ready)
        await proxy.down()
        async with client_of(api) as client:
            await client.login(USER)
            stored = await client.generate(image_url)
            assert stored.status == 200
            answer = await client.job(stored.json["jobId"])
            assert (answer.status, answer.reason) == (503, "database_unavailable")
            await proxy.up()
            assert (await client.job(stored.json["jobId"])).json["status"] == "stored"


async def test_a_wait_that_is_over_leads_to_the_job_which_is_told_from_pending_to_stored(
    start_api: StartApi, worker: WorkerProcess, image_host: ImageHost, png: bytes
) -> None:
    image_host.hold()
    url = image_host.give("slow.png", png)
    api = start_api(API_WAIT_S="0.2", JWT_SECRET=SECRET)
    api.await_ready()
    async with client_of(api) as client:
        client.token = token_of(USER)
        answer = await client.generate(url)
        assert answer.status == 202
        assert answer.json == {"jobId": answer.json["jobId"], "status": "pending"}
        assert answer.headers["Location"] == f"/ai/jobs/{answer.json['jobId']}"
        assert (await client.get(answer.headers["Location"])).json == answer.json
        client.token = token_of(OTHER_USER)
        assert (await client.get(answer.headers["Location"])).status == 404
    api.kill()

    again = start_api(JWT_SECRET=SECRET)
    again.await_ready()
    async with client_of(again) as client:
        client.token = token_of(USER)
        assert (await client.get(answer.headers["Location"])).json == answer.json
        image_host.release()
        await client.job_when(answer.json["jobId"], lambda job: job["status"] == "stored")


async def test_a_delay_is_told_with_its_reason_and_the_next_try(
    start_api: StartApi, start_worker: StartWorker, image_host: ImageHost, png: bytes
) -> None:
    start_worker(RETRY_DELAYS_S="3").await_ready()
    api = start_api(API_WAIT_S="1")
    api.await_ready()
    async with client_of(api) as client:
        await client.login(USER)
        answer = await client.generate(image_host.give("busy.png", UNAVAILABLE, png))
        assert answer.status == 202
        assert (answer.json["status"], answer.json["reason"]) == ("delayed", "source_unavailable")
        assert datetime.fromisoformat(answer.json["nextTryAt"]) < datetime.now(UTC) + timedelta(seconds=3)
        assert (await client.job(answer.json["jobId"])).json == answer.json
        await client.job_when(answer.json["jobId"], lambda job: job["status"] == "stored")


async def test_a_failure_after_the_wait_is_told_by_the_job(
    start_api: StartApi, start_worker: StartWorker, image_host: ImageHost
) -> None:
    start_worker(RETRY_DELAYS_S="1").await_ready()
    api = start_api(API_WAIT_S="0.5")
    api.await_ready()
    async with client_of(api) as client:
        await client.login(USER)
        answer = await client.generate(image_host.give("gone.png", GONE))
        assert answer.status == 202
        job = await client.job_when(answer.json["jobId"], lambda job: job["status"] == "failed")
        assert job["error"]["reason"] == "source_gone"


async def test_a_request_that_is_repeated_with_its_key_stores_one_image(
    api: ApiProcess, image_url: str, image_host: ImageHost, png: bytes, oss: WatchedOss
) -> None:
    async with client_of(api) as client:
        await client.login(USER)
        first, second = await asyncio.gather(*(client.generate(image_url, key="order-7") for _ in range(2)))
        third = await client.generate(image_url, key="order-7")
        assert first.status == 200
        assert first.json == second.json == third.json
        assert len(oss.puts) == 1

        other_body = await client.generate(image_host.give("other.png", png), key="order-7")
        assert (other_body.status, other_body.reason) == (422, "conflicting_event")
        await client.login(OTHER_USER)
        others = await client.generate(image_url, key="order-7")
        assert others.json["jobId"] != first.json["jobId"]
        assert (await client.generate(image_url, key="x" * 256)).reason == "invalid_request"


async def test_a_key_that_was_used_before_a_restart_still_means_the_same_request(
    api: ApiProcess, start_api: StartApi, image_url: str, image_host: ImageHost, png: bytes
) -> None:
    async with client_of(api) as client:
        await client.login(USER)
        first = await client.generate(image_url, key="order-8")
    api.kill()
    again = start_api(API_WAIT_S="30")
    again.await_ready()
    async with client_of(again) as client:
        await client.login(USER)
        assert (await client.generate(image_url, key="order-8")).json == first.json
    again.kill()
    last = start_api(API_WAIT_S="30")
    last.await_ready()
    async with client_of(last) as client:
        await client.login(USER)
        other_body = await client.generate(image_host.give("other.png", png), key="order-8")
        assert (other_body.status, other_body.reason) == (422, "conflicting_event")


async def test_a_request_that_is_repeated_after_a_crash_leaves_one_object(
    start_api: StartApi,
    worker: WorkerProcess,
    image_host: ImageHost,
    png: bytes,
    oss: WatchedOss,
    http: aiohttp.ClientSession,
    database: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    image_host.hold()
    url = image_host.give("slow.png", png)
    first = start_api(API_WAIT_S="0", JWT_SECRET=SECRET)
    first.await_ready()
    async with client_of(first) as client:
        client.token = token_of(USER)
        assert (await client.generate(url, key="order-10")).status == 202
    first.kill()
    again = start_api(API_WAIT_S="60", JWT_SECRET=SECRET)
    again.await_ready()
    async with client_of(again) as client:
        client.token = token_of(USER)
        repeated = asyncio.create_task(client.generate(url, key="order-10"))
        await asyncio.to_thread(eventually, lambda: image_host.requests["slow.png"] == 2, 30)
        image_host.release()
        answer = await repeated
        assert answer.status == 200
    both = await asyncio.to_thread(eventually, lambda: bool(worker.lines("stored") and worker.lines("duplicate")), 30)
    assert both, worker.log
    key = await database.fetchval('SELECT "ossKey" FROM job_outputs')
    assert len(oss.puts) == 2
    there = {put: (await http.head(f"{oss.public_url}/{put}")).status for put in oss.puts}
    assert there == {put: 200 if put == key else 404 for put in oss.puts}


async def test_an_image_that_has_expired_is_gone(
    api: ApiProcess, image_url: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with client_of(api) as client:
        await client.login(USER)
        job_id = (await client.generate(image_url)).json["jobId"]
        for is_gone in ('"expiresAt" = now()', '"expiresAt" = NULL, "deletedAt" = now()'):
            await database.execute(f"UPDATE job_outputs SET {is_gone}")
            answer = await client.job(job_id)
            assert (answer.status, answer.reason) == (410, "expired")


async def test_users_who_cannot_be_read_are_told_as_such(api: ApiProcess, users_file: Path) -> None:
    users_file.write_text("CANARY")  # noqa: ASYNC240 a file of this machine
    async with client_of(api) as client:
        answer = await client.login(USER)
    assert (answer.status, answer.reason) == (503, "users_unavailable")
    assert "is no users file" in api.lines("nobody can log in")[0]["error"]


async def test_where_images_may_not_come_from_is_told_without_a_word_on_our_network(
    start_api: StartApi, start_worker: StartWorker, image_url: str
) -> None:
    start_worker(SOURCE_ALLOWED_NETWORKS="").await_ready()
    api = start_api(API_WAIT_S="30")
    api.await_ready()
    async with client_of(api) as client:
        await client.login(USER)
        answer = await client.generate(image_url)
    assert (answer.status, answer.reason) == (422, "source_forbidden")
    assert answer.json["error"]["detail"] == "the image may not be fetched from there"


async def test_a_stopping_ingress_answers_those_who_wait(
    start_api: StartApi, worker: WorkerProcess, image_host: ImageHost, png: bytes
) -> None:
    image_host.hold()
    url = image_host.give("slow.png", png)
    api = start_api(API_WAIT_S="600")
    api.await_ready()
    async with client_of(api) as client:
        await client.login(USER)
        waiting = asyncio.create_task(client.generate(url))
        await asyncio.to_thread(eventually, lambda: image_host.requests["slow.png"] == 1, 30)
        api.terminate()
        answer = await waiting
        assert (answer.status, answer.json["status"]) == (202, "pending")
    assert await asyncio.to_thread(api.await_end) == 0
    image_host.release()


async def test_a_caller_who_leaves_is_not_waited_for(
    start_api: StartApi, worker: WorkerProcess, image_host: ImageHost, image_url: str, png: bytes
) -> None:
    image_host.hold()
    slow = image_host.give("slow.png", png)
    api = start_api(API_WAIT_S="600")
    await asyncio.to_thread(api.await_ready)
    async with client_of(api) as client:
        await client.login(USER)
        leaving = asyncio.create_task(client.generate(slow))
        await asyncio.to_thread(eventually, lambda: image_host.requests["slow.png"] == 1, 30)
        leaving.cancel()
        await asyncio.wait((leaving,))
        assert (await client.get("/nowhere")).status == 404  # the ingress has turned to what came after
        image_host.release()
        assert await asyncio.to_thread(eventually, lambda: bool(worker.lines("stored")), 30)
        assert (await client.generate(image_url)).status == 200  # its outcome came after the other's
    answered = [line["route"] for line in api.lines("answered")]
    assert answered.count("/ai/generate-image") == 1


async def test_a_stopping_ingress_says_goodbye_to_a_broker_that_is_slow(
    start_api: StartApi, amqp_url: str, worker: WorkerProcess
) -> None:
    async with Proxy(amqp_url) as proxy:
        api = start_api(AMQP_URL=proxy.url())
        await asyncio.to_thread(api.await_ready)
        proxy.to_client.latency_s = 0.5  # longer than everything else that a stop takes
        goodbye = proxy.to_client.cut_when(CONNECTION_CLOSE_OK)
        assert await asyncio.to_thread(api.stop) == 0
        assert goodbye.is_set()


async def test_requests_are_counted_by_status_and_logged_without_what_was_sent(api: ApiProcess, image_url: str) -> None:
    async with client_of(api) as client:
        await client.login(USER, "CANARY-wrong")
        await client.login(USER)
        await client.generate(f"{image_url}?signature=CANARY")
    status, metrics = api.get("/metrics")
    assert status == 200
    assert 'image_uploads_api_requests_total{code="200"} 2.0' in metrics
    assert 'image_uploads_api_requests_total{code="401"} 1.0' in metrics
    assert [(line["route"], line["status"]) for line in api.lines("answered")] == [
        ("/auth/login", 401),
        ("/auth/login", 200),
        ("/ai/generate-image", 200),
    ]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"JWT_SECRET": "CANARY-too-short"[:15]}, "JWT_SECRET must have at least 16 characters"),
        ({"JWT_USER_CLAIM": "exp"}, "JWT_USER_CLAIM must not be a claim that means something else"),
        (
            {"JWT_SECRET": "CANARY-long-enough", "JWT_PUBLIC_KEY": "CANARY-2"},
            "set only one of JWT_SECRET",
        ),
        ({"JWT_PUBLIC_KEY": "CANARY"}, "JWT_PUBLIC_KEY is no public key in PEM"),
        ({"JWT_JWKS_URL": "CANARY"}, "JWT_JWKS_URL"),
        ({"API_WAIT_S": "-1"}, "API_WAIT_S should be greater than or equal to 0"),
        ({"API_HOST": "192.0.2.1"}, "cannot be listened on"),
        ({"API_USERS_FILE": "/proc/users.json"}, "API_USERS_FILE /proc/users.json"),
        ({"DATABASE_URL": "postgresql://u:CANARY@host/db?nonsense=1&sslmode=CANARY"}, "DATABASE_URL is not understood"),
    ],
)
def test_a_wrong_setting_stops_it_with_one_sentence(start_api: StartApi, settings: dict[str, str], says: str) -> None:
    api = start_api(**settings)
    assert api.await_end() == 2
    assert says in api.log
    assert "CANARY" not in api.log
    assert len(api.log.strip().splitlines()) == 1
