"""Files that are whole whatever happens while they are written."""

import csv
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from dermiq.files import ResumableLines, append_lines, replacing, replacing_directory, whole_lines, write_atomically
from dermiq.schema import DermIQError
from dermiq.trainer.callbacks import MetricsTable


def child(action, *, at=None, limit=None):
    """Run it in a process of its own, and kill that right before file operation number `at`; False if it came through.

    Args:
        action: what to run.
        at: counts the opening, renaming and removing of files.
        limit: bytes that no file may outgrow, as on a full disk.
    """
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
        return os.WIFSIGNALED(status)
    try:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        seen = iter(range(1000))

        def watch(event, _):
            if event in ("open", "os.rename", "os.remove", "os.truncate") and next(seen) == at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        action()
    except BaseException:
        os._exit(1)
    os._exit(0)


def test_a_file_is_replaced_and_its_folder_made(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    for content, expected in (("ä\n", "ä\n".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")):
        write_atomically(path, content)
        assert path.read_bytes() == expected
    assert [each.name for each in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_kill_leaves_the_old_file_or_the_new_one(before, tmp_path):
    path = tmp_path / "file"
    found = []
    for operation in range(20):
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)
        killed = child(lambda: write_atomically(path, b"new" * 100_000), at=operation)
        found.append(path.read_bytes() if path.exists() else None)
        if not killed:
            break
    assert len(found) >= 3 and found[-1] == b"new" * 100_000 and set(found[:-1]) == {before}
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def refused():
        with pytest.raises(DermIQError, match=r"file could not be written \(.*\); what it held before is whole"):
            write_atomically(path, "n" * 100_000)

    child(refused, limit=4096)
    assert path.read_text() == "old" and [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_fails_while_it_writes_leaves_the_old_file(tmp_path):
    write_atomically(tmp_path / "file", "old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "file") as file:
        file.write(b"half")
        raise RuntimeError
    assert (tmp_path / "file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_lines_are_added_and_read(tmp_path):
    path = tmp_path / "a" / "lines.jsonl"
    assert whole_lines(path) == []
    append_lines(path, ["ä", ""])
    append_lines(path, [])
    append_lines(path, (str(number) for number in range(3)))
    assert whole_lines(path) == ["ä", "", "0", "1", "2"]
    assert path.read_text(encoding="utf-8") == "ä\n\n0\n1\n2\n"


@pytest.mark.parametrize("torn", [b'{"half', b"\xc3", b"\x00" * 70_000, b"x" * 70_000])
@pytest.mark.parametrize("before", [b"", b"first\n", b"f\xc3\xa4rst\nsecond\n"])
def test_a_torn_last_line_counts_for_nothing(before, torn, tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(before + torn)
    assert whole_lines(path) == before.decode().splitlines()
    append_lines(path, ["next"])
    assert path.read_bytes() == before + b"next\n"


def test_a_full_disk_takes_all_lines_or_none(tmp_path):
    path = tmp_path / "lines"
    append_lines(path, ["first"])

    def refused():
        with pytest.raises(DermIQError, match="what it held before is whole"):
            append_lines(path, ["n" * 1000] * 10)

    child(refused, limit=4096)
    assert path.read_bytes() == b"first\n"


def test_a_kill_tears_no_line_but_the_last(tmp_path):
    """Killed over and over in the middle of large writes; what was whole before stays."""
    path = tmp_path / "lines"
    batch = [str(number) * 5_000 for number in range(8)]
    before = 0
    for _ in range(8):
        pid = os.fork()
        if not pid:
            while True:
                append_lines(path, batch)
        while not path.exists() or path.stat().st_size <= before:
            time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        lines = whole_lines(path)
        assert set(lines) <= set(batch) and sum(len(line) + 1 for line in lines) >= before
        append_lines(path, [])
        before = path.stat().st_size
        assert path.read_text().splitlines() == lines


def test_a_new_column_leaves_the_metrics_whole(tmp_path):
    """Killed before each file operation: the rows from before are there, with or without the new one."""
    contents = []
    for operation in range(20):
        table = MetricsTable(tmp_path / str(operation), "metrics")
        table.log_metrics({"train/loss": 1.0}, step=0)
        table.save()
        table.log_metrics({"train/loss": 0.5, "val/accuracy": 1.0}, step=1)
        killed = child(table.save, at=operation)
        text = (Path(table.log_dir) / "metrics.csv").read_text()
        contents.append([dict(row) for row in csv.DictReader(text.splitlines())])
        if not killed:
            break
    begun = {"step": "0", "train/loss": "1.0"}
    assert len(contents) > 4 and contents[0] == [begun]
    assert all(rows in ([begun], [begun | {"val/accuracy": ""}]) for rows in contents[:-1])
    assert contents[-1][1] == {"step": "1", "train/loss": "0.5", "val/accuracy": "1.0"}


# Directories


def filled(path, **contents):
    with replacing_directory(path) as fresh:
        (fresh / "inner").mkdir(parents=True)
        for name, content in contents.items():
            (fresh / "inner" / name).write_text(content)


def test_a_directory_takes_its_name_when_it_is_whole_and_is_replaced_file_by_file(tmp_path):
    path = tmp_path / "above" / "folder"
    path.parent.mkdir()
    (path.parent / "folder.partial").mkdir()  # of a process that was killed
    (path.parent / "folder.partial" / "junk").touch()
    filled(path, a="1", b="1")
    filled(path, b="2", c="2")
    assert {each.name: each.read_text() for each in (path / "inner").iterdir()} == {"a": "1", "b": "2", "c": "2"}
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_that_fails_leaves_the_old_one(tmp_path):
    filled(tmp_path / "folder", a="1")
    with pytest.raises(RuntimeError), replacing_directory(tmp_path / "folder") as fresh:
        (fresh / "inner").mkdir(parents=True)
        (fresh / "inner" / "a").write_text("2")
        raise RuntimeError
    assert (tmp_path / "folder" / "inner" / "a").read_text() == "1" and len(list(tmp_path.iterdir())) == 1


# Lines under a header


class Refused(DermIQError):
    """Of a test."""


def resumed(path, ignored=(), **header):
    def read(path):
        first, *rows = map(json.loads, whole_lines(path))
        return first, rows

    return ResumableLines(path, header, read, lambda path, changes: Refused(changes), ignored)


def test_lines_are_resumed_under_their_header(tmp_path):
    """Which stands there once; a torn line is written over."""
    path = tmp_path / "new" / "lines.jsonl"
    resumed(path, a=1, b={"c": "ä"}).append([{"row": "ü"}])
    with path.open("ab") as file:
        file.write(b'{"row": ')
    lines = resumed(path, a=1, b={"c": "ä"})
    assert lines.rows == [{"row": "ü"}]
    lines.append([{"row": 2}, {"row": 3}])
    assert path.read_text(encoding="utf-8").splitlines() == [
        '{"a": 1, "b": {"c": "\\u00e4"}}', '{"row": "ü"}', '{"row": 2}', '{"row": 3}'
    ]  # fmt: skip


def test_lines_of_another_header_are_refused_by_what_differs(tmp_path):
    path = tmp_path / "lines.jsonl"
    resumed(path, a=1, b={"c": 2, "d": Path("x")}, e=5)
    before = path.read_bytes()
    with pytest.raises(Refused) as caught:
        resumed(path, a=1, b={"c": 3, "d": "x"}, f=None, g=7)
    assert caught.value.args == ({"b.c": (2, 3), "e": (5, None), "g": (None, 7)},)
    assert resumed(path, ("b.c", "e"), a=1, b={"c": 3, "d": "x"}).rows == [] and path.read_bytes() == before


def test_a_torn_header_is_written_again_and_another_file_is_left_alone(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": ')
    assert resumed(path, a=1).rows == [] and path.read_text() == '{"a": 1}\n'
    for content in ("notes of mine", '{"b": '):
        path.write_text(content)
        with pytest.raises(ValueError, match="not enough values"):
            resumed(path, a=1)
        assert path.read_text() == content
