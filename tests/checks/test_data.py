from doctored import PHANTOM, look


def test_what_is_absent_leaves_the_study_or_stops_it(folder, capsys):
    datasets = PHANTOM | {"btcv": {}, "mine": {"folder": {"task": "binary", "classes": ["ill"]}}}
    well, checks = look(capsys, datasets=datasets)
    assert well
    assert [checks[f"data: {name}"]["state"] for name in datasets] == ["ok", "note", "note"]
    assert "put in data/raw/btcv" in checks["data: btcv"]["remedy"]
    assert checks["data: btcv"]["found"].endswith("left out")
    assert "labels.csv" in checks["data: mine"]["remedy"]
    well, checks = look(capsys, datasets=datasets, on_missing="fail")
    assert not well
    assert checks["data: btcv"]["state"] == "problem"
    assert checks["data: btcv"]["found"].endswith("stops a run (on_missing: fail)")


def test_a_layout_that_is_found_is_named(folder, capsys):
    (folder / "films").mkdir()
    for k in range(40):
        (folder / f"films/{k}.png").write_bytes(b"not opened yet")
    patients = ["P0", "p0", *(f"q{k}" for k in range(18))]
    rows = [f"{k}.png,{patients[k // 2]},{k // 2 % 2}" for k in range(40)]
    (folder / "films/labels.csv").write_text("\n".join(["path,patient,ill", *rows]))
    own = {"raw": "films", "folder": {"task": "binary", "classes": ["ill"]}}
    _, checks = look(capsys, datasets={"mine": own})
    assert checks["data: mine"]["state"] == "note"
    assert checks["data: mine"]["found"].startswith("1 group(s) of patient ids differ only in case")
    (folder / "films/labels.csv").write_text("\n".join(["path,patient,ill", *rows[2:]]))
    _, checks = look(capsys, datasets={"mine": own})
    assert checks["data: mine"] | {"remedy": ""} == {
        "check": "data: mine", "state": "ok", "remedy": "",
        "found": "csv layout in films: 38 images or volumes of 19 patients",
    }  # fmt: skip


def test_a_table_that_would_be_refused_is_a_problem(folder, capsys):
    (folder / "films").mkdir()
    (folder / "films/labels.csv").write_text("path,patient,ill\n0.png,p0,1\n")
    own = {"raw": "films", "folder": {"task": "binary", "classes": ["ill"]}}
    well, checks = look(capsys, datasets={"mine": own})
    assert not well
    assert checks["data: mine"]["state"] == "problem"
    assert "labels.csv, line 2, column 'path': '0.png' is not there" in checks["data: mine"]["found"]
    assert "allow_missing" in checks["data: mine"]["remedy"]


def test_a_download_is_promised_only_where_all_of_it_can_be_had(folder, capsys):
    _, checks = look(capsys, datasets=PHANTOM | {"shenzhen": {}, "montgomery": {}}, download=True)
    assert "left out" in checks["data: shenzhen"]["found"]
    assert "put mask*/CHNCXR_*.png there" in checks["data: shenzhen"]["remedy"]
    assert "downloaded to" in checks["data: montgomery"]["found"]
    (folder / "data/raw/shenzhen/mask").mkdir(parents=True)
    (folder / "data/raw/shenzhen/mask/CHNCXR_0001_0_mask.png").touch()
    _, checks = look(capsys, datasets=PHANTOM | {"shenzhen": {}}, download=True)
    assert "downloaded to" in checks["data: shenzhen"]["found"]
