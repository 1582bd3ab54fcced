import json
import re

import pandas as pd
import pytest
import running
import synthetic_study
from webpage import LOADING, Page

from radprobe.artifacts import SCORES_SCHEMA, Comparison, Index, Split, Truth
from radprobe.report import canvas, ranking, scores_chart
from radprobe.report.collect import Findings
from radprobe.stages import score


def everything(text):
    return json.loads(re.search(r'id="everything">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_answers_in_order(text):
    ids = [attributes["id"] for tag, attributes in Page(text).tags if tag == "section"]
    assert ids == [
        "verdict",
        "map",
        "differences",
        "ranks",
        "adaptation",
        "few-shot",
        "frontier",
        "look",
        "figures",
        "table",
        "trust",
        "again",
    ]


def test_verdicts_carry_scores_random_inits_costs_and_caveats(text):
    said = Page(text).words
    assert "Segmentation, Montgomery County chest X-rays (24 test patients)" in said
    assert re.search(r", a linear decoder: DSC 0\.9\d\d \[0\.9\d\d, 0\.9\d\d\]", said)
    assert re.search(r"Best: .* or .* \(no significant difference\)\.", said)
    assert "Nothing is compared yet" not in said
    assert "scores significantly higher than its random init" in said
    assert re.search(r"To resolve 0\.02 between|are enough to resolve 0\.02 between", said)
    assert "costs 3.0 min of CPU" in said
    assert "Generated (phantom) data" in said
    assert "has derived weights, not the published ones" in said
    assert "A partial copy of NIH ChestX-ray14: 111920 of 112120 images are absent." in said


def test_near_duplicates_among_the_test_cases_are_said_beside_the_verdict(text):
    said = re.search(r"Near-duplicates of other parts are among the test cases; without them DSC is (0\.\d{3})", text)
    assert 0.9 < float(said[1]) < 1


def test_where_every_test_case_looks_like_a_copy_the_verdict_says_so(root, render, monkeypatch):
    study = synthetic_study.study(root)
    monkeypatch.setattr(score, "_near_cases", lambda inputs: set(Truth.load(inputs.folder("prepare")).maps.table.index))
    for backbone in study.backbones:
        if step := study.steps.get(("score", "montgomery", backbone)):
            running.run(study, step)
    page = Page(render(root)).words
    assert "Every test case looks like a copy of one in another part." in page
    assert "without them" not in page
    assert re.search(r", a linear decoder: DSC 0\.9", page)


@pytest.mark.survives("attack", "HTML in titles, names and params, into explorer.html", "shown as text")
def test_names_cannot_inject_html(text):
    assert synthetic_study.NASTY not in text  # never raw, not even in JSON, SVG or YAML
    tags = Page(text).tags
    assert [attributes for tag, attributes in tags if tag == "script"] == [
        {"type": "application/json", "id": "everything"},
        {},
    ]
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert synthetic_study.NASTY in Page(text).words  # and yet it can be read


def test_the_page_loads_nothing(text):
    for tag, attributes in Page(text).tags:
        for name in LOADING & set(attributes):
            if tag == "a":
                continue  # a link loads nothing before it is clicked
            assert attributes[name].startswith(("data:", "#")), (tag, name, attributes[name][:80])
    assert not re.search(r"@import|url\(\s*['\"]?(?!#|data:)", text)
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|WebSocket|sendBeacon)\(", text)


def test_links_inside_the_page_lead_somewhere(text):
    tags = Page(text).tags
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    inner = [a["href"][1:] for tag, a in tags if tag == "a" and a.get("href", "").startswith("#")]
    assert len(inner) > 15
    assert set(inner) <= ids


def test_every_score_is_in_the_table_and_undefined_is_null(text):
    table = everything(text)
    at = {name: place for place, name in enumerate(table["columns"])}
    hernia = [row for row in table["rows"] if row[at["class"]] == "Hernia" and row[at["metric"]] == "auroc"]
    assert len(hernia) == 7 * 6 * 2  # rows x protocols x parts
    assert all(row[at["value"]] is None and row[at["note"]] == "undefined: no positives" for row in hernia)


FURTHER = "random:derived~2"


def test_a_further_random_init_is_a_cell_that_can_be_made_again_and_no_row(text):
    table = everything(text)
    assert not [name for name in table["families"] if "~" in name]
    assert not [name for pages in table["pages"].values() for name in pages if "~" in name]
    said = Page(text).words
    headers = re.findall(r'<th scope="row">(.*?)</th>', text)
    assert [name for name in headers if ", random" in name]
    assert not [name for name in headers if ", init 2" in name]
    assert f"radprobe --force probe nih_chestxray14 {FURTHER} --params params.yaml" in said
    assert f"segment montgomery {FURTHER}" not in said  # decoders are fitted to the first alone


def test_a_further_random_init_that_failed_is_counted_and_named(root, render):
    study = synthetic_study.study(root)
    probe = study.step("probe", "nih_chestxray14", FURTHER)
    for step in (probe, study.step("score", "nih_chestxray14", FURTHER)):
        step.outputs[0].unlink()
    log = study.path("work") / "logs/probe/nih_chestxray14/random-derived-2" / f"{probe.key}.log"
    log.parent.mkdir(parents=True)
    log.write_text("radprobe: out of memory\n")
    said = Page(render(root)).words
    assert re.search(r"Cells: \d+ done, 1 failed, \d+ not run\.", said)
    assert "Stopped at probe: radprobe: out of memory" in said
    assert re.search(r"waits for DINOv2 derived \S+, random, init 2", said)


def test_the_random_inits_of_absent_weights_are_not_run_with_them(text):
    said = Page(text).words
    assert said.count("backbone vit_small_patch14_dinov2 no weights") == 1
    assert "random:vit_small_patch14_dinov2" not in said.partition("Can I trust it")[2].partition("Make it again")[0]


def test_what_a_dataset_and_a_backbone_are_stands_once_beside_the_rows(text):
    table = everything(text)
    assert table["datasets"]["montgomery"] == {
        "title": "Montgomery County chest X-rays",
        "modality": "X-ray",
        "task": "segmentation",
        "primary": "dsc",
    }
    assert table["families"]["random:derived"] == "control"
    at = {name: place for place, name in enumerate(table["columns"])}
    assert {row[at["dataset"]] for row in table["rows"]} <= set(table["datasets"])
    assert {row[at["backbone"]] for row in table["rows"]} == set(table["families"])


def test_every_score_lies_beside_the_page_as_parquet(text, written):
    saved = pd.read_parquet(written / "scores.parquet")
    assert list(saved) == list(SCORES_SCHEMA.columns)
    shown = saved[~saved["backbone"].str.contains("~")]
    assert len(shown) == len(everything(text)["rows"]) < len(saved)
    assert ("a", "scores.parquet") in [(tag, each.get("href")) for tag, each in Page(text).tags]


def test_what_belongs_to_one_dataset_is_marked_so_that_filters_can_hide_it(text):
    marked = {(tag, each["data-dataset"]) for tag, each in Page(text).tags if "data-dataset" in each}
    for dataset in ("montgomery", "nih_chestxray14"):
        assert {("article", dataset), ("th", dataset), ("td", dataset), ("details", dataset)} <= marked
        assert {("div", dataset), ("figure", dataset)} <= marked


def test_weights_that_are_missing_are_told_with_the_remedy(text):
    said = Page(text).words
    assert "backbone vit_small_patch14_dinov2 no weights put vit_small_patch14_dinov2.lvd142m.safetensors in" in said
    assert "Cells: 22 done, 0 failed, 7 not run." in said


def test_each_cell_has_its_command_settings_and_hash(text, finished):
    said = Page(text).words
    assert "radprobe --force segment montgomery tf_efficientnet_lite0 --params params.yaml" in said
    assert "linear-decoder : learning rate 0.003; the only candidate; 30 s" in said  # its name is a link
    from radprobe import files

    assert files.sha256(finished / "data/weights/derived.safetensors") in said


def test_the_parts_of_a_split_are_counted(text):
    said = Page(text).words
    assert "train val test patients 30 12 24 samples 30 12 24" in said
    assert "Hernia, positive None (None patients)" not in said
    assert "Hernia, positive – – 0 (0 patients)" in said


def test_a_failed_cell_is_told_and_hides_nothing(root, render_all):
    study = synthetic_study.study(root)
    gone = study.steps["segment", "montgomery", "tf_efficientnet_lite0"]
    for step in (
        gone,
        study.steps["score", "montgomery", "tf_efficientnet_lite0"],
        study.steps["compare", "montgomery", None],
    ):
        step.outputs[0].unlink()
    log = study.path("work") / "logs/segment/montgomery/tf_efficientnet_lite0" / f"{gone.key}.log"
    log.parent.mkdir(parents=True)
    log.write_text("starting\nradprobe: the disk is full <b>\n  -> delete something\n")
    said = Page(text := render_all(root)).words
    assert "Cells: 21 done, 1 failed, 7 not run." in said
    assert "Stopped at segment: starting radprobe: the disk is full <b> -> delete something" in said
    assert "<b>" not in text
    assert "needs segment of tf_efficientnet_lite0" in said  # the comparison waits for it
    assert ", a linear decoder: DSC" in said  # the others are still there
    assert "It was not compared with its random init." in said
    assert "Nothing is compared yet. That waits for EfficientNet-Lite0: mend what failed, or take them out" in said
    assert (root / "reports/figures/montgomery_scores.svg").is_file()


def test_a_corrupt_score_is_a_failed_cell(root, render):
    study = synthetic_study.study(root)
    (study.steps["score", "nih_chestxray14", "derived"].folder / "scores.parquet").write_bytes(b"not parquet")
    said = Page(render(root)).words
    assert "21 done, 1 failed" in said
    assert "does not match its manifest" in said


def test_a_study_of_which_nothing_ran_still_has_its_page(tmp_path, render_all):
    said = Page(render_all(tmp_path)).words
    assert "Cells: 0 done, 0 failed, 29 not run." in said
    assert "No cell of it is done, so there is no verdict." in said
    assert (tmp_path / "reports/figures/nih_chestxray14_scores.svg").is_file()


@pytest.mark.parametrize("names", [["montgomery"], ["montgomery", "nih_chestxray14"]])
def test_each_filter_has_a_name(tmp_path, render, names):
    datasets = {name: {"phantom": {"patients": 9}} for name in names}
    filters = re.findall(r'data-filters="([^"]*)"', render(tmp_path, datasets=datasets))
    assert filters
    assert all(all(each.split(" ")) for each in filters)


def test_data_that_are_missing_are_told(root, render):
    datasets = synthetic_study.params(root)["datasets"] | {"montgomery": {"raw": "nowhere"}}
    said = Page(render(root, datasets=datasets)).words
    assert "dataset montgomery no raw folder" in said
    assert "Multi-label classification, NIH ChestX-ray14" in said
    assert "Segmentation, Montgomery" not in said


def test_half_of_the_data_missing_and_a_failed_cell_still_give_a_report_that_says_so(root, render):
    study = synthetic_study.study(root)
    probe = study.steps["probe", "nih_chestxray14", "tf_efficientnet_lite0"]
    for step in (probe, *(study.steps[verb, "nih_chestxray14", name] for verb, name in LOST)):
        step.outputs[0].unlink()
    log = study.path("work") / "logs/probe/nih_chestxray14/tf_efficientnet_lite0" / f"{probe.key}.log"
    log.parent.mkdir(parents=True)
    log.write_text("radprobe: out of memory\n")
    datasets = synthetic_study.params(root)["datasets"] | {"montgomery": {"raw": "nowhere"}}
    said = Page(text := render(root, datasets=datasets)).words
    done, absent = map(int, re.search(r"Cells: (\d+) done, 1 failed, (\d+) not run\.", said).groups())
    wanted = sum(study.applies(dataset, name) for dataset in study.params.datasets for name in study.backbones)
    assert done + 1 + absent == wanted
    assert "dataset montgomery no raw folder" in said
    assert "MontgomerySet" in said  # what to put there
    assert "Stopped at probe: radprobe: out of memory" in said
    verdict = said[said.index("Multi-label classification, NIH ChestX-ray14") :][:600]
    assert "AUROC" in verdict
    assert not re.search("EfficientNet-Lite0(?!, random)", verdict.split("costs")[0])
    assert "is the only backbone that was scored" in verdict
    assert "Nothing is compared yet." in said  # the comparison waits for the failed cell
    assert "No ranks of frozen backbones across tasks" in said
    scores = pd.read_parquet(study.path("reports") / "scores.parquet")
    assert set(scores["dataset"]) == {"nih_chestxray14"}
    assert "tf_efficientnet_lite0" not in set(scores["backbone"])
    assert "nan" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL).lower().split()


LOST = (("score", "tf_efficientnet_lite0"), ("compare", None))


def pictures(text):
    return [attributes["src"] for tag, attributes in Page(text).tags if tag == "img"]


def test_pictures_follow_the_images_option(text, root, render, monkeypatch):
    shown = pictures(text)
    assert len(shown) > 20
    assert all(source.startswith("data:image/png;base64,") for source in shown)
    assert pictures(render(root, report={"images": "none"})) == []
    from radprobe import catalog

    gated = {name: entry.model_copy(update={"gated": True}) for name, entry in catalog.datasets().items()}
    monkeypatch.setattr(catalog, "datasets", lambda: gated)
    hidden = render(root)
    assert pictures(hidden) == []
    assert "No pictures: access to this dataset is gated" in Page(hidden).words
    assert len(pictures(render(root, report={"images": "thumbnails"}))) == len(shown)


def test_a_pilot_is_marked(render, root):
    assert "A pilot: at most 5 patients" in Page(render(root, limit=5)).words


def test_the_same_scores_give_the_same_figures(root, written):
    findings = Findings(synthetic_study.study(root))
    columns = [each for each in ranking.columns(findings) if each.dataset == "montgomery"]
    drawn = canvas.render(lambda: scores_chart.draw(findings, "montgomery", columns))
    for ending, content in drawn.items():
        assert (written / f"figures/montgomery_scores.{ending}").read_bytes() == content


def test_another_split_and_left_out_classes_are_told(root, render):
    step = synthetic_study.study(root).step("split", "nih_chestxray14")
    split = Split.load(step.folder)
    split.facts |= {"name": "nih_real_subset", "left_out": {"Hernia": {"test": 0}}}
    split.save(step.place)
    words = Page(render(root)).words
    assert "Split nih_real_subset, not the study's: not comparable with published scores." in words
    assert f"Macro over {len(split.classes)} of 14 classes" in words


def test_doubts_about_a_table_stand_at_the_verdict(root, render):
    step = synthetic_study.study(root).step("prepare", "montgomery")
    index = Index.load(step.folder)
    index.facts["warnings"] = ["1 mask(s) are <named> twice"]
    index.save(step.place)
    assert "Warning: 1 mask(s) are <named> twice." in Page(render(root)).words


def test_scores_of_what_is_no_more_are_not_shown(root, render):
    step = synthetic_study.study(root).step("prepare", "montgomery")
    (step.folder / "index.json").unlink()  # as when the raw data changed and prepare then failed
    page = render(root)
    assert not [row for row in everything(page) if "montgomery" in str(row)]
    assert "No cell of it is done, so there is no verdict." in Page(page).words


def test_the_page_shows_licence_size_recipe_and_controls_of_every_backbone(text):
    said = Page(text).words
    for part in (
        "22.1 M",
        "3.4 M",
        "Apache-2.0",
        "not stated",
        "CLS token, 8",
        "recorded at first use",
        "tokens pass it",
    ):
        assert part in said, part
    assert "significantly higher, " in said
    assert "Raw pixels" in said


def test_a_backbone_that_pixels_match_is_flagged_in_the_map_and_on_its_card(root, render):
    study = synthetic_study.study(root)
    step = study.step("compare", "montgomery")
    comparison = Comparison.load(step.folder)
    rows = (comparison.table["backbone"] == "derived") & (comparison.table["other"] == "pixels")
    assert rows.sum() == 1
    comparison.table.loc[rows, ["difference", "low", "high"]] = 0.001, -0.01, 0.012
    comparison.save(step.place)
    page = render(root)
    assert 'title="not significantly higher than raw pixels"' in page
    assert "flagged: no significant difference, 0.001 [-0.010, 0.012]" in Page(page).words


def test_the_control_without_images_is_not_asked_for_pictures(root, render):
    said = Page(render(root, controls={"random_inits": 2, "ceiling": False})).words
    assert "Metadata alone" in said
    assert "MNI152" in said
