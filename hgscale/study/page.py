"""Tables as Markdown and HTML, and the one page that holds a report: nothing in it is loaded from elsewhere."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

CSS = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #59636e; --line: #d9dee3; --back: #f6f8fa; --mark: #1f4e9c; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 54rem; color: var(--ink); background: #fff;
       font: 16px/1.5 "DejaVu Sans", Verdana, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .3rem; }
a { color: var(--mark); }
.facts { color: var(--soft); font-size: .9rem; margin: 0 0 1rem; }
.facts div { overflow-wrap: anywhere; }
nav { background: var(--back); border-radius: 6px; padding: .6rem 1rem; font-size: .92rem; margin: 1.2rem 0; }
nav ul { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .15rem 1.2rem; }
figure { margin: 1rem 0 1.8rem; }
figcaption { font-size: .9rem; color: var(--soft); }
.wide { overflow-x: auto; -webkit-overflow-scrolling: touch; }
.wide svg { display: block; width: 100%; min-width: 30rem; height: auto; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .28rem .65rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
         white-space: nowrap; }
th { background: var(--back); font-weight: 600; white-space: normal; min-width: 5rem; vertical-align: bottom; }
tr > :first-child { position: sticky; left: 0; background: #fff; }
thead tr > :first-child { background: var(--back); }
th.text, td.text { text-align: left; }
td.long { white-space: normal; min-width: 16rem; overflow-wrap: anywhere; }
.note { font-size: .88rem; color: var(--soft); margin: .3rem 0; }
pre { background: var(--back); padding: .8rem 1rem; border-radius: 6px; overflow-x: auto; font-size: .82rem; }
"""


@dataclass(frozen=True)
class Table:
    """Cells of text; the first ``num_text`` columns are words, the others numbers."""

    header: list[str]
    rows: list[list[str]]
    note: str = ""
    num_text: int = 1
    long: frozenset[int] = field(default_factory=frozenset)  # columns whose text may be broken into lines

    def markdown(self) -> str:
        """A Markdown table, its note below; text that Markdown or HTML would read as its own is escaped."""
        lines = [self.header, ["---" if i < self.num_text else "---:" for i in range(len(self.header))], *self.rows]
        text = "\n".join("| " + " | ".join(_in_markdown(cell) for cell in line) + " |" for line in lines)
        return f"{text}\n\n{_in_markdown(self.note)}\n" if self.note else f"{text}\n"

    def html(self) -> str:
        """An HTML table that scrolls by itself where it is too wide."""
        head = "".join(f"<th{self._class(i)}>{escape(cell)}</th>" for i, cell in enumerate(self.header))
        body = "\n".join(
            "<tr>" + "".join(f"<td{self._class(i)}>{escape(cell)}</td>" for i, cell in enumerate(row)) + "</tr>"
            for row in self.rows
        )
        note = paragraph(self.note, "note") if self.note else ""
        return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>{note}'

    def _class(self, column: int) -> str:
        names = ["text"] * (column < self.num_text) + ["long"] * (column in self.long)
        return f' class="{" ".join(names)}"' if names else ""


@dataclass(frozen=True)
class Section:
    """A part of a page; its body is HTML."""

    anchor: str
    title: str
    body: str


def page(title: str, facts: Iterable[str], opening: str, sections: Sequence[Section]) -> str:
    """One self-contained HTML page.

    Args:
        title: its heading.
        facts: lines of text below it.
        opening: HTML before the table of contents.
        sections: the parts, in order.
    """
    listed = "".join(f'<li><a href="#{part.anchor}">{escape(part.title)}</a></li>' for part in sections)
    body = "\n".join(
        f'<section id="{part.anchor}">\n<h2>{escape(part.title)}</h2>\n{part.body}\n</section>' for part in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<div class="facts">{"".join(f"<div>{escape(fact)}</div>" for fact in facts)}</div>
{opening}
<nav><ul>{listed}</ul></nav>
{body}
</body>
</html>
"""


def figure(svg: str, title: str, caption: str) -> str:
    """A drawn figure with its caption; ``title`` is read to those who do not see it."""
    named = svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    return f'<figure><div class="wide">{named}</div><figcaption>{escape(caption)}</figcaption></figure>'


def paragraph(text: str, style: str = "") -> str:
    return f'<p class="{style}">{escape(text)}</p>' if style else f"<p>{escape(text)}</p>"


def bullets(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def preformatted(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _in_markdown(text: str) -> str:
    for mark, instead in (("\\", "\\\\"), ("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("`", "\\`")):
        text = text.replace(mark, instead)
    return " ".join(text.replace("*", "\\*").replace("_", "\\_").split())
