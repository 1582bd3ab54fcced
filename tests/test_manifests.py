import pytest

from radprobe.files import RadprobeError
from radprobe.manifests import Manifest, Place, seal, unseal


def sealed(folder, kind="index"):
    """Write a file of two kilobytes and the manifest of a kind that lists it; return the file."""
    file = folder / f"{kind}.bin"
    file.write_bytes(bytes(range(256)) * 8)
    seal(Place(folder, "abc"), kind, {"partial": True}, [file.name])
    return file


def test_what_was_sealed_is_told(tmp_path):
    sealed(tmp_path)
    manifest = unseal(tmp_path, "index")
    assert (manifest.key, manifest.facts, manifest.files["index.bin"]["bytes"]) == ("abc", {"partial": True}, 2048)


@pytest.mark.survives(
    "fault",
    "a changed, cut or missing file of an artifact",
    "found by its checksum, and re-made",
)
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_corrupt_file_sets_the_manifest_aside(tmp_path, harm):
    file = sealed(tmp_path)
    content = bytearray(file.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
    file.write_bytes(content[:-1] if harm == "cut" else content)
    if harm == "remove":
        file.unlink()
    with pytest.raises(RadprobeError, match="run the same command again"):
        unseal(tmp_path, "index")
    assert not (tmp_path / "index.json").exists()  # so the workflow makes it anew
    with pytest.raises(RadprobeError, match="is not there"):
        unseal(tmp_path, "index")


def test_what_one_step_made_is_set_aside_together(tmp_path):
    sealed(tmp_path, "index")
    sealed(tmp_path, "truth").write_bytes(b"")
    with pytest.raises(RadprobeError, match="set aside"):
        unseal(tmp_path, "truth")
    assert not list(tmp_path.glob("*.json"))  # else the step would count as made, and truth never come back


def test_a_manifest_that_is_no_manifest_is_set_aside(tmp_path):
    (tmp_path / "index.json").write_text('{"half')
    with pytest.raises(RadprobeError, match="set aside"):
        Manifest.read(tmp_path / "index.json")
    assert not (tmp_path / "index.json").exists()


def test_a_manifest_is_read_without_pandas():
    import subprocess
    import sys

    code = "import radprobe.manifests, sys; heavy = {'numpy', 'pandas', 'pandera'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"{code}; assert not heavy, heavy"], check=True)
