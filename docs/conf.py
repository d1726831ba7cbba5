"""How the pages in docs/ become a site: Sphinx, MyST for Markdown, Furo for the looks. `make docs`
builds it.

Nothing is fetched, by the build or by the pages. A broken link, a missing picture or a docstring
that does not parse is a warning, and a warning fails the build. Links that leave the site are
listed in `external-links.txt` beside it.
"""

import re
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer

import ponticello

ROOT = Path(__file__).parents[1]
# Pages of the site that are files elsewhere in the repository; links to those lead to the page.
TAKEN_IN = {
    "CONTRIBUTING.md": "contributing.md",
    "README.md#the-packages": "contributing.md#the-packages",
    "src/ponticello/model/weights/starter.md": "starter.md",
    "demo/ATTRIBUTION.md": "attribution.md",
}
TAKEN = re.compile(
    r"^\[.+\]\(\.\./(?P<file>[^)#]+)[^)]*\) <!-- taken in(?:: (?P<heading>.+))? -->$", re.MULTILINE
)

project = "Ponticello"
version = release = ponticello.__version__
html_title = "Ponticello"
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False

myst_heading_anchors = 4  # the anchors GitHub gives to headings
highlight_language = "none"  # of indented blocks, which are commands
default_role = "code"  # what a docstring has between single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
nitpicky = False  # types of other projects have no page here
PLAIN = ("csv", "jsonl", "m3u")  # languages of examples that are shown as they are


def mark_up(lines: list[str]) -> list[str]:
    """A docstring of ours as reStructuredText: an indented block is code, a hanging indent goes on
    in its line.
    """
    marked: list[str] = []
    for line in lines:
        above = marked[-1] if marked else ""
        if line.startswith(" ") and above.strip() and not above.startswith(" "):
            marked[-1] = f"{above} {line.strip()}"
        elif line.startswith(" ") and not above.strip() and not _within_code(marked):
            marked += ["::", "", line]
        elif re.match(r"[a-z]\w*(, \w+)*: ", line) and above.strip() and not above.startswith(" "):
            marked += ["", line]  # each parameter in a paragraph of its own
        else:
            marked.append(line)
    return marked


def _within_code(marked: list[str]) -> bool:
    written = [line for line in marked if line.strip()]
    return bool(written) and written[-1].startswith(" ")


def _take_in(_app: Any, name: str, source: list[str]) -> None:
    """Replaces a link marked `<!-- taken in -->` by its file, or the part under its heading."""

    def file(link: re.Match[str]) -> str:
        text = (ROOT / link["file"]).read_text(encoding="utf-8")
        if not link["heading"]:
            return text
        part = re.search(
            rf"^{re.escape(link['heading'])}\n.*?(?=^## |\Z)", text, re.DOTALL | re.MULTILINE
        )
        if part is None:
            raise ValueError(
                f"{link['file']} has no {link['heading']!r}, which docs/{name}.md takes in"
            )
        return part[0]

    text = TAKEN.sub(file, source[0])
    for there, page in TAKEN_IN.items():
        text = re.sub(rf"\]\((?:\.\./)*{re.escape(there)}\)", f"]({page})", text)
    source[0] = _place_others(text) if name == "index" else text


def _place_others(index: str) -> str:
    """The index with the pages that no list of it names in the place of OTHERS: none is lost."""
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    listed = set(re.findall(r"^([\w-]+)$", index, re.MULTILINE))
    return index.replace("OTHERS", "\n".join(sorted(pages - listed)))


def _mark_up(*event: Any) -> None:
    lines: list[str] = event[-1]
    lines[:] = mark_up(lines)


def _list_external_links(app: Any, exception: Exception | None) -> None:
    """Writes every address outside the site with the pages that name it; they are listed, and never
    asked.
    """
    if exception is None and app.builder.format == "html":
        out = Path(app.outdir)
        named: dict[str, set[str]] = {}
        for page in sorted(out.rglob("*.html")):
            for address in re.findall(r'href="(https?://[^"#]+)', page.read_text(encoding="utf-8")):
                named.setdefault(address, set()).add(page.relative_to(out).as_posix())
        lines = [
            f"{address}  {' '.join(sorted(pages))}\n" for address, pages in sorted(named.items())
        ]
        (out / "external-links.txt").write_text("".join(lines), encoding="utf-8")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    for language in PLAIN:
        app.add_lexer(language, TextLexer)
    app.connect("source-read", _take_in)
    app.connect("autodoc-process-docstring", _mark_up)
    app.connect("build-finished", _list_external_links)
