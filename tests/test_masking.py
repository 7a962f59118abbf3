"""Masking of keys and tokens in text."""

import logging
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.security.masking import MaskingFormatter, last_four, mask_bytes, mask_text
from tests.conftest import TOKEN, fake_secret

OLD_KEY = fake_secret("old1")
NEW_KEY = "AQ.Ab8RN6" + "x_-Y" * 10 + "new1"
WORD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
SECRETS = st.one_of(
    st.text(WORD, min_size=31, max_size=31).map(lambda middle: f"AIza{middle}last"),
    st.text(WORD, min_size=30, max_size=80).map(lambda middle: f"AQ.Ab{middle}last"),
)


@pytest.mark.parametrize(
    ("secret", "seen"), [(OLD_KEY, "…old1"), ("123456789", "…6789"), ("12345678", "…"), ("abc", "…"), ("", "…")]
)
def test_people_see_the_last_four_characters_of_a_secret(secret: str, seen: str) -> None:
    assert last_four(secret) == seen


@pytest.mark.parametrize("secret", [OLD_KEY, NEW_KEY])
@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "Consumer 'api_key:{}' has been suspended.",
        '{{"x-goog-api-key": "{}"}}',
        "Authorization: Bearer {}\r\n",
        "{},{}",
        "({})",
        "POST /v1beta/models?key={} HTTP/1.1",
        "secret={}&x=1",
        "url%3Fkey%3D{}",
    ],
)
def test_a_key_is_masked_wherever_it_stands(text: str, secret: str) -> None:
    masked = mask_text(text.format(secret, secret))

    assert secret not in masked
    assert secret[:-4] not in masked
    assert secret[4:-4] not in masked


@given(before=st.text(max_size=20), secret=SECRETS, after=st.text(max_size=20))
@settings(max_examples=100, deadline=None)
def test_no_surroundings_save_a_known_secret_from_being_masked(before: str, secret: str, after: str) -> None:
    assert secret[:-4] not in mask_text(before + secret + after, secret)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("GET /v1beta/models?key=abc HTTP/1.1", "GET /v1beta/models?key=… HTTP/1.1"),
        ("GET /v1beta/models?alt=sse&key=abc&x=1 HTTP/1.1", "GET /v1beta/models?alt=sse&key=…&x=1 HTTP/1.1"),
        ("?KEY=abc&Access_Token=def", "?KEY=…&Access_Token=…"),
        ('"GET /x?access_token=a%20b" 200', '"GET /x?access_token=…" 200'),
        ("/x?key=a+b%2Fc==", "/x?key=…"),
        ("?monkey=1&keys=2&pageToken=3", "?monkey=1&keys=2&pageToken=3"),
        ("key=12 is no parameter", "key=12 is no parameter"),
        ("?key=&x=1", "?key=&x=1"),
    ],
)
def test_credentials_in_a_url_are_masked_whatever_they_are(text: str, masked: str) -> None:
    assert mask_text(text) == masked


def test_a_token_is_masked_where_it_is_named() -> None:
    assert TOKEN not in mask_text(f"x-goog-api-key: {TOKEN}", TOKEN)
    assert mask_text("x-goog-api-key: short", "short") == "x-goog-api-key: …"


def test_an_empty_secret_masks_nothing() -> None:
    assert mask_text("as it is", "") == "as it is"
    assert mask_bytes(b"as it is", b"") == b"as it is"


def test_text_without_secrets_stays_as_it_is() -> None:
    text = "AIza is a prefix, AQ. as well; AIzaTooShort, AQ.short. Ünïcode ✨\n"

    assert mask_text(text, OLD_KEY) == text


@given(
    st.lists(st.one_of(st.binary(max_size=20), st.just(OLD_KEY.encode()), st.just(OLD_KEY[:20].encode())), max_size=6)
)
@settings(max_examples=100, deadline=None)
def test_masked_bytes_keep_their_length_and_lose_the_secret(pieces: list[bytes]) -> None:
    content, secret = b"".join(pieces), OLD_KEY.encode()

    masked = mask_bytes(content, secret)

    assert len(masked) == len(content)
    assert secret not in masked
    assert masked.count(b"old1") == content.count(b"old1")


def test_bytes_around_a_masked_secret_stay() -> None:
    content = b'{"consumer":"api_key:' + NEW_KEY.encode() + b'"}'

    masked = mask_bytes(content, NEW_KEY.encode())

    assert masked == b'{"consumer":"api_key:' + b"*" * (len(NEW_KEY) - 4) + b'new1"}'


def fail_with(secret: str) -> None:
    raise ValueError(f"refused: {secret}")


@pytest.mark.parametrize("secret", [OLD_KEY, NEW_KEY, TOKEN])
def test_a_log_line_is_masked_with_its_arguments_and_its_traceback(secret: str) -> None:
    formatter = MaskingFormatter("%(levelname)s %(message)s", [TOKEN])
    try:
        fail_with(secret)
    except ValueError:
        error = sys.exc_info()
    record = logging.LogRecord("proxy", logging.ERROR, __file__, 1, "asked with %s", (secret,), error, "fail_with")
    record.stack_info = f"Stack: {secret}"

    line = formatter.format(record)

    assert "ERROR asked with …" in line
    assert "Traceback" in line
    assert "Stack: …" in line
    assert secret not in line
    assert secret[4:-4] not in line


def test_a_log_line_masks_secrets_in_the_exception_that_caused_another() -> None:
    formatter = MaskingFormatter("%(message)s")
    try:
        try:
            fail_with(OLD_KEY)
        except ValueError as exc:
            raise RuntimeError(f"again {NEW_KEY}") from exc
    except RuntimeError:
        record = logging.LogRecord("proxy", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())

    line = formatter.format(record)

    assert "direct cause" in line
    assert OLD_KEY not in line
    assert NEW_KEY not in line


def test_a_log_line_has_its_time_with_the_zone() -> None:
    record = logging.LogRecord("proxy", logging.INFO, __file__, 1, "hello", (), None)

    line = MaskingFormatter("%(asctime)s %(message)s").format(record)

    assert line.endswith("0 hello")
    assert line[20] in "+-"
