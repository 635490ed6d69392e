import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest
from argon2 import PasswordHasher

from producer.api import users
from producer.api.users import UsersFile
from schemas.environment import SettingsError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users.json"


def test_who_is_added_is_known_by_name_and_password(path: Path) -> None:
    assert UsersFile(path).add("Test@Factory-Buy.com", "right")
    file = UsersFile(path)
    assert file.user_id(" test@factory-buy.COM ", "right") == "test@factory-buy.com"
    assert file.user_id("test@factory-buy.com", "wrong") is None
    assert file.user_id("nobody@factory-buy.com", "right") is None


def test_adding_again_changes_the_password_and_no_other(path: Path) -> None:
    file = UsersFile(path)
    file.add("a@x.example", "old")
    file.add("b@x.example", "hers")
    assert not file.add("a@x.example", "new")
    assert file.user_id("a@x.example", "old") is None
    assert file.user_id("a@x.example", "new") == "a@x.example"
    assert file.user_id("b@x.example", "hers") == "b@x.example"


def test_the_file_holds_no_password_and_is_for_its_owner_alone(path: Path) -> None:
    UsersFile(path).add("a@x.example", "CANARY")
    assert "CANARY" not in path.read_text()
    assert "$argon2id$" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_token_secret_is_made_up_once_and_stays(path: Path) -> None:
    secret = UsersFile(path).token_secret()
    assert len(secret) >= 32
    UsersFile(path).add("a@x.example", "right")
    assert UsersFile(path).token_secret() == secret
    assert UsersFile(path.with_name("other.json")).token_secret() != secret


def test_users_who_are_added_at_once_are_all_there(path: Path) -> None:
    names = [f"user-{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: UsersFile(path).add(name, name), names))
    assert all(UsersFile(path).user_id(name, name) for name in names)
    assert [file.name for file in path.parent.iterdir()] == ["users.json"]


def test_an_unknown_name_takes_as_long_as_a_wrong_password(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spy(PasswordHasher):
        asked = 0

        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 argon2's name
            Spy.asked += 1
            return super().verify(hash, password)

    UsersFile(path).add("a@x.example", "right")
    monkeypatch.setattr(users, "_HASHER", Spy())
    assert UsersFile(path).user_id("nobody@x.example", "right") is None
    assert UsersFile(path).user_id("a@x.example", "wrong") is None
    assert Spy.asked == 2


def test_a_file_keeps_its_owner_when_root_adds_a_user(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can try it")
    UsersFile(path).add("a@x.example", "right")
    os.chown(path, 10001, 10002)
    UsersFile(path).add("b@x.example", "right")
    assert (path.stat().st_uid, path.stat().st_gid) == (10001, 10002)


@pytest.mark.parametrize("name", ["", "no blanks", "../x", "a..b", "ümlaut@x.example", "x" * 300])
def test_a_name_that_is_no_user_id_is_refused(path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="must begin with a letter or digit"):
        UsersFile(path).add(name, "right")
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"passwords": {}}', '{"passwords": {}, "more": 1}'])
def test_a_file_of_something_else_is_named_and_left_as_it_is(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(SettingsError, match=r"API_USERS_FILE .*users\.json is no users file"):
        UsersFile(path).add("a@x.example", "right")
    assert path.read_text() == content
