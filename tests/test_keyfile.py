"""Lists of keys as people keep them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.keyfile import read_keys
from tests.conftest import fake_secret

ONE, TWO = fake_secret("one"), "AQ.Ab8RN6" + "x_-Y" * 10


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}\n{TWO}\n",
        f"{ONE}\n{TWO}",
        f"{ONE}\r\n{TWO}\r\n",
        f"{ONE}\r{TWO}\r",
        f"\ufeff{ONE}\n{TWO}\n",
        f"  {ONE}\t\n\n \n\t{TWO}  \n\n",
        f"# mine\n{ONE}\n  # hers\n{TWO}\n#{TWO}\n",
        f"{ONE} # the first\n{TWO}\t#the second\n",
        f"\ufeff# keys\r\n\r\n {ONE} \r\n{TWO}  # ✨\r\n",
        f"{ONE}\u00a0\n{TWO}\u3000\n",
    ],
)
def test_keys_are_read_however_people_write_them_down(text: str) -> None:
    found = read_keys(text)

    assert found.secrets == [ONE, TWO]
    assert (found.malformed, found.odd, found.repeated) == ([], [], 0)


def test_a_repeated_key_counts_once() -> None:
    found = read_keys(f"{ONE}\n{TWO}\n{ONE} # again\n\n{ONE}\n")

    assert found.secrets == [ONE, TWO]
    assert found.repeated == 2


@pytest.mark.parametrize(
    "line",
    [
        "two words",
        f"{ONE} {TWO}",
        "short",
        "x" * 301,
        "schlüssel-mit-umlaut",
        "with\x00null-byte",
        f"\u200b{ONE}",
        "with\x1bescape-sequence",
    ],
)
def test_a_line_that_can_be_no_key_is_told_by_its_number(line: str) -> None:
    found = read_keys(f"# keys\n\n{ONE}\n{line}\n{TWO}\n")

    assert found.malformed == [4]
    assert found.secrets == [ONE, TWO]


@pytest.mark.parametrize(
    "line", ["sk-another-shape", "AIzaTooShort", ONE + "x", "AQ.short", f'"{ONE}",', "x" * 300, "12345678"]
)
def test_a_key_of_an_unknown_shape_is_taken_and_told(line: str) -> None:
    found = read_keys(f"{ONE}\n{line}\n")

    assert found.secrets == [ONE, line]
    assert (found.odd, found.malformed) == ([2], [])


@pytest.mark.parametrize("text", ["", "\ufeff", "\n\r\n", "# nothing\n", "   "])
def test_nothing_is_found_where_nothing_is(text: str) -> None:
    assert read_keys(text) == ([], [], [], 0)


@given(st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_whatever_is_in_a_text_only_what_can_travel_in_a_header_becomes_a_key(text: str) -> None:
    found = read_keys(text)

    assert all(re.fullmatch(r"[!-~]{8,300}", secret) for secret in found.secrets)
    assert len(set(found.secrets)) == len(found.secrets)
    assert not set(found.odd) & set(found.malformed)


@given(
    lines=st.lists(st.sampled_from([ONE, TWO, "sk-another-shape", "# comment", "", "two words", "short"]), max_size=20),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
@settings(max_examples=100, deadline=None)
def test_every_line_is_accounted_for(lines: list[str], end: str, mark: str) -> None:
    found = read_keys(mark + end.join(lines) + end)

    keys = [line for line in lines if line in (ONE, TWO, "sk-another-shape")]
    assert found.secrets == list(dict.fromkeys(keys))
    assert found.repeated == len(keys) - len(found.secrets)
    assert found.malformed == [n for n, line in enumerate(lines, 1) if line in ("two words", "short")]
    assert len(found.odd) == int("sk-another-shape" in lines)
