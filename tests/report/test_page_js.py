"""The page as a person uses it, in headless Chromium."""

import base64
import csv
import json
import time

import browser
import explorer
import numpy as np
import pandas as pd
import pytest
import synthetic_study
from PIL import Image

from radprobe.report import canvas, figures, ranking, style
from radprobe.report import page as pages
from radprobe.report.collect import Findings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium or Chrome is installed"),
]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def page(chromium, finished, text, written):
    """The page of the finished study, opened anew; afterwards nothing was complained of or asked for."""
    chromium.open((written / "explorer.html").as_uri())
    yield chromium
    assert chromium.complaints == []
    assert chromium.requests == []


def cells(page, name):
    """Return what a column of the table shows, from top to bottom."""
    at = order_of_columns(page).index(name)
    return page.run(f"[...document.querySelectorAll('#scores tbody tr')].map(row => row.cells[{at}].textContent)")


def order_of_columns(page):
    return page.run("[...document.querySelectorAll('#scores thead button')].map(each => each.dataset.sort)")


def order(page, name):
    return page.run(f"document.querySelector('[data-sort={name}]').closest('th').getAttribute('aria-sort')")


def shown(page, selector):
    """Return whether each element that matches is to be seen."""
    return page.run(f"[...document.querySelectorAll({json.dumps(selector)})].map(each => each.checkVisibility())")


def count(page):
    return page.run("document.getElementById('count').textContent")


def test_at_first_it_shows_the_primary_metric_macro_on_test(page, written):
    table = pd.read_parquet(written / "scores.parquet")
    table = table[~table["backbone"].str.contains("~")]  # further inits have no row of their own
    first = table[(table["part"] == "test") & (table["class"] == "macro") & table["metric"].isin(["dsc", "auroc"])]
    assert count(page) == f"{len(first)} of {len(table)} rows: primary metric, part test, class macro"
    assert set(cells(page, "metric")) == {"dsc", "auroc"}


@pytest.mark.parametrize(
    ("name", "value", "dataset"),
    [
        ("task", "segmentation", "montgomery"),
        ("dataset", "nih_chestxray14", "nih_chestxray14"),
        ("family", "control", None),
        ("protocol", "knn", "nih_chestxray14"),
        ("metric", "iou", "montgomery"),
        ("modality", "X-ray", None),
    ],
)
def test_a_filter_leaves_what_it_names(page, name, value, dataset):
    page.run("for (const box of document.querySelectorAll('#columns input:not(:checked)')) box.click()")
    before = len(cells(page, "dataset"))
    page.choose(name, value)
    assert set(cells(page, name)) == {value}
    assert dataset is None or set(cells(page, "dataset")) == {dataset}
    page.choose(name, "")
    if name != "metric":
        assert len(cells(page, "dataset")) == before


def test_parts_and_classes_are_filters_too(page):
    page.choose("part", "val")
    page.choose("class", "Hernia")
    assert set(cells(page, "class")) == {"Hernia"}
    assert set(cells(page, "part")) == {"val"}
    assert set(cells(page, "value")) == {"–"}  # it is undefined, and says why
    assert page.run("document.querySelector('#scores td[title]').title") == "undefined: no positives"


def test_sections_follow_the_filters_of_datasets(page):
    films = '[data-dataset="montgomery"]'
    assert all(shown(page, ".card"))
    page.choose("dataset", "nih_chestxray14")
    for selector in (
        f".card{films}",
        f"figure{films}",
        f"#differences {films}",
        f"#map th{films}",
        f"#frontier {films}",
    ):
        assert shown(page, selector), selector
        assert not any(shown(page, selector)), selector
    assert all(shown(page, '.card[data-dataset="nih_chestxray14"]'))
    assert page.run("document.querySelector('header [data-gone]').textContent") == (
        "2 of 3 datasets are left out of this page."
    )
    assert page.run("document.querySelector('header [data-filter=dataset]').value") == "nih_chestxray14"
    page.choose("dataset", "")
    assert all(shown(page, f".card{films}"))
    assert page.run("document.querySelector('header [data-gone]').textContent") == ""


def test_the_map_and_the_other_sections_follow_the_filter_of_families(page, tmp_path):
    rows = '[data-family="{}"]'
    control, ours = rows.format("control"), rows.format("own")
    before = ink(page, tmp_path)
    page.choose("family", "own")
    for section in ("#map tbody", "#differences .line", "#few-shot tr", "#frontier tr", "#look tr"):
        assert shown(page, section + control), section
        assert not any(shown(page, section + control)), section
    for section in ("#map tbody", "#frontier tr"):
        assert any(shown(page, section + ours)), section
    assert set(cells(page, "backbone")) == {"derived"}
    after = ink(page, tmp_path)
    assert after[style.FAMILIES["supervised"]] < before[style.FAMILIES["supervised"]] / 10
    assert after[style.FAMILIES["own"]] >= before[style.FAMILIES["own"]] > 50
    assert "Families other than own are left out" in page.run(
        "document.querySelector('header [data-gone]').textContent"
    )
    page.choose("family", "")
    assert all(shown(page, f"#map [data-map]:not([hidden]) tbody{control}"))
    assert ink(page, tmp_path) == before


def ink(page, folder):
    """Return how many pixels of the first figure of scores have the colour of each family."""
    page.picture(folder / "figure.png", "#figures figure svg")
    pixels = np.asarray(Image.open(folder / "figure.png").convert("RGB")).astype(int)
    return {
        colour: int((abs(pixels - [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).max(axis=2) < 8).sum())
        for colour in style.FAMILIES.values()
    }


def test_the_map_and_the_differences_follow_the_filter_of_protocols(page):
    note = "document.querySelector('header [data-gone]').textContent"
    page.choose("protocol", "knn")
    assert page.run("document.querySelector('[data-switch] input:checked').value") == "k nearest neighbours"
    assert all(shown(page, '#map [data-map="k nearest neighbours"]'))
    assert sum(shown(page, "#map [data-map]")) == 1
    assert all(shown(page, '#differences details[data-protocol="knn"]'))
    assert not any(shown(page, '#differences details:not([data-protocol="knn"])'))
    assert "are of knn" in page.run(note)
    page.choose("protocol", "few-shot 2")  # there is no such map, so it stays as it is
    assert all(shown(page, '#map [data-map="k nearest neighbours"]'))
    assert all(shown(page, "#differences details"))
    assert "have no view of few-shot 2" in page.run(note)
    page.choose("protocol", "linear-decoder")  # in the first view, with the linear probe of classifiers
    assert page.run("document.querySelector('[data-switch] input').checked")
    page.choose("protocol", "")
    assert shown(page, "#map [data-map]")[0]
    assert all(shown(page, "#differences details"))
    assert page.run(note) == ""


def test_search_needs_every_word(page):
    search = "document.getElementById('search')"
    page.run(f"{search}.value = 'DERIVED logistic'; {search}.dispatchEvent(new Event('input'))")
    assert set(cells(page, "protocol")) == {"logistic"}
    assert set(cells(page, "backbone")) == {"derived", "random:derived"}


def test_every_column_sorts_both_ways_with_missing_values_last(page):
    page.run("for (const box of document.querySelectorAll('#columns input:not(:checked)')) box.click()")
    for name in page.run("[...document.querySelectorAll('#scores thead button')].map(each => each.dataset.sort)"):
        for _ in range(2):
            page.run(f"document.querySelector('[data-sort={name}]').click()")
            way, found = order(page, name), [each for each in cells(page, name) if each != "–"]
            assert way in ("ascending", "descending")
            assert cells(page, name)[: len(found)] == found, name
            if name in ("value", "seconds", "n_patients"):
                numbers = [float(each) for each in found]
                assert numbers == sorted(numbers, reverse=way == "descending")
    assert page.run("document.querySelectorAll('#scores th:not([aria-sort=none])').length") == 1


def test_few_shot_rows_sort_by_their_number(page):
    page.choose("protocol", "")
    page.run("document.querySelector('[data-sort=protocol]').click()")
    shots = [each for each in cells(page, "protocol") if each.startswith("few-shot") and "@" not in each]
    assert list(dict.fromkeys(shots)) == [f"few-shot {n}" for n in (1, 2, 4, 8, 16, 32, "all")]


def test_the_keyboard_sorts_and_keeps_its_place(page):
    page.run("document.querySelector('[data-sort=value]').focus()")
    page.press("Enter", "\r")
    assert order(page, "value") == "descending"
    assert page.run("document.activeElement.dataset.sort") == "value"
    page.press(" ", " ")
    assert order(page, "value") == "ascending"
    page.press("Tab")
    assert page.run("document.activeElement.dataset.sort") == "low"


def test_columns_can_be_chosen(page):
    assert order_of_columns(page)[:2] == ["dataset", "backbone"]
    page.run("document.querySelector('#columns input[value=family]').click()")
    page.run("document.querySelector('#columns input[value=note]').click()")
    assert "family" in order_of_columns(page)
    assert "note" not in order_of_columns(page)


def test_csv_holds_the_rows_that_are_shown_in_full(page, tmp_path):
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.choose("dataset", "montgomery")
    page.choose("metric", "")
    page.run("document.getElementById('download').click()")
    lines = list(csv.DictReader(arrived(tmp_path, "scores.csv").open(encoding="utf-8")))
    assert f"{len(lines)} of " in count(page)
    assert {line["dataset"] for line in lines} == {"montgomery"}
    assert {line["task"] for line in lines} == {"segmentation"}
    assert any(len(line["value"]) > 10 for line in lines)  # not as rounded as on the page


def test_parquet_lies_beside_the_page_and_is_linked_relatively(page, written):
    link = page.run(
        "(a => [a.getAttribute('href'), a.hasAttribute('download')])(document.querySelector('a[href$=parquet]'))"
    )
    assert link == ["scores.parquet", True]
    table = pd.read_parquet(written / "scores.parquet")
    table = table[~table["backbone"].str.contains("~")]  # further inits have no row of their own
    assert f" of {len(table)} rows" in count(page)


def arrived(folder, name):
    ends = time.monotonic() + 20
    while not (folder / name).is_file():
        assert time.monotonic() < ends, f"{name} was not downloaded"
        time.sleep(0.05)
    return folder / name


def test_on_paper_every_row_stands_without_filters(page):
    page.choose("metric", "")
    page.choose("class", "")
    rows = int(count(page).split()[0])
    assert rows > len(cells(page, "dataset"))  # there is more to show
    page.run("dispatchEvent(new Event('beforeprint'))")
    page.call("Emulation.setEmulatedMedia", media="print")
    assert len(cells(page, "dataset")) == rows
    assert order_of_columns(page) == ["dataset", "backbone", "protocol", "metric", "value", "low", "n_patients"]
    assert not any(shown(page, ".filters"))
    assert shown(page, "#count") == [True]  # what was filtered is told
    page.call("Emulation.setEmulatedMedia", media="")
    page.run("dispatchEvent(new Event('afterprint'))")
    assert len(cells(page, "dataset")) == 200
    assert "part" in order_of_columns(page)


def test_a_link_leads_to_its_section_though_figures_are_laid_out_late(page):
    for section in ("table", "again", "ranks"):
        page.run(f"document.querySelector('nav a[href=\"#{section}\"]').click()")
        page.run("new Promise(done => setTimeout(done, 300))")
        top = page.run(f"document.getElementById('{section}').getBoundingClientRect().top")
        bottom = page.run("innerHeight + scrollY - document.documentElement.scrollHeight")
        assert abs(top) < 40 or bottom > -2, section


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window_in_the_light_and_in_the_dark(chromium, written, text, width, dark, tmp_path):
    chromium.open((written / "explorer.html").as_uri(), width=width, dark=dark)
    assert chromium.run("document.documentElement.scrollWidth") <= width
    for section in ("#ranks", "#frontier", "#table"):
        chromium.picture(tmp_path / "section.png", section)
        brightness = np.asarray(Image.open(tmp_path / "section.png").convert("L")).mean()
        assert brightness < 70 if dark else brightness > 185, section
    assert chromium.complaints == chromium.requests == []


def test_inside_snakemakes_report_no_link_leads_to_a_file_that_is_not_there(chromium, root, render_all):
    films = {"montgomery": synthetic_study.params(root)["datasets"]["montgomery"]}
    content = base64.b64encode(render_all(root, datasets=films, report={"images": "none"}).encode()).decode()
    assert len(content) < 2_000_000  # Chromium shows no longer data URI
    uri = f"data:text/html;charset=utf8;filename=explorer.html;base64,{content}"
    (root / "report.html").write_text(f'<iframe src="{uri}" width="1200" height="800"></iframe>')
    chromium.open((root / "report.html").as_uri())
    inside = chromium.frame
    assert chromium.run("location.protocol", **inside) == "data:"
    hrefs = chromium.run("[...document.querySelectorAll('a[href]')].map(each => each.getAttribute('href'))", **inside)
    assert "#cell-montgomery-derived" in hrefs
    assert [each for each in hrefs if not each.startswith(("#", "https://", "http://"))] == []
    said = chromium.run("document.body.textContent", **inside)
    assert "figures/montgomery_scores.svg, PDF" in said
    assert "All rows as parquet" in said
    chromium.run("document.querySelector('#map a[href=\"#cell-montgomery-derived\"]').click()", **inside)
    cell = "document.getElementById('cell-montgomery-derived')"
    is_open = f"new Promise(done => setTimeout(() => done({cell}.open && {cell}.checkVisibility()), 300))"
    assert chromium.run(is_open, **inside)
    assert chromium.complaints == chromium.requests == []


def test_a_study_of_which_nothing_ran_has_a_page_without_complaint(chromium, tmp_path, render_all):
    render_all(tmp_path)
    study = synthetic_study.study(tmp_path)
    chromium.open((study.path("reports") / "explorer.html").as_uri())
    assert count(chromium).startswith("0 of 0 rows")
    assert chromium.complaints == chromium.requests == []


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """The page of eleven datasets and 23 backbones, controls among them, with a line in the place of each figure."""
    folder = tmp_path_factory.mktemp("crowded")
    findings = Findings(explorer.study_of(folder))
    explorer.fill(findings, 1500)
    drawn = dict.fromkeys(figures.of(findings.study), canvas.render(lambda: canvas.empty("a figure"))["svg"])
    text = pages.render(findings, ranking.columns(findings), [], {}, drawn)
    (folder / "explorer.html").write_text(text, encoding="utf-8")
    return folder / "explorer.html"


def edges(page, selector):
    """Return (left, right) of each element that matches and is to be seen, in pixels of the page."""
    return page.run(
        f"[...document.querySelectorAll({json.dumps(selector)})].filter(each => each.checkVisibility())"
        ".map(each => each.getBoundingClientRect()).map(box => [box.left + scrollX, box.right + scrollX])"
    )


@pytest.mark.parametrize("width", [718, 1046])  # A4 upright and lying, with margins of 1 cm
def test_on_paper_many_datasets_fit_the_sheet(chromium, crowded, width):
    chromium.open(crowded.as_uri(), width=width)
    chromium.run("dispatchEvent(new Event('beforeprint'))")
    chromium.call("Emulation.setEmulatedMedia", media="print")
    for selector in ("#map table", "#ranks table", "#ranks figure svg", "#differences .line", "#scores"):
        found = edges(chromium, selector)
        assert found, selector
        assert all(left >= 0 and right <= width for left, right in found), (selector, found[0])
    assert not any(shown(chromium, ".files, .screen, nav"))
    assert all(shown(chromium, "#map [data-map]:not([hidden]) .tip"))  # nothing to hover over: intervals stand there
    assert chromium.complaints == chromium.requests == []


@pytest.mark.parametrize("dark", [False, True])
def test_many_datasets_scroll_beside_the_names_of_the_backbones(chromium, crowded, dark):
    chromium.open(crowded.as_uri(), width=400, dark=dark)
    assert chromium.run("document.documentElement.scrollWidth") <= 400
    chromium.run("document.querySelector('#map .scroll').scrollLeft = 300")
    (box, *_), names = edges(chromium, "#map .scroll"), edges(chromium, "#map .scroll tbody th[scope=row]")
    assert {left for left, _ in names} == {box[0]}
    behind = "getComputedStyle(document.querySelector('#map tbody th[scope=row]')).backgroundColor"
    assert "rgba" not in chromium.run(behind)  # no number shines through
    assert chromium.complaints == chromium.requests == []
