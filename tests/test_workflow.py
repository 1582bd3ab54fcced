"""The workflow as a user runs it: a small study of phantoms, in a folder of its own."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import browser
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from small_params import SMALL

from radprobe.study import ON_ONE_CORE, OUTPUTS, Study

ROOT = Path(__file__).parents[1]
NASTY = "<script>alert(1)</script>"
TOKEN = "hf_SecretOfTheUser"
PARAMS = SMALL | {"study": f"small {NASTY}", "score": {"resamples": 200}}

pytestmark = pytest.mark.slow


def write(folder: Path, **changes) -> None:
    (folder / "study.yaml").write_text(yaml.safe_dump({**PARAMS, **changes}))


def command(*options: str) -> list[str]:
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    return [*snakemake, "--cores", "2", "--configfile", "study.yaml", *options]


def run(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    options = {"cwd": folder, "capture_output": True, "text": True, "env": {**os.environ, **environment}}, options
    return subprocess.run(command(*options[1]), **options[0])


def said(done: subprocess.CompletedProcess) -> str:
    """Return all output: Snakemake logs dry runs to stdout and runs to stderr."""
    return done.stdout + done.stderr


def jobs(done: subprocess.CompletedProcess) -> dict[str, int]:
    """Return the number of jobs of each rule that a (dry) run planned."""
    table = re.search(r"\njob +count\n-+ +-+\n(.*?)\n\n", said(done), re.DOTALL)
    return {line.split()[0]: int(line.split()[1]) for line in table[1].splitlines()} if table else {}


def scores(folder: Path, paths: dict[str, str] | None = None) -> pd.DataFrame:
    """Return the scores that are there of the study as it stands in the folder."""
    study = Study(
        {**yaml.safe_load((folder / "study.yaml").read_text()), "paths": {"root": str(folder), **(paths or {})}}
    )
    files = [step.folder / "scores.parquet" for step in study.steps.values() if step.verb == "score"]
    tables = [pd.read_parquet(file) for file in files if file.is_file()]
    keys = ["dataset", "backbone", "protocol", "part", "metric", "class"]
    return pd.concat(tables).sort_values(keys).set_index(keys)[["value", "low", "high"]]


# blanks, quotes, a command to the shell, and letters beyond ASCII
NOWHERE = "/none of mine"
FOLDER = 'a study\'s "folder"; touch hacked; $(touch hacked) `touch hacked` & \u00e9\u4e2d'


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp(FOLDER)
    write(folder)
    done = run(folder, HF_TOKEN=TOKEN, RADPROBE_WEIGHTS=NOWHERE)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "said.txt").write_text(said(done))
    return folder


def test_one_call_makes_scores_and_both_pages(finished):
    table = scores(finished)
    assert {"knn", "mlknn", "linear", "linear-decoder"} <= set(table.index.get_level_values("protocol"))
    assert np.isfinite(table.xs("macro", level="class")["value"]).all()
    assert (finished / "reports/explorer.html").stat().st_size > 10_000
    page = (finished / "reports/report.html").read_text(encoding="utf-8")
    for told in ("Few-shot curves", "Time and score", "image (SVG)", "print (PDF)", "the verdict of each task"):
        assert told in page, told
    assert not list(finished.rglob("*.partial"))


@pytest.mark.survives(
    "attack", "a folder whose name has quotes, blanks, commands and unicode", "a whole study runs in it"
)
def test_the_name_of_the_folder_is_no_command(finished):
    assert scores(finished).size
    assert not list(finished.rglob("hacked"))
    assert not list(finished.parent.glob("hacked"))
    assert not (ROOT / "hacked").exists()


@pytest.mark.survives("attack", "paths in params with blanks, quotes and commands", "folders of these names, no more")
def test_a_path_in_params_is_no_command(tmp_path):
    write(tmp_path, paths={name: f"{name} of 'me'; touch hacked; #" for name in ("work", "results", "reports")})
    done = run(tmp_path, "--until", "retrieve")
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.glob("work of 'me'; touch hacked; #/*/retrieve/*/raw.json"))
    assert not list(tmp_path.rglob("hacked"))


@pytest.mark.survives("attack", "HTML in the title of a study, into both reports", "shown as text")
@pytest.mark.parametrize("page", ["explorer.html", "report.html"])
def test_a_title_cannot_inject_html(finished, page):
    text = (finished / "reports" / page).read_text(encoding="utf-8")
    assert NASTY not in text
    assert html.escape(NASTY) in text


TAILWIND = "cdn.tailwindcss.com should not be used in production"  # of Snakemake's own page, which has it inlined


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium or Chrome is installed")
def test_snakemakes_report_shows_the_answer_and_the_figures_and_asks_for_nothing(finished, tmp_path):
    with browser.Browser(tmp_path) as opened:
        opened.open((finished / "reports/report.html").as_uri())
        opened.wait("document.querySelector('.prose strong')")
        assert opened.run("document.querySelector('.prose strong').innerText") == PARAMS["study"]
        click(opened, "Answer")
        assert view_first(opened) == "IFRAME"
        assert opened.run("document.querySelector('h1').innerText", **opened.frame) == PARAMS["study"]
        opened.run("document.querySelector('nav ol a').click()")  # home
        click(opened, "Figures")
        click(opened, "Time and score")
        assert view_first(opened) == "IMG"
        assert opened.run("document.querySelector('img[src*=frontier]').naturalWidth") > 300
        assert [each for each in opened.complaints if TAILWIND not in each] == []
        assert opened.requests == []
        opened.open((finished / "reports/explorer.html").as_uri())
        assert opened.run("[document.title, document.querySelector('h1').innerText]") == [
            f"{PARAMS['study']}: radprobe",
            PARAMS["study"],
        ]
        assert opened.complaints == opened.requests == []


def click(opened: browser.Browser, text: str) -> None:
    """Click an entry of the menu of Snakemake's report."""
    entry = f"[...document.querySelectorAll('li a')].find((each) => each.textContent === {json.dumps(text)})"
    opened.wait(entry)
    opened.run(f"{entry}.click()")


def view_first(opened: browser.Browser) -> str:
    """View the first result that Snakemake's report lists; return the tag that shows it, once it has loaded."""
    opened.wait("document.querySelector('tr a')")
    tag = "({ target }) => ['IFRAME', 'IMG'].includes(target.tagName) && done(target.tagName)"
    loaded = f"new Promise((done) => document.addEventListener('load', {tag}, true))"
    return opened.run(f"(() => {{ const tag = {loaded}; document.querySelector('tr a').click(); return tag; }})()")


@pytest.mark.survives("attack", "a token of the hub in the environment", "in no log, no page and no other file")
def test_a_token_is_written_nowhere(finished):
    assert not [path for path in finished.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_the_page_says_what_was_typed_so_that_a_shell_takes_it(finished):
    page = html.unescape((finished / "reports/explorer.html").read_text(encoding="utf-8"))
    typed = re.search(r"RADPROBE_WEIGHTS=.*--cores 2 --configfile study.yaml", page)[0]
    asked = f'set -- {typed}; printf %s "$1"'  # one word, as an assignment is
    assert subprocess.run(["sh", "-c", asked], capture_output=True, text=True).stdout == f"RADPROBE_WEIGHTS={NOWHERE}"
    assert typed.startswith(f"RADPROBE_WEIGHTS='{NOWHERE}' ")


def test_a_second_call_runs_nothing(finished):
    assert "Nothing to be done" in said(run(finished))


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({"probe": {"knn": {"k": [3]}}}, {"probe": 1, "score": 1, "compare": 1, "report": 1}),
        (
            {"segment": {**PARAMS["segment"], "linear": {"epochs": 1}}},
            {"segment": 1, "score": 1, "compare": 1, "report": 1},
        ),
        ({"score": {"resamples": 300}}, {"score": 2, "compare": 2, "report": 1}),
        ({"study": "renamed"}, {"report": 1}),
    ],
)
def test_one_change_runs_what_depends_on_it(finished, change, rules):
    write(finished, **change)
    try:
        planned = jobs(run(finished, "--dry-run"))
    finally:
        write(finished)
    assert {rule: count for rule, count in planned.items() if rule not in ("all", "total")} == rules


def test_a_change_of_the_report_alone_writes_the_finished_pages_anew(finished, tmp_path):
    for name in ("Snakefile", "workflow", "src", "envs"):
        copy = shutil.copy2 if (ROOT / name).is_file() else shutil.copytree
        copy(ROOT / name, tmp_path / name)
    call = [*command("-n"), "--snakefile", str(tmp_path / "Snakefile")]

    def planned():
        return jobs(subprocess.run(call, cwd=finished, capture_output=True, text=True))

    assert planned() == {}
    with (tmp_path / "src/radprobe/report/words.py").open("a") as words:
        words.write("# mended\n")
    assert planned() == {"report": 1, "all": 1, "total": 2}


def test_an_older_table_in_the_place_of_another_is_seen(tmp_path):
    def table(ill: int) -> str:
        return "\n".join(["path,patient,ill", *(f"{each}.png,{each},{each % 2 or ill}" for each in range(20))])

    for each in range(20):
        Image.fromarray(np.full((8, 8), each, np.uint8)).save(tmp_path / f"{each}.png")
    folder = {"table": "t.csv", "task": "binary", "classes": ["ill"], "split": None, "modality": "X-ray"}
    write(tmp_path, datasets={"mine": {"raw": ".", "folder": folder}})
    (tmp_path / "t.csv").write_text(table(0))
    assert run(tmp_path, "--until", "retrieve").returncode == 0
    assert "retrieve" not in jobs(run(tmp_path, "-n", "--until", "retrieve"))
    (tmp_path / "t.csv").write_text(table(1))
    os.utime(tmp_path / "t.csv", (1e9, 1e9))
    assert jobs(run(tmp_path, "-n", "--until", "retrieve"))["retrieve"] == 1


def test_a_job_takes_as_many_cores_as_its_rule_says():
    rules = {path.stem: path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk")}
    asked = {
        name: threads for name, rule in rules.items() for threads in re.findall(r"^    threads: (\w+)$", rule, re.M)
    }
    assert {name: threads == "1" for name, threads in asked.items()} == {
        name: name in ON_ONE_CORE or name == "report" for name in (*OUTPUTS, "report")
    }


@pytest.mark.parametrize("kind", ["truth", "index"])
def test_a_lost_manifest_is_made_again_though_all_that_was_made_of_it_is_there(finished, tmp_path, kind):
    (lost,) = finished.glob(f"work/montgomery/prepare/*/{kind}.json")
    shutil.copytree(lost.parent, tmp_path / "kept")
    lost.unlink()
    try:
        assert jobs(run(finished, "--dry-run"))["prepare"] == 1
    finally:
        shutil.rmtree(lost.parent)
        shutil.copytree(tmp_path / "kept", lost.parent)
    assert "Nothing to be done" in said(run(finished, "--dry-run"))


@pytest.mark.survives("fault", "a flipped bit in a shard, in Snakemake", "found; the same scores after the next run")
def test_a_corrupt_shard_is_found_and_made_again(finished):
    before = scores(finished)
    shard = next(finished.glob("work/nih_chestxray14/embed/test_vit/*/00000.cls.npy"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    write(finished, probe={"linear": {"epochs": 4}})  # something that reads the shard
    try:
        first = run(finished)
        assert first.returncode != 0
        assert "manifest set aside" in said(first)
        assert run(finished).returncode == 0
    finally:
        write(finished)
    assert run(finished).returncode == 0
    pd.testing.assert_frame_equal(scores(finished).loc[before.index], before, check_exact=True)


@pytest.mark.survives(
    "fault", "kill -9 of Snakemake or of a job of it", "the same scores, on more cores; no temporary file"
)
@pytest.mark.parametrize(
    "victim", ["snakemake", *(pytest.param(verb, marks=pytest.mark.full) for verb in ("embed", "segment"))]
)
def test_a_kill_and_the_same_command_give_the_same_scores(finished, tmp_path, victim):
    write(tmp_path)
    running = subprocess.Popen(
        command(), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    verb = "embed" if victim == "snakemake" else victim
    deadline = time.monotonic() + 300
    while not (found := stage_processes(tmp_path, verb)) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert found, "the stage never ran"
    time.sleep(1)
    for pid in [running.pid] if victim == "snakemake" else found:
        os.kill(pid, signal.SIGKILL)
    running.wait()
    done = run(tmp_path, "--cores", "4")
    assert done.returncode == 0, done.stderr[-3000:]
    pd.testing.assert_frame_equal(scores(tmp_path), scores(finished), check_exact=True)
    assert not list(tmp_path.rglob("*.partial"))


def stage_processes(folder: Path, verb: str) -> list[int]:
    """Return the pids of `python -m radprobe <verb>` that run in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"radprobe" in words and verb.encode() in words and (process / "cwd").resolve() == folder:
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.survives("fault", "a dataset that cannot be read", "its cell fails and says so; all others run")
def test_a_failed_cell_stops_no_other_and_does_not_hide_the_report(tmp_path):
    write(tmp_path, datasets={"montgomery": PARAMS["datasets"]["montgomery"], "nih_chestxray14": {"raw": "nih"}})
    assert run(tmp_path, "--dry-run").returncode == 0
    (tmp_path / "nih/images").mkdir(parents=True)
    for name in ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"):
        (tmp_path / "nih" / name).write_text("Image Index\n" if name.endswith("csv") else "")
    Image.new("L", (8, 8)).save(tmp_path / "nih/images/00000001_000.png")
    done = run(tmp_path)
    assert done.returncode != 0
    assert "Finding Labels" in said(done)  # the missing column is named
    page = (tmp_path / "reports/explorer.html").read_text()
    assert "nih_chestxray14" in page
    assert set(scores(tmp_path).index.get_level_values("dataset")) == {"montgomery"}


@pytest.mark.survives("bug", "one core for Snakemake where it had two, and another study beside it", "the same scores")
def test_two_studies_at_once_share_their_work(finished, tmp_path):
    shared = {"work": str(tmp_path / "work")}
    changes = {"one": {}, "other": {"probe": {"linear": {"epochs": 3}}}}
    for name, change in changes.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name, paths=shared, **change)
    running = [
        subprocess.Popen(command("--cores", "1"), cwd=tmp_path / name, stderr=subprocess.PIPE, text=True)
        for name in changes
    ]
    for each in running:
        _, errors = each.communicate(timeout=600)
        assert each.returncode == 0, errors[-3000:]
    one = scores(tmp_path / "one", paths=shared)
    pd.testing.assert_frame_equal(one, scores(finished), check_exact=True)
    assert not one.equals(scores(tmp_path / "other", paths=shared))
    for name in changes:
        assert "Nothing to be done" in said(run(tmp_path / name))
    assert len(list(tmp_path.glob("work/*/embed/test_vit/*/embeddings.json"))) == 2
    write(tmp_path / "one", paths=shared, score={"resamples": 300})  # a third study, of which the work is there
    planned = jobs(run(tmp_path / "one", "--directory", str(tmp_path / "third"), "--dry-run"))
    assert not {"retrieve", "prepare", "split", "weights", "embed"} & set(planned)
    assert {"probe", "segment", "score"} <= set(planned)


def test_what_is_absent_leaves_the_graph_loudly(tmp_path):
    write(tmp_path, backbones=["test_vit", "vit_small_patch14_dinov2"])
    done = run(tmp_path, "--dry-run")
    assert done.returncode == 0, said(done)[-3000:]
    assert "Not run: backbone vit_small_patch14_dinov2: no weights" in said(done)
    assert jobs(done)["segment"] == 1


def test_a_study_of_which_nothing_is_here_still_gives_a_page_that_says_so(tmp_path):
    write(tmp_path, datasets={"montgomery": {}, "nih_chestxray14": {}})
    done = run(tmp_path)
    assert done.returncode == 0, said(done)[-3000:]
    assert "MontgomerySet" in (tmp_path / "reports/explorer.html").read_text()  # what to put where
    assert not (tmp_path / "work/weights").exists()


def test_bad_params_stop_before_anything_runs(tmp_path):
    write(tmp_path, sede=1)
    started = time.monotonic()
    done = run(tmp_path)
    assert done.returncode != 0
    assert "did you mean 'seed'" in said(done)
    assert time.monotonic() - started < 30
    assert not (tmp_path / "work").exists()
