"""The documents: links work, the READMEs stay short, and both languages have the same sections."""

import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) +(.+?) *$", re.MULTILINE)


def text_of(document: Path) -> str:
    """Return the text of a document without its code blocks."""
    return re.sub(r"^(?:    |\t).*$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE)


def anchors_of(document: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    seen: Counter[str] = Counter()
    anchors = set()
    for _, heading in HEADING.findall(text_of(document)):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return anchors


def levels_in(document: Path) -> list[int]:
    return [len(marks) for marks, _ in HEADING.findall(text_of(document))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    broken = []
    for link in LINK.findall(text_of(document)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / unquote(name)).resolve() if name else document
        if not target.exists() or (anchor and unquote(anchor) not in anchors_of(target)):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("name", ["README.md", "README_zh.md"])
def test_a_readme_has_at_most_150_lines(name: str) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize("chinese", sorted(ROOT.glob("docs/zh/*.md")), ids=lambda path: path.name)
def test_a_chinese_document_has_the_sections_of_the_english_one(chinese: Path) -> None:
    assert levels_in(chinese) == levels_in(ROOT / "docs" / chinese.name)


def test_the_chinese_readme_has_the_sections_of_the_english_one() -> None:
    assert levels_in(ROOT / "README_zh.md") == levels_in(ROOT / "README.md")
