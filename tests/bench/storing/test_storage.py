"""Results in folders and in storages by URL: whole files, the same tables, and errors that say what to do."""

from __future__ import annotations

import io
import os
import sys

import polars
import pytest
from fsspec.registry import _registry as registered
from PIL import Image

from refcore.errors import RefcoreError
from refcore_bench import running
from refcore_bench.showing.summary import summarise
from refcore_bench.storing import storage
from refcore_bench.storing.results import Results
from refcore_bench.tasks.playground_prompts import TUNING_SEED, draw
from refcore_bench.variants import variant_from_text

PROMPTS = draw(4, TUNING_SEED)
PLAIN, OTHER = variant_from_text("plain=sampling-7.5"), variant_from_text("other=sampling-3")


@pytest.fixture(scope="module")
def server():
    """The address of a server that speaks S3."""
    moto = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """URL of an empty bucket; keys and endpoint are in the environment, as users have them."""
    import s3fs

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("results")
    yield "s3://results"
    system.rm("results", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["folder", "file", "memory", "s3"])
def place(request, tmp_path):
    """A place for results, of each kind."""
    if request.param == "s3":
        return f"{request.getfixturevalue('bucket')}/first"
    return {"folder": str(tmp_path), "file": tmp_path.as_uri(), "memory": f"memory://{tmp_path.name}"}[request.param]


def test_a_file_is_read_back_listed_replaced_and_removed(place):
    found = storage.open_storage(place)
    assert not found.exists("parts/a/1.parquet")
    assert found.listed("parts/*/*.parquet") == {}
    for name in ("parts/b/2.parquet", "parts/a/1.parquet", "parts/a/note.txt"):
        found.write(name, name.encode())
    assert list(found.listed("parts/*/*.parquet")) == ["parts/a/1.parquet", "parts/b/2.parquet"]
    assert list(found.read_all(["parts/b/2.parquet", "parts/a/1.parquet"])) == [
        b"parts/b/2.parquet",
        b"parts/a/1.parquet",
    ]
    before = found.listed("parts/*/*.parquet")
    found.write("parts/a/1.parquet", b"another and longer one")
    after = found.listed("parts/*/*.parquet")
    assert before["parts/a/1.parquet"] != after["parts/a/1.parquet"]
    assert before["parts/b/2.parquet"] == after["parts/b/2.parquet"]
    assert found.read_text("parts/a/1.parquet") == "another and longer one"
    found.remove(["parts/a/1.parquet", "parts/a/never-there"])
    assert not found.exists("parts/a/1.parquet")
    with pytest.raises(RefcoreError, match=r"parts/a/1.parquet\" cannot be read"):
        found.read("parts/a/1.parquet")


def test_a_benchmark_anywhere_has_the_rows_of_one_in_a_folder(renders, place, tmp_path):
    once = running.run(tmp_path / "here", [PLAIN, OTHER], PROMPTS, TUNING_SEED, batch=2)
    running.run(place, [PLAIN, OTHER], PROMPTS[:2], TUNING_SEED, batch=2)
    renders.clear()
    there = running.run(place, [PLAIN, OTHER], PROMPTS, TUNING_SEED, batch=2)
    assert len(renders) == 2, "what is there is made again"
    assert there.rows(images=True).equals(once.rows(images=True))
    assert Results.existing(place).rows().equals(once.rows())
    assert summarise(there) == summarise(once)
    sheet = there.storage.read("sheets/plain.png")
    assert sheet == (tmp_path / "here/sheets/plain.png").read_bytes()


def test_what_was_gathered_is_not_read_again_until_it_changes(renders, place, monkeypatch):
    results = running.run(place, [PLAIN], PROMPTS, TUNING_SEED, batch=1)
    whole = results.rows()
    read = []
    original = Results._read
    monkeypatch.setattr(
        Results, "_read", lambda self, files, columns: read.extend(files) or original(self, files, columns)
    )
    assert results.rows().equals(whole)
    assert read == ["results.parquet"]
    (name, *_) = results._parts()
    part = polars.read_parquet(results.storage.read(name)).with_columns(verdict=False, steps=7)
    results._write_frame(name, part)
    read.clear()
    assert results.rows()["verdict"].to_list().count(False) == 1
    assert read == [name, "results.parquet"]


def test_another_table_in_the_place_of_the_gathered_one_hides_no_part(renders, tmp_path):
    results = running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED, batch=1)
    whole = results.rows()
    results._write_frame("results.parquet", whole[:1])
    assert len(results.rows()) == len(whole)


def test_a_file_that_cannot_be_written_in_place_takes_its_name_when_it_is_whole(tmp_path, monkeypatch):
    """In storages that are not known to write whole objects; the local file system stands for one."""
    from fsspec.implementations.local import LocalFileSystem

    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (LocalFileSystem(), str(tmp_path)))
    found = storage.Remote("sftp://host/folder")
    found.write("parts/a.txt", b"first")

    def cut(self, path, data):
        with open(path, "wb") as file:
            file.write(data[:2])
        raise OSError("the connection is lost")

    monkeypatch.setattr(LocalFileSystem, "pipe_file", cut)
    with pytest.raises(RefcoreError, match="cannot be written: OSError: the connection is lost"):
        found.write("parts/a.txt", b"second")
    assert found.read("parts/a.txt") == b"first"


def test_a_storage_whose_package_is_missing_says_which_one(monkeypatch):
    monkeypatch.delitem(registered, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(RefcoreError, match="pip install s3fs"):
        storage.open_storage("s3://bucket/folder")


def test_an_unknown_protocol_is_refused_and_no_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefcoreError, match="such as s3://"):
        Results("s4://bucket/folder")
    assert os.listdir() == []


def test_a_folder_that_cannot_be_made_is_told_in_words(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RefcoreError, match=r'cannot write ".*": ".*file" is a file; name another place'):
        storage.open_storage(tmp_path / "file/results").write("parts/a.txt", b"x")


def test_a_storage_that_does_not_answer_is_an_error_in_words(bucket):
    with pytest.raises(RefcoreError, match=r'"s3://nowhere/first.*" cannot be'):
        running.run("s3://nowhere/first", [PLAIN], PROMPTS, TUNING_SEED)


def test_results_in_memory_are_not_for_several_processes(renders):
    with pytest.raises(RefcoreError, match="memory of one process"):
        running.run("memory://several", [PLAIN, OTHER], PROMPTS, TUNING_SEED, workers=2)


@pytest.mark.slow
def test_worker_processes_write_to_s3_themselves(bucket):
    variant = variant_from_text("drawn=sampling-7.5,steps=2")
    results = running.run(f"{bucket}/two", [variant], PROMPTS, TUNING_SEED, batch=2, workers=2)
    assert len(results.storage.listed("parts/*/*.parquet")) == 2
    assert results.rows()["threads"].to_list() == [1] * 4
    Image.open(io.BytesIO(results.storage.read("sheets/drawn.png"))).verify()


def test_joined_parts_are_the_same_rows_and_pictures_and_are_continued(renders, place):
    results = running.run(place, [PLAIN, OTHER], PROMPTS, TUNING_SEED, batch=1)
    rows, pictures = results.rows(), results.rows(images=True)
    sheet = results.storage.read("sheets/plain.png")
    results.compact()
    assert [name.split("/")[1:][0] for name in results._parts()] == ["other", "plain"]
    assert results.rows().equals(rows)
    assert results.rows(images=True).equals(pictures)
    renders.clear()
    again = running.run(place, [PLAIN, OTHER], PROMPTS, TUNING_SEED, seeds=[0, 1], batch=1)
    assert {seed for *_, seed in renders} == {1}
    assert len(again.rows()) == 2 * len(rows)
    assert again.rows().filter(polars.col("seed") == 0).equals(rows)
    assert again.storage.read("sheets/plain.png") != sheet


def test_parts_are_joined_up_to_a_size_and_a_large_one_stays_as_it_is(renders, tmp_path):
    results = running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED, batch=1)
    sizes = [stamp[0] for stamp in results._parts().values()]
    results.compact(max(sizes) - 1)
    assert len(results._parts()) == len(sizes)
    results.compact(2 * max(sizes))
    assert len(results._parts()) == 2
    assert len(results.rows(images=True)) == len(PROMPTS)


def test_very_many_parts_are_joined_when_they_are_gathered_and_a_kill_in_between_doubles_no_row(
    renders, tmp_path, monkeypatch
):
    monkeypatch.setattr("refcore_bench.storing.results.MOST_PARTS", 3)
    monkeypatch.setattr(storage.Folder, "remove", lambda self, names: None)  # killed before they are gone
    results = running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED, batch=1)
    assert len(results._parts()) == len(PROMPTS) + 1
    assert len(results.rows(images=True)) == len(results.rows()) == len(PROMPTS)


def test_a_sheet_of_very_many_pictures_has_some_of_them(renders, tmp_path, monkeypatch):
    monkeypatch.setattr("refcore_bench.storing.contact_sheets.MOST", 3)
    results = running.run(tmp_path, [PLAIN], PROMPTS, TUNING_SEED, batch=1)
    assert len(results.pictures("plain", 3)) == 3
    whole = results.rows(images=True)
    assert results.pictures("plain", 100).equals(whole)
    width, height = Image.open(tmp_path / "sheets/plain.png").size
    assert height < width
