"""Writing an analysis: pictures, one JSON file, and a page that shows them."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cat_seg.cli.analysing.sections import Section, Table
from cat_seg.errors import UserError
from cat_seg.utils.files import atomic_write

NUMBERS, PAGE = "analysis.json", "index.html"
STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
img { max-width: 100%; }
table { border-collapse: collapse; margin: 1rem 0; }
caption { font-weight: 600; text-align: left; }
th, td { padding: 0.1rem 0.9rem 0.1rem 0; text-align: left; }
"""


@dataclass
class Report:
    """What has been written of an analysis.

    Attributes:
        folder: where.
        title: of the page.
        numbers: by section, for the JSON file.
        left_out: reason, by section.
    """

    folder: Path
    title: str
    numbers: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    _body: list[str] = field(default_factory=list)

    def add(self, name: str, heading: str, section: Section) -> list[Path]:
        """Write the pictures of a section, and return their files.

        Raises:
            UserError: a file cannot be written.
        """
        files = []
        for stem, figure in section.pictures.items():
            file = self.folder / f"{stem}.png"
            with _writing(file) as stream:
                figure.savefig(stream, format="png")
            files.append(file)
        self.numbers[name] = section.numbers
        self._body += [f"<h2>{html.escape(heading)}</h2>", *_paragraphs(section.notes)]
        self._body += [f'<p><img src="{file.name}" alt="{file.stem}"></p>' for file in files]
        self._body += map(_table, section.tables)
        return files

    def leave_out(self, name: str, heading: str, reason: str) -> None:
        """Say on the page why a section is missing."""
        self.left_out[name] = reason
        self._body += [f"<h2>{html.escape(heading)}</h2>", *_paragraphs([f"Left out: {reason}."])]

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the JSON file and the page.

        Args:
            about: further entries of the JSON file.

        Raises:
            UserError: a file cannot be written.
        """
        content = {**about, "left_out": self.left_out, "sections": self.numbers}
        with _writing(self.folder / NUMBERS) as stream:
            stream.write(json.dumps(content, ensure_ascii=False).encode())
        title = html.escape(self.title)
        page = (
            f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n'
            f"<style>\n{STYLE}</style>\n<h1>{title}</h1>\n" + "\n".join(self._body) + "\n</html>\n"
        )
        with _writing(self.folder / PAGE) as stream:
            stream.write(page.encode())


def _paragraphs(texts: Iterable[str]) -> Iterator[str]:
    return (f"<p>{html.escape(text)}</p>" for text in texts)


def _table(table: Table) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    rows = "\n".join(row(cells, "td") for cells in table.rows)
    caption = f"<caption>{html.escape(table.title)}</caption>"
    return f"<table>{caption}\n{row(table.heads, 'th')}\n{rows}\n</table>"


@contextmanager
def _writing(file: Path) -> Iterator[IO[bytes]]:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as stream:
            yield stream
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}; see --output") from error
