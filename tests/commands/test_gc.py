"""gc: what is listed and removed, and what never is."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_params import NO_CONTROLS

from radprobe import files
from radprobe.commands import gc
from radprobe.files import RadprobeError
from radprobe.study import Study

PARAMS = {
    "study": "a",
    "hub": False,
    "controls": NO_CONTROLS,
    "datasets": {"montgomery": {"phantom": {"patients": 9}}},
    "backbones": ["test_vit"],
}


def write(name: str, **changes) -> Study:
    """Write a params file, and an artifact for each step of its study."""
    Path(name).write_text(yaml.safe_dump({**PARAMS, "study": name, **changes}))
    study = Study(Path(name))
    for step in study.steps.values():
        for manifest in step.outputs:
            manifest.parent.mkdir(parents=True, exist_ok=True)
            manifest.write_text("{}")
            files.keep_twin(manifest)
    return study


def record(study: Study, place: str = "work") -> None:
    file = study.path(place) / "studies" / f"{study.params.study}"
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(study.params.study, file)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("RADPROBE_RAW", "RADPROBE_WEIGHTS", "RADPROBE_PARAMS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def folders(study: Study) -> set[Path]:
    return {step.folder for step in study.steps.values()}


def there(*studies: Study) -> set[Path]:
    return {folder for study in studies for folder in folders(study) if folder.is_dir()}


def test_what_only_another_study_needs_goes_and_what_they_share_stays():
    kept, other = write("a.yaml"), write("b.yaml", segment={"linear": {"epochs": 3}})
    gc.run([kept], lambda question: True)
    assert there(kept) == folders(kept)
    assert there(other) == folders(other) & folders(kept)
    assert {folder.parent.parent.name for folder in folders(other) - folders(kept)} == {
        "segment",
        "score",
        "montgomery",
    }


def test_pixels_beside_what_dvc_keeps_stay_as_long_as_their_dataset_is_needed():
    kept, other = write("a.yaml"), write("b.yaml", datasets={"montgomery": {"phantom": {"patients": 8}}})
    keys = [study.step("prepare", "montgomery").key for study in (kept, other)]
    laid = [Path("work/pixels/montgomery") / key for key in keys]
    for folder in laid:
        folder.mkdir(parents=True)
    gc.run([kept], lambda question: True)
    assert [folder.is_dir() for folder in laid] == [True, False]


def test_nothing_goes_unless_it_is_confirmed(capsys):
    kept, other = write("a.yaml"), write("b.yaml", seed=3)
    gc.run([kept], lambda question: False)
    assert there(kept, other) == folders(kept) | folders(other)
    said = capsys.readouterr().out
    assert all(str(folder) in said for folder in folders(other) - folders(kept))
    assert not any(str(folder) in said for folder in folders(kept))


def test_recorded_studies_keep_what_they_need_and_an_unreadable_one_stops_it():
    kept, other = write("a.yaml"), write("b.yaml", seed=3)
    record(other)
    assert list(gc.unneeded(gc.recorded(kept))) == []
    Path("work/studies/old.yaml").write_text("study: s\nno_longer_a_key: 1\n")
    with pytest.raises(RadprobeError, match=r"old\.yaml: cannot be read"):
        gc.recorded(kept)


def test_a_study_that_shares_only_the_results_is_kept_too():
    kept, other = write("a.yaml"), write("b.yaml", seed=3, paths={"work": "elsewhere"})
    record(other, "results")
    assert folders(other) & {one.folder.relative_to(Path.cwd()) for one in gc.unneeded([kept])}
    assert list(gc.unneeded(gc.recorded(kept))) == []


def test_what_is_recorded_is_not_read_from_another_folder(folder, monkeypatch):
    write("a.yaml")
    record(write("b.yaml", seed=3))
    (folder / "runs").mkdir()
    Path("mine.yaml").write_text(yaml.safe_dump({**PARAMS, "paths": {"root": str(folder)}}))
    monkeypatch.chdir(folder / "runs")
    with pytest.raises(RadprobeError, match="ran from another folder"):
        gc.recorded(Study(folder / "mine.yaml"))


def test_a_study_whose_adapter_is_gone_stops_it():
    write("a.yaml")
    own = {"tuned": {"title": "Tuned", "adapter": "gone.safetensors"}}
    Path("b.yaml").write_text(yaml.safe_dump({**PARAMS, "own_backbones": own, "backbones": ["tuned"]}))
    with pytest.raises(RadprobeError, match=r"gone\.safetensors.*is not there"):
        list(gc.unneeded([Study(Path("a.yaml")), Study(Path("b.yaml"))]))


def test_a_study_whose_data_are_gone_keeps_its_artifacts():
    content = {"datasets": {"montgomery": {"raw": "films"}}}
    for path in (
        "films/MontgomerySet/CXR_png/a.png",
        *(f"films/MontgomerySet/ManualMask/{side}Mask/a.png" for side in ("left", "right")),
    ):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    study = write("a.yaml", **content)
    assert folders(study)
    made = folders(study)
    raw, _ = study.step("retrieve", "montgomery").outputs  # says what the data were
    raw.write_text(json.dumps({"facts": {"identity": study.fingerprint("montgomery")}}))
    shutil.rmtree("films")
    gone = Study(Path("a.yaml"))
    assert not [key for key in gone.steps if key[1]]
    assert list(gc.unneeded([gone])) == []
    assert all(folder.is_dir() for folder in made)


def test_raw_data_links_and_whatever_else_lies_there_are_never_touched(folder):
    study = write("a.yaml")
    outside = folder / "outside/0123456789ab"
    outside.mkdir(parents=True)
    for kept in (
        outside / "index.json",
        Path("work/phantom/prepare/0123456789ab.png"),
        Path("results/notes/mine/0123456789ab/x"),
        Path("data/raw/prepare/0123456789ab/x"),
        Path("work/benchmarks/embed/montgomery/0123456789ab.tsv"),
    ):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text("mine")
    (study.path("work") / "montgomery/prepare/0123456789ab").symlink_to(outside)
    (study.path("work") / "linked").symlink_to(folder / "outside")
    assert list(gc.unneeded([study])) == []


def test_the_adapter_of_an_own_backbone_stays():
    other = write("b.yaml", adapt={"backbones": ["test_vit"], "bitfit": None, "lora": None})
    (folder,) = (one for one in folders(other) if "test_vit-end_to_end" in one.parts and "adapt" in one.parts)
    header = b'{"__metadata__":{"radprobe":"{}"}}'
    (folder / "adapter.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    own = {"tuned": {"title": "Tuned", "adapter": str(folder / "adapter.safetensors")}}
    Path("a.yaml").write_text(yaml.safe_dump({**PARAMS, "own_backbones": own}))
    assert folder.resolve() not in {one.folder for one in gc.unneeded([Study(Path("a.yaml"))])}


def test_what_a_run_is_making_is_left(capsys):
    kept, other = write("a.yaml"), write("b.yaml", seed=3)
    busy = sorted(folders(other) - folders(kept))[0]
    with files.lock(busy / "lock"):
        gc.run([kept], lambda question: True)
    assert busy.is_dir()
    assert f"left: a run is making {busy.resolve()}" in capsys.readouterr().out
    assert there(other) == (folders(other) & folders(kept)) | {busy}


def test_as_it_is_typed():
    kept, other = write("a.yaml"), write("b.yaml", seed=3)
    call = [sys.executable, "-m", "radprobe", "gc", "a.yaml"]
    asked = subprocess.run(call, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert asked.returncode == 0, asked.stderr
    assert "nothing was removed" in asked.stdout
    assert there(other) == folders(other)
    assert subprocess.run([*call, "--yes"], capture_output=True).returncode == 0
    assert there(other) == folders(other) & folders(kept)
    assert "everything is needed by a.yaml" in subprocess.run(call, capture_output=True, text=True).stdout


def test_artifacts_of_an_older_version_are_told_and_kept(capsys):
    study = write("a.yaml")
    old = study.step("prepare", "montgomery").folder.with_name("0123456789ab")
    old.mkdir()
    (old / "index.json").write_text(json.dumps({"kind": "index", "spec": old.name, "facts": {}, "files": {}}))
    gc.run([study], lambda question: True)
    said = capsys.readouterr().out
    assert "1 folder(s) are of another version of radprobe" in said
    assert "`radprobe adopt` takes over their frozen features" in said
    assert old.is_dir()
