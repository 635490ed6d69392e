"""Which path a `file:` URL names: the one that the file is opened, recorded and cleaned by."""

import os
from pathlib import Path, PurePosixPath
from random import Random
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.core.source_file import source_file

NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in (".", "..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))


@given(PATHS)
def test_the_url_of_a_path_names_that_path(path: str) -> None:
    assert source_file(Path(path).as_uri()) == path


@given(
    PATHS,
    st.sampled_from(["file:", "FILE://", "File://localhost", "file://"]),
    st.sampled_from(["/", "/./", "//", "/.//./"]),
    st.sampled_from(["", "/", "/."]),
    st.randoms(use_true_random=False),
)
def test_every_spelling_of_a_url_names_the_same_path(
    path: str, start: str, slash: str, end: str, random: Random
) -> None:
    def spell(name: str) -> str:
        return "".join(
            char if char.isalnum() and random.random() < 0.5 else "".join(f"%{byte:02x}" for byte in char.encode())
            for char in name
        )

    # A path without a host begins with one slash, or what follows would be the host.
    first = "/" if start == "file:" else slash
    assert source_file(start + first + slash.join(map(spell, path[1:].split("/"))) + end) == path


@given(st.text())
def test_whatever_it_is_given_it_tells_a_path_that_a_row_can_hold_or_none(text: str) -> None:
    for url in (text, f"file://{text}", f"file:///{text}"):
        path = source_file(url)
        if path is not None:
            assert path == str(PurePosixPath(path))
            assert path.startswith("/")
            assert not path.startswith("//")
            assert "\0" not in path
            path.encode()


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name and b"/" not in name))
def test_a_name_that_is_no_utf_8_is_named_by_no_url(name: bytes) -> None:
    path = "/t/" + os.fsdecode(name)
    named = source_file("file://" + quote(os.fsencode(path)))
    try:
        path.encode()
    except UnicodeEncodeError:
        assert named is None
    else:
        assert named == str(PurePosixPath(path))


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///t/fox.png", "/t/fox.png"),
        ("file:/t/fox.png", "/t/fox.png"),
        ("file:////t//fox.png", "/t/fox.png"),
        ("file://///t/./fox.png/", "/t/fox.png"),
        ("FILE://localhost/t/fox.png", "/t/fox.png"),
        ("file://localhost//t/fox.png", "/t/fox.png"),
        ("file:///t/../etc/passwd", "/t/../etc/passwd"),
        ("file:///t/fox%20%23one.png?x#y", "/t/fox #one.png"),
        ("file:///t%2Ffox.png", "/t/fox.png"),
        ("file:///", "/"),
        ("file:///t/%00", None),
        ("file:///t/%ff.png", None),
        ("file:///t/%ed%a0%80.png", None),
        ("file:///t/\ud800.png", None),
        ("file:fox.png", None),
        ("file://[t/fox.png", None),
        ("file:", None),
        ("file", None),
        ("", None),
        ("https://cdn.test/t/fox.png", None),
        ("data:image/png;base64,file:///t/fox.png", None),
        (None, None),
    ],
)
def test_urls_and_their_paths(url: str | None, path: str | None) -> None:
    assert source_file(url) == path
