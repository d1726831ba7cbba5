"""The page: well formed, complete offline and without script, readable, and clear on simulation."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise

import pytest

from ponticello.evaluate.report.html import as_page
from ponticello.evaluate.report.plots import plots_of
from ponticello.evaluate.results import Summary

VOID = {"meta", "br", "hr", "img", "link", "input", "!doctype"}


class _Reader(HTMLParser):
    """What a page holds, checking as it goes that every element ends where it must."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)


def _page(summary: Summary) -> str:
    return as_page(summary, plots_of(summary))


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("name", ["summary", "simulated", "hostile", "empty"])
def test_page_is_well_formed_and_needs_nothing_else(
    name: str, request: pytest.FixtureRequest
) -> None:
    page = _page(request.getfixturevalue(name))
    reader = _read(page)
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {tag for tag, _ in reader.tags}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "base", "form"}
    )
    for tag, attributes in reader.tags:
        assert not [
            attribute
            for attribute in attributes
            if attribute.startswith("on") or attribute == "src"
        ]
        address = attributes.get("href") or ""
        assert tag in ("a", "use") or not address
        if address.startswith("#"):
            assert address[1:] in ids
        else:
            assert re.fullmatch(
                r"(plots/[a-z0-9-]+\.(svg|png)|[a-z-]+\.(md|json|csv|parquet|tex))?", address
            )
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_headings_go_down_one_level_at_a_time(summary: Summary) -> None:
    levels = [int(tag[1]) for tag, _ in _read(_page(summary)).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_header_cell_has_a_scope_and_every_table_a_caption(summary: Summary) -> None:
    tags = _read(_page(summary)).tags
    assert {attributes.get("scope") for tag, attributes in tags if tag == "th"} == {"col", "row"}
    n_tables = sum(tag == "table" for tag, _ in tags)
    assert n_tables == sum(tag == "caption" for tag, _ in tags) == 8
    assert all(attributes.get("aria-label") for tag, attributes in tags if tag == "svg")


def test_sections_stand_in_order_and_only_where_there_is_something(
    summary: Summary, empty: Summary
) -> None:
    def sections(page: str) -> list[str | None]:
        return [attributes["id"] for tag, attributes in _read(page).tags if tag == "section"]

    assert sections(_page(summary)) == [
        "claims",
        "semantic",
        "preference",
        "tradeoff",
        "integrity",
        "differences",
        "background",
        "notes",
        "files",
    ]
    assert sections(_page(empty)) == ["claims", "background", "files"]


def test_every_claim_note_and_figure_is_on_the_page(summary: Summary) -> None:
    text = "".join(_read(_page(summary)).text).replace("−", "-")
    for sentence in (
        *summary.claims,
        *summary.notes,
        summary.about.command,
        summary.about.splits_sha256,
    ):
        assert sentence in text
    assert "0.083" in text
    assert "[0.013, 0.153]" in text
    assert "± 0.010" in text
    assert "-0.125" in text
    assert "<0.001" in text


def test_best_values_are_marked_for_eyes_and_ears(summary: Summary) -> None:
    page = _page(summary)
    best = re.findall(r'<td class="best"><span>([^<]*)</span>', page)
    assert best == [
        "0.500",
        "2.0",
        "0.700",
    ]  # R@10 of stage one, its lower median rank, NDCG@10 of stage two
    assert page.count(", best value</span>") == 3
    assert re.findall(r'<td class="level"><span>([^<]*)</span>', page) == ["0.400", "2.5"]


def test_verdicts_are_coloured_only_where_they_were_tested(summary: Summary) -> None:
    untested = replace(summary.differences[1], low=-1.0, high=-0.2)
    page = _page(replace(summary, differences=[*summary.differences, untested]))
    assert page.count('class="verdict worse"') == 1
    assert page.count('class="verdict better"') == 1
    assert '<td class="verdict">worse, not tested</td>' in page


def test_banner_stands_on_top_if_and_only_if_listeners_are_simulated(
    summary: Summary, simulated: Summary
) -> None:
    page = _page(simulated)
    assert page.count('class="banner"') == 1
    assert page.index('class="banner"') < page.index("<main>")
    assert '<h2 id="preference-title">Taste (SIMULATED listeners)</h2>' in page
    assert "SIMULATED" not in _page(summary)


def test_hostile_text_is_shown_and_does_nothing(hostile: Summary) -> None:
    page = _page(hostile)
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;" in page
    assert not re.search("[\x00\u202e\ud800]", page)


def _palette(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))


def _luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_has_contrast_of_at_least_four_and_a_half_to_one(scheme: int) -> None:
    style = files("ponticello.evaluate.report").joinpath("page.css").read_text(encoding="utf-8")
    palette = _palette(re.findall(r":root \{([^}]*)\}", style)[scheme])
    pairs = [
        (ink, ground) for ink in ("ink", "muted", "link") for ground in ("page", "card", "shade")
    ]
    pairs += [("blue", "card"), ("orange", "card"), ("warn-ink", "warn-bg")]
    for ink, ground in pairs:
        low, high = sorted((_luminance(palette[ink]), _luminance(palette[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)
