import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from consumer.settings import DeclareSettings, WorkerSettings
from producer.settings import ApiSettings
from schemas.environment import AmqpSettings, DatabaseSettings, SettingsError, load

Read = Callable[..., WorkerSettings]
ROOT = Path(__file__).parents[2]
OSS = {"OSS_BUCKET": "bucket", "OSS_REGION": "cn-hangzhou", "OSS_ACCESS_KEY": "key", "OSS_SECRET": "CANARY-secret"}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Read:
    def read(**environment: str) -> WorkerSettings:
        for name, value in (OSS | environment).items():
            monkeypatch.setenv(name, value)
        return load(WorkerSettings)

    return read


def variables(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z_0-9]+)=(.*)$", text, re.MULTILINE))


def test_env_example_names_every_setting_with_its_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = variables((ROOT / ".env.example").read_text())
    assert set(example) == {name.upper() for kind in (WorkerSettings, ApiSettings) for name in kind.model_fields}

    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text((ROOT / ".env.example").read_text())
    for name, value in OSS.items():
        monkeypatch.setenv(name, value)
    from_example = load(WorkerSettings), load(ApiSettings)
    (tmp_path / ".env").unlink()
    assert from_example == (load(WorkerSettings), load(ApiSettings))


def test_each_missing_oss_setting_is_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSS_REGION", "cn-hangzhou")
    monkeypatch.setenv("OSS_ACCESS_KEY", "key")
    with pytest.raises(SettingsError) as caught:
        load(WorkerSettings)
    assert caught.value.sentences == ["OSS configuration is incomplete: set OSS_BUCKET, OSS_SECRET (see .env.example)"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PREFETCH", "many", "PREFETCH should be a valid integer"),
        ("PREFETCH", "0", "PREFETCH should be greater than or equal to 1"),
        ("METRICS_PORT", "99999", "METRICS_PORT should be less than or equal to 65535"),
        ("RETRY_DELAYS_S", "5,3", "RETRY_DELAYS_S must be whole seconds that grow"),
        ("RETRY_DELAYS_S", "soon", "RETRY_DELAYS_S should be a valid integer"),
        ("SOURCE_ALLOWED_NETWORKS", "10.0.0.0/8,home", "SOURCE_ALLOWED_NETWORKS 'home' does not appear to be"),
        ("AMQP_URL", "http://user:CANARY@host", "AMQP_URL must start with amqp:// or amqps:// and a host"),
        ("DATABASE_URL", "mysql://user:CANARY@host/db", "DATABASE_URL must start with postgresql://"),
        ("AMQP_URL", "amqp://user:CANARY/half@host/", "AMQP_URL has no valid port: percent-encode"),
        ("DATABASE_URL", "postgresql://u:p@host:99999/db", "DATABASE_URL has no valid port"),
        ("OSS_BUCKET", "No_Such_Bucket", "OSS_BUCKET must be 3 to 63 of a-z, 0-9 and hyphens"),
        ("OSS_ENDPOINT", "oss.aliyuncs.com", "OSS_ENDPOINT must be like https://host, without a login or a path"),
        ("OSS_ENDPOINT", "https://key:CANARY@host", "OSS_ENDPOINT must be like https://host"),
        ("OSS_ENDPOINT", "https://host:port", "OSS_ENDPOINT must be like https://host"),
        ("OSS_BASE_URL", "https://key:CANARY@host/x", "OSS_BASE_URL must be like https://host/path"),
        ("OSS_URL_EXPIRES_S", "700000", "OSS_URL_EXPIRES_S should be less than or equal to 604800"),
        ("HANDLER_TIMEOUT_S", "179", "HANDLER_TIMEOUT_S must be at least SOURCE_TIMEOUT_S + OSS_TIMEOUT_S + 60"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL should be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_wrong_setting_is_told_in_one_sentence_without_its_secret(
    settings: Read, name: str, value: str, says: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**{name: value})
    (sentence,) = caught.value.sentences
    assert sentence.startswith(says)
    assert sentence.endswith("(see .env.example)")
    assert "CANARY" not in sentence
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_region_is_taken_with_and_without_its_product(settings: Read) -> None:
    assert settings(OSS_REGION="oss-cn-hangzhou") == settings(OSS_REGION="cn-hangzhou")
    assert settings().endpoint == "https://oss-cn-hangzhou.aliyuncs.com"
    assert settings().base_url == "https://bucket.oss-cn-hangzhou.aliyuncs.com"


def test_the_other_names_of_the_access_key_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "OSS_BUCKET": "bucket",
        "OSS_REGION": "cn-hangzhou",
        "OSS_ACCESS_KEY_ID": "other-key",
        "OSS_ACCESS_KEY_SECRET": "other-secret",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load(WorkerSettings)
    assert settings.oss_access_key.get_secret_value() == "other-key"
    assert settings.oss_secret.get_secret_value() == "other-secret"


@pytest.mark.parametrize(
    "url", ["postgresql:///images", "postgresql://u:p@a:5432,b:5433/images", "postgres://u:p%2F@[::1]:5432/images"]
)
def test_every_form_of_a_database_url_is_taken(settings: Read, url: str) -> None:
    assert settings(DATABASE_URL=url).database_url.get_secret_value() == url


def test_a_command_asks_only_for_what_it_uses() -> None:
    assert load(AmqpSettings).amqp_url == SecretStr("amqp://guest:guest@localhost:5672/")
    assert load(DeclareSettings).retry_delays_s == (5, 30, 120, 600, 1800, 7200)
    assert load(DatabaseSettings).database_url == SecretStr("postgresql://postgres@localhost:5432/image_uploads")


def test_no_secret_shows_in_a_repr(settings: Read) -> None:
    shown = settings(
        AMQP_URL="amqp://user:CANARY-amqp@host/",
        DATABASE_URL="postgresql://user:CANARY-db@host/db",
        OSS_SESSION_TOKEN="CANARY-token",
    )
    assert "CANARY" not in repr(shown) + str(shown)
    assert {"CANARY-amqp", "CANARY-db", "CANARY-token", "CANARY-secret"} <= set(shown.secrets())
