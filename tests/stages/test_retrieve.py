import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import running

from radprobe import catalog, files, phantoms
from radprobe.artifacts import RawManifest
from radprobe.catalog import Download
from radprobe.commands import retrieved as versions
from radprobe.files import RadprobeError
from radprobe.study import Study


def study(tmp_path, dataset="montgomery", download=False, **choice):
    paths = {"root": str(tmp_path), "raw": "raw"}
    params = {"study": "s", "paths": paths, "datasets": {dataset: choice}, "backbones": ["test_vit"]}
    return Study({**params, "download": download})


def retrieved(study, dataset="montgomery"):
    step = study.step("retrieve", dataset)
    running.run(study, step)
    return RawManifest.load(step.folder)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, "montgomery is not once under push or keep"),
        ({"dvc": {"push": ["montgomery"], "keep": ["montgomery"]}}, "montgomery is not once under push or keep"),
        ({"dvc": {"push": ["montgomery", "gone"]}}, "gone is not once under push or keep, or is no dataset"),
        ({"dvc": {"keep": ["montgomery"]}, "paths": {"work": "/scratch/$(id)"}}, r"paths\.work: dvc\.yaml names this"),
    ],
)
def test_dvc_wants_each_dataset_once_and_the_folders_that_it_knows(change, why):
    params = {"study": "s", "datasets": {"montgomery": {}}, "backbones": ["test_vit"]}
    with pytest.raises(RadprobeError, match=why):
        versions.found(Study(params | change))
    found = json.loads(versions.found(Study(params | {"dvc": {"keep": ["montgomery"]}, "paths": {"work": "work"}})))
    assert set(found) == {"datasets", "backbones", "predictions", "identities"}


def test_every_file_of_the_download_is_hashed_and_nothing_else(tmp_path, capsys):
    raw = tmp_path / "raw/montgomery"
    phantoms.generate(raw, catalog.datasets()["montgomery"], 9, 0)
    films = raw / "MontgomerySet/CXR_png"
    (films / "._MCUCXR_0001_0.png").write_bytes(b"x")
    (films / ".DS_Store").write_bytes(b"x")
    (raw / "notes.txt").write_bytes(b"mine")
    manifest = retrieved(study(tmp_path))
    assert (manifest.source, manifest.variant, manifest.root) == ("user", "official", raw / "MontgomerySet")
    assert len(manifest.table) == 27
    assert "2 hidden file(s)" in capsys.readouterr().out
    for row in manifest.table.itertuples():
        assert files.sha256(manifest.root / row.path) == row.sha256
        assert (manifest.root / row.path).stat().st_size == row.bytes


def test_the_label_table_and_lists_belong_to_it(tmp_path):
    manifest = retrieved(study(tmp_path, "nih_chestxray14", phantom={"patients": 60}), "nih_chestxray14")
    assert {"Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt"} <= set(manifest.table["path"])
    assert manifest.source == "phantom"


@pytest.mark.parametrize("there", [False, True])
def test_no_download_is_explained_with_where_to_get_it(tmp_path, there):
    phantoms.generate(tmp_path / "raw/montgomery", catalog.datasets()["montgomery"], 1, 0)
    chosen = study(tmp_path)
    step = chosen.step("retrieve", "montgomery")  # it was there when the study was read
    (tmp_path / "raw/montgomery").rename(tmp_path / "away")
    if there:
        (tmp_path / "raw/montgomery").mkdir()
    with pytest.raises(RadprobeError) as error:
        running.run(chosen, step)
    entry = catalog.datasets()["montgomery"]
    assert error.value.what == str(tmp_path / "raw/montgomery")
    for needed in (entry.access, entry.layout, entry.urls[0]):
        assert needed in error.value.remedy


def test_a_complete_phantom_stays_and_a_damaged_one_is_made_anew(tmp_path):
    chosen = study(tmp_path, phantom={"patients": 9, "seed": 4})
    first = retrieved(chosen)
    film = first.root / first.table["path"].iloc[0]
    made = film.stat().st_mtime_ns
    pd.testing.assert_frame_equal(retrieved(chosen).table, first.table)
    assert film.stat().st_mtime_ns == made
    film.unlink()
    pd.testing.assert_frame_equal(retrieved(chosen).table, first.table)


@pytest.mark.survives("fault", "a kill while phantoms are generated", "made anew")
def test_a_phantom_that_was_killed_half_way_is_made_anew(tmp_path):
    chosen = study(tmp_path, phantom={"patients": 9})
    folder = chosen.raw_folder("montgomery")
    half = folder.with_name(folder.name + files.TEMPORARY)
    half.mkdir(parents=True)
    (half / "half a film").write_bytes(b"x")
    manifest = retrieved(chosen)
    assert not half.exists()
    assert len(manifest.table) == 27


def test_an_older_generator_is_not_trusted(tmp_path):
    chosen = study(tmp_path, phantom={"patients": 9})
    marker = retrieved(chosen).root / "PHANTOM.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "generator": 0}))
    retrieved(chosen)
    assert json.loads(marker.read_text())["generator"] > 0


def test_the_volume_of_an_installed_package_names_its_source(tmp_path):
    chosen = study(tmp_path, "mni152")
    if chosen.missing:
        pytest.skip("nilearn of the catalog's version is not installed")
    manifest = retrieved(chosen, "mni152")
    package = catalog.datasets()["mni152"].package
    assert manifest.source == f"package:nilearn=={package.version}"
    assert manifest.table["path"].tolist() == [package.file]


def test_what_is_wrong_with_the_tables_is_said_before_anything_is_hashed(tmp_path, monkeypatch):
    chosen = study(tmp_path, "nih_chestxray14", phantom={"patients": 60})
    step = chosen.step("retrieve", "nih_chestxray14")
    running.run(chosen, step)
    table = chosen.raw_folder("nih_chestxray14") / "Data_Entry_2017_v2020.csv"
    table.write_bytes(table.read_bytes().replace(b"Finding Labels", b"Findings", 1))
    monkeypatch.setattr(files, "sha256", lambda path: pytest.fail("hashed"))
    with pytest.raises(RadprobeError, match="lacks the columns Finding Labels"):
        running.run(chosen, step)


@pytest.fixture
def open_montgomery(server, tmp_path, monkeypatch):
    """The catalog's Montgomery, with a server on this machine as its publisher."""
    known = catalog.datasets()
    phantoms.generate(tmp_path / "site", known["montgomery"], 9, 0)
    (tmp_path / "site/MontgomerySet/PHANTOM.json").unlink()
    packed = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "site")
    server.bodies["/set.zip"] = Path(packed).read_bytes()
    item = Download(file="set.zip", urls=[server.url("set.zip")], sha256=files.sha256(Path(packed)))
    entry = known["montgomery"].model_copy(update={"downloads": [item]})
    monkeypatch.setattr(catalog, "datasets", lambda: {**known, "montgomery": entry})
    return entry


def test_an_open_set_is_downloaded_when_params_say_so(server, open_montgomery, tmp_path):
    assert "download: true" in study(tmp_path, allow_missing=True).missing[0].remedy
    chosen = study(tmp_path, allow_missing=True, download=True)
    assert not chosen.missing
    manifest = retrieved(chosen)
    assert (manifest.source, manifest.variant, len(manifest.table)) == ("download", "official", 27)
    (item,) = open_montgomery.downloads
    record = {"url": item.urls[0], "bytes": len(server.bodies["/set.zip"]), "sha256": item.sha256}
    assert manifest.facts["downloads"] == {"set.zip": record}
    retrieved(chosen)
    assert len(server.requests) == 1
    assert retrieved(study(tmp_path, allow_missing=True)).source == "download"  # it is here now


def test_a_download_that_failed_leaves_the_dataset_missing_and_says_so(server, open_montgomery, tmp_path):
    chosen = study(tmp_path, allow_missing=True, download=True)
    step = chosen.step("retrieve", "montgomery")
    server.answers = [404]
    with pytest.raises(RadprobeError, match="404") as error:
        running.run(chosen, step)
    assert str(chosen.raw_folder("montgomery")) in error.value.remedy
    why = study(tmp_path, allow_missing=True).missing[0].why
    assert "is not finished" in why
    assert f"remove {chosen.raw_folder('montgomery') / 'DOWNLOADING.json'}" in why
    running.run(chosen, step)
    assert RawManifest.load(step.folder).source == "download"


def test_a_download_that_is_not_the_whole_dataset_says_what_else_to_put_there(server, open_montgomery, tmp_path):
    packed = tmp_path / "other/CXR_png"
    packed.mkdir(parents=True)
    (packed / "a.png").write_bytes(b"x")
    other = Path(shutil.make_archive(str(tmp_path / "other"), "zip", tmp_path / "other"))
    server.bodies["/set.zip"] = other.read_bytes()
    open_montgomery.downloads[0] = open_montgomery.downloads[0].model_copy(update={"sha256": None})
    chosen = study(tmp_path, download=True)
    for _ in range(2):
        with pytest.raises(RadprobeError, match="not the whole dataset") as error:
            running.run(chosen, chosen.step("retrieve", "montgomery"))
        assert open_montgomery.layout in error.value.remedy
    assert len(server.requests) == 1


def test_an_archive_that_nobody_unpacked_is_seen(tmp_path):
    phantoms.generate(tmp_path / "raw/montgomery", catalog.datasets()["montgomery"], 1, 0)
    chosen = study(tmp_path)
    step = chosen.step("retrieve", "montgomery")
    shutil.rmtree(tmp_path / "raw/montgomery/MontgomerySet")
    (tmp_path / "raw/montgomery/NLM-MontgomeryCXRSet.zip").write_bytes(b"x")
    with pytest.raises(RadprobeError, match=r"only NLM-MontgomeryCXRSet\.zip: not unpacked"):
        running.run(chosen, step)


def test_a_gated_set_says_where_to_register_under_which_terms_and_where_to_put_it(tmp_path):
    (missing,) = (one for one in study(tmp_path, "btcv", download=True).missing if one.kind == "dataset")
    entry = catalog.datasets()["btcv"]
    for needed in ("register", *entry.urls, entry.licence, entry.layout, str(tmp_path / "raw/btcv")):
        assert needed in missing.remedy


@pytest.mark.parametrize("choice", [{"mine": {"folder": {"task": "binary", "classes": ["ill"]}}}, {"mni152": {}}])
def test_what_has_no_generator_is_not_asked_of_it(tmp_path, choice):
    ((name, rest),) = choice.items()
    content = {"study": "s", "paths": {"root": str(tmp_path)}, "backbones": ["test_vit"]}
    study = Study({**content, "datasets": {name: {**rest, "phantom": {"patients": 3}}}})
    with pytest.raises(RadprobeError, match=rf"datasets.{name}.phantom.*no generator"):
        running.run(study, study.step("retrieve", name))
