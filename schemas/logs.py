"""One line per thing that happened: JSON off a terminal, readable on one, and no secret in either."""

import logging
import sys
from collections.abc import Iterable
from typing import TypeAlias

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from schemas.environment import LogSettings

Rendered: TypeAlias = "str | bytes | EventDict"


def configure(settings: LogSettings, secrets: Iterable[str] = ()) -> None:
    """Everything that is logged from now on goes to standard error, in the chosen format, without `secrets`."""
    style = settings.log_format or ("console" if sys.stderr.isatty() else "json")
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    finish: list[Processor] = [*_renderers(style), _Without(secrets)]
    common: list[Processor] = [structlog.processors.add_log_level, structlog.processors.TimeStamper("iso", utc=True)]
    structlog.configure(
        processors=[*common, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    # Libraries speak up only when something is wrong; at debug, oss2 would log signatures.
    logging.basicConfig(level=logging.ERROR, handlers=[handler], force=True)
    # What goes wrong with a connection is raised as well, and told by whoever waits for it.
    logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
    # A request that is no HTTP is its sender's fault, and what it quotes of it may be somebody's token.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


def _renderers(style: str) -> list[Processor]:
    if style == "console":
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    # Local variables would show whole events, with what is signed in them.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer(ensure_ascii=False)]


class _Without:
    """The last processor: whatever a library put into its message, a secret of ours does not leave."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = [secret for secret in secrets if secret]

    def __call__(self, _logger: WrappedLogger, _name: str, line: Rendered) -> Rendered:
        if isinstance(line, str):
            for secret in self._secrets:
                line = line.replace(secret, "***")
        return line
