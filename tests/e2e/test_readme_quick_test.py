"""The quick test's calls, as the READMEs have them, do what they say."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.product_process import ApiProcess, basics
from tests.programs import ROOT

pytestmark = pytest.mark.real

READMES = ("README.md", "README.zh-CN.md")


def blocks(readme: str, language: str) -> list[str]:
    """The code blocks of a language, in order."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("readme", READMES)
async def test_the_calls_of_the_quick_test_give_the_json_that_the_readme_shows(
    readme: str, api: ApiProcess, image_url: str, tmp_path: Path
) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    (add,) = re.findall(r"^echo .* users add .*$", text, re.MULTILINE)
    (calls,) = blocks(readme, "bash")
    (shown,) = blocks(readme, "json")
    assert calls.count("http://localhost:3001/") == 2

    env = {**basics(tmp_path), "API_USERS_FILE": api.env["API_USERS_FILE"]}
    producer = f"{sys.executable} -m producer"
    added = await _bash(add.replace(".venv/bin/image-uploads-producer", producer), env)
    assert added.strip() in text

    calls = calls.replace("http://localhost:3001/", f"{api.url}/")
    calls = re.sub(r'"imageUrl":"[^"]*"', f'"imageUrl":"{image_url}"', calls)
    answer = json.loads(await _bash(calls, env))
    assert list(answer) == list(json.loads(shown))
    assert f"/users/test@factory-buy.com/jobs/{answer['jobId']}/image-" in answer["imageUrl"]


async def _bash(script: str, env: dict[str, str]) -> str:
    run = await asyncio.to_thread(
        subprocess.run, ["bash", "-euo", "pipefail", "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout
