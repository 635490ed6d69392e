"""The checklist: what is looked at, in which order, and as what it is shown."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import asdict, replace
from typing import Final, TypeAlias

import click

from consumer.check import broker, database, roundtrip, settings, storage, temp_dir
from consumer.check.finding import Finding, Subject, Verdict
from consumer.check.settings import Groups
from consumer.check.shell import Shell
from consumer.check.traces import ROUNDTRIP
from consumer.core.redact import redact
from consumer.settings import SourceSettings
from schemas import logs
from schemas.environment import LogSettings

Look: TypeAlias = Awaitable[list[Finding]]

_COLORS: Final[dict[Verdict, str]] = {"ok": "green", "warning": "yellow", "wrong": "red", "skipped": "cyan"}


async def check(*, roundtrip_timeout_s: float | None, as_json: bool) -> int:
    """Every finding is shown, as soon as it is known or as one JSON list at the end; returns the exit code.

    `roundtrip_timeout_s`, if set, is what a running worker may take for one image.
    """
    groups = Groups.load()
    secrets = groups.secrets()
    # What libraries log while they are asked is told as a finding.
    logs.configure(LogSettings.model_construct(log_format=None, log_level="error"), secrets)
    found = []
    async for finding in _findings(groups, Shell.here(), roundtrip_timeout_s):
        shown = replace(finding, text=without(secrets, redact(finding.text)))
        found.append(shown)
        if not as_json:
            _print(shown)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=2, ensure_ascii=False))
    return int(_any_wrong(found))


async def _findings(groups: Groups, shell: Shell, roundtrip_timeout_s: float | None) -> AsyncIterator[Finding]:
    # At the same time, for a dependency that is away takes its time to say so.
    tasks = [asyncio.create_task(_guarded(subject, look)) for subject, look in _looks(groups, shell)]
    found = list(settings.look(groups, shell))
    for finding in found:
        yield finding
    for task in tasks:
        for finding in await task:
            found.append(finding)
            yield finding
    if roundtrip_timeout_s is not None:
        async for finding in _roundtrip(found, groups, shell, roundtrip_timeout_s):
            yield finding


def _looks(groups: Groups, shell: Shell) -> list[tuple[Subject, Look | None]]:
    prefetch = groups.worker.prefetch if groups.worker else 1

    async def of_temp_dir(source: SourceSettings) -> list[Finding]:
        return await asyncio.to_thread(temp_dir.look, source, prefetch, shell)

    return [
        (broker.BROKER, broker.look(groups.broker, shell) if groups.broker else None),
        (database.DATABASE, database.look(groups.database, shell) if groups.database else None),
        (storage.STORAGE, storage.look(groups.storage, shell) if groups.storage else None),
        (temp_dir.TEMP_DIR, of_temp_dir(groups.source) if groups.source else None),
    ]


async def _guarded(subject: Subject, look: Look | None) -> list[Finding]:
    if look is None:
        return [subject.skipped("not looked at: its settings are wrong")]
    try:
        return await look
    except Exception as error:  # noqa: BLE001 a checklist tells of what it cannot look at, and goes on
        return [subject.wrong(f"cannot be looked at: {type(error).__name__} {error}")]


async def _roundtrip(
    found: Sequence[Finding], groups: Groups, shell: Shell, timeout_s: float
) -> AsyncIterator[Finding]:
    if groups.worker is None or _any_wrong(found):
        yield ROUNDTRIP.skipped("not tried: mend what is wrong first")
        return
    try:
        async for finding in roundtrip.look(groups.worker, shell, timeout_s):
            yield finding
    except Exception as error:  # noqa: BLE001 the same
        yield ROUNDTRIP.wrong(f"broke off: {type(error).__name__} {error}")


def _any_wrong(found: Sequence[Finding]) -> bool:
    return any(finding.verdict == "wrong" for finding in found)


def without(secrets: Sequence[str], text: str) -> str:
    """The text with every secret blotted out."""
    # Whole words, for a key that is called "images" must not make a riddle of every text; ours hold none anyway.
    for secret in secrets:
        text = re.sub(rf"(?<![\w-]){re.escape(secret)}(?![\w-])", "***", text)
    return text


def _print(finding: Finding) -> None:
    verdict = click.style(f"{finding.verdict:<8}", fg=_COLORS[finding.verdict])
    click.echo(f"{verdict} {finding.subject}: {finding.text}")
    if finding.mend is not None:
        click.echo(f"{'':<8} mend: {finding.mend}")
