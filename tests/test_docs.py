"""The docs: made pages are up to date, links lead somewhere, and what they say can be typed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import browser
import guide
import numpy as np
import pandas as pd
import pytest
import webpage
import yaml
from datasets import own_folders

from radprobe.artifacts import Index
from radprobe.report import words

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SPEC = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
generate = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(generate)

FOLLOWED = {"tutorial.md", "how-to/dataset.md", "how-to/backbone.md", "how-to/protocol.md", "how-to/metric.md"}
FOLLOWED |= {"how-to/external.md"}


@pytest.mark.parametrize("name", generate.PAGES)
def test_a_page_of_the_reference_is_that_of_the_code(name):
    assert (DOCS / "reference" / name).read_text(encoding="utf-8") == generate.PAGES[name](), "run `make reference`"


def test_every_key_verb_and_artifact_is_in_the_reference():
    said = {name: (DOCS / "reference" / name).read_text(encoding="utf-8") for name in generate.PAGES}
    assert {"`limit`", "`leaks_allowed`", "`unet_widths`", "**needed**"} <= set(
        re.findall(r"`\w+`|\*\*\w+\*\*", said["params.md"])
    )
    for verb in ("init", "doctor", "pack", "gc", "adopt"):
        assert f"## `radprobe {verb}`" in said["cli.md"]
    assert "| `sample_id` | `str` | one per image or slice, sorted |" in said["artifacts.md"]


# --- the site ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site: mkdocs is strict, so that every link and anchor between its pages leads somewhere."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert built.returncode == 0, built.stderr
    assert not built.stderr
    return folder


def test_every_page_is_on_the_site_and_loads_nothing_from_elsewhere(site):
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    built = {path.relative_to(site) for path in site.rglob("*.html")}
    assert pages <= built
    for name in built:
        for tag, attributes in webpage.Page((site / name).read_text(encoding="utf-8")).tags:
            for where in {attributes.get("href") if tag == "link" else None, attributes.get("src")} - {None}:
                assert not re.match("(https?:)?//", where), f"{name}: {tag} {where}"


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium or Chrome is installed")
def test_the_site_opens_as_a_file_without_a_request_or_complaint(site, tmp_path):
    with browser.Browser(tmp_path) as tab:
        for name in ("index.html", "reference/params.html"):
            tab.open((site / name).as_uri())
            assert tab.run("document.querySelector('article h1').innerText")
            assert tab.requests == tab.complaints == []


@pytest.mark.parametrize("name", ["README.md", "workflow/profiles/README.md", "envs/README.md"])
def test_a_link_into_the_docs_leads_to_a_page_and_its_heading(site, name):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / name).read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file
        assert path.resolve().exists(), f"{name}: {target}"
        if anchor:
            page = site / path.resolve().relative_to(DOCS).with_suffix(".html")
            assert f'id="{anchor}"' in page.read_text(encoding="utf-8"), f"{name}: {target}"


def test_every_metric_is_defined():
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert [name for name in {**words.METRICS, **words.OTHERS} if f"`{name}`" not in text] == []
    assert f"`<metric>{words.WITHOUT_NEAR}`" in text


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_every_path_and_target_that_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    added = {(block.title or "").partition(" ")[0] for block in guide.blocks(page)}
    for path in re.findall(r"`((?:src|workflow|splits|envs|tests|docs|benchmarks)/[\w./]*)`", text):
        assert path in added or (ROOT / path).exists(), path
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_pictures_are_small():
    for path in DOCS.glob("pictures/*"):
        assert path.stat().st_size < 200_000, path


# --- commands ---------------------------------------------------------------------------------------------------------


def test_every_command_is_run_or_says_why_not():
    for path in DOCS.rglob("*.md"):
        for block in guide.blocks(path):
            assert block.kind != "sh" or block.why or str(path.relative_to(DOCS)) in FOLLOWED, f"{path}:\n{block.text}"


@pytest.fixture
def here(tmp_path):
    """A checkout to type in."""
    return guide.checkout(tmp_path / "radprobe")


# a pilot of seconds: what takes long is left out of what `init` writes
QUICK = {
    "threads": 1,
    "controls": {"random_inits": 1, "pixels": False, "metadata": False, "ceiling": False},
    "score": {"resamples": 100},
}
QUICK["probe"] = {"linear": {"epochs": 20}, "knn": None, "logistic": {"values": 3}, "few_shot": None, "paper": False}


@pytest.mark.slow
def test_the_tutorial_leads_from_a_folder_of_dicoms_to_a_verdict(here, monkeypatch):
    monkeypatch.setattr(own_folders, "PATIENTS", 60)
    own_folders.dicom_films(here.parent / "films")

    def shorten(block):
        if "radprobe init" in block.text:
            with (here / "films.yaml").open("a") as file:
                file.write(yaml.safe_dump(QUICK))

    said = guide.follow(DOCS / "tutorial.md", here, after=shorten)
    for line in re.findall(r"^  (?:task|patient|split): .+$", (DOCS / "tutorial.md").read_text(), re.MULTILINE):
        assert line in said
    assert re.search(r"snakemake --cores \d+ --configfile films.yaml", said)  # what init says to type next
    assert "120 images" in said  # of all patients, known by plan from what the pilot retrieved
    assert re.search(r"embed .*\d+ earlier job", said)
    assert (here / "films_sheet.png").is_file()
    assert "limit: null" in (here / "films.yaml").read_text()
    page = webpage.Page((here / "reports/films/explorer.html").read_text(encoding="utf-8")).words
    assert "pilot" in page
    (value,) = re.findall(r"(?<!:)\btf_efficientnet_lite0 +linear +([\d.]+)", said)
    assert float(value) > 0.8


@pytest.mark.slow
@pytest.mark.full
def test_the_guide_to_a_dataset_can_be_followed(here):
    rng, rows, own = np.random.default_rng(0), [], here.parent / "my_films"
    for k in range(24):
        own_folders.film(own / f"{k:03d}.png", rng, k % 2)
        rows.append({"path": f"{k:03d}.png", "patient": f"p{k}", "Effusion": k % 2, "Nodule": k // 2 % 2})
    own_folders.table(own, rows)
    guide.follow(DOCS / "how-to/dataset.md", here)
    for root, name, n, classes in ((here, "my_films", 24, 2), (here / "ward", "ward_films", 80, 1)):
        (path,) = root.glob(f"work/{name}/prepare/*/index.json")
        index = Index.load(path.parent)
        assert (len(index.table), len(index.classes)) == (n, classes)
        assert list(root.glob(f"work/{name}/split/*/leaks.json"))


@pytest.mark.slow
@pytest.mark.full
def test_the_guide_to_a_backbone_can_be_followed(here):
    said = guide.follow(DOCS / "how-to/backbone.md", here)
    for title in ("My DINOv2, tuned on our films", "ConvNeXt-T of our group", "ViT-Ti/16, ImageNet-21k"):
        assert title in said
    made = (here / "tiny").glob("work/montgomery/embed/random-vit_tiny_patch16_in21k/*/embeddings.json")
    assert list(made)


@pytest.mark.slow
@pytest.mark.full
def test_the_guide_to_a_protocol_can_be_followed(here):
    said = guide.follow(DOCS / "how-to/protocol.md", here)
    (value,) = re.findall(r"^centroid: test auroc ([\d.]+)", said, re.MULTILINE)
    assert 0.4 < float(value) < 1


@pytest.mark.slow
@pytest.mark.full
def test_the_guide_to_a_metric_can_be_followed(here):
    guide.follow(DOCS / "how-to/metric.md", here)
    (path,) = here.glob("precision/results/montgomery/score/test_vit/*/scores.parquet")
    table = pd.read_parquet(path).query("metric == 'precision' and part == 'test' and `class` == 'macro'")
    assert 0 <= table["value"].iloc[0] <= 1


@pytest.mark.slow
@pytest.mark.full
def test_the_guide_to_rows_from_elsewhere_can_be_followed(here):
    guide.follow(DOCS / "how-to/external.md", here)
    table = pd.read_parquet(here / "reader/reports/scores.parquet")
    assert set(table.loc[table["backbone"] == "reader_1", "protocol"]) == {"external"}
    page = webpage.Page((here / "reader/reports/explorer.html").read_text(encoding="utf-8")).words
    assert "Reader 1" in page
