"""`check` finds what is wrong, one by one, and the mend that it prints works when it is pasted."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from consumer.adapters import migrations, postgres, rabbit
from sandbox.oss import Fault, Kind, OssServer
from sandbox.postgres import ask
from sandbox.process import eventually, free_port
from schemas import topology
from tests.e2e.background import Background
from tests.e2e.conftest import StartWorker
from tests.e2e.product_process import WorkerProcess
from tests.e2e.project import Project
from tests.e2e.test_start import CANARY, with_login
from tests.e2e.watched_oss import ACCOUNT, WatchedOss
from tests.e2e.wire import RETRY_DELAYS_S
from tests.named_servers import with_path

pytestmark = pytest.mark.real


@pytest.fixture
def bare(settings: dict[str, str], tmp_path: Path) -> Project:
    """A project whose servers have nothing of ours yet."""
    directory = tmp_path / "project"
    directory.mkdir()
    return Project(directory, {**settings, "PREFETCH": "1"})


@pytest_asyncio.fixture
async def project(bare: Project, amqp_url: str, database_url: str) -> Project:
    """A project in which nothing is wrong."""
    await rabbit.close(await rabbit.connect_and_declare(amqp_url, "test", RETRY_DELAYS_S))
    pool = await postgres.open_pool(database_url)
    await migrations.migrate(pool)
    await pool.close()
    return bare


def dead(url: str) -> str:
    """The URL with a port that nobody listens on."""
    parts = urlsplit(url)
    user, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}{at}127.0.0.1:{free_port()}").geturl()


def test_with_a_worker_everything_is_found_to_be_fine(project: Project, worker: WorkerProcess) -> None:
    checklist = project.check()
    assert checklist.exit_code == 0
    assert {finding["verdict"] for finding in checklist.findings} == {"ok"}
    assert {finding["subject"] for finding in checklist.findings} == {
        "settings",
        "RabbitMQ",
        "PostgreSQL",
        "OSS",
        "TEMP_DIR",
    }


def test_nobody_at_work_is_a_warning_and_no_error(project: Project) -> None:
    checklist = project.check()
    (finding,) = checklist.of("RabbitMQ", "warning")
    assert "no worker" in finding["text"]
    assert finding["mend"].endswith("-m consumer worker")
    assert checklist.exit_code == 0


def test_a_line_per_finding_is_shown_with_its_mend_below(bare: Project) -> None:
    done = bare.say()
    assert done.returncode == 1
    assert "\nok       OSS: the bucket e2e-images takes an object\n" in done.stdout
    line, below = done.stdout.split("\nwrong    PostgreSQL: ")[1].splitlines()[:2]
    assert "not applied yet" in line
    assert below.startswith("         mend: ")
    assert below.endswith("-m consumer migrate")


def test_wrong_usage_ends_with_2(bare: Project) -> None:
    assert bare.say("--timeout", "soon").returncode == 2


async def test_a_check_makes_nothing(
    bare: Project, amqp_url: str, database_url: str, oss: WatchedOss, temp_dir: Path
) -> None:
    bare.check("--roundtrip")
    connection = await rabbit.connect(amqp_url, "test")
    names = [queue.name for queue in topology.queues(RETRY_DELAYS_S)]
    assert await rabbit.queue_sizes(connection, names) == {}
    await rabbit.close(connection)
    assert ask(database_url, "SELECT count(*) FROM pg_class WHERE relname LIKE '%job%'") == 0
    assert not oss.puts
    assert os.listdir(temp_dir) == []  # noqa: PTH208 an asynchronous test may not block on a Path


def test_a_check_leaves_no_row_behind(project: Project, database_url: str) -> None:
    assert project.check().trouble() == []
    assert ask(database_url, "SELECT count(*) FROM job_failures") == 0


@dataclass(frozen=True)
class Slip:
    """A wrong setting, where it shows, and what its owner types when the mend asks."""

    name: str
    wrong: str
    subject: str
    words: str
    typed: tuple[str, ...] = ()


SLIPS = [
    Slip("OSS_SECRET", "wrong", "OSS", "SignatureDoesNotMatch", (ACCOUNT.access_key_secret,)),
    Slip("OSS_ACCESS_KEY", "nobody", "OSS", "InvalidAccessKeyId", (ACCOUNT.access_key_id, ACCOUNT.access_key_secret)),
    Slip("OSS_BUCKET", "missing", "OSS", "NoSuchBucket", ("e2e-images",)),
    Slip("OSS_BUCKET", "", "settings", "OSS_BUCKET is not set", ("e2e-images",)),
    Slip("OSS_SECRET", "", "settings", "OSS_SECRET is not set", (ACCOUNT.access_key_secret,)),
    Slip("OSS_REGION", "cn-beijing", "OSS", "Invalid signing region", ("cn-hangzhou",)),
    Slip("OSS_ENDPOINT", "http://127.0.0.1:1", "OSS", "did not answer", ("{OSS_ENDPOINT}",)),
    Slip("OSS_BASE_URL", "{OSS_ENDPOINT}/elsewhere", "OSS", "OSS_BASE_URL does not lead", ("{OSS_BASE_URL}",)),
    Slip("DATABASE_URL", "mysql://root@localhost/x", "settings", "DATABASE_URL must start", ("{DATABASE_URL}",)),
    Slip("AMQP_URL", "amqp://guest:wrong@{broker}/", "RabbitMQ", "refuses the login", ("{AMQP_URL}",)),
    Slip("PREFETCH", "many", "settings", "PREFETCH"),
    Slip("LOG_LEVEL", "loud", "settings", "LOG_LEVEL"),
    Slip("SOURCE_TIMEOUT_S", "400", "settings", "HANDLER_TIMEOUT_S must be at least"),
    Slip("TEMP_DIR", "temp", "settings", "TEMP_DIR must be an absolute path"),
]


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: f"{slip.name}={slip.wrong}")
def test_a_wrong_setting_is_found_and_its_mend_works_when_pasted(
    project: Project, settings: dict[str, str], slip: Slip
) -> None:
    project.add(**{slip.name: slip.wrong.format(**known(settings))})
    mend_pasted(project, settings, slip)


@pytest.mark.parametrize("slip", SLIPS[:1] + SLIPS[-4:], ids=lambda slip: f"{slip.name}={slip.wrong}")
def test_a_wrong_setting_of_the_shell_outranks_the_env_file_and_is_mended_in_the_shell(
    project: Project, settings: dict[str, str], slip: Slip
) -> None:
    project.shell[slip.name] = slip.wrong.format(**known(settings))
    before = project.env_file.read_text()
    mend_pasted(project, settings, slip)
    if slip.name != "SOURCE_TIMEOUT_S":  # whose mend is another setting
        assert project.env_file.read_text() == before


def known(settings: dict[str, str]) -> dict[str, str]:
    """What stands for the braces of a slip."""
    servers = {"broker": "AMQP_URL", "database": "DATABASE_URL"}
    return {
        **settings,
        **{name: urlsplit(settings[url]).netloc.rpartition("@")[2] for name, url in servers.items()},
    }


def mend_pasted(project: Project, settings: dict[str, str], slip: Slip) -> None:
    found = project.check().of(slip.subject, "wrong")
    assert len(found) == 1, found
    assert slip.words in found[0]["text"]
    project.paste(found[0]["mend"], *(typed.format(**known(settings)) for typed in slip.typed))
    assert project.check().trouble() == []


@pytest.mark.parametrize(("setting", "subject"), [("DATABASE_URL", "PostgreSQL"), ("AMQP_URL", "RabbitMQ")])
def test_a_server_that_nobody_answers_for_is_found(
    project: Project, settings: dict[str, str], setting: str, subject: str
) -> None:
    project.add(**{setting: dead(settings[setting])})
    checklist = project.check()
    (finding,) = checklist.of(subject, "wrong")
    assert "nobody answers at 127.0.0.1:" in finding["text"]
    assert len(checklist.trouble()) == 1
    project.paste(finding["mend"], settings[setting])
    assert project.check().trouble() == []


def test_a_broker_without_the_queues_is_found(bare: Project) -> None:
    (finding,) = bare.check().of("RabbitMQ", "wrong")
    assert "not there: the exchange images" in finding["text"]
    bare.paste(finding["mend"])
    assert bare.check().of("RabbitMQ", "wrong") == []


async def test_one_missing_queue_is_found_by_its_name(project: Project, amqp_url: str) -> None:
    connection = await rabbit.connect(amqp_url, "test")
    async with connection.channel() as channel:
        await channel.queue_delete(topology.WORK_QUEUE)
    await rabbit.close(connection)
    (finding,) = project.check().of("RabbitMQ", "wrong")
    assert finding["text"] == "not there: image-uploads"
    project.paste(finding["mend"])
    assert project.check().trouble() == []


async def test_a_queue_with_other_arguments_is_found_and_left_alone(bare: Project, amqp_url: str) -> None:
    connection = await rabbit.connect(amqp_url, "test")
    async with connection.channel() as channel:
        await channel.declare_queue(topology.DEAD_QUEUE, durable=True)
    found = bare.check().of("RabbitMQ", "wrong")
    assert "image-uploads.dead exists with other arguments" in found[0]["text"]
    assert "delete_queue" in found[0]["mend"]
    assert await rabbit.queue_sizes(connection, [topology.DEAD_QUEUE]) == {topology.DEAD_QUEUE: 0}
    await rabbit.close(connection)


def test_a_virtual_host_that_is_not_there_is_found(project: Project, settings: dict[str, str]) -> None:
    project.add(AMQP_URL=with_path(settings["AMQP_URL"], "not there"))
    (finding,) = project.check().of("RabbitMQ", "wrong")
    assert "refuses the virtual host" in finding["text"]
    project.stand_in("rabbitmqctl", 'printf "%s|" "$@" >> ctl; echo >> ctl')
    project.paste(finding["mend"])
    assert (project.directory / "ctl").read_text().splitlines() == [
        "add_vhost|not there|",
        "set_permissions|-p|not there|guest|.*|.*|.*|",
    ]


def test_tables_that_are_not_there_are_found(bare: Project) -> None:
    (finding,) = bare.check().of("PostgreSQL", "wrong")
    assert "not applied yet: 0001" in finding["text"]
    bare.paste(finding["mend"])
    assert bare.check().of("PostgreSQL", "wrong") == []


def test_a_table_of_somebody_elses_is_found_and_moved_aside(bare: Project, database_url: str) -> None:
    ask(database_url, "CREATE TABLE job_outputs (id serial PRIMARY KEY)")
    (finding,) = bare.check().of("PostgreSQL", "wrong")
    assert "made by something else" in finding["text"]
    bare.paste(finding["mend"])
    assert bare.check().of("PostgreSQL", "wrong") == []
    assert ask(database_url, "SELECT count(*) FROM job_outputs_old") == 0


def test_a_database_that_is_not_there_is_found(bare: Project, database_url: str) -> None:
    name = f"test_{token_hex(6)}"
    bare.add(DATABASE_URL=with_path(database_url, name))
    (finding,) = bare.check().of("PostgreSQL", "wrong")
    assert "no such database" in finding["text"]
    try:
        bare.paste(finding["mend"])
        (finding,) = bare.check().of("PostgreSQL", "wrong")
        assert "not applied yet" in finding["text"]
    finally:
        ask(database_url, f"DROP DATABASE {name}")


@pytest.fixture
def clerk(database_url: str) -> Iterator[str]:
    """A database user who may do nothing; the URL with that user's login."""
    name = f"clerk_{token_hex(4)}"
    ask(database_url, f"CREATE ROLE {name} LOGIN PASSWORD '{CANARY}'")
    ask(database_url, "REVOKE CREATE, USAGE ON SCHEMA public FROM public")
    yield with_login(database_url, name)
    ask(database_url, f"DROP OWNED BY {name}")
    ask(database_url, f"DROP ROLE {name}")


def test_missing_rights_are_found_one_after_the_other(project: Project, clerk: str) -> None:
    project.add(DATABASE_URL=clerk)
    words = ["may not use the schema", "lacks"]
    for word in words:
        (finding,) = project.check().of("PostgreSQL", "wrong")
        assert word in finding["text"]
        project.paste(finding["mend"])
    assert project.check().trouble() == []


def test_one_missing_right_is_named(project: Project, clerk: str, database_url: str) -> None:
    name = urlsplit(clerk).username
    ask(database_url, f"GRANT USAGE ON SCHEMA public TO {name}")
    ask(database_url, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}")
    ask(database_url, f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}")
    ask(database_url, f"REVOKE INSERT ON job_failures FROM {name}")
    project.add(DATABASE_URL=clerk)
    (finding,) = project.check().of("PostgreSQL", "wrong")
    assert finding["text"] == f"{name} lacks INSERT on job_failures"
    assert "psql postgresql://postgres@" in finding["mend"]
    project.paste(finding["mend"])
    assert project.check().trouble() == []


def test_who_may_not_make_tables_is_told_to_be_let_first(bare: Project, clerk: str, database_url: str) -> None:
    ask(database_url, f"GRANT USAGE ON SCHEMA public TO {urlsplit(clerk).username}")
    bare.add(DATABASE_URL=clerk)
    found = bare.check().of("PostgreSQL", "wrong")
    assert ["may not make tables" in found[0]["text"], "not applied yet" in found[1]["text"]] == [True, True]
    for finding in found:
        bare.paste(finding["mend"])
    assert bare.check().of("PostgreSQL", "wrong") == []


def test_a_database_that_takes_no_rows_is_found(project: Project, settings: dict[str, str], database_url: str) -> None:
    ask(database_url, "ALTER DATABASE " + urlsplit(database_url).path[1:] + " SET default_transaction_read_only = on")
    (finding,) = project.check().of("PostgreSQL", "wrong")
    assert "read-only" in finding["text"]


@pytest.fixture
def elsewhere(oss: WatchedOss, servers: Background, tmp_path: Path) -> Iterator[OssServer]:
    """The endpoint of another region than the bucket's."""
    server = OssServer(tmp_path / "elsewhere", ACCOUNT, bucket=oss.bucket, lives_at=urlsplit(oss.url).netloc)
    servers.run(server.__aenter__())
    yield server
    servers.run(server.__aexit__())


def test_an_endpoint_of_another_region_is_found_and_the_right_one_is_in_the_mend(
    project: Project, elsewhere: OssServer
) -> None:
    project.add(OSS_ENDPOINT=elsewhere.url)
    (finding,) = project.check().of("OSS", "wrong")
    assert "must be addressed using the specified endpoint" in finding["text"]
    project.paste(finding["mend"])
    assert project.check().trouble() == []


def test_the_default_domain_is_warned_of_whatever_else_is_wrong(project: Project) -> None:
    project.add(OSS_BASE_URL="", OSS_SECRET="wrong")
    checklist = project.check()
    assert checklist.of("OSS", "wrong")
    (finding,) = checklist.of("OSS", "warning")
    assert "browsers download images from https://e2e-images.oss-cn-hangzhou.aliyuncs.com" in finding["text"]
    project.paste(finding["mend"], "https://img.example.com")
    assert not project.check().of("OSS", "warning")


def test_a_key_that_may_not_put_is_found_and_the_policy_is_in_the_mend(project: Project, oss: WatchedOss) -> None:
    oss.faults.add(Fault(Kind.DENY, method="PUT"))
    (finding,) = project.check().of("OSS", "wrong")
    assert "AccessDenied" in finding["text"]
    project.stand_in("aliyun", 'for word; do echo "$word"; done >> aliyun.log')
    project.paste(finding["mend"], "image-uploads-worker")
    words = (project.directory / "aliyun.log").read_text().splitlines()
    assert words[:2] == ["ram", "CreatePolicy"]
    assert words[-1] == "image-uploads-worker"
    policy = json.loads(words[words.index("--PolicyDocument") + 1])
    assert policy["Statement"][0]["Action"] == ["oss:PutObject", "oss:DeleteObject"]
    assert policy["Statement"][0]["Resource"] == ["acs:oss:*:*:e2e-images/users/*"]
    assert policy["Statement"][1]["Action"] == ["oss:ListObjects"]


def test_a_key_that_may_not_delete_is_found(project: Project, oss: WatchedOss) -> None:
    oss.faults.add(Fault(Kind.DENY, method="DELETE"))
    (finding,) = project.check().of("OSS", "wrong")
    assert "oss:DeleteObject" in finding["mend"]


def test_a_bucket_that_cannot_be_listed_is_warned_of_and_a_policy_for_our_prefix_is_in_the_mend(
    project: Project, oss: WatchedOss
) -> None:
    oss.faults.add(Fault(Kind.DENY, method="GET", times=2))  # whoever reads comes first
    checklist = project.check()
    (finding,) = [found for found in checklist.of("OSS", "warning") if "listed" in found["text"]]
    assert "reconcile" in finding["text"]
    project.stand_in("aliyun", 'for word; do echo "$word"; done >> aliyun.log')
    project.paste(finding["mend"], "image-uploads-worker")
    words = (project.directory / "aliyun.log").read_text().splitlines()
    (statement,) = json.loads(words[words.index("--PolicyDocument") + 1])["Statement"]
    assert (statement["Action"], statement["Resource"]) == (["oss:ListObjects"], ["acs:oss:*:*:e2e-images"])
    assert statement["Condition"] == {"StringLike": {"oss:Prefix": ["users/*"]}}
    assert project.check().of("OSS", "warning", "wrong") == []


def test_plain_urls_of_a_private_bucket_are_warned_of(
    project: Project, oss: WatchedOss, servers: Background, tmp_path: Path
) -> None:
    private = OssServer(tmp_path / "private", ACCOUNT, bucket=oss.bucket, private=True)
    servers.run(private.__aenter__())
    try:
        project.add(OSS_ENDPOINT=private.url, OSS_BASE_URL=f"{private.url}/{private.bucket}")
        (finding,) = project.check().of("OSS", "warning")
        assert "the bucket is private" in finding["text"]
        project.paste(finding["mend"])
        assert project.check().of("OSS", "warning", "wrong") == []
    finally:
        servers.run(private.__aexit__())


def test_a_temp_dir_that_cannot_be_written_is_found(project: Project, temp_dir: Path) -> None:
    before: list[str] = []
    if os.geteuid() == 0:
        before = ["setpriv", "--bounding-set=-all"]  # root may write anywhere, but for this
        os.chown(temp_dir, 65534, 65534)
    else:
        temp_dir.chmod(0o555)
    (finding,) = project.check(before=before).of("TEMP_DIR", "wrong")
    assert "cannot write" in finding["text"]
    project.paste(finding["mend"])
    assert project.check(before=before).trouble() == []


def test_a_temp_dir_that_nobody_has_made_yet_is_a_warning(project: Project, temp_dir: Path) -> None:
    temp_dir.rmdir()
    (finding,) = project.check().of("TEMP_DIR", "warning")
    project.paste(finding["mend"])
    assert project.check().of("TEMP_DIR", "warning", "wrong") == []


def test_a_temp_dir_that_is_a_file_is_found_and_the_file_is_kept(project: Project, temp_dir: Path) -> None:
    temp_dir.rmdir()
    temp_dir.write_text("mine")
    (finding,) = project.check().of("TEMP_DIR", "wrong")
    project.paste(finding["mend"])
    assert project.check().trouble() == []
    assert temp_dir.with_name("temp.old").read_text() == "mine"


def test_a_mend_begins_a_new_line_in_an_env_file_that_does_not_end_with_one(project: Project) -> None:
    project.add(PREFETCH="many")
    project.env_file.write_text(project.env_file.read_text().rstrip("\n"))
    (finding,) = project.check().of("settings", "wrong")
    project.paste(finding["mend"])
    assert project.check().trouble() == []


def test_what_depends_on_a_wrong_setting_is_skipped_and_the_rest_is_looked_at(project: Project) -> None:
    project.add(AMQP_URL="http://localhost/", OSS_SECRET="")
    checklist = project.check("--roundtrip")
    assert [finding["subject"] for finding in checklist.findings if finding["verdict"] == "skipped"] == [
        "RabbitMQ",
        "OSS",
        "roundtrip",
    ]
    assert checklist.of("PostgreSQL", "ok")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"AMQP_URL": f"amqp://guest:{CANARY}@{{broker}}/"},
        {"AMQP_URL": f"amqp://guest:{CANARY}@localhost:port/"},
        {"DATABASE_URL": f"postgresql://nobody:{CANARY}@{{database}}/postgres?password={CANARY}"},
        {"DATABASE_URL": f"postgresql://postgres:{CANARY}@{{database}}/nothing?passfile={CANARY}"},
        {"DATABASE_URL": f"postgresql://postgres:{CANARY}@{{database}}/postgres?unheard_of={CANARY}"},
        {"DATABASE_URL": f"mysql://root:{CANARY}@localhost/images"},
        {"OSS_ENDPOINT": f"https://key:{CANARY}@oss.example.com/path"},
        {"OSS_BASE_URL": f"https://key:{CANARY}@oss.example.com/path"},
    ],
    ids=str,
)
def test_no_secret_is_ever_shown(project: Project, settings: dict[str, str], changes: dict[str, str]) -> None:
    secrets = dict.fromkeys(("OSS_ACCESS_KEY", "OSS_SECRET", "OSS_SESSION_TOKEN"), CANARY)
    project.add(**secrets, **{name: value.format(**known(settings)) for name, value in changes.items()})
    done = project.say()
    assert done.returncode == 1
    for shown in (done.stdout, done.stderr, json.dumps(project.check().findings)):
        assert CANARY not in shown
        assert "Traceback" not in shown


@pytest_asyncio.fixture
async def rows(database_url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def test_the_roundtrip_finds_every_trace_of_its_image(
    project: Project, worker: WorkerProcess, rows: "asyncpg.Connection[Any]", temp_dir: Path, oss: WatchedOss
) -> None:
    checklist = project.check("--roundtrip")
    assert checklist.exit_code == 0
    texts = [finding["text"] for finding in checklist.of("roundtrip", "ok")]
    for words, text in zip(
        (
            "a worker took",
            f"leads to a CDN or a domain of your own: {oss.public_url}/",
            "byte-identical",
            "row",
            "gone",
        ),
        texts,
        strict=True,
    ):
        assert words in text
    row = await rows.fetchrow('SELECT "jobId", "expiresAt" - "createdAt" AS life FROM job_outputs')
    assert row is not None
    assert row["jobId"].startswith("check-")
    assert 3500 < row["life"].total_seconds() < 3700
    assert os.listdir(temp_dir) == []  # noqa: PTH208 the same


def test_a_roundtrip_without_a_worker_says_so_and_sends_nothing(project: Project, temp_dir: Path) -> None:
    (finding,) = project.check("--roundtrip").of("roundtrip", "wrong")
    assert "no worker takes deliveries" in finding["text"]
    assert finding["mend"].endswith("-m consumer worker")
    assert not list(temp_dir.iterdir())


def test_a_roundtrip_through_a_worker_with_another_base_url_says_so(
    project: Project, start_worker: StartWorker, oss: WatchedOss
) -> None:
    start_worker(OSS_BASE_URL=f"http://localhost:{urlsplit(oss.url).port}/{oss.bucket}").await_ready()
    (finding,) = project.check("--roundtrip").of("roundtrip", "wrong")
    assert "the worker has another OSS_BASE_URL" in finding["text"]
    project.paste(finding["mend"])
    assert project.check("--roundtrip").trouble() == []


def test_a_roundtrip_through_a_worker_with_another_temp_dir_says_so(
    project: Project, start_worker: StartWorker, tmp_path: Path, temp_dir: Path
) -> None:
    (tmp_path / "other").mkdir()
    start_worker(TEMP_DIR=str(tmp_path / "other")).await_ready()
    (finding,) = project.check("--roundtrip").of("roundtrip", "wrong")
    assert "source_forbidden: the path is not inside TEMP_DIR" in finding["text"]
    assert not list(temp_dir.iterdir())


def test_a_roundtrip_while_the_store_refuses_the_worker_says_where_to_look(
    project: Project, start_worker: StartWorker
) -> None:
    worker = start_worker(OSS_SECRET="another")
    assert eventually(lambda: bool(worker.lines("intake is paused")), 30), worker.log
    (finding,) = project.check("--roundtrip", "--timeout", "3").of("roundtrip", "wrong")
    assert "one that runs takes none while a dependency fails its probe, which its /readyz names" in finding["text"]
    assert "storage" in worker.get("/readyz")[1]


def test_a_roundtrip_whose_object_is_refused_says_by_what_it_is_delayed(
    project: Project, worker: WorkerProcess, oss: WatchedOss
) -> None:
    oss.faults.add(Fault(Kind.DENY, method="PUT", key_prefix="users/image-uploads-check/"))
    (finding,) = project.check("--roundtrip", "--timeout", "3").of("roundtrip", "wrong")
    assert "delays it by storage_refused" in finding["text"]


async def test_a_roundtrip_without_a_binding_says_so_and_leaves_nothing(
    project: Project, worker: WorkerProcess, amqp_url: str, temp_dir: Path
) -> None:
    connection = await rabbit.connect(amqp_url, "test")
    async with connection.channel() as channel:
        queue = await channel.get_queue(topology.WORK_QUEUE)
        await queue.unbind(topology.EXCHANGE, "image.generated")
    await rabbit.close(connection)
    (finding,) = project.check("--roundtrip").of("roundtrip", "wrong")
    assert "no queue is bound to images" in finding["text"]
    assert os.listdir(temp_dir) == []  # noqa: PTH208 the same
    project.paste(finding["mend"])
    assert project.check("--roundtrip").trouble() == []


def test_a_roundtrip_into_another_database_says_so(project: Project, worker: WorkerProcess, database_url: str) -> None:
    other = f"test_{token_hex(6)}"
    ask(database_url, f"CREATE DATABASE {other} TEMPLATE template0")
    try:
        project.add(DATABASE_URL=with_path(database_url, other))
        project.paste(project.check().of("PostgreSQL", "wrong")[0]["mend"])
        (finding,) = project.check("--roundtrip").of("roundtrip", "wrong")
        assert "the worker writes into another database" in finding["text"]
        project.paste(finding["mend"], database_url)
        assert project.check("--roundtrip").trouble() == []
    finally:
        ask(database_url, f"DROP DATABASE {other} WITH (FORCE)")
