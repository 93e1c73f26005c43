"""Data lists: the published tables as they are, labels, views, and no patient in two parts."""

import gzip
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_deepfixcx.data.datalist import Item, make_datalist
from monai_deepfixcx.data.datalist_sources import PARTS

NIH1000 = Path(__file__).parents[3] / "shared/data/nih1000"

EVERYTHING = (1.0, 0.0, 0.0)  # all patients into the training part


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def everything(source: Any, root: Path, labels: list[str] | None = None, **options: Any) -> dict[str, Item]:
    """All items by file name."""
    items = make_datalist(source, root, labels, fractions=EVERYTHING, **options)["training"]
    return {Path(item["image"]).name: item for item in items}


# A plain table


def test_csv_with_label_columns_and_a_byte_order_mark(tmp_path: Path) -> None:
    table = write(
        tmp_path / "my.csv", "\ufefffile,who,gender,Edema,Mass,note", "a.png,7,female,1,-1,x", "b.png,8,,,0", ""
    )
    touch(tmp_path / "pictures", "a.png", "b.png")
    columns = {"image": "file", "patient": "who", "sex": "gender"}
    options: dict[str, Any] = {"columns": columns, "images": tmp_path / "pictures"}
    items = everything("csv", table, ["Mass", "Edema"], **options)
    assert items["a.png"]["label"] == [2.0, 1.0]
    assert items["b.png"]["label"] == [0.0, 0.0]
    assert [item["sex"] for item in items.values()] == ["F", ""]
    assert math.isnan(items["a.png"]["age"])
    assert items["a.png"]["view"] == ""
    with pytest.raises(ValueError, match=r"my.csv must hold 1, 0, -1 or nothing in column 'note'; got 'x'"):
        everything("csv", table, **options)


@pytest.mark.skipif(not NIH1000.exists(), reason="nih1000 is on the project's own machines only")
def test_the_real_nih1000_table() -> None:
    datalist = make_datalist(
        "csv", NIH1000 / "labels.csv", ["Effusion"], columns={"patient": "patient_id"}, split="published"
    )
    assert sum(len(items) for items in datalist.values()) == 733
    assert len(datalist["testing"]) == 232
    assert sum(item["label"] == [1.0] for part in PARTS for item in datalist[part]) == 120
    owners = [{item["patient"] for item in datalist[part]} for part in PARTS]
    assert len(set.union(*owners)) == sum(map(len, owners)) == 215
    assert {item["sex"] for item in datalist["training"]} == {"M", "F"}
    assert all(Path(item["image"]).is_file() and 0 < item["age"] < 100 for item in datalist["testing"])


# Photographs in folders


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for name in ("glaucoma", "healthy"):
        touch(tmp_path / name, *(f"{number}_{eye}.JPG" for number in range(6) for eye in "lr"), "readme.txt")
    touch(tmp_path, ".cache/0_l.jpg")
    return tmp_path


def test_folder_per_class(photographs: Path) -> None:
    datalist = make_datalist("folder", photographs, fractions=(0.5, 0.25, 0.25))
    items = [item for part in PARTS for item in datalist[part]]
    assert len(items) == 24
    for item in items:
        assert item["label"] == ["glaucoma", "healthy"].index(Path(item["image"]).parent.name)
        assert item["patient"] == Path(item["image"]).stem
        assert (item["sex"], item["view"]) == ("", "")
    healthy_first = make_datalist("folder", photographs, ["healthy", "glaucoma"], fractions=(0.5, 0.25, 0.25))
    assert healthy_first["testing"][0]["label"] == 1
    one = make_datalist("folder", photographs, ["healthy"], fractions=EVERYTHING)["training"]
    assert len(one) == 12


def test_folder_with_a_patient_pattern_keeps_both_eyes_together(photographs: Path) -> None:
    datalist = make_datalist("folder", photographs, fractions=(0.5, 0.25, 0.25), patient_pattern=r"^(\d+)_")
    owners = [{item["patient"] for item in datalist[part]} for part in PARTS]
    assert sorted(set.union(*owners)) == list("012345")
    assert sum(map(len, owners)) == 6


def test_folder_with_published_parts(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "test/b/4.png", "extra/c/5.png")
    datalist = make_datalist("folder", tmp_path, split="published")
    assert [[item["label"] for item in datalist[part]] for part in PARTS] == [[0, 1], [0], [1]]
    (tmp_path / "extra/c/5.png").unlink()
    with pytest.raises(ValueError, match=r"root must hold one folder per class; it holds parts \(test, train, val\)"):
        make_datalist("folder", tmp_path)


# The split


def table_of(root: Path, owners: list[str], name: str = "t.csv") -> Path:
    rows = (f"{number}.png,{owner},Mass,{'PA' if number % 2 else 'LATERAL'}" for number, owner in enumerate(owners))
    return write(root / name, "image,patient,findings,view", *rows)


def parts_of(table: Path, **options: Any) -> dict[str, str]:
    """Part by patient; fails if one patient is in two."""
    found: dict[str, str] = {}
    for part, items in make_datalist("csv", table, ["Mass"], missing="keep", **options).items():
        for item in items:
            assert found.setdefault(item["patient"], part) == part
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 60).map(lambda number: f"P{number}"), min_size=40, max_size=200),
    st.integers(0, 2**32),
    st.tuples(st.integers(2, 8), st.integers(1, 4), st.integers(1, 4)),
    st.randoms(use_true_random=False),
)
def test_no_patient_is_in_two_parts_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, owners: list[str], seed: int, shares: Any, shuffler: random.Random
) -> None:
    root = tmp_path_factory.mktemp("split")
    owners = owners + [f"Q{number}" for number in range(30)]
    fractions = tuple(share / sum(shares) for share in shares)
    parts = parts_of(table_of(root, owners), fractions=fractions, seed=seed)
    assert set(parts) == set(owners)
    for part, fraction in zip(PARTS, fractions, strict=True):
        assert abs(list(parts.values()).count(part) - fraction * len(parts)) <= 1.01
    shuffled = list(owners)
    shuffler.shuffle(shuffled)
    assert parts_of(table_of(root, shuffled), fractions=fractions, seed=seed) == parts


def test_the_order_of_rows_does_not_change_the_list(tmp_path: Path) -> None:
    rows = [f"{number}.png,P{number // 3},Mass" for number in range(60)]
    lists = []
    for order in (rows, rows[::-1]):
        table = write(tmp_path / "t.csv", "image,patient,findings", *order)
        lists.append(repr(make_datalist("csv", table, ["Mass"], missing="keep", seed=4)))
    assert lists[0] == lists[1]


def test_seeds_differ_and_filters_do_not_move_patients(tmp_path: Path) -> None:
    table = table_of(tmp_path, [f"P{number // 2}" for number in range(200)])
    parts = parts_of(table, seed=1)
    assert parts != parts_of(table, seed=2)
    assert parts == parts_of(table, seed=1, views="frontal")
    assert sorted(parts.values()).count("training") == 70


def test_a_part_may_be_left_empty_on_purpose(tmp_path: Path) -> None:
    parts = parts_of(table_of(tmp_path, list("abcdefghij")), fractions=(0.8, 0.0, 0.2))
    assert sorted(parts.values()) == ["testing"] * 2 + ["training"] * 8


def test_missing_images_are_counted_skipped_or_kept(tmp_path: Path) -> None:
    table = table_of(tmp_path, [f"P{number}" for number in range(4)])
    touch(tmp_path, "0.png", "1.png", "2.png")
    with pytest.raises(
        FileNotFoundError, match=r"1 of 4 images are not under .*Point images at their folder, or use miss"
    ):
        everything("csv", table)
    assert len(everything("csv", table, missing="skip")) == 3
    assert len(everything("csv", table, missing="keep")) == 4
    with pytest.raises(ValueError, match=r"training must hold an image; .*missing='skip' leave none"):
        everything("csv", table, missing="skip", images=tmp_path / "elsewhere")


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "vindr"}, r"source must be one of nih, chexpert, mimic, padchest, csv, folder; got 'vindr'"),
        ({"split": "random"}, r"split must be one of patients, published; got 'random'"),
        ({"uncertain": "maybe"}, r"uncertain must be one of ignore, positive, negative; got 'maybe'"),
        ({"blank": "positive"}, r"blank must be one of negative, ignore; got 'positive'"),
        ({"views": "side"}, r"views must be one of all, frontal; got 'side'"),
        ({"missing": "ignore"}, r"missing must be one of raise, skip, keep; got 'ignore'"),
        ({"fractions": (0.5, 0.5)}, r"fractions must be three shares of at least 0 that add up to 1; got \(0.5, 0.5\)"),
        ({"fractions": (0.5, 0.2, 0.2)}, r"add up to 1; got \(0.5, 0.2, 0.2\)"),
        ({"fractions": (1.2, -0.1, -0.1)}, r"at least 0"),
        ({"fractions": (0.98, 0.01, 0.01)}, r"validation gets none of 6 patients at 0.01. Enlarge that fraction"),
        ({"labels": ["Mas", "Mass"]}, r"labels must be names that 'csv' has; got Mas. There are: Edema, Mass"),
        ({"labels": []}, r"got none. There are: Edema, Mass"),
        ({"columns": {"person": "x"}}, r"columns must name some of image, patient, .*; got person"),
        ({"columns": {"patient": "who"}}, r"t.csv must have a column 'who'; it has image, patient, findings"),
        ({"split": "published"}, r"t.csv must have a column 'split'; it has image"),
        ({"patient_pattern": "(.)"}, r"patient_pattern is for source 'folder' only; got it with 'csv'. Leave it out"),
        ({"source": "nih", "columns": {}}, r"columns is for source 'csv' only; got it with 'nih'"),
    ],
)
def test_bad_requests_are_named(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    rows = (f"{number}.png,P{number},{'Mass' if number else 'Edema'}" for number in range(6))
    table = write(tmp_path / "t.csv", "image,patient,findings", *rows)
    request = {"source": "csv", "root": table, "missing": "keep", "fractions": (0.5, 0.25, 0.25), **options}
    with pytest.raises(ValueError, match=message):
        make_datalist(**request)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["image,findings", "a.png,Mass"], r"t.csv must have a column 'patient'; it has image, findings"),
        (
            ["image,patient,findings", "a.png,,Mass", "b.png,P,Mass"],
            r"every image must have a patient, .* 1 of 2 have none",
        ),
        (["image,patient,findings"], r"root must list at least one image with labels"),
        ([], r"t.csv must have a column 'image'"),
    ],
)
def test_bad_tables_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        everything("csv", write(tmp_path / "t.csv", *lines), missing="keep")


def test_bad_published_splits_are_named(tmp_path: Path) -> None:
    torn = write(tmp_path / "t.csv", "image,patient,findings,split", "a.png,P,Mass,train", "b.png,P,Mass,test")
    with pytest.raises(ValueError, match=r"must keep a patient in one part; 1 patients are in more"):
        everything("csv", torn, split="published", missing="keep")
    odd = write(tmp_path / "t.csv", "image,patient,findings,split", "a.png,P,Mass,holdout")
    with pytest.raises(ValueError, match=r"the published split must be one of train, .*; got 'holdout'"):
        everything("csv", odd, split="published", missing="keep")


def test_bad_patterns_are_named(photographs: Path) -> None:
    for pattern in (r"\d+", "("):
        with pytest.raises(ValueError, match=r"patient_pattern must be a regular expression with a group"):
            everything("folder", photographs, patient_pattern=pattern)
    with pytest.raises(ValueError, match=r"every image must have a patient, to split by; 24 of 24 have none"):
        everything("folder", photographs, patient_pattern="^([A-Z]+)")
