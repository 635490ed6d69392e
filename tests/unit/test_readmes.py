"""The English and the Chinese README say the same, and what they name exists."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import pytest
from markdown_it import MarkdownIt  # rich brings it along
from markdown_it.token import Token

from consumer.cli import cli as consumer
from consumer.settings import WorkerSettings
from producer.cli import cli as producer
from producer.settings import ApiSettings
from sandbox.__main__ import main as sandbox
from schemas.reasons import Reason

ROOT: Final = Path(__file__).parents[2]
ENGLISH: Final = "README.md"
CHINESE: Final = "README.zh-CN.md"
READMES: Final = (ENGLISH, CHINESE)
LANGUAGES: Final = frozenset(READMES)

PROGRAMS: Final = {
    "image-uploads": consumer,
    "image-uploads-producer": producer,
    "python -m sandbox": sandbox,
}
OF_THE_TESTS: Final = frozenset({"TEST_AMQP_URL", "TEST_AMQP_MANAGEMENT_URL", "TEST_DATABASE_URL"})
ALIASES: Final = frozenset({"OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"})
PLACEHOLDERS: Final = frozenset({"IMAGE_URL"})  # what the programs are given
WORDS_IN_CAPITALS: Final = frozenset({"SIGTERM", "USAGE", "SELECT", "INSERT", "UPDATE", "CREATE", "DELETE"})

KNOWN_MESSAGES: Final = ("OSS 配置不完整", "AccessDenied", 'relation "job_outputs" does not exist')


@dataclass(frozen=True, slots=True)
class Readme:
    """A README as a Markdown renderer sees it."""

    tokens: list[Token]

    @classmethod
    def read(cls, name: str) -> "Readme":
        return cls.of((ROOT / name).read_text(encoding="utf-8"))

    @classmethod
    def of(cls, text: str) -> "Readme":
        return cls(MarkdownIt().enable("table").parse(text))

    def sections(self) -> Iterator["Readme"]:
        """Each heading with what follows it, up to the next."""
        starts = [index for index, token in enumerate(self.tokens) if token.type == "heading_open"]
        for start, end in zip(starts, [*starts[1:], len(self.tokens)], strict=True):
            yield Readme(self.tokens[start:end])

    def levels(self) -> list[str]:
        return [token.tag for token in self.tokens if token.type == "heading_open"]

    def blocks(self) -> list[tuple[str, str]]:
        """Language and content of each code block."""
        return [(token.info, token.content) for token in self.tokens if token.type in {"fence", "code_block"}]

    def inlines(self) -> Iterator[Token]:
        """All that is neither a block nor made of blocks."""
        for token in self.tokens:
            yield from token.children or []

    def spans(self) -> set[str]:
        """The code in running text."""
        return {token.content for token in self.inlines() if token.type == "code_inline"}

    def texts(self) -> Iterator[str]:
        """What is read as prose."""
        return (token.content for token in self.inlines() if token.type == "text")

    def links(self) -> list[str]:
        return [str(token.attrs["href"]) for token in self.inlines() if token.type == "link_open"]

    def tables(self) -> list[list[list[set[str]]]]:
        """The code in each cell of each row of each table."""
        tables: list[list[list[set[str]]]] = []
        for token, content in zip(self.tokens, self.tokens[1:], strict=False):
            match token.type:
                case "table_open":
                    tables.append([])
                case "tr_open":
                    tables[-1].append([])
                case "th_open" | "td_open":
                    tables[-1][-1].append(Readme([content]).spans())
        return tables

    def list_items(self) -> list[str]:
        return [token.markup for token in self.tokens if token.type == "list_item_open"]

    def code(self) -> Iterator[str]:
        """Every line of code, in blocks and in running text."""
        yield from self.spans()
        for _, content in self.blocks():
            yield from content.splitlines()


@pytest.fixture(params=READMES)
def readme(request: pytest.FixtureRequest) -> Readme:
    return Readme.read(request.param)


@pytest.fixture(scope="module")
def english() -> Readme:
    return Readme.read(ENGLISH)


@pytest.fixture(scope="module")
def chinese() -> Readme:
    return Readme.read(CHINESE)


def test_they_have_the_same_headings_in_number_and_level(english: Readme, chinese: Readme) -> None:
    assert chinese.levels() == english.levels()
    assert len(chinese.levels()) > 10


def test_they_have_the_same_code_blocks(english: Readme, chinese: Readme) -> None:
    assert len(english.blocks()) > 10
    for theirs, ours in zip(chinese.blocks(), english.blocks(), strict=True):
        assert theirs == ours


def test_each_section_names_the_same_settings_commands_and_other_code(english: Readme, chinese: Readme) -> None:
    for theirs, ours in zip(chinese.sections(), english.sections(), strict=True):
        assert theirs.spans() == ours.spans()
    assert len(english.spans()) > 100


def test_their_tables_have_the_same_rows(english: Readme, chinese: Readme) -> None:
    assert len(english.tables()) == 7
    assert chinese.tables() == english.tables()


def test_each_section_has_the_same_lists(english: Readme, chinese: Readme) -> None:
    for theirs, ours in zip(chinese.sections(), english.sections(), strict=True):
        assert theirs.list_items() == ours.list_items()


def test_each_section_links_to_the_same_targets_and_they_to_each_other(english: Readme, chinese: Readme) -> None:
    assert english.links()[0] == CHINESE
    assert chinese.links()[0] == ENGLISH
    for theirs, ours in zip(chinese.sections(), english.sections(), strict=True):
        assert sorted(set(theirs.links()) - LANGUAGES) == sorted(set(ours.links()) - LANGUAGES)


def test_every_file_that_is_linked_to_exists(readme: Readme) -> None:
    files = [link for link in readme.links() if "://" not in link]
    assert len(files) > 5
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_emphasis_is_rendered_and_not_shown_as_asterisks(readme: Readme) -> None:
    # Beside full-width punctuation Markdown takes some for text.
    assert [text for text in readme.texts() if "**" in text or "`" in text] == []


def test_every_setting_that_is_named_exists(readme: Readme) -> None:
    settings = {name.upper() for kind in (WorkerSettings, ApiSettings) for name in kind.model_fields}
    named = set(_settings_in(readme))
    assert len(named & settings) > 20
    assert named - settings - OF_THE_TESTS - ALIASES - _ports_of_compose() - PLACEHOLDERS == set()


def test_the_exceptions_from_the_settings_are_read_where_they_belong() -> None:
    conftest = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    assert [name for name in OF_THE_TESTS if f'"{name}"' not in conftest] == []
    aliases = {
        str(alias)
        for field in WorkerSettings.model_fields.values()
        for alias in getattr(field.validation_alias, "choices", [])
    }
    assert aliases > ALIASES
    assert "POSTGRES_PORT" in _ports_of_compose()


def test_every_subcommand_and_option_that_is_named_exists(readme: Readme) -> None:
    calls = [call for line in readme.code() for call in _calls_in(line)]
    assert {words[0] for _, words in calls} >= {"check", "declare", "migrate", "api", "publish", "users", "up", "down"}
    for program, words in calls:
        command, options = _resolved(PROGRAMS[program], words)
        known = {option for parameter in command.params for option in parameter.opts}
        assert set(options) <= known, f"{program} {' '.join(words)}"


@pytest.mark.parametrize("call", ["image-uploads mgirate", "image-uploads-producer users remove x@y.com"])
def test_a_subcommand_that_does_not_exist_would_be_noticed(call: str) -> None:
    ((program, words),) = _calls_in(f".venv/bin/{call}")
    with pytest.raises(AssertionError, match="has no command"):
        _resolved(PROGRAMS[program], words)


def test_every_make_target_that_is_named_exists(readme: Readme) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {match[1] for line in readme.code() if (match := re.match(r"make ([\w-]+)", line))}
    assert named >= {"setup", "demo", "test", "run"}
    assert named <= targets


def test_every_reason_is_in_the_table_of_reasons(readme: Readme) -> None:
    (table,) = (table for table in readme.tables() if {"crash_loop"} in (row[0] for row in table))
    assert set().union(*(row[0] for row in table)) == {str(reason) for reason in Reason}


@pytest.mark.parametrize("message", KNOWN_MESSAGES)
def test_a_message_that_users_know_is_found_where_trouble_is_told(
    english: Readme, chinese: Readme, message: str
) -> None:
    titles = [section.tokens[1].content for section in english.sections()]
    of_trouble = titles.index("Troubleshoot")
    for readme in (english, chinese):
        assert message in list(readme.sections())[of_trouble].spans()


def _settings_in(readme: Readme) -> Iterator[str]:
    """Whatever looks like a variable: words with an underscore anywhere, and others that are code by themselves."""
    for line in [*readme.code(), *readme.texts()]:
        yield from re.findall(r"(?<![\w-])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?![\w-])", line, re.ASCII)
    yield from (span for span in readme.spans() if re.fullmatch(r"[A-Z]{2,}", span) and span not in WORDS_IN_CAPITALS)


def _ports_of_compose() -> set[str]:
    return set(re.findall(r"\$\{(\w+_PORT):-", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))


def _calls_in(line: str) -> Iterator[tuple[str, list[str]]]:
    """Each program of ours that the line calls with something, and with what."""
    programs = "|".join(sorted(map(re.escape, PROGRAMS), reverse=True))
    for match in re.finditer(rf"(?<![\w-])({programs})((?: +[\w@./-]+)+)", line, re.ASCII):
        yield match[1], match[2].split()


def _resolved(command: click.Command, words: list[str]) -> tuple[click.Command, list[str]]:
    """The innermost command that the words lead to, and the options that it is given."""
    rest = list(words)
    while isinstance(command, click.Group):
        name = rest.pop(0) if rest else ""
        assert name in command.commands, f"{command.name} has no command {name!r}: {' '.join(words)}"
        command = command.commands[name]
    return command, [word for word in rest if word.startswith("--")]
