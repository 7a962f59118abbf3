"""Lists of keys in the formats that people use."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.pool.key_file import read_keys
from tests.conftest import fake_secret

A, B, C = fake_secret("one"), "AIzaSyD-9tSrke72PouQMnMX_a7eZSW0jkFMBWY", "AQ.Ab8RN6" + "x_-Y" * 10
ODD = "next-Format.key_0123"  # as long as a lone word must be


def written(text: str) -> str:
    """Return `text` with keys in place of <A>, <B> and <C>, and an odd key in place of <ODD>."""
    for sign, secret in {"<A>": A, "<B>": B, "<C>": C, "<ODD>": ODD}.items():
        text = text.replace(sign, secret)
    return text


# What is written, the keys with their names, and the malformed lines.
FORMS: list[tuple[str, list[tuple[str, str]], list[int]]] = [
    # One a line
    ("<A>\n<B>\n", [(A, ""), (B, "")], []),
    ("\ufeff <A>\t\r\n\r\n<C>  ", [(A, ""), (C, "")], []),
    ("<A>\r<B>\r", [(A, ""), (B, "")], []),
    ("# mine\n<A>\n  # hers\n<B>\n#<C>\n// theirs: <C>\n", [(A, ""), (B, "")], []),
    ("<A> # the first\n<B>\t#the second\n<C>  # ✨\n", [(A, ""), (B, ""), (C, "")], []),
    ("\u200b<A>\u200b\n\u00a0<B>\u3000\n\u202a<C>\u202c", [(A, ""), (B, ""), (C, "")], []),
    ("“<A>”,\n\u2018<B>\u2019;\n«<C>»", [(A, ""), (B, ""), (C, "")], []),
    ("'<A>'\n\"<B>\"\n`<C>`", [(A, ""), (B, ""), (C, "")], []),
    # Several a line
    ("<A>,<B>;<C>", [(A, ""), (B, ""), (C, "")], []),
    ("<A> <B>\t<C>", [(A, ""), (B, ""), (C, "")], []),
    ("<A>, <B> ; <C>,", [(A, ""), (B, ""), (C, "")], []),
    ("<A>\uff0c<B>、<C>", [(A, ""), (B, ""), (C, "")], []),
    ("<A>|<B>", [(A, ""), (B, "")], []),
    # JSON
    ('["<A>", "<B>"]', [(A, ""), (B, "")], []),
    ('[\n  "<A>",\n  "<B>",\n]\n', [(A, ""), (B, "")], []),
    ("['<A>', '<B>',]", [(A, ""), (B, "")], []),
    ('{"keys": ["<A>", "<B>"]}', [(A, ""), (B, "")], []),
    ('{\n  "keys": [\n    "<A>",\n    "<B>"\n  ],\n}', [(A, ""), (B, "")], []),
    ('{"alice": "<A>", "bob": "<B>"}', [(A, "alice"), (B, "bob")], []),
    ('{\n  "alice": "<A>",\n  "bob": "<B>",\n}', [(A, "alice"), (B, "bob")], []),
    ('{"<A>": "alice", "<B>": 12, "<C>": true}', [(A, "alice"), (B, ""), (C, "")], []),
    ('[{"name": "alice", "key": "<A>"}, {"key": "<B>", "name": "bob"}]', [(A, "alice"), (B, "bob")], []),
    ('[\n {\n  "name": "Smith, Al",\n  "project": "p",\n  "apiKey": "<A>"\n }\n]', [(A, "Smith, Al")], []),
    ('{"alice": {"key": "<A>", "tier": 1}, "bob": {"key": "<B>"}}', [(A, "alice"), (B, "bob")], []),
    ('{\n "alice": {\n  "key": "<A>"\n }\n}', [(A, "alice")], []),
    ('{"\\u5f20\\u4e09": "<A>"}', [(A, "张三")], []),
    ('{\n  "alice": "<A>",\n  "bob": "hello"\n}', [(A, "alice")], [3]),
    ('[\n  {"name": "alice", "key": "<A>"},\n  {"name": "bob", "key": "short"}\n]', [(A, "alice")], [3]),
    ('{\n "v": 1,\n "keys": [\n  {"key": "<A>", "tags": [\n   "x"\n  ]}\n ],\n "c": ["<B>"]}', [(A, ""), (B, "")], []),
    ('{\n "keys": [\n  "<A>",\n  "hello",\n  "<ODD>", "<ODD>1"\n ]\n}', [(A, ""), (ODD, ""), (f"{ODD}1", "")], [4]),
    ('{"alice": "<A>",\n"bob": {"key": "<B>"\n', [(A, "alice"), (B, "")], []),
    ('"{\\"alice\\": \\"<A>\\"}"', [(A, "alice")], []),
    # Lists
    ("- <A>\n* <B>\n1. <C>", [(A, ""), (B, ""), (C, "")], []),
    ("-<A>\n• <B>\n2) <C>", [(A, ""), (B, ""), (C, "")], []),
    ("1. alice: <A>\n- bob: `<B>`", [(A, "alice"), (B, "bob")], []),
    ("My keys:\n- [x] <A>\n- [ ] **<B>**", [(A, ""), (B, "")], []),
    ('```json\n["<A>"]\n```', [(A, "")], []),
    ("| name | key |\n|---|---|\n| alice | <A> |\n| bob | <B> |", [(A, "alice"), (B, "bob")], []),
    # A name and a key
    ("alice=<A>\nbob = \"<B>\"\ncarol='<C>'", [(A, "alice"), (B, "bob"), (C, "carol")], []),
    ("alice: <A>\nbob : <B>\nAnna's key: <C>", [(A, "alice"), (B, "bob"), (C, "Anna's key")], []),
    ("alice|<A>\nbob | <B>\n<C>|carol", [(A, "alice"), (B, "bob"), (C, "carol")], []),
    ("alice,<A>\n<B>,bob\n<C>;carol", [(A, "alice"), (B, "bob"), (C, "carol")], []),
    ("alice <A>\n<B> bob\ncarol\t<C>", [(A, "alice"), (B, "bob"), (C, "carol")], []),
    ("alice -> <A>\nbob - <B>\ncarol => <C>", [(A, "alice"), (B, "bob"), (C, "carol")], []),
    ("张三\uff1a<A>\n李四\uff0c<B>\nKey #1: <C>", [(A, "张三"), (B, "李四"), (C, "Key #1")], []),
    ("alice=<A>, bob=<B>", [(A, "alice"), (B, "bob")], []),
    ("1: <A>\n2,<B>\n2026-11-26 <C>", [(A, ""), (B, ""), (C, "")], []),
    (f"{'x' * 101}=<A>\nbob=<B>", [(A, ""), (B, "bob")], []),
    ("this is <A>, no joke", [(A, "no joke")], []),
    ("this is <A> here", [(A, "")], []),
    # YAML
    ("keys:\n  - <A>\n  - <B>", [(A, ""), (B, "")], []),
    ("- name: alice\n  key: <A>\n- key: <B>\n  name: bob", [(A, "alice"), (B, "bob")], []),
    ("alice:\n  key: <A>\n  project: p\nbob:\n  key: <B>", [(A, "alice"), (B, "bob")], []),
    ("Name: alice\nKey: <A>\nProject: p\n\nName: bob\nKey: <B>\n<C>", [(A, "alice"), (B, "bob"), (C, "")], []),
    ("title: mine\nalice: <A>\nbob: <B>", [(A, "alice"), (B, "bob")], [1]),
    ("name = alice\n\nkey = <A>\nname = <B>\nname: nobody", [(A, ""), (B, "")], [1, 5]),
    ("[[keys]]\nname = 'alice'\nkey = '<A>'\n\n[[keys]]\nname = 'bob'\nkey = '<B>'", [(A, "alice"), (B, "bob")], []),
    ('const keys = [\n  "<A>", // alice\n  "<B>",\n];\nKEYS=(\n<C>\n)\nK=""', [(A, ""), (B, ""), (C, "")], [8]),
    # CSV
    ('name,key,project\nalice,<A>,p1\n"Smith, Bob","<B>",p2', [(A, "alice"), (B, "Smith, Bob")], []),
    ("Project;API key;Key name\np1;<A>;alice\np2;<B>;", [(A, "alice"), (B, "")], []),
    ("project\tkey\np1\t<A>", [(A, "")], []),
    ("api_key\n<A>\n<B>", [(A, ""), (B, "")], []),
    ("名称,密钥\n张三,<A>", [(A, "张三")], []),
    ("name,key\nalice,<A>\nbob,AIzaShort\ncarol,\ndave,none\neve,token", [(A, "alice")], [3, 4, 5, 6]),
    ("My keys:\nKeys\nname,key\nalice,<A>\nname,key\nbob,<B>", [(A, "alice"), (B, "bob")], []),
    ("NAME KEY\nalice <A>\nbob   <B>", [(A, "alice"), (B, "bob")], []),
    # Variables
    ("export GEMINI_API_KEY=<A>\nset GEMINI_API_KEY=<B>\n$env:GEMINI_API_KEY=\"<C>\"", [(A, ""), (B, ""), (C, "")], []),
    ("GOOGLE_API_KEY='<A>'\ngoogleApiKey: <B>\nVAR = key = <C>", [(A, ""), (B, ""), (C, "")], []),
    ('export ALICE="<A>"\n$env:BOB = \'<B>\'\nsetx CAROL "<C>"', [(A, "ALICE"), (B, "BOB"), (C, "CAROL")], []),
    ("GEMINI_API_KEYS=<A>,<B>", [(A, ""), (B, "")], []),
    ('GEMINI_API_KEY_1=<A>\nGEMINI_API_KEY_2=<B>', [(A, "GEMINI_API_KEY_1"), (B, "GEMINI_API_KEY_2")], []),
    ('KEYS="<A>\\n<B>"', [(A, ""), (B, "")], []),
    ("GEMINI_API_KEY=<A>\nGEMINI_MODEL=gemini-2.5-flash-lite-preview\nPORT=5000\nEMPTY=", [(A, "")], [2, 3, 4]),
    # Requests
    ("Authorization: Bearer <A>\nx-goog-api-key: <B>\nBearer <C>", [(A, ""), (B, ""), (C, "")], []),
    ("https://example.com/v1beta/models/m:generateContent?key=<A>&alt=sse\n?key=<B>", [(A, ""), (B, "")], []),
    ("curl 'https://example.com/?key=<A>'\ncurl -H \"x-goog-api-key: <B>\" https://a.com", [(A, ""), (B, "")], []),
    ("genai.configure(api_key='<A>')\nkey%3D<B>", [(A, ""), (B, "")], []),
    # What is not whole
    ("AIzaBADSHORT\n<A>x\n<A><B>\nAQ.short\nalice=AIza…\n<C>", [(C, "")], [1, 2, 3, 4, 5]),
    ("<A>, AIzaBADSHORT\nAQ.short|<B>", [(A, ""), (B, "")], [1, 2]),
    # What is no key
    ("no key\nhello\nshort\ntwo words\n<A>", [(A, "")], [1, 2, 3, 4]),
    ("https://example.com/a\nalice@example.com\nwww.example-of-a-long-host.com", [], [1, 2, 3]),
    ("2026-11-26\n2026-11-26T12:00:00.123456Z\n2026-11-26-12-00-00.123456", [], [1, 2, 3]),
    ("d41d8cd98f00b204e9800998ecf8427e\n123e4567-e89b-12d3-a456-426614174000", [], [1, 2]),
    ("GEMINI_API_KEY=YOUR_GEMINI_API_KEY_HERE\nGEMINI_API_KEY=\n<A>", [(A, "")], [1, 2]),
    (f"{'x' * 19}\n{'x' * 301}\nschlüssel-mit-umlaut-und-mehr\n\0\x1bwith-escape-and-nothing", [], [1, 2, 3, 4]),
    # What may be one
    ("<ODD>\n<A>\n'<ODD>1',\n- <ODD>2 # new", [(ODD, ""), (A, ""), (f"{ODD}1", ""), (f"{ODD}2", "")], []),
    ("alice=<ODD>\nexport KEY=<ODD>1\nbob: <ODD>2", [(ODD, "alice"), (f"{ODD}1", ""), (f"{ODD}2", "bob")], []),
    ("name,key\nalice,<ODD>\n", [(ODD, "alice")], []),
    ('{"name": "alice", "project": "a-project-of-20-letters", "key": "<ODD>"}', [(ODD, "alice")], []),
    ("<ODD> <ODD>1\n<ODD>!", [], [1, 2]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "keys", "malformed"), FORMS, ids=[text[:40] for text, _keys, _malformed in FORMS])
def test_keys_are_read_however_people_write_them_down(
    text: str, keys: list[tuple[str, str]], malformed: list[int]
) -> None:
    found = read_keys(written(text))

    assert [(key.secret, key.name) for key in found.found] == keys
    assert found.malformed == malformed
    assert {key.secret for key in found.found if key.is_odd} == {secret for secret, _name in keys if ODD in secret}


def test_a_key_is_reported_by_its_line_and_a_repeated_one_counts_once() -> None:
    found = read_keys(f"{A}\n\nalice={B}\n{A} # again\nbob={A}\n{ODD}\n")

    assert [key.line for key in found.found] == [1, 3, 4, 5, 6]
    assert found.secrets == [A, B, ODD]
    assert found.names == {B: "alice", A: "bob"}
    assert (found.repeated, found.odd) == (2, [6])


@pytest.mark.parametrize("text", ["", "\ufeff", "\n\r\n", "# nothing\n", "   ", "[\n]", "{}", "---", "name,key\n"])
def test_nothing_is_found_where_nothing_is(text: str) -> None:
    assert read_keys(text) == ([], [])


@pytest.mark.parametrize(
    "text",
    [
        *("{", "[", '"', "'", ",", ":", "=", "\\", " ", "\n", "x", "-", "#", " #1", "AIza", "AQ.", "a=b "),
        *(f"{A} ", f"{A},x", '{"a": ', '",', "{a", "a.", "- x:\n  y\n", f'{{"name": "a", "key": "{A}"}},', f'"{A}": "'),
    ],
)  # fmt: skip
def test_a_long_line_takes_no_more_than_its_share(text: str) -> None:
    """Where reading took time by the square of the length, these would take hours, and the test's time would be up."""
    read_keys(text * (500_000 // len(text)))


@given(st.text(max_size=200) | st.text(f"{{}}[]\"'`,;:=|#-*\\\n\t .AIzQ<{A}", max_size=200))
@settings(max_examples=300, deadline=None)
def test_whatever_is_in_a_text_only_what_looks_like_a_key_becomes_one(text: str) -> None:
    found = read_keys(text)

    assert all(re.fullmatch(r"[\w.-]{20,300}", secret, re.ASCII) for secret in found.secrets)
    assert all(1 <= line <= len(text.splitlines()) for line in [*found.malformed, *(key.line for key in found.found)])
    assert not [name for name in found.names.values() if len(name) > 100 or "AIza" in name or not name.isprintable()]


names = st.from_regex(r"[A-Z][a-z]{3,8}( [A-Z][a-z]{3,8})?", fullmatch=True)
secrets = st.from_regex(r"AIza[A-Za-z0-9_-]{35}|AQ\.[A-Za-z0-9_-]{20,60}", fullmatch=True)
NAMED_FORMS = [
    *('{name}={secret}', '{name} = "{secret}"', "{name}: {secret}", "{name}|{secret}", "{name},{secret}"),
    *("{secret},{name}", "- {name}: '{secret}' # {name}", '"{name}","{secret}"', '{{"{name}": "{secret}"}},'),
    *('{{\n  "name": "{name}",\n  "key": "{secret}"\n}},', "- name: {name}\n  key: {secret}"),
]  # fmt: skip
NAMELESS_FORMS = [
    "{secret}",
    "* {secret}",
    "export KEY={secret}",
    "Bearer {secret}",
    "https://a.b/?key={secret}",
    '"{secret}",',
]


@given(
    st.lists(st.tuples(names, secrets, st.sampled_from(NAMED_FORMS)), max_size=6, unique_by=lambda key: key[1]),
    st.lists(st.tuples(secrets, st.sampled_from(NAMELESS_FORMS)), max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
@settings(max_examples=200, deadline=None)
def test_keys_in_any_form_are_found_again(named: list[tuple[str, str, str]], nameless: Any, end: str) -> None:
    texts = [form.format(name=name, secret=secret) for name, secret, form in named]
    texts += [form.format(secret=secret) for secret, form in nameless]

    found = read_keys("\n".join(texts).replace("\n", end))

    assert [key.secret for key in found.found] == [secret for _, secret, _ in named] + [
        secret for secret, _ in nameless
    ]
    assert [key.name for key in found.found] == [name for name, _, _ in named] + [""] * len(nameless)
    assert found.malformed == []


@given(st.dictionaries(names, secrets, max_size=6), st.sampled_from([None, 2, 4]))
@settings(max_examples=100, deadline=None)
def test_whatever_json_writes_is_read_again(keys: dict[str, str], indent: int | None) -> None:
    records = [{"name": name, "key": secret, "project": "p", "tags": ["x"]} for name, secret in keys.items()]

    for content in (keys, {"keys": keys}, {name: {"key": secret} for name, secret in keys.items()}):
        found = read_keys(json.dumps(content, indent=indent))
        assert [(key.name, key.secret) for key in found.found] == list(keys.items())
    found = read_keys(json.dumps(records))
    assert [(key.name, key.secret) for key in found.found] == list(keys.items())
