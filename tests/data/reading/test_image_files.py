"""What a file is, what an error says, and what importing costs."""

import subprocess
import sys
import warnings
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_deepfixcx.data.reading import UnreadableImage, read_image, recognize
from tests.data.reading.dicom_files import CAT, SECRET, make_dicom, random_words, real, write_dicom

GREY = random_words(0, (4, 5), np.uint8)


def save_as(kind: str, path: Path) -> None:
    if kind == "dicom":
        write_dicom(path, GREY)
    elif kind == "nifti":
        left_and_back = np.diag([-1, -1, 1, 1])  # in RAS, so that x and y run as columns and rows do
        path.write_bytes(nibabel.Nifti1Image(GREY.T[..., None], left_and_back).to_bytes())
    else:
        Image.fromarray(GREY).save(path, kind)


@pytest.mark.parametrize("name", ["a", "a.png", "1.2.840.10008.5", "a.txt"])
@pytest.mark.parametrize("kind", ["dicom", "nifti", "PNG", "JPEG", "TIFF"])
def test_content_and_not_the_name_decides(tmp_path: Path, kind: str, name: str) -> None:
    save_as(kind, tmp_path / name)
    image = read_image(tmp_path / name, scale="none")
    assert image.pixels.shape == (1, 4, 5)
    assert image.pixels.dtype == np.float32
    assert image.pixels.flags.c_contiguous
    assert image.source_bytes == (tmp_path / name).stat().st_size
    if kind != "JPEG":
        np.testing.assert_array_equal(image.pixels[0], GREY)
    assert recognize(tmp_path / name) == {"PNG": "picture", "JPEG": "picture", "TIFF": "tiff"}.get(kind, kind)


@pytest.mark.parametrize(
    ("kind", "how", "white"),
    [
        ("PNG", {}, 255),
        ("TIFF", {}, 255),
        ("JPEG", {"scale": "range"}, 255),
        ("PNG", {"scale": "minmax"}, 1),
        ("PNG", {"scale": "none"}, 1),
        ("nifti", {"scale": "range"}, 1),
        ("dicom", {}, 1),
    ],
)
def test_values_are_left_as_stored_where_they_need_only_be_divided(
    tmp_path: Path, kind: str, how: dict[str, Any], white: float
) -> None:
    save_as(kind, tmp_path / "a")
    image = read_image(tmp_path / "a", **how)
    assert image.white == white
    assert image.values.dtype == (np.uint8 if white == 255 else np.float32)
    assert image.pixels.dtype == np.float32
    np.testing.assert_array_equal(image.pixels, image.values.astype(np.float32) / np.float32(white))
    assert image.pixels is image.pixels  # divided once


def test_sixteen_bits_and_colour_are_left_as_stored_too(tmp_path: Path) -> None:
    deep = (GREY.astype(np.uint16) << 8) + 3
    Image.fromarray(deep).save(tmp_path / "deep.png")
    image = read_image(tmp_path / "deep.png")
    assert image.white == 65535
    assert image.values.dtype == np.uint16
    np.testing.assert_array_equal(image.values[0], deep)
    Image.fromarray(np.stack([GREY, GREY, GREY], axis=-1)).save(tmp_path / "colour.png")
    assert read_image(tmp_path / "colour.png").white == 1  # grey is a sum of three
    assert read_image(tmp_path / "colour.png", color="keep").white == 255


def test_the_same_picture_is_the_same_pixels_in_every_lossless_format(tmp_path: Path) -> None:
    kinds = ("dicom", "nifti", "PNG", "TIFF")
    for kind in kinds:
        save_as(kind, tmp_path / kind)
    first, *others = (read_image(tmp_path / kind, scale="range").pixels for kind in kinds)
    for other in others:
        np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize("name", ["a", "a.dcm", "a.DCM", "a.dicom", "a.IMA", "1.2.840.113619.2"])
@pytest.mark.parametrize("meta", [True, False])
def test_dicom_without_its_mark_is_tried_where_the_name_allows(tmp_path: Path, name: str, meta: bool) -> None:
    dataset = make_dicom(GREY)
    dataset.preamble = b""
    if meta:
        dataset.save_as(tmp_path / "marked", enforce_file_format=True)
        (tmp_path / name).write_bytes((tmp_path / "marked").read_bytes()[132:])
    else:
        del dataset.file_meta
        pydicom.dcmwrite(tmp_path / name, dataset, implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(read_image(tmp_path / name, scale="none").pixels[0], GREY)
    (tmp_path / name).rename(tmp_path / "a.bin")
    with pytest.raises(UnreadableImage, match="not an image: unknown file type"):
        read_image(tmp_path / "a.bin")


@pytest.mark.parametrize("name", ["ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "rtstruct.dcm"])
def test_real_files_without_the_mark_are_known_for_dicom(name: str) -> None:
    with pytest.raises(UnreadableImage, match=r"^DICOM without pixel data"):
        read_image(real(name))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"^empty file \(0 bytes\)$"),
        (b"Patient: nobody\n", "^not an image: starts with text$"),
        (b"<!DOCTYPE html>" + b"x" * 9999, "^not an image: starts with text$"),
        (bytes(5000), "^not an image: unknown file type$"),
        (
            b"\x1f\x8b" + bytes(90),
            "^not an image: gzip files are not supported; convert it to DICOM, NIfTI, PNG or",
        ),
        (b"GIF89a" + bytes(90), "^not an image: GIF files"),
        (b"BM" + bytes(90), "^not an image: BMP files"),
        (b"%PDF-1.4" + bytes(90), "^not an image: PDF files"),
        (b"\x93NUMPY" + bytes(90), "^not an image: NumPy files"),
        (b"\x5c\x01\0\0" + bytes(340) + b"ni1\0", "^not an image: a NIfTI header without its image; convert"),
        (b"\x89PNG\r\n\x1a\n", "^truncated or damaged picture"),
        (b"\xff\xd8\xff\xe0" + bytes(90), "^truncated or damaged picture"),
        (b"II*\0\x08\0\0\0", "^truncated or damaged TIFF"),
        (b"\x5c\x01\0\0" + bytes(340) + b"n+1\0" + bytes(90), "^(damaged|0-D) NIfTI"),
        (bytes(128) + b"DICM", "^(DICOM without pixel data|damaged DICOM file)"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UnreadableImage, match=message):
        read_image(tmp_path / "a")


def test_a_missing_file_is_reported_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"^cannot be opened: No such file or directory$"):
        read_image(tmp_path / SECRET)


@pytest.mark.parametrize("name", ["a", "."])
def test_what_may_not_be_read_is_reported_without_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_dicom(tmp_path / "a", GREY)

    def refuse(self: Path, *_: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir" if name == "." else "read_bytes", refuse)
    with pytest.raises(UnreadableImage, match=r"^cannot be opened: Permission denied$"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["large", "/dev/zero"])
def test_what_is_large_or_endless_and_no_image_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**22)
    if not (tmp_path / name).exists():
        pytest.skip(f"{name} is a file of Unix")

    def refuse(self: Path) -> Any:
        raise AssertionError("read as a whole")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UnreadableImage, match=r"^not an image: unknown file type$"):
        read_image(tmp_path / name)


def test_what_is_large_and_an_image_is_read(tmp_path: Path) -> None:
    stored = random_words(0, (1100, 1000), np.uint8)
    assert write_dicom(tmp_path / "a", stored).stat().st_size > 2**20
    np.testing.assert_array_equal(read_image(tmp_path / "a", scale="none").pixels[0], stored)


@given(content=st.binary(max_size=600), start=st.sampled_from([b"", bytes(128) + b"DICM", b"II*\0", b"\x08\0\x05\0"]))
@settings(max_examples=150, deadline=None)
def test_anything_at_all_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / SECRET
    path.write_bytes(start + content)
    with pytest.raises(UnreadableImage, match=r"^[^\n]{10,300}$") as caught:
        read_image(path)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("option", "known"), [("color", "'grey', 'keep'"), ("scale", "'auto', 'range', 'minmax'")])
def test_an_unknown_option_is_the_callers_mistake(option: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be one of {known}.*; got 'blue'") as caught:
        read_image(CAT, **{option: "blue"})  # type: ignore[arg-type]
    assert not isinstance(caught.value, UnreadableImage)


def test_pixels_come_out_of_no_repr(tmp_path: Path) -> None:
    save_as("PNG", tmp_path / "a")
    image = read_image(tmp_path / "a")
    assert "pixels" not in repr(image)
    with pytest.raises(FrozenInstanceError):
        image.modality = "CT"  # type: ignore[misc]


def test_the_cats_owner_comes_out_nowhere(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    dataset = pydicom.dcmread(CAT)
    names = [str(dataset[k].value) for k in ("PatientName", "InstitutionName", "StationName", "StudyInstanceUID")]
    names += [str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID), str(dataset.StudyDate), str(CAT.parent)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        said = [repr(read_image(CAT))]
        for cut in (200, 1000, 3000, 5000, 100_000):
            broken = CAT.read_bytes()[:cut]
            with pytest.raises(UnreadableImage) as error:
                _read_bytes(broken)
            said.append(f"{error.value!r} {error.value.__cause__!r}")
    out, err = capfd.readouterr()
    said += [str(warning.message) for warning in caught if "Swig" not in str(warning.message)]
    everything = "\n".join([*said, out, err, caplog.text])
    assert all(name not in everything for name in names if name)


def _read_bytes(data: bytes) -> None:
    from monai_deepfixcx.data.reading.dicom_pixels import read_dicom

    read_dicom(data)


def test_importing_loads_no_reader_library() -> None:
    heavy = "('monai', 'torch', 'itk', 'pydicom', 'nibabel', 'PIL', 'tifffile')"
    code = f"import sys, monai_deepfixcx.data.reading; sys.exit(any(m in sys.modules for m in {heavy}))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
