"""The file of those who may log in: hashed passwords, and the secret that signs their tokens."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Final
from uuid import uuid4

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from producer.settings import made_up_secret
from schemas.environment import SettingsError
from schemas.events import UserId

_HASHER: Final = PasswordHasher()
_USER_ID: Final[TypeAdapter[str]] = TypeAdapter(UserId)


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    token_secret: Annotated[str, Field(min_length=32)]
    passwords: dict[str, str]


@cache
def _nobodys() -> str:
    """What an unknown name's password is compared with, so that the time taken does not tell which names are known."""
    return _HASHER.hash(made_up_secret())


class UsersFile:
    """Reads the file anew each time, so that who is added may log in at once.

    Names are e-mail addresses, or whatever else is a valid userId; their case does not matter.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, name: str, password: str) -> bool:
        """The user may log in with this password; false if he could with another one before.

        Raises:
            ValueError: The name is no valid userId.
            SettingsError: The file cannot be read or written, and is as it was.
        """
        try:
            name = _USER_ID.validate_python(name.strip().lower())
        except ValidationError:
            raise ValueError(
                "must begin with a letter or digit and hold no more than letters, digits and ._@+|:-"
            ) from None
        with self._changing() as content:
            is_new = name not in content.passwords
            content.passwords[name] = _HASHER.hash(password)
        return is_new

    def user_id(self, name: str, password: str) -> str | None:
        """The user with this name and password, if there is one; takes some tens of milliseconds on purpose.

        Raises:
            SettingsError: The file cannot be read.
        """
        name = name.strip().lower()
        hashed = self._read().passwords.get(name)
        try:
            _HASHER.verify(hashed or _nobodys(), password)
        except (Argon2Error, InvalidHashError):
            return None
        return name if hashed else None

    def token_secret(self) -> str:
        """The secret that signs tokens; it is made up, and kept in the file, when it is first asked for.

        Raises:
            SettingsError: The file cannot be read or written.
        """
        if not self._path.exists():
            with self._changing():
                pass
        return self._read().token_secret

    def _read(self) -> _Content:
        try:
            return _Content.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _Content(token_secret=made_up_secret(), passwords={})
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from error
        except ValidationError:
            raise self._unusable("is no users file: move it away, and add the users again") from None

    @contextmanager
    def _changing(self) -> Iterator[_Content]:
        try:
            directory = os.open(self._path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise self._unusable(f"is in a directory that cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)  # the file itself is replaced
            content = self._read()
            yield content
            self._replace(content)
        finally:
            os.close(directory)

    def _replace(self, content: _Content) -> None:
        draft = self._path.with_name(f".{self._path.name}.{uuid4()}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                if os.geteuid() == 0 and self._path.exists():  # or `sudo … users add` would lock the ingress out
                    os.fchown(descriptor, self._path.stat().st_uid, self._path.stat().st_gid)
                file.write(content.model_dump_json(indent=2) + "\n")
                file.flush()
                os.fsync(descriptor)
            draft.replace(self._path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise self._unusable(f"cannot be written: {error.strerror}") from error

    def _unusable(self, problem: str) -> SettingsError:
        return SettingsError([f"API_USERS_FILE {self._path} {problem}"])
