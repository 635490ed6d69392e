"""deploy/Dockerfile: what can be said of it without building it."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from sandbox.process import free_port
from tests.deploy import docker_file

ROOT = docker_file.ROOT
HADOLINT = Path(sys.executable).with_name("hadolint")
HAS_NO_HADOLINT = (platform.machine(), sys.platform) != ("x86_64", "linux")


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HADOLINT), str(file)], check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(HAS_NO_HADOLINT, reason="hadolint has no build for this machine")
def test_the_linter_of_dockerfiles_has_nothing_to_say() -> None:
    done = lint(docker_file.FILE)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(HAS_NO_HADOLINT, reason="hadolint has no build for this machine")
def test_it_would_say_something(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text(f"{docker_file.FILE.read_text()}\nCMD image-uploads worker\n")
    assert "DL3025" in lint(broken).stdout


def copied() -> list[str]:
    """What is taken from the repository into an image."""
    return [
        source
        for stage in docker_file.stages().values()
        for rest in stage.all_of("COPY")
        if "--from=" not in rest
        for source in rest.split()[:-1]
    ]


def test_everything_that_is_copied_exists_and_is_not_ignored() -> None:
    assert copied()
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for source in copied():
        assert (ROOT / source).exists(), source
        verdicts = [rule.startswith("!") for rule in rules if fnmatch(source, rule.removeprefix("!"))]
        assert verdicts[-1], f"{source} is ignored"  # the last rule that matches counts


def test_nothing_else_is_sent_to_the_builder() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == set(copied())
    assert rules.index("*") < rules.index("!consumer")


def test_the_packages_of_the_project_are_in_the_image_and_the_sandbox_is_not() -> None:
    packages = re.findall(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
    build = [word for rest in docker_file.stages()["build"].all_of("COPY") for word in rest.split()[:-1]]
    assert set(re.findall(r'"(\w+)"', packages)) <= set(build)
    assert "sandbox" not in build
    assert docker_file.lineage("")[-2:] == [docker_file.stages()["image-uploads"], docker_file.stages()[""]]


def test_only_locked_and_hashed_libraries_are_installed() -> None:
    installs = [rest for rest in docker_file.stages()["build"].all_of("RUN") if " install " in rest]
    assert len(installs) == 2
    assert all("--require-hashes --requirement requirements.lock" in run or "--no-deps ." in run for run in installs)


@pytest.mark.parametrize("name", ["image-uploads", "sandbox"])
def test_the_image_runs_as_a_numbered_user_without_a_shell(name: str) -> None:
    user, _, group = docker_file.last(name, "USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert docker_file.exec_form(docker_file.last(name, "CMD"))
    assert docker_file.exec_form(docker_file.last(name, "HEALTHCHECK").partition(" CMD ")[2])
    assert not [rest for stage in docker_file.lineage(name) for rest in stage.all_of("ENTRYPOINT")]


@contextmanager
def answering(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/healthz"
        finally:
            server.shutdown()
            thread.join()


def check_health(url: str) -> int:
    """The exit code of the image's health check where the program serves this URL; Docker knows 0 and 1."""
    python, *arguments = docker_file.exec_form(docker_file.last("image-uploads", "HEALTHCHECK").partition(" CMD ")[2])
    assert python == "python"
    nobody = f"http://127.0.0.1:{free_port()}"
    env = {"PATH": os.defpath, "HEALTH_URL": url, "http_proxy": nobody, "HTTP_PROXY": nobody}
    return subprocess.run([sys.executable, *arguments], check=False, env=env, stderr=subprocess.DEVNULL).returncode


def test_the_health_check_passes_where_the_program_is_well_whatever_proxy_is_set() -> None:
    with answering(200) as url:
        assert check_health(url) == 0


def test_the_health_check_fails_where_the_program_is_not_well_or_not_there() -> None:
    with answering(503) as url:
        assert check_health(url) == 1
    assert check_health(f"http://127.0.0.1:{free_port()}/healthz") == 1
