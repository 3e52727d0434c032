#!/usr/bin/env python3
"""Checks the language of the repository: words that docs/glossary.md replaces, and the width of comments.

    scripts/check_words.py            # exits with 1 if something is found

In the tables of the glossary, the words between backticks in the column "not" are rejected in Rust, Markdown, templates,
recipes and scripts, in any case and also across line breaks. Comment lines have at most 100 columns.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GLOSSARY = "docs/glossary.md"
COLUMNS = 100
# Where words are checked, and the pattern of a comment line where comments are.
WORDS_IN = {".rs", ".md", ".toml", ".py", ".sh", ".jinja"}
# Rows of tables in documentation, which cannot be wrapped, are no such lines.
HASH = re.compile(r"\s*#")
COMMENT = {".rs": re.compile(r"\s*//(?![/!]? ?\|[ -])"), ".py": HASH, ".sh": HASH, ".toml": HASH}
# What may stand between two words of a phrase: spaces, a line break with the marks of the next
# line's comment, string or quotation.
GAP = r"(?:\s|///|//!|//|#|>|\\)+"


def banned():
    """The words to reject, from the last column of each table of the glossary whose head is "not"."""
    words, inside = [], False
    for line in (ROOT / GLOSSARY).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif "not" in cells:
            inside, column = True, cells.index("not")
        elif inside:
            words += re.findall(r"`([^`]+)`", cells[column])
    return words


def pattern(words):
    phrase = lambda words: GAP.join(re.escape(word) for word in words.split())
    return re.compile(r"(?<![\w-])(?:%s)(?![\w-])" % "|".join(map(phrase, words)), re.IGNORECASE)


def findings(path, words):
    text = (ROOT / path).read_text()
    found = []
    if path != GLOSSARY:
        for match in words.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append((line, "`%s` is not used here; docs/glossary.md says what is" % re.sub(GAP, " ", match.group())))
    comment = COMMENT.get(Path(path).suffix) or (HASH if text.startswith("#!") else None)
    for number, line in enumerate(text.splitlines(), 1):
        if comment and comment.match(line) and len(line) > COLUMNS:
            found.append((number, "a comment of %d columns; %d is the most" % (len(line), COLUMNS)))
    return sorted(found)


def main():
    words = banned()
    if not words:
        sys.exit("%s has no table with a column \"not\"" % GLOSSARY)
    words = pattern(words)
    files = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True, capture_output=True, check=True)
    files = [f for f in files.stdout.splitlines() if (ROOT / f).is_file() and f != "scripts/check_words.py"]
    files = [f for f in files if Path(f).suffix in WORDS_IN or f == ".ci/run"]
    faults = ["%s:%d: %s" % (file, line, what) for file in files for line, what in findings(file, words)]
    print("\n".join(faults) or "words and comments: nothing in %d files" % len(files))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
