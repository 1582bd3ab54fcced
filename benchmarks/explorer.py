"""The explorer with many rows, in headless Chromium: its size, first paint, and how long a filter and a sort take.

    python benchmarks/explorer.py [rows] [folder to keep the page in]

Scores are drawn at random: eleven benchmarks, backbones with their random twins, val and test, every class. A time ends
with the second frame after the change, so it holds layout and paint. A ratio is the limit over what was measured: 1 or
more keeps it.
"""

import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Browser

from radprobe import catalog
from radprobe.artifacts import COMPARISON_SCHEMA, ROWS_SCHEMA, SCORES_SCHEMA, VARIANTS_SCHEMA, Comparison
from radprobe.report.collect import Cell, Findings
from radprobe.stages import report
from radprobe.study import Study

BACKBONES = [
    "vit_small_patch14_dinov2",
    "vit_base_patch14_dinov2",
    "vit_large_patch14_dinov2",
    "mae_large",
    "msn_large",
]
BACKBONES += ["vit_large_patch16_in21k", "resnet152", "densenet201", "rad_dino", "biomedclip_base", "clip_large"]
PROTOCOLS = {"segmentation": ["linear-decoder", "unet-decoder"]}
CLASSIFYING = ["linear", "logistic", "knn", "mlknn", "shuffled"]
METRICS = {"segmentation": ["dsc", "iou", "hd95", "nsd"]}
LIMITS = {"explorer_mb": 30, "explorer_first_paint_ms": 2000, "explorer_filter_ms": 200, "explorer_sort_ms": 200}
ROUNDS = 5
FILTERS = [("class", ""), ("metric", ""), ("part", ""), ("modality", "CT"), ("modality", ""), ("dataset", "amos")]
FILTERS += [("dataset", ""), ("family", "control"), ("family", ""), ("protocol", "knn"), ("protocol", "")]
SORTS = ("value", "backbone", "note", "low", "dataset")
TIMED = """new Promise((done) => {{
  const begun = performance.now();
  {act};
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - begun)));
}})"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def study_of(folder: Path) -> Study:
    for name in BACKBONES:
        path = folder / "data/weights" / next(iter(catalog.backbones()[name].local), f"{name}.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    datasets = [name for name, entry in catalog.datasets().items() if entry.task != "look"]
    content = {"study": f"{len(datasets)} benchmarks at random", "hub": False, "backbones": BACKBONES}
    content |= {"datasets": {name: {"phantom": {"patients": 60}} for name in datasets}}
    return Study(
        content | {"controls": {"random_inits": 1, "metadata": False, "ceiling": False}, "paths": {"root": str(folder)}}
    )


def fill(findings: Findings, n: int) -> None:
    """Give the study `n` rows of scores, the macro ones of test first, and every paired difference."""
    generator = np.random.default_rng(0)
    cells = [(name, backbone) for name in findings.datasets for backbone in findings.study.backbones_here]
    findings.cells = [Cell(*cell, "done", findings.study.steps["score", *cell]) for cell in cells]
    keys = [key for dataset, backbone in cells for key in _keys(findings, dataset, backbone)]
    keys.sort(key=lambda key: (key[3] != "test", key[5] != "macro"))
    table = pd.DataFrame(keys[:n], columns=["dataset", "backbone", "protocol", "part", "metric", "class"])
    value = generator.uniform(0.7, 0.99, len(table))
    value -= 0.2 * (table["backbone"].map(findings.family) == "control")
    numbers = {"value": value, "low": value - 0.03, "high": np.minimum(value + 0.02, 1), "n_patients": 600}
    numbers |= {"n_samples": 600, "n_classes": 5, "note": "", "seed": 0, "peak_gb": generator.uniform(1, 9, len(table))}
    numbers |= {"seconds": 10 ** generator.uniform(1, 4, len(table)), "trained_parameters": 10_000.0}
    numbers |= {"trained_share": 0.001, "best_epoch": np.nan, "key": "0123456789ab"}
    numbers |= {"n_fits": 1, "seed_sd": np.nan, "seed_low": np.nan, "seed_high": np.nan}
    findings.scores = SCORES_SCHEMA.validate(table.assign(**numbers))
    findings.comparison = {name: _comparison(findings, name) for name in findings.datasets}.get


def _keys(findings: Findings, dataset: str, backbone: str) -> list[tuple]:
    entry = findings.datasets[dataset]
    protocols, metrics = PROTOCOLS.get(entry.task, CLASSIFYING), METRICS.get(entry.task, ["auroc", "auprc", "f1"])
    names = [(dataset, backbone)]
    return [
        (*a, *b) for a, *b in itertools.product(names, protocols, ("test", "val"), metrics, ("macro", *entry.classes))
    ]


def _differences(scores: pd.DataFrame) -> list[dict]:
    primary = scores["metric"].isin(catalog.PRIMARY_METRIC.values())
    rows = scores[primary & (scores["class"] == "macro") & (scores["part"] == "test")]
    found = []
    for (dataset, protocol, metric), each in rows.groupby(["dataset", "protocol", "metric"]):
        values = dict(zip(each["backbone"], each["value"], strict=True))
        for one, other in itertools.combinations(values, 2):
            gap = values[one] - values[other]
            row = dict.fromkeys(COMPARISON_SCHEMA.columns, np.nan) | {"dataset": dataset, "protocol": protocol}
            row |= {"metric": metric, "backbone": one, "other": other, "difference": gap, "low": gap - 0.02}
            row |= {"p": 0.01 if abs(gap) > 0.02 else 0.9, "standard_error": 0.006}
            row |= {"needed": 2000.0, "needed_low": 1800.0, "needed_high": 2300.0}
            found.append(row | {"high": gap + 0.02, "n_patients": 600, "note": ""})
    return found


def _comparison(findings: Findings, dataset: str) -> Comparison:
    scores = findings.scores[findings.scores["dataset"] == dataset]
    primary = scores["metric"].isin(catalog.PRIMARY_METRIC.values())
    rows = scores[primary & (scores["class"] == "macro") & (scores["part"] == "test")]
    rows = rows[["dataset", "protocol", "metric", "backbone", "value", "low", "high", "n_patients", "note"]]
    corrected = dict.fromkeys(("corrected", "corrected_low", "corrected_high", "init_sd"), np.nan)
    best = rows.groupby("protocol")["value"].transform("max")
    rows = rows.assign(**corrected, may_be_best=rows["value"] > best - 0.02, n_inits=1)
    pairs = pd.DataFrame(_differences(scores), columns=list(COMPARISON_SCHEMA.columns))
    texts = [name for name, column in COMPARISON_SCHEMA.columns.items() if "str" in str(column.dtype)]
    variants = pd.DataFrame(columns=list(VARIANTS_SCHEMA.columns))
    words = [name for name, column in VARIANTS_SCHEMA.columns.items() if "str" in str(column.dtype)]
    variants = variants.astype(dict.fromkeys(words, "str"))
    ordered = rows[list(ROWS_SCHEMA.columns)]
    return Comparison(pairs.astype(dict.fromkeys(texts, "str")), variants, ordered, {"margin": 0.02})


def measure(page: Path, folder: Path) -> dict[str, float]:
    """Return medians over rounds: of the first paint, of the slowest filter, of the slowest sort."""
    with Browser(folder) as browser:
        paints = [_paint(browser, page) for _ in range(ROUNDS)]
        filters = [[_filter(browser, *each) for each in FILTERS] for _ in range(ROUNDS)]
        sorts = [
            [_timed(browser, f"document.querySelector('[data-sort={name}]').click()") for name in SORTS]
            for _ in range(ROUNDS)
        ]
        print(f"shown: {browser.run('document.getElementById(`count`).textContent')}")
        assert not browser.complaints, browser.complaints
        assert not browser.requests, browser.requests
    found = {"explorer_first_paint_ms": statistics.median(paints)}
    for name, rounds in (("explorer_filter_ms", filters), ("explorer_sort_ms", sorts)):
        medians = [statistics.median(each) for each in zip(*rounds, strict=True)]
        print(f"{name}:", " ".join(f"{each:.0f}" for each in medians), f"(slowest of all: {max(map(max, rounds)):.0f})")
        found[name] = max(medians)
    return found


def _paint(browser: Browser, page: Path) -> float:
    browser.open(page.as_uri())
    while not (paint := browser.run(PAINT)):
        time.sleep(0.05)
    return paint


def _filter(browser: Browser, name: str, value: str) -> float:
    select = f"document.querySelector('#table select[data-filter={name}]')"
    return _timed(browser, f"const s = {select}; s.value = '{value}'; s.dispatchEvent(new Event('change'))")


def _timed(browser: Browser, act: str) -> float:
    return browser.run(TIMED.format(act=act))


def main(n: int = 5000, kept: str | None = None) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        findings = Findings(study_of(root))
        fill(findings, n)
        begun = time.perf_counter()
        pages = Path(kept or root / "pages").resolve()
        report.write(findings, pages)
        page = pages / "explorer.html"
        took = time.perf_counter() - begun
        print(f"{len(findings.scores)} rows of {len(findings.datasets)} datasets, written in {took:.1f} s")
        found = {"explorer_mb": page.stat().st_size / 1e6, **measure(page, root)}
    for name, value in found.items():
        print(f"{name} {value:.1f} (limit {LIMITS[name]})")
        print(f"ratio {name.removesuffix('_mb').removesuffix('_ms')} {LIMITS[name] / value:.1f}")


if __name__ == "__main__":
    main(int((sys.argv[1:] or [5000])[0]), *sys.argv[2:3])
