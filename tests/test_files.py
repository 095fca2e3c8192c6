from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.files import digest_of, fingerprint, sha256, sweep, whole_file, write_json, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_killed_write_is_swept(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with whole_file(tmp_path / "a.tif") as temporary:
            temporary.write_text("half")
            os._exit(9)
    os.waitpid(child, 0)
    assert not (tmp_path / "a.tif").exists()
    # A store is a folder; one that was killed while it was filled must not stop the next run.
    (tmp_path / ".chips.zarr.tmp" / "values").mkdir(parents=True)
    (tmp_path / ".chips.zarr.tmp" / "values" / "zarr.json").write_text("{}")
    assert sweep(tmp_path) == 2
    assert list(tmp_path.iterdir()) == []


def test_json_holds_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    write_json(tmp_path / "a.json", {"ü": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"ü": [1, None]}


def test_fingerprints_follow_contents(tmp_path: Path) -> None:
    small, large = tmp_path / "s", tmp_path / "l"
    small.write_bytes(b"x")
    assert fingerprint(small)["sha256"] == sha256(small)
    with large.open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    before = fingerprint(large)
    assert "sha256" not in before
    with large.open("r+b") as stream:
        stream.seek(32 << 20)
        stream.write(b"changed")
    assert fingerprint(large) != before


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1}) != digest_of({"a": 1, "b": [3]})
