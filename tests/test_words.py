"""Help texts, messages, docstrings, comments and pages use the terms of the glossary in CONTRIBUTING.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.prose import Text, docstrings_and_comments, messages, pages, python_files

# Refused words, and what to write instead.
WORDS = {
    r"pictures?": "image",
    r"data sets?": "dataset",
    r"anew": "again",
    r"hush\w*": "disable, silence",
    r"outlines?": "polygon",
    r"mend(s|ed|ing)?": "fix",
    r"thin(s|ned|ning)? out": "NMS, suppress",
    r"(16|8)-bit (numbers|floats)|half-precision numbers": "FP16, INT8",
    r"go(es|ing)? on|gone on|went on": "resume, continue",
    r"listeners?": "callback",
    r"tell(s|ing)? apart|told apart": "distinguish",
    r"whole or not at all": "atomically",
    r"looks? three times": "test-time augmentation",
    r"overlap that makes": "NMS IoU threshold",
    r"how sure": "confidence",
    r"look(s|ed|ing)? at": "process, run on, check",
    r"at hand|kin|heeds?": "(a plain word)",
    r"begin(s|ning)?|began|begun": "start",
    r"facts": "metadata, info",
    r"mistakes?": "error",
    r"votes?|voting": "ensemble",
    r"lanes?|servants?": "worker",
    r"tally|tallies": "accumulator",
    r"(?<!IP )(?<!memory )(?<!public )address(es)?": "URL",
    r"tells?|telling|told": "report, log, say",
    r"apart(?! from)": "separate, in a subprocess",
    r"fetch(es|ed|ing)?": "download",
    r"middle": "median, centre",
    r"nobody|anybody|whoever": "(a plain word)",
}
REFUSED = re.compile(rf"\b({'|'.join(f'(?:{word})' for word in WORDS)})\b", re.IGNORECASE)
# Texts in which a refused word is right.
ALLOWED = ("[ADDRESS]", "address: of the cluster", "begun  ")  # of Ray; name of a file


def instead(word: str) -> str:
    """Return what to write instead of a refused word."""
    return next(new for old, new in WORDS.items() if re.fullmatch(old, word, re.IGNORECASE))


def refused(texts: Iterable[Text]) -> Iterator[str]:
    """Yield `FILE:LINE: word -> what to write` for every refused word."""
    for text in texts:
        hidden = text.text
        for allowed in ALLOWED:
            hidden = hidden.replace(allowed, " " * len(allowed))
        for match in REFUSED.finditer(hidden):
            yield f"{text.at(match.start())}: {match[0]!r} -> {instead(match[0])}"


def test_pages_use_the_terms_of_the_glossary() -> None:
    found = []
    for page in pages():
        if page.path.name == "CONTRIBUTING.md":  # the glossary itself
            page = page._replace(text=re.sub(r"(?s)## Words.*?(?=## Tests)", "", page.text))
        found += refused([page])

    assert not found, "\n".join(found)


@pytest.mark.parametrize("texts_of", [messages, docstrings_and_comments])
def test_texts_of_the_code_use_the_terms_of_the_glossary(texts_of: Callable[[Path], Iterable[Text]]) -> None:
    found = [line for path in python_files() for line in refused(texts_of(path))]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("two pictures of a data set", "'pictures' -> image"),
        ("it goes on", "'goes on' -> resume, continue"),
        ("the depicted image is fixed, and resumes", None),
    ],
)
def test_refused_words_are_found(text: str, word: str | None) -> None:
    found = list(refused([Text(Path(__file__), 1, text)]))

    assert found[0].endswith(word) if word else not found


def test_help_texts_raised_messages_and_warnings_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(
        "parser.add_argument('--a', help='one')\n"
        "b: int = flag(1, 'two')\n"
        "raise ConfigError(f'three {name}')\n"
        "LOG.warning('four' if x else 'five')\n"
        "d['six'] = read('seven')\n"
    )

    assert {text.text.strip() for text in messages(file)} == {"one", "two", "three", "four", "five"}
