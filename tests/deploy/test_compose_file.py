"""docker-compose.yml cannot be run where there is no Docker engine; everything that it says can be looked at."""

import asyncio
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import yaml

from consumer.adapters.oss import OssStore
from consumer.settings import WorkerSettings
from producer.settings import ApiSettings, TokenSettings
from sandbox.oss.__main__ import main as oss_server
from schemas.environment import SettingsError, load
from tests.deploy import docker_file
from tests.deploy.compose_file import FILE, ROOT, compose, services

OURS = ("worker", "worker-aliyun", "api", "oss")
WORKERS = ("worker", "worker-aliyun")
NODE = ROOT / "tests" / "node"

# What somebody has in .env who runs a worker outside of containers, on services of his own.
LOCAL = {
    "AMQP_URL": "amqp://guest:guest@localhost:5672/",
    "DATABASE_URL": "postgresql://postgres@localhost:5432/image_uploads",
    "OSS_BUCKET": "local-images",
    "OSS_REGION": "cn-beijing",
    "OSS_ACCESS_KEY": "local",
    "OSS_SECRET": "CANARY-local-secret",
    "OSS_ENDPOINT": "http://127.0.0.1:9999",
    "OSS_BASE_URL": "http://127.0.0.1:9999/local-images",
    "TEMP_DIR": "/srv/images",
    "METRICS_HOST": "127.0.0.1",
    "METRICS_PORT": "9999",
    "API_HOST": "127.0.0.1",
    "API_PORT": "9998",
    "API_USERS_FILE": "users.json",
}
REAL = {
    "OSS_BUCKET": "your-bucket",
    "OSS_REGION": "oss-cn-hangzhou",
    "OSS_ACCESS_KEY": "key",
    "OSS_SECRET": "secret",
    "OSS_BASE_URL": "https://images.example.com",
}


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    assert (NODE / "node_modules").is_dir(), "run `sandbox/setup node`"
    command = [str(NODE / "node_modules/.bin/dclint"), "--max-warnings", "0"]
    return subprocess.run(
        [*command, "--config", str(Path(__file__).with_name("dclint.yaml")), str(file)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_linter_of_compose_files_which_knows_their_schema_has_nothing_to_say() -> None:
    done = lint(FILE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("planted", "says"),
    [
        ("stop_grace_perod: 40s", "invalid-schema"),
        ("ports: ['9464:9464']", "no-unbound-port-interfaces"),
        ("image: postgres", "service-image-require-explicit-tag"),
    ],
)
def test_it_would_say_something(tmp_path: Path, planted: str, says: str) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(f"{FILE.read_text().partition('services:')[0]}services:\n  it:\n    image: a:1\n    {planted}\n")
    if planted.startswith("image"):
        broken.write_text(broken.read_text().replace("    image: a:1\n", ""))
    done = lint(broken)
    assert done.returncode == 1
    assert says in done.stdout


def test_it_needs_no_variable_and_uses_no_form_that_warns_of_one() -> None:
    assert "$" not in yaml.safe_dump(compose())


def test_every_volume_is_a_file_of_ours_or_declared_and_every_declared_one_is_used() -> None:
    declared = set(compose()["volumes"])
    sources = {volume.split(":")[0] for service in services().values() for volume in service.get("volumes", [])}
    ours = {source for source in sources if source.startswith(("/", ".", "~"))}
    assert sources - ours == declared
    assert ours
    for source in ours:
        assert (ROOT / source).exists(), source
    read_only = {volume for service in services().values() for volume in service.get("volumes", []) if volume[0] == "."}
    assert all(volume.endswith(":ro") for volume in read_only)


def test_services_wait_only_for_those_that_exist_and_can_answer() -> None:
    known = services()
    waits = [(on, how["condition"]) for it in known.values() for on, how in it.get("depends_on", {}).items()]
    assert waits
    for on, condition in waits:
        assert on in known
        assert "profiles" not in known[on], "it would be started although nobody asked for its profile"
        assert condition != "service_healthy" or on in OURS or "healthcheck" in known[on]


def test_services_look_only_for_those_that_exist() -> None:
    known = services(REAL)
    names = set(known) | {
        alias for it in known.values() for alias in it.get("networks", {}).get("default", {}).get("aliases", [])
    }
    urls = [it["environment"][name] for it in known.values() for name in it.get("environment", {}) if "_URL" in name]
    inside = {host for url in urls if (host := urlsplit(url).hostname) and "." not in host}
    datasource = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    inside.add(str(urlsplit(datasource["datasources"][0]["url"]).hostname))
    inside |= {name for job in scrape_configs().values() for name in job["names"]}
    assert inside == {"rabbitmq", "postgres", "worker", "api", "prometheus"}
    assert inside <= names


def scrape_configs() -> dict[str, dict[str, Any]]:
    """Where each job looks."""
    content = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    return {job["job_name"]: job["dns_sd_configs"][0] for job in content["scrape_configs"]}


def test_prometheus_and_the_health_checks_ask_the_ports_that_are_served() -> None:
    metrics = WorkerSettings.model_fields["metrics_port"].default
    assert scrape_configs()["worker"]["port"] == metrics
    ports = {"worker": metrics, "worker-aliyun": metrics, "api": published("api"), "oss": published("oss")}
    assert scrape_configs()["api"]["port"] == ports["api"]
    assert {name: urlsplit(environment_of(name)["HEALTH_URL"]).port for name in OURS} == ports


def published(name: str) -> int:
    """The port that is served inside of the container."""
    (port,) = services()[name]["ports"]
    return int(port.split(":")[-1])


def environment_of(name: str, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """All that the program in the container sees of ours."""
    service = services(variables)[name]
    set_here: dict[str, str] = service.get("environment", {})
    return docker_file.environment(service["build"]["target"]) | set_here


def test_every_published_port_is_this_machines_only_and_none_is_published_twice() -> None:
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert len(ports) >= 7
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_what_is_scaled_has_neither_a_name_nor_a_port_of_its_own() -> None:
    for name in WORKERS:
        assert not {"container_name", "hostname", "ports"} & set(services()[name])


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_change_nothing_but_their_volumes(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "user", "devices", "pid", "network_mode"} & set(service)
    assert docker_file.last(service["build"]["target"], "USER") == "10001:10001"


def test_no_container_may_gain_privileges() -> None:
    assert all(service["security_opt"] == ["no-new-privileges:true"] for service in services().values())


@pytest.mark.parametrize("name", OURS)
def test_a_stopping_container_has_longer_than_its_drain_takes(name: str) -> None:
    grace_s = float(services()[name]["stop_grace_period"].removesuffix("s"))
    assert grace_s > WorkerSettings.model_fields["drain_timeout_s"].default + 5


@pytest.mark.parametrize("name", OURS)
def test_what_a_container_writes_to_belongs_to_its_user(name: str) -> None:
    service = services()[name]
    (made,) = [rest for stage in docker_file.lineage(service["build"]["target"]) for rest in stage.all_of("RUN")][-1:]
    owned = made.partition("install --directory --owner=10001 --group=10001 ")[2].split()
    targets = [volume.split(":")[1] for volume in service["volumes"]]
    assert targets
    assert set(targets) <= set(owned)


def test_generators_and_workers_share_the_directory_of_temp_files() -> None:
    volume = f"temp:{WorkerSettings.model_fields['temp_dir'].default}"
    assert all(volume in services()[name]["volumes"] for name in (*WORKERS, "api"))


@pytest.mark.parametrize("name", OURS)
def test_the_image_of_every_container_of_ours_can_be_built(name: str) -> None:
    build = services()[name]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]) == docker_file.FILE
    assert build["target"] in docker_file.stages()


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists_and_takes_its_arguments(name: str) -> None:
    service = services()[name]
    command = service.get("command") or docker_file.exec_form(docker_file.last(service["build"]["target"], "CMD"))
    run, arguments = program(command)
    run.make_context(command[0], arguments)  # refuses what it does not know


def program(command: list[str]) -> tuple[click.Command, list[str]]:
    """The click command that the words run, and what it is given."""
    if command[:3] == ["python", "-m", "sandbox.oss"]:
        return oss_server, command[3:]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    package = scripts[command[0]].partition(".")[0]
    group: click.Group = import_module(f"{package}.cli").cli
    return group.commands[command[1]], command[2:]


Start = Callable[..., WorkerSettings]


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives this process the environment of a container."""

    def set_all(name: str, variables: Mapping[str, str] | None = None) -> None:
        for variable, value in environment_of(name, variables).items():
            if variable != "PATH":
                monkeypatch.setenv(variable, value)

    return set_all


@pytest.fixture
def worker_settings(enter: Callable[..., None]) -> Start:
    """What a worker in a container makes of its environment."""

    def read(name: str, variables: Mapping[str, str] | None = None) -> WorkerSettings:
        enter(name, variables)
        return load(WorkerSettings)

    return read


def test_the_default_worker_starts_without_any_variable(worker_settings: Start) -> None:
    settings = worker_settings("worker")
    assert settings.metrics_host == "0.0.0.0"
    assert settings.source_allowed_hosts == ()
    assert settings.temp_dir == WorkerSettings.model_fields["temp_dir"].default


def test_the_ingress_starts_without_any_variable_and_keeps_its_users_in_a_volume(enter: Callable[..., None]) -> None:
    enter("api")
    settings = load(ApiSettings)
    assert (settings.api_host, settings.api_port) == ("0.0.0.0", published("api"))
    assert settings.issues_tokens
    assert f"users:{settings.api_users_file.parent}" in services()["api"]["volumes"]


def test_the_ingress_is_told_whose_tokens_to_trust(enter: Callable[..., None]) -> None:
    names = {name.upper() for name in TokenSettings.model_fields}
    enter("api", {name: f"value-of-{name}" for name in names - {"JWT_PUBLIC_KEY", "JWT_JWKS_URL"}})
    settings = load(ApiSettings)
    assert settings.jwt_issuer == "value-of-JWT_ISSUER"
    assert names <= set(services()["api"]["environment"])


def test_a_dot_env_for_local_runs_does_not_disturb_it() -> None:
    for name in ("worker", "api", "oss"):
        assert environment_of(name, LOCAL) == environment_of(name)
    assert "CANARY" not in str([service for name, service in services(LOCAL).items() if name != "worker-aliyun"])


def test_the_profile_reads_the_real_bucket(worker_settings: Start) -> None:
    settings = worker_settings("worker-aliyun", REAL)
    assert (settings.oss_bucket, settings.oss_region) == ("your-bucket", "cn-hangzhou")
    assert settings.oss_access_key.get_secret_value() == "key"
    assert settings.endpoint == "https://oss-cn-hangzhou.aliyuncs.com"
    assert settings.base_url == "https://images.example.com"


def test_the_profile_takes_the_other_names_of_the_key_as_well(worker_settings: Start) -> None:
    bucket = {name: REAL[name] for name in ("OSS_BUCKET", "OSS_REGION")}
    settings = worker_settings("worker-aliyun", bucket | {"OSS_ACCESS_KEY_ID": "id", "OSS_ACCESS_KEY_SECRET": "other"})
    assert settings.oss_access_key.get_secret_value() == "id"
    assert settings.oss_secret.get_secret_value() == "other"


def test_the_profile_without_variables_says_in_one_sentence_what_is_missing(worker_settings: Start) -> None:
    with pytest.raises(SettingsError) as caught:
        worker_settings("worker-aliyun")
    assert caught.value.sentences == [
        "OSS configuration is incomplete: set OSS_BUCKET, OSS_REGION, OSS_ACCESS_KEY, OSS_SECRET (see .env.example)"
    ]


def test_the_profile_knows_every_setting_of_the_bucket() -> None:
    own = {"OSS_TIMEOUT_S"}  # is about this machine, not about the bucket
    wanted = {name.upper() for name in WorkerSettings.model_fields if name.startswith("oss_")} - own
    assert wanted <= set(services()["worker-aliyun"]["environment"])


def test_both_workers_differ_in_their_bucket_and_are_found_by_one_name() -> None:
    default, real = (dict(services()[name]) for name in WORKERS)
    assert real.pop("profiles") == ["aliyun"]
    assert real.pop("networks")["default"]["aliases"] == ["worker"]
    assert default.pop("depends_on") == real.pop("depends_on") | {"oss": {"condition": "service_healthy"}}
    outer, inner = default.pop("environment"), real.pop("environment")
    assert {name: value for name, value in outer.items() if not name.startswith("OSS_")} == {
        name: value for name, value in inner.items() if not name.startswith("OSS_")
    }
    assert default == real


async def test_the_worker_finds_its_bucket_in_the_sandbox(worker_settings: Start) -> None:
    settings = worker_settings("worker")
    store = OssStore(settings, timeout_s=1)
    signed = urlsplit(await asyncio.to_thread(store._signed.sign_url, "PUT", "key", 60))
    await store.close()

    sandbox = services()["oss"]
    assert signed.hostname in sandbox["networks"]["default"]["aliases"]
    command = docker_file.exec_form(docker_file.last("sandbox", "CMD"))
    served = oss_server.make_context("oss", command[3:]).params
    assert (served["host"], served["port"]) == ("0.0.0.0", signed.port)
    assert (served["bucket"], served["region"]) == (settings.oss_bucket, settings.oss_region)
    assert served["access_key"] == settings.oss_access_key.get_secret_value()
    assert sandbox["environment"]["SANDBOX_OSS_SECRET"] == settings.oss_secret.get_secret_value()
    assert str(served["data"]) == sandbox["volumes"][0].split(":")[1]


def test_a_browser_finds_stored_images_where_the_sandbox_is_published() -> None:
    moved = {"SANDBOX_OSS_PORT": "9100"}
    for variables in ({}, moved):
        (port,) = services(variables)["oss"]["ports"]
        base_url = urlsplit(environment_of("worker", variables)["OSS_BASE_URL"])
        assert port.startswith(f"{base_url.netloc}:")
