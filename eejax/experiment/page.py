"""The page around a report: one file, no script, nothing loaded from anywhere."""

from collections.abc import Sequence
from html import escape


def page(
    title: str,
    summary: str,
    sections: Sequence[tuple[str, str]],
    details: Sequence[tuple[str, str]],
    footer: str,
) -> str:
    """Lays out a page that suits screens of any width, light and dark, and paper.

    It is well-formed XML too, and its content security policy forbids scripts and every request.

    Args:
      title: the heading; text.
      summary: the paragraph under it; text.
      sections: pairs of a heading, which is text, and HTML.
      details: the same, folded up at the end.
      footer: text.

    Returns:
      The HTML document.

    Example:
      >>> text = page("A <run>", "It went well.", [("Accuracy", "<p>0.9</p>")], [], "eejax 0.1.0")
      >>> "<h1>A &lt;run&gt;</h1>" in text, "<h2><span>1</span> Accuracy</h2>" in text
      (True, True)
    """
    title = escape(title)
    links = [f'<li><a href="#section-{i}">{escape(t)}</a></li>' for i, (t, _) in _count(sections)]
    main = [
        f'<section id="section-{i}"><h2><span>{i}</span> {escape(t)}</h2>\n{html}\n</section>'
        for i, (t, html) in _count(sections)
    ]
    if details:
        links.append('<li><a href="#details">Details</a></li>')
        folded = [
            f"<details><summary>{escape(t)}</summary>\n{html}\n</details>" for t, html in details
        ]
        main.append(f'<section id="details"><h2>Details</h2>\n{_lines(folded)}\n</section>')
    return f"""\
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/>
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<nav aria-label="Contents"><ol>
{_lines(links)}
</ol></nav>
<main>
<header><h1>{title}</h1>
{paragraphs(summary)}</header>
{_lines(main)}
</main>
<footer>{escape(footer)}</footer>
</body>
</html>
"""


def paragraphs(text: str) -> str:
    r"""Renders text as HTML; an empty line begins a new paragraph.

    Args:
      text: any text.

    Returns:
      HTML, with all text escaped.

    Example:
      >>> paragraphs("a < b\n\nand c")
      '<p>a &lt; b</p>\n<p>and c</p>'
    """
    return _lines([f"<p>{escape(p.strip())}</p>" for p in text.split("\n\n") if p.strip()])


def _count(items: Sequence[tuple[str, str]]) -> enumerate:
    return enumerate(items, start=1)


def _lines(parts: Sequence[str]) -> str:
    return "\n".join(parts)


LIGHT = """
  --paper: #ffffff; --ink: #1b1f24; --soft: #59636e; --line: #d9dee3; --wash: #f4f6f8;
  --accent: #0b62a4; --best: #e8f2fa;
"""

DARK = """
  --paper: #14171b; --ink: #e3e7eb; --soft: #98a2ad; --line: #30363d; --wash: #1d2126;
  --accent: #74b9f2; --best: #19303f;
"""

STYLE = (
    f"""
:root {{ color-scheme: light dark; {LIGHT}
  --serif: Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, "Liberation Serif", serif;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans",
    Arial, sans-serif;
}}
@media (prefers-color-scheme: dark) {{ :root {{ {DARK} }} }}
"""
    + """
* { box-sizing: border-box; }
html { scroll-padding-top: 4rem; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1.0625rem/1.6 var(--serif); }
main, footer { max-width: 64rem; margin: 0 auto; padding: 0 1.5rem; }
p { max-width: 44rem; margin: 0.8em 0; text-wrap: pretty; overflow-wrap: break-word; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }

nav { position: sticky; top: 0; z-index: 2; background: var(--paper);
  border-bottom: 1px solid var(--line); font: 0.875rem/1.4 var(--sans); }
nav ol { display: flex; gap: 1.5rem; max-width: 64rem; margin: 0 auto; padding: 0.8rem 1.5rem;
  list-style: none; overflow-x: auto; white-space: nowrap; }

header { padding: 2.4rem 0 0.6rem; }
h1 { font-size: 2.15rem; line-height: 1.2; font-weight: 600; letter-spacing: -0.012em; margin: 0;
  max-width: 52rem; text-wrap: balance; overflow-wrap: break-word; }
header p { font-size: 1.1875rem; line-height: 1.55; margin: 1rem 0 0; }
section { margin-top: 2.2rem; padding-top: 1.4rem; border-top: 1px solid var(--line); }
h2 { font-size: 1.45rem; line-height: 1.3; font-weight: 600; margin: 0 0 0.6rem;
  overflow-wrap: break-word; }
h2 span { color: var(--soft); font-weight: 400; margin-right: 0.35em; }

.figures { display: grid; gap: 1.6rem 2.4rem; margin: 1.4rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; min-width: 0; break-inside: avoid; }
.figures figure { max-width: 40rem; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; }
figcaption { font: 0.875rem/1.45 var(--sans); color: var(--soft); margin: 0.5rem 0;
  max-width: 44rem; overflow-wrap: break-word; }
figcaption b { color: var(--ink); font-weight: 600; }

.table { margin: 1.6rem 0; }
.table div { overflow-x: auto; }
table { border-collapse: collapse; font: 0.875rem/1.4 var(--sans);
  font-variant-numeric: tabular-nums lining-nums; border-bottom: 1.5px solid var(--ink); }
th, td { padding: 0.36rem 0.8rem; text-align: left; vertical-align: baseline; font-weight: 400; }
thead th { border-top: 1.5px solid var(--ink); border-bottom: 0.75px solid var(--ink);
  font-weight: 600; vertical-align: bottom; }
.n { text-align: right; }
tbody th, td { white-space: nowrap; }
tbody .long { white-space: normal; min-width: 14rem; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tr > :first-child { position: sticky; left: 0; background: var(--paper); }
tr.best > * { background: var(--best); font-weight: 600; }
.mark { color: var(--accent); }

details { margin: 0.8rem 0; font-family: var(--sans); font-size: 0.875rem; }
summary { cursor: pointer; font-weight: 600; padding: 0.3rem 0; }
pre { background: var(--wash); border-radius: 6px; padding: 1rem; margin: 0.5rem 0;
  overflow-x: auto; font: 0.8125rem/1.5 ui-monospace, "Cascadia Mono", Menlo, Consolas,
  "Liberation Mono", monospace; }
footer { font: 0.8125rem/1.5 var(--sans); color: var(--soft); margin-top: 3rem;
  padding-bottom: 2.5rem; }

@media (max-width: 40rem) {
  body { font-size: 1rem; }
  main, footer, nav ol { padding-left: 1rem; padding-right: 1rem; }
  header { padding-top: 1.5rem; }
  h1 { font-size: 1.6rem; }
  header p { font-size: 1.0625rem; }
  th, td { padding: 0.36rem 0.55rem; }
  tbody .long { min-width: 8rem; }
}
@media print {
"""
    + f"  :root {{ color-scheme: light; {LIGHT} }}\n"
    + """\
  body { font-size: 10pt; }
  nav { display: none; }
  main, footer { max-width: none; padding: 0; }
  section { margin-top: 1.2rem; padding-top: 0.8rem; }
  h2 { break-after: avoid; }
  .figures { grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); }
  .table div { overflow: visible; }
  table { font-size: 8pt; }
  tbody th, td:not(.n) { white-space: normal; }
  tbody .long { min-width: 0; }
  th, td { padding: 0.2rem 0.4rem; }
  tr.best > *, figure svg * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
)
