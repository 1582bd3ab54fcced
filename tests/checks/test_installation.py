from doctored import look

from radprobe.checks import installation


def test_packages_are_compared_with_the_lock(folder, capsys, monkeypatch):
    lock = folder / "requirements.lock"
    lock.write_text("# pins\nnumpy==0.1\npillow==0.1\nnot-here==1.0\n")
    monkeypatch.setattr(installation, "LOCK", lock)
    well, checks = look(capsys)
    assert well
    assert checks["packages"]["found"].startswith("2 of 2 have another version than the lock: numpy ")
    assert "(lock: 0.1)" in checks["packages"]["found"]


def test_a_package_that_is_needed_and_absent_is_a_problem(folder, capsys, monkeypatch):
    version = installation.version
    monkeypatch.setattr(installation, "version", lambda name: None if name == "pydicom" else version(name))
    well, checks = look(capsys)
    assert not well
    assert checks["packages"]["found"] == "not installed: pydicom"
