"""The documentation site: it builds without a warning, its links lead somewhere, and reading it
asks nobody else.
"""

import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

import ponticello

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("sphinx") is None, reason="the site is built with the extra docs"),
]
ASKS = {
    "img": "src",
    "script": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "use": "href",
}


class Page(NamedTuple):
    """What a page of HTML names: its anchors, its links, what is loaded to show it, pictures
    without a text.
    """

    anchors: set[str]
    links: list[str]
    loaded: list[str]
    unsaid: list[str]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page(set(), [], [], [])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for every element."""
        values = {name: value or "" for name, value in attrs}
        self.page.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.page.links.append(values["href"])
        if tag in ASKS and ASKS[tag] in values:
            self.page.loaded.append(values[ASKS[tag]])
        if tag == "img" and not values.get("alt"):
            self.page.unsaid.append(values.get("src", ""))


def _read(path: Path) -> Page:
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    done = subprocess.run(
        [*command, "-d", str(out / "doctrees"), str(ROOT / "docs"), str(out / "html")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return out / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Every page of the site, read."""
    return {path: _read(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_of_docs_is_a_page_of_the_site(pages: dict[Path, Page]) -> None:
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= {path.stem for path in pages}


def test_every_link_within_the_site_leads_to_a_page_and_an_anchor(pages: dict[Path, Page]) -> None:
    lost = []
    for path, page in pages.items():
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            anchors = pages[target].anchors if target in pages else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                lost.append(f"{path.name}: {link}")
    assert lost == []


def test_links_out_of_the_site_are_listed_and_only_to_the_web(
    pages: dict[Path, Page], site: Path
) -> None:
    found = {
        link.split("#")[0]
        for page in pages.values()
        for link in page.links
        if urlsplit(link).scheme
    }
    listed = {
        line.split("  ")[0] for line in (site / "external-links.txt").read_text().splitlines()
    }
    assert "https://arxiv.org/abs/2505.23298" in listed
    assert found == listed


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page], site: Path) -> None:
    assert [link for page in pages.values() for link in page.loaded if urlsplit(link).netloc] == []
    for sheet in site.rglob("*.css"):
        asked = re.findall(
            r"(?:url\(|@import)\s*[\"']?(\w+:)?//[^)\"']+", sheet.read_text(encoding="utf-8")
        )
        assert asked == [], sheet.name


def test_every_picture_has_a_text(pages: dict[Path, Page]) -> None:
    assert {path.name: page.unsaid for path, page in pages.items() if page.unsaid} == {}


def test_the_python_reference_has_every_public_name_and_what_it_can_do(
    pages: dict[Path, Page], site: Path
) -> None:
    anchors = pages[site / "python.html"].anchors
    assert [name for name in ponticello.__all__ if f"ponticello.{name}" not in anchors] == []
    methods = [
        name
        for name, value in vars(ponticello.Library).items()
        if not name.startswith("_") and value.__doc__
    ]
    assert len(methods) > 10
    assert [name for name in methods if f"ponticello.Library.{name}" not in anchors] == []


@pytest.mark.parametrize(
    "code",
    ["k=10)\n", 'model.encode_audio(["a.flac", "b.mp3"])', "\n|   `-- AudioError"],
)
def test_a_docstring_s_example_is_shown_as_code(site: Path, code: str) -> None:
    blocks = re.findall(
        r"<pre>(.*?)</pre>", (site / "python.html").read_text(encoding="utf-8"), re.DOTALL
    )
    assert any(code in unescape(re.sub(r"<[^>]+>", "", block)) for block in blocks)
