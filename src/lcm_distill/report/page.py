"""A page in one HTML file, which needs no network and no scripts, in light and dark, on wide and narrow screens."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from re import compile as pattern

from lcm_distill.core.printable_text import printable
from lcm_distill.report.charts import Panel, panel_svg

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #28282c; --faint: #77777f; --line: #d9d9de; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #18181b; --ink: #e6e6ea; --faint: #9a9aa3; --line: #3a3a40; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
p, h1 { overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; overflow-wrap: anywhere; }
nav a { display: inline-block; margin: 0 1rem .25rem 0; color: inherit; }
.notice { border-left: 4px solid #edae49; padding: .25rem .75rem; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; }
.text { text-align: left; }
td.text { white-space: nowrap; }
td.long { white-space: normal; overflow-wrap: anywhere; min-width: 18rem; }
th { color: var(--faint); font-weight: normal; vertical-align: bottom; }
.charts { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1rem; }
.charts svg { flex: 1 1 22rem; min-width: 0; max-width: 31rem; height: auto; }
@media (prefers-color-scheme: dark) { .charts svg { filter: brightness(1.3); } }
.charts text { font-family: system-ui, sans-serif !important; }
img { max-width: 100%; height: auto; }
.wide img { display: block; min-width: var(--least); }
code { font-size: .95em; }
ol { color: var(--faint); font-size: .9rem; padding-left: 1.5rem; }
.gallery { display: flex; flex-wrap: wrap; gap: 1rem; margin: .75rem 0; }
.gallery figure { margin: 0; width: min-content; }
.gallery img { max-width: none; display: block; }
figcaption { color: var(--faint); font-size: .85rem; line-height: 1.3; margin-top: .25rem; overflow-wrap: anywhere; }
"""

NUMBER = pattern(r"(-?[\d,]*\.?\d+(e[-+]?\d+)?%?)?")
CODE = pattern("`([^`]+)`")
LONG = 40
"""Letters of a cell that may take several lines."""
LEGIBLE = 900
"""Pixels of a wide image at least, below which the titles of a grid cannot be read."""


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading.

    Attributes:
        parts: HTML, as the functions of this module give it.
    """

    title: str
    parts: Sequence[str]


def paragraph(text: str) -> str:
    """Plain text as a paragraph; what stands between backticks is code."""
    content = CODE.sub(r"<code>\1</code>", _escaped(text))
    return f"<p>{content}</p>"


def numbered(items: Sequence[str]) -> str:
    """Plain texts as a list, numbered from 1."""
    return f"<ol>{''.join(f'<li>{_escaped(item)}</li>' for item in items)}</ol>"


def notice(text: str) -> str:
    """Plain text that stands out."""
    return f'<p class="notice">{_escaped(text)}</p>'


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table that scrolls where it is too wide: columns of numbers to the right, all others to the left."""
    kinds = [_kind([row[column] for row in rows]) for column in range(len(headings))]

    def line(tag: str, cells: Sequence[object]) -> str:
        return "".join(f"<{tag}{kind}>{_text(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    head, body = line("th", headings), "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def image(content: bytes, description: str) -> str:
    """A PNG image within the page, which scrolls where it would become too small to read.

    Args:
        content: the whole file.
    """
    width = int.from_bytes(content[16:20])  # of the header, which every PNG file begins with
    return f'<div class="wide" style="--least: {min(width, LEGIBLE)}px">{_embedded(content, description)}</div>'


def heading(text: str) -> str:
    """A heading within a section."""
    return f"<h3>{_escaped(text)}</h3>"


def gallery(images: Sequence[tuple[bytes, str]]) -> str:
    """PNG images beside each other, as many as fit, each above a text."""
    figures = "".join(
        f"<figure>{_embedded(content, text)}<figcaption>{_escaped(text)}</figcaption></figure>"
        for content, text in images
    )
    return f'<div class="gallery">{figures}</div>'


def charts(name: str, panels: Sequence[Panel]) -> str:
    """Panels beside each other, as many as fit.

    Args:
        name: of these charts, distinct in the page.
    """
    drawn = "".join(panel_svg(panel, f"{name}-{number}") for number, panel in enumerate(panels))
    return f'<div class="charts">{drawn}</div>'


def page(title: str, notices: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole file; sections without parts are left out.

    Args:
        notices: sentences below the title.
    """
    shown = [section for section in sections if section.parts]
    links = "".join(f'<a href="#s{number}">{_escaped(section.title)}</a>' for number, section in enumerate(shown))
    body = "".join(
        f'<section id="s{number}"><h2>{_escaped(section.title)}</h2>{"".join(section.parts)}</section>\n'
        for number, section in enumerate(shown)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escaped(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><h1>{_escaped(title)}</h1>{''.join(map(notice, notices))}<nav>{links}</nav>\n{body}</body></html>\n"
    )


def _embedded(content: bytes, description: str) -> str:
    data = base64.b64encode(content).decode()
    return f'<img alt="{_escaped(description)}" src="data:image/png;base64,{data}">'


def _text(value: object) -> str:
    return _escaped("" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value))


def _kind(column: Sequence[object]) -> str:
    """Marks a column of text, and one of long text, which needs more room on a narrow screen."""
    cells = ["" if value is None else str(value) for value in column]
    if all(NUMBER.fullmatch(cell) for cell in cells):
        return ""
    return ' class="text long"' if max(map(len, cells)) > LONG else ' class="text"'


def _escaped(text: str) -> str:
    return escape(printable(text))
