"""RadiographReader inside MONAI."""

import pickle
import warnings
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, LoadImage, LoadImaged, Spacing
from PIL import Image

from monai_deepfixcx.data.radiograph_reader import RadiographReader
from monai_deepfixcx.data.reading import UnreadableImage, read_image, read_series
from tests.data.reading.dicom_files import CAT, SECRET, random_words, real, write_dicom

VOLUME = Path(str(files("nibabel") / "tests/data/anatomical.nii"))
OWN_KEYS = {"affine", "original_affine", "spatial_shape", "original_channel_dim", "space"}


def load(path: Any, **options: Any) -> MetaTensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pixel spacing")
        image = LoadImage(reader=RadiographReader(**options), image_only=True, ensure_channel_first=True)(path)
    assert isinstance(image, MetaTensor)
    return image


@pytest.mark.parametrize(
    "path", [CAT, VOLUME, real("RG1_J2KR.dcm"), real("examples_ybr_color.dcm"), real("emri_small_RLE.dcm")]
)
def test_load_image_gives_what_read_image_gives(path: Path) -> None:
    image = load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected = read_image(path)
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image.numpy(), expected.pixels)
    np.testing.assert_allclose(image.affine, expected.affine)


def test_options_are_passed_on(tmp_path: Path) -> None:
    pixels = random_words(0, (4, 5, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = load(tmp_path / "a.png", color="keep", scale="none")
    np.testing.assert_array_equal(image.numpy(), np.moveaxis(pixels, -1, 0))
    with pytest.raises(ValueError, match=r"scale must be one of .*; got 'loud'"):
        RadiographReader(scale="loud")  # type: ignore[arg-type]


def test_a_dictionary_pipeline_with_workers_reads_every_format(tmp_path: Path) -> None:
    pixels = random_words(0, (6, 5), np.uint8)
    write_dicom(tmp_path / "a", pixels)
    for kind in ("PNG", "TIFF"):
        Image.fromarray(pixels).save(tmp_path / kind, kind)
    items = [{"image": str(tmp_path / name)} for name in ("a", "PNG", "TIFF")]
    transform = Compose([LoadImaged("image", reader=RadiographReader(), ensure_channel_first=True)])  # type: ignore[arg-type]
    (batch,) = DataLoader(Dataset(items, transform), batch_size=3, num_workers=1)
    np.testing.assert_allclose(batch["image"].numpy(), np.broadcast_to(pixels / 255, (3, 1, 6, 5)), atol=1e-6)


def test_the_reader_itself_hands_over_no_header() -> None:
    reader = RadiographReader()
    _, meta = reader.get_data(reader.read(CAT))
    assert set(map(str, meta)) == OWN_KEYS
    image = load(CAT)
    assert set(image.meta) - OWN_KEYS <= {"filename_or_obj"}  # which LoadImage adds, and StripMetadata removes


def test_without_channel_first_the_channel_is_known_too() -> None:
    image = LoadImage(reader=RadiographReader())(VOLUME)
    assert image.shape == (1, 33, 41, 25)
    assert image.meta["original_channel_dim"] == 0
    assert tuple(image.meta["spatial_shape"]) == (33, 41, 25)


def test_spacing_of_an_image_is_understood(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", random_words(0, (8, 6), np.uint8), PixelSpacing=[0.5, 2])
    assert Spacing(pixdim=(1, 1))(load(path)).shape == (1, 4, 11)


def test_a_list_and_a_folder_are_one_series(tmp_path: Path) -> None:
    place: dict[str, Any] = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "Modality": "CT"}
    words = random_words(0, (3, 4, 5), np.int16)
    paths = [
        write_dicom(tmp_path / str(z), words[z], ImagePositionPatient=[0, 0, 2 - z], **place) for z in range(len(words))
    ]
    expected = read_series(paths)
    for source in (paths, [str(path) for path in paths], tmp_path, str(tmp_path)):
        image = load(source)
        assert image.shape == (1, 4, 5, 3)
        np.testing.assert_array_equal(image.numpy(), expected.pixels)
        np.testing.assert_allclose(image.affine, expected.affine)


has_libjpeg = pytest.mark.skipif(find_spec("libjpeg") is not None, reason="then the file can be read")


@pytest.mark.parametrize("name", [pytest.param("JPGExtended.dcm", marks=has_libjpeg), "MR_truncated.dcm"])
def test_what_we_refuse_is_not_read_by_the_next_reader(name: str) -> None:
    # LoadImage falls back on ITKReader if a reader's `read` raises: another polarity, and names in the metadata.
    with pytest.raises(UnreadableImage, match=r"12 bits|truncated"):
        load(real(name))


def test_the_error_names_no_path(tmp_path: Path) -> None:
    (tmp_path / SECRET).write_text("hello")
    with pytest.raises(UnreadableImage, match="not an image: starts with text") as caught:
        load(tmp_path / SECRET)
    assert SECRET not in str(caught.value)


def test_verify_suffix_looks_at_the_content(tmp_path: Path) -> None:
    reader = RadiographReader()
    (tmp_path / "a.dcm").write_text("hello")
    assert reader.verify_suffix(CAT)
    assert reader.verify_suffix([str(CAT), VOLUME])
    assert reader.verify_suffix(tmp_path)
    assert not reader.verify_suffix(tmp_path / "a.dcm")
    assert not reader.verify_suffix([CAT, tmp_path / "missing"])


def test_read_takes_no_options() -> None:
    with pytest.raises(ValueError, match=r"read takes no options but those of RadiographReader\(...\); got color"):
        RadiographReader().read(CAT, color="keep")


def test_the_reader_can_be_pickled_and_named() -> None:
    reader = pickle.loads(pickle.dumps(RadiographReader("keep", "minmax")))
    assert (reader.color, reader.scale) == ("keep", "minmax")
    by_name = LoadImage(reader="monai_deepfixcx.data.radiograph_reader.RadiographReader", scale="minmax")
    assert by_name(VOLUME).max() == 1


def test_the_polarity_is_one_through_monai_too() -> None:
    plain, coded = load(real("RG3_UNCR.dcm")), load(real("RG3_J2KR.dcm"))
    torch.testing.assert_close(plain.as_tensor(), coded.as_tensor(), rtol=0, atol=0)
    itk = LoadImage()(real("RG3_UNCR.dcm")).as_tensor().squeeze().T / 1023
    torch.testing.assert_close(plain.as_tensor()[0], itk)
