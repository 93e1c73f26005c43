import hashlib
import json
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.data import CacheDataset, DataLoader
from safetensors.torch import load

from monai_deepfixcx.codecs import DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.data import CodeStore, LoadCodeD, LoadCoded, LoadCodeDict, Row

CODEC = DeepFixCXCodec(2, 3)


def rows_of(*ids: str) -> list[Row]:
    return [{"id": name, "spatial_shape": [32, 40]} for name in ids]


@pytest.fixture
def store(tmp_path: Path) -> CodeStore:
    store = CodeStore.open(tmp_path / "store", CODEC)
    store.append("one", CODEC.encode(torch.rand(3, 1, 32, 40)), rows_of("a", "b", "c"))
    store.append("two", CODEC.encode(torch.rand(2, 1, 32, 40)), rows_of("d", "e"))
    return store


def test_codes_come_back_bit_for_bit(tmp_path: Path) -> None:
    codes = CODEC.encode(torch.rand(5, 2, 32, 40))
    CodeStore.open(tmp_path, CODEC).append("s", codes, rows_of(*"vwxyz"))
    store = CodeStore.open(tmp_path)
    assert torch.equal(store.read("s")[0], codes)
    assert [item["id"] for item in store] == list("vwxyz")
    assert torch.equal(torch.stack([item["code"] for item in store]), codes)
    assert torch.equal(store.code_of("x"), codes[2])
    assert store[2]["spatial_shape"] == [32, 40]
    assert store.codec.fingerprint() == CODEC.fingerprint()


def test_the_same_codes_are_the_same_bytes(tmp_path: Path) -> None:
    codes = CODEC.encode(torch.rand(2, 1, 32, 40))
    for folder in ("a", "b"):
        CodeStore.open(tmp_path / folder, CODEC).append("s", codes, rows_of("x", "y"))
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


@pytest.mark.parametrize("expected", [None, 2, 3, 4])
def test_however_many_codes_were_expected_the_marker_has_the_hash_of_the_file(
    tmp_path: Path, expected: int | None
) -> None:
    store = CodeStore.open(tmp_path, CODEC)
    with store.begin_shard("s", expected) as shard:
        for code, row in zip(CODEC.encode(torch.rand(3, 1, 32, 40)), rows_of(*"xyz"), strict=True):
            shard.add(code, row)
        shard.commit()
    marker = json.loads((tmp_path / "shards" / "s.done.json").read_text())
    content = (tmp_path / "shards" / "s.safetensors").read_bytes()
    assert marker["sha256"]["safetensors"] == hashlib.sha256(content).hexdigest()
    assert load(content)["codes"].shape == (3, 1, 144)
    assert CodeStore(tmp_path).verify() == []


def test_a_shard_without_its_marker_does_not_count(store: CodeStore) -> None:
    (store.folder / "shards" / "one.done.json").unlink()
    again = CodeStore(store.folder)
    assert again.shards == ["two"]
    assert [row["id"] for row in again.rows] == ["d", "e"]
    assert again.verify() == []


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: (folder / "one.safetensors").write_bytes(b"x"), "one.safetensors has changed"),
        (lambda folder: (folder / "one.jsonl").unlink(), "one.jsonl is missing"),
        (lambda folder: (folder / "one.done.json").write_text("{"), "its marker is damaged"),
        (
            lambda folder: (folder / "one.done.json").write_text(
                (folder / "one.done.json").read_text().replace(CODEC.fingerprint(), "0")
            ),
            "was written by another configuration",
        ),
    ],
)
def test_verify_names_a_damaged_shard(store: CodeStore, damage: object, problem: str) -> None:
    assert store.verify() == []
    damage(store.folder / "shards")  # type: ignore[operator]
    (found,) = CodeStore(store.folder).verify()
    assert found.shard == "one"
    assert problem in found.problem


def test_one_flipped_bit_is_found(store: CodeStore) -> None:
    path = store.folder / "shards" / "two.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    assert [found.shard for found in store.verify()] == ["two"]


def test_another_configuration_does_not_mix(store: CodeStore) -> None:
    with pytest.raises(ValueError, match=r"another configuration \(levels: 2 there, 3 now\)\. Codes of two"):
        CodeStore.open(store.folder, DeepFixCXCodec(3, 3))
    with pytest.raises(ValueError, match=r"codec: 'deepfixcx' there, 'heartspot' now"):
        CodeStore.open(store.folder, HeartSpotCodec("hline"))
    assert len(CodeStore.open(store.folder, CODEC)) == 5


def test_bad_input_is_named(store: CodeStore, tmp_path: Path) -> None:
    codes = torch.zeros(1, 1, 144)
    with pytest.raises(FileNotFoundError, match=r"is no code store: it has no store.json"):
        CodeStore.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"name must be letters, digits, '_' and '-'; got '\.\./x'"):
        store.append("../x", codes, rows_of("a"))
    with pytest.raises(ValueError, match=r"codes must be \[N, C, D\] with N >= 1 rows; got \[1, 1, 144\] and 2 rows"):
        store.append("x", codes, rows_of("a", "b"))
    with pytest.raises(ValueError, match=r"a row must hold id and spatial_shape, nothing else; got .*'patient'"):
        store.append("x", codes, [{**rows_of("a")[0], "patient": "Doe"}])  # type: ignore[typeddict-unknown-key]
    with pytest.raises(KeyError, match=r"no complete shard 'three'"):
        store.read("three")
    with pytest.raises(KeyError, match=r"no code with id 'z'"):
        store.code_of("z")
    (store.folder / "store.json").write_text("{")
    with pytest.raises(ValueError, match=r"is damaged: it is not JSON"):
        CodeStore(store.folder)
    (store.folder / "store.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match=r"has store format 99, this release reads 1: upgrade"):
        CodeStore(store.folder)


def test_a_full_disk_leaves_no_half_shard(store: CodeStore) -> None:
    script = f"""
import resource, torch
from monai_deepfixcx.data import CodeStore
store = CodeStore({str(store.folder)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.getrlimit(resource.RLIMIT_FSIZE)[1]}))
try:
    store.append("big", torch.zeros(100, 1, 144), [{{"id": str(i), "spatial_shape": [32, 40]}} for i in range(100)])
except OSError as error:
    print(type(error).__name__)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "OSError"
    again = CodeStore(store.folder)
    assert len(again) == 5
    assert not list(store.folder.rglob("*big*"))


def test_a_shard_written_code_by_code_is_the_same_bytes(tmp_path: Path) -> None:
    codes = CODEC.encode(torch.rand(3, 1, 32, 40))
    CodeStore.open(tmp_path / "at-once", CODEC).append("s", codes, rows_of(*"abc"))
    store = CodeStore.open(tmp_path / "one-by-one", CODEC)
    with store.begin_shard("s") as shard:
        for code, row in zip(codes, rows_of(*"abc"), strict=True):
            shard.add(code, row)
            assert len(CodeStore(store.folder)) == 0, "it counts only when it is whole"
        shard.commit()
    for path in (tmp_path / "at-once").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "one-by-one" / path.relative_to(tmp_path / "at-once")).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_safetensors_itself_reads_every_kind_of_code(tmp_path: Path, dtype: torch.dtype) -> None:
    codes = CODEC.encode(torch.rand(3, 2, 32, 40)).to(dtype)
    CodeStore.open(tmp_path, CODEC).append("s", codes, rows_of(*"abc"))
    read = load(Path(tmp_path, "shards", "s.safetensors").read_bytes())
    assert read.keys() == {"codes"}
    assert read["codes"].dtype == dtype
    assert torch.equal(read["codes"], codes)


def test_a_shard_that_is_not_committed_leaves_nothing(store: CodeStore) -> None:
    before = {path: path.read_bytes() for path in store.folder.rglob("*.*")}
    size = store.bytes_on_disk
    with store.begin_shard("one") as shard:
        shard.add(torch.zeros(1, 144), rows_of("x")[0])
        assert store.bytes_on_disk == size, "what is unfinished is no part of the store"
    assert {path: path.read_bytes() for path in store.folder.rglob("*.*")} == before
    assert store.verify() == []


def test_codes_of_a_shard_are_of_one_kind(store: CodeStore) -> None:
    (row,) = rows_of("x")
    for code in (torch.zeros(1, 143), torch.zeros(1, 144, dtype=torch.float64)):
        with store.begin_shard("x") as shard:
            shard.add(torch.zeros(1, 144), row)
            with pytest.raises(ValueError, match=r"of one shape and dtype in a shard; got \[1, 14\d\] of .* after"):
                shard.add(code, row)
    for code in (torch.zeros(144), torch.zeros(1, 144, dtype=torch.uint8)):
        with (
            store.begin_shard("x") as shard,
            pytest.raises(ValueError, match=r"codes must be floating point, \[C, D\]"),
        ):
            shard.add(code, row)
    with store.begin_shard("x") as shard, pytest.raises(ValueError, match="at least one code; none was added"):
        shard.commit()
    assert not list(store.folder.rglob("*x.*"))


def test_two_writers_append_side_by_side(store: CodeStore) -> None:
    assert len(store) == 5
    other = CodeStore(store.folder)
    other.append("three", torch.zeros(1, 1, 144), rows_of("f"))
    assert len(store) == 5
    store.refresh()
    assert len(store) == 6


def test_stores_travel_to_workers(store: CodeStore) -> None:
    store[0]
    assert torch.equal(pickle.loads(pickle.dumps(store))[4]["code"], store[4]["code"])
    loader = DataLoader(CacheDataset(store.datalist(), LoadCoded("code"), progress=False), batch_size=5, num_workers=2)
    (batch,) = loader
    assert torch.equal(batch["code"], torch.stack([item["code"] for item in store]))
    assert batch["id"] == list("abcde")


def test_load_coded(store: CodeStore) -> None:
    assert LoadCodeD is LoadCodeDict is LoadCoded
    item = store.datalist()[3]
    assert json.loads(json.dumps(item)) == item
    loaded = LoadCoded(["code", "other"], allow_missing_keys=True)(item)
    assert torch.equal(loaded["code"], store[3]["code"])
    assert loaded["id"] == "d"
    with pytest.raises(ValueError, match=r"referred to as 'FOLDER#ID'.*got 'somewhere'"):
        LoadCoded("code")({"code": "somewhere"})
