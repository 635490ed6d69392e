"""The product's programs, forked from a server that has imported them: nine tenths of a start's time are imports."""

import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]

# The main program is pytest's: left out, it would be imported anew by every child.
_IMPORTED: Final = ["__main__", "tests.programs", "consumer.cli", "producer.cli", "producer.api.server"]


def start(
    words: Sequence[str],
    env: Mapping[str, str],
    directory: Path,
    out: Path,
    err: Path | None = None,
    typed: Path = Path(os.devnull),
    *,
    fresh: bool = False,
) -> ForkServerProcess:
    """What `python -m` makes of the words runs in a session of its own; it is killed at the latest when the tests end.

    Args:
        words: A package with a `__main__`, and arguments.
        env: Its whole environment.
        directory: Its working directory.
        out: The file, or terminal, that it writes to.
        err: Another one for what it says of errors.
        typed: What it reads from standard input.
        fresh: It is a new interpreter, as if somebody had typed the words.
    """
    process = _server().Process(target=_run, args=(words, env, directory, (typed, out, err), fresh), daemon=True)
    process.start()
    return process


@cache
def _server() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # the code of this very tree
        forkserver.ensure_running()
    return context


def _run(
    words: Sequence[str],
    env: Mapping[str, str],
    directory: Path,
    files: tuple[Path, Path, Path | None],
    fresh: bool,  # noqa: FBT001 a process takes its arguments by position
) -> None:
    os.setsid()
    os.chdir(directory)
    _redirect(*files)
    os.environ.clear()
    os.environ.update(env)
    if fresh:
        os.execve(sys.executable, [sys.executable, "-m", *words], env)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)  # which is what `python -m` does


def _redirect(typed: Path, out: Path, err: Path | None) -> None:
    for descriptor, file, flags in ((0, typed, os.O_RDONLY), (1, out, os.O_WRONLY), (2, err, os.O_WRONLY)):
        opened = os.dup(1) if file is None else os.open(file, flags | os.O_CREAT | os.O_NOCTTY)
        os.dup2(opened, descriptor)
        os.close(opened)
