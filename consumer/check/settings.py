"""The settings: each one that is missing or wrong, and the groups that are neither."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from pydantic import SecretStr

from consumer.check.finding import Finding, Subject
from consumer.check.shell import Shell
from consumer.settings import RECORDING_S, DeclareSettings, OssSettings, SourceSettings, WorkerSettings
from schemas.environment import DatabaseSettings, Environment, Settings, SettingsError, load

SETTINGS: Final = Subject("settings")
_NAMES: Final = frozenset(name.upper() for name in WorkerSettings.model_fields)


@dataclass(frozen=True, slots=True)
class Groups:
    """What each dependency is reached by; None where a setting of the group is missing or wrong."""

    broker: DeclareSettings | None
    database: DatabaseSettings | None
    storage: OssSettings | None
    source: SourceSettings | None
    worker: WorkerSettings | None

    @classmethod
    def load(cls) -> Self:
        """The groups of the environment and `.env`."""
        return cls(
            _load(DeclareSettings),
            _load(DatabaseSettings),
            _load(OssSettings),
            _load(SourceSettings),
            _load(WorkerSettings),
        )

    def secrets(self) -> list[str]:
        """What must never be shown."""
        groups: list[Environment | None] = [self.broker, self.database, self.storage]
        return [secret for group in groups if group for secret in group.secrets()]


def look(groups: Groups, shell: Shell) -> Iterator[Finding]:
    """One finding for each setting that is missing or wrong, or one that says that none is."""
    try:
        load(WorkerSettings)  # which has all that the groups have, and the rules between them
    except SettingsError as error:
        for sentence in error.sentences:
            yield from _findings(sentence, groups, shell)
    else:
        yield SETTINGS.ok("all that a worker needs is set")


def _load(kind: type[Settings]) -> Settings | None:
    try:
        return load(kind)
    except SettingsError:
        return None


def _findings(sentence: str, groups: Groups, shell: Shell) -> Iterator[Finding]:
    names = [name for name in re.findall(r"[A-Z][A-Z0-9_]+", sentence) if name in _NAMES]
    if " is incomplete: set " in sentence:
        for name in names:
            yield SETTINGS.wrong(f"{name} is not set", shell.ask(name))
    elif names[1:] and groups.source and groups.storage:
        least = groups.source.source_timeout_s + groups.storage.oss_timeout_s + RECORDING_S
        yield SETTINGS.wrong(sentence, shell.set(**{names[0]: f"{least:g}"}))
    else:
        yield SETTINGS.wrong(sentence, shell.ask(names[0]) if _is_ours_to_ask(names[0]) else shell.reset(names[0]))


def _is_ours_to_ask(name: str) -> bool:
    """Whether nothing but its owner can say what the setting should be; any other has a default that works."""
    field = WorkerSettings.model_fields[name.lower()]
    return field.is_required() or field.annotation is SecretStr
