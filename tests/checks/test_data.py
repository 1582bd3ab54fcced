from doctored import PHANTOM, look


def test_what_is_absent_leaves_the_study_or_stops_it(folder, capsys):
    datasets = PHANTOM | {"btcv": {}, "mine": {"folder": {"task": "binary", "classes": ["ill"]}}}
    well, checks = look(capsys, datasets=datasets)
    assert well
    assert [checks[f"data: {name}"]["state"] for name in datasets] == ["ok", "note", "note"]
    assert "put in data/raw/btcv" in checks["data: btcv"]["remedy"]
    assert "labels.csv" in checks["data: mine"]["remedy"]
    well, checks = look(capsys, datasets=datasets, on_missing="fail")
    assert not well
    assert checks["data: btcv"]["state"] == "problem"


def test_a_layout_that_is_found_is_named(folder, capsys):
    (folder / "films").mkdir()
    (folder / "films/labels.csv").write_text("path,patient,ill\n")
    own = {"raw": "films", "folder": {"task": "binary", "classes": ["ill"]}}
    _, checks = look(capsys, datasets={"mine": own})
    assert checks["data: mine"] | {"remedy": ""} == {
        "check": "data: mine", "state": "ok", "found": "csv layout in films", "remedy": "",
    }  # fmt: skip
