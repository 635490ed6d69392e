"""The commands that `check` prints, where no server of ours can show them at work."""

from pathlib import Path
from typing import Any

import pytest

from consumer.adapters.oss_refusal import Refusal, StorageRefusedError
from consumer.check import checklist, storage
from consumer.check.shell import Shell, sql
from consumer.settings import OssSettings

SHELL = Shell("image-uploads", frozenset())
MUST_BE_ADDRESSED = {"Code": "AccessDenied", "EC": "0003-00001403", "Endpoint": "oss-cn-beijing.aliyuncs.com"}
WRONG_REGION = {"Code": "InvalidArgument", "EC": "0002-00000226", "Message": "Invalid signing region"}


def settings(**changes: Any) -> OssSettings:
    values = {"oss_bucket": "images", "oss_region": "cn-hangzhou", "OSS_ACCESS_KEY": "key", "OSS_SECRET": "secret"}
    return OssSettings(**(values | changes))


def mend(elements: dict[str, str | None], **changes: Any) -> str | None:
    error = StorageRefusedError(Refusal.of(403, elements))
    return storage.mend_refusal(error, settings(**changes), SHELL)


def test_the_region_that_the_service_names_is_set() -> None:
    assert mend({**MUST_BE_ADDRESSED}) == "echo OSS_REGION=cn-beijing >> .env"


def test_an_endpoint_that_was_set_is_set_anew_with_the_region() -> None:
    assert mend({**MUST_BE_ADDRESSED}, oss_endpoint="https://oss-cn-hangzhou.aliyuncs.com") == (
        "echo OSS_REGION=cn-beijing >> .env && echo OSS_ENDPOINT=https://oss-cn-beijing.aliyuncs.com >> .env"
    )


def test_no_other_words_of_the_service_come_into_a_command() -> None:
    assert mend({**MUST_BE_ADDRESSED, "Endpoint": "x; rm -rf ~"}) is None


@pytest.mark.parametrize("middle", ["", "-internal"])
def test_the_region_of_the_endpoint_is_set_when_the_signature_has_another(middle: str) -> None:
    endpoint = f"https://oss-cn-shanghai{middle}.aliyuncs.com"
    assert mend({**WRONG_REGION}, oss_endpoint=endpoint) == "echo OSS_REGION=cn-shanghai >> .env"


def test_the_region_is_asked_for_when_the_endpoint_does_not_tell_it() -> None:
    asked = mend({**WRONG_REGION}, oss_endpoint="https://img.example.com", oss_cname=True)
    assert asked == "read -r OSS_REGION && echo \"OSS_REGION='$OSS_REGION'\" >> .env"


def test_a_temporary_key_without_its_token_is_asked_for_the_token() -> None:
    assert "OSS_SESSION_TOKEN" in str(mend({"Code": "InvalidAccessKeyId"}, OSS_ACCESS_KEY="STS.abc"))


def test_a_public_endpoint_that_is_forbidden_is_replaced_by_a_custom_domain() -> None:
    command = str(mend({"Code": "PublicEndpointForbidden"}))
    assert command.startswith("read -r OSS_ENDPOINT && ")
    assert command.endswith("echo OSS_CNAME=true >> .env")


@pytest.mark.parametrize("base_url", [None, "https://images.oss-cn-hangzhou.aliyuncs.com"])
def test_the_default_domain_is_warned_of(base_url: str | None) -> None:
    (finding,) = storage.default_domain(settings(oss_base_url=base_url), SHELL)
    assert finding.verdict == "warning"
    assert "download" in finding.text
    assert finding.mend == "read -r OSS_BASE_URL && echo \"OSS_BASE_URL='$OSS_BASE_URL'\" >> .env"


def test_a_domain_of_ones_own_is_not_warned_of() -> None:
    assert storage.default_domain(settings(oss_base_url="https://img.example.com"), SHELL) == []


def test_what_the_environment_sets_is_exported_since_it_outranks_the_env_file() -> None:
    shell = Shell("image-uploads", frozenset({"OSS_REGION", "OSS_SECRET", "PREFETCH"}))
    assert shell.set(OSS_REGION="cn-beijing") == "export OSS_REGION=cn-beijing"
    assert shell.ask("OSS_SECRET") == "read -rs OSS_SECRET && export OSS_SECRET"
    assert shell.reset("PREFETCH") == "unset PREFETCH"


def test_a_secret_is_not_shown_while_it_is_typed() -> None:
    assert SHELL.ask("OSS_SECRET").startswith("read -rs ")
    assert SHELL.ask("DATABASE_URL").startswith("read -rs ")


def test_a_value_with_blanks_is_quoted_for_the_shell_and_for_the_file() -> None:
    assert SHELL.set(TEMP_DIR="/a b") == "echo 'TEMP_DIR='\"'\"'/a b'\"'\"'' >> .env"


def test_psql_is_given_no_password() -> None:
    url = "postgresql://app:canary@db:5433/images?sslmode=require&password=canary"
    assert sql(url, "owner", "GRANT SELECT ON t TO app") == (
        "psql 'postgresql://owner@db:5433/images?sslmode=require' -c 'GRANT SELECT ON t TO app'"
    )


def test_the_program_is_named_as_it_was_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for started, typed in {
        tmp_path / ".venv/bin/image-uploads": ".venv/bin/image-uploads",
        Path("/opt/app/image-uploads"): "/opt/app/image-uploads",
    }.items():
        monkeypatch.setattr("sys.argv", [str(started), "check"])
        assert Shell.here().run("declare") == f"{typed} declare"
    on_path = tmp_path / "bin" / "image-uploads"
    on_path.parent.mkdir()
    on_path.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(on_path.parent))
    monkeypatch.setattr("sys.argv", [str(on_path), "check"])
    assert Shell.here().run("declare") == "image-uploads declare"


def test_a_secret_that_came_into_a_text_all_the_same_is_blotted_out() -> None:
    assert checklist.without(["s3cret/+"], "the login s3cret/+ of s3cret/+er") == "the login *** of s3cret/+er"
