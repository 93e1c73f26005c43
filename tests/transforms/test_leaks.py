"""Files full of identifying values go through MONAI's readers; nothing of them may come out of a transform."""

import io
import logging
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset, ThreadDataLoader, list_data_collate
from monai.transforms import Compose, Lambdad, LoadImaged
from torch import Tensor

from monai_deepfixcx.transforms import DeepFixCXd, HeartSpotd, Reconstructd, StripMetadatad
from tests.transforms.leaks import SIZE, Identified, files_below, found, found_texts, write_dicom, write_nifti

SMALL: dict[str, Any] = {"levels": 2, "patch_size": 2}
LINES: dict[str, Any] = {"prior": "rhline", "spatial_shape": (SIZE, SIZE), "line_count": 4}
PRIVATIZING: dict[str, list[Any]] = {
    "deepfixcx-code": [DeepFixCXd("image", **SMALL)],
    "deepfixcx-image": [DeepFixCXd("image", **SMALL, output="image")],
    "deepfixcx-small_image": [DeepFixCXd("image", **SMALL, output="small_image")],
    "heartspot-code": [HeartSpotd("image", **LINES)],
    "heartspot-image": [HeartSpotd("image", **LINES, output="image")],
    "heartspot-sums": [HeartSpotd("image", **LINES, aggregate="sum", output="image")],
    "strip": [StripMetadatad("image")],
    "reconstruct": [
        DeepFixCXd("image", **SMALL),
        Reconstructd("image", {"codec": "deepfixcx", **SMALL}, (SIZE, SIZE)),
    ],
}
VOLUMES: dict[str, list[Any]] = {
    "deepfixcx-3d-code": [DeepFixCXd("image", levels=1, patch_size=2, spatial_dims=3)],
    "deepfixcx-3d-image": [DeepFixCXd("image", levels=1, patch_size=2, spatial_dims=3, output="image")],
    "deepfixcx-3d-small_image": [DeepFixCXd("image", levels=1, patch_size=2, spatial_dims=3, output="small_image")],
}
WRITERS = {"dicom": write_dicom, "nifti": write_nifti}
# MONAI reads one DICOM slice, which is no volume.
CASES = [*(("dicom", name) for name in PRIVATIZING), *(("nifti", name) for name in (*PRIVATIZING, *VOLUMES))]


def first_slice(volume: Tensor) -> Tensor:
    """[C, H, W, D] to [C, H, W]; a view, which keeps hold of the whole volume."""
    return volume[..., 0]


def load(image_only: bool = False) -> list[Any]:
    """MONAI's default readers; metadata in the MetaTensor and, without `image_only`, beside it as well."""
    return [LoadImaged("image", ensure_channel_first=True, image_only=image_only)]


def slices() -> list[Any]:
    return [*load(), Lambdad("image", first_slice)]


def item(identified: Identified) -> dict[str, Any]:
    return {"image": str(identified.path), "label": 1}


def kept_pixels(name: str, identified: Identified) -> frozenset[int]:
    """The original values that the transform keeps by design: those under HeartSpot's mask."""
    if name not in ("heartspot-code", "heartspot-image"):
        return frozenset()
    image = Compose(slices())(item(identified))["image"]
    return frozenset(image[0][HeartSpotd("image", **LINES).codec.mask].int().tolist())


def all_said(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], warned: pytest.WarningsRecorder
) -> str:
    out, err = capfd.readouterr()
    return "\n".join([caplog.text, out, err, *(str(warning.message) for warning in warned)])


@pytest.fixture(params=WRITERS)
def identified(request: pytest.FixtureRequest, tmp_path: Path) -> Identified:
    return WRITERS[request.param](tmp_path / "source")


class TestTheSearchItself:
    """It finds what it looks for in what MONAI's readers give, so that finding nothing means something."""

    def test_everything_is_found_in_a_loaded_image(self, identified: Identified) -> None:
        loaded = Compose(load(image_only=True))(item(identified))
        assert found(loaded, identified) == {"tags", "path", "pixels"}

    def test_everything_is_found_beside_an_untracked_image(self, identified: Identified, untracked: None) -> None:
        loaded = Compose(load())(item(identified))
        assert found(loaded, identified) == {"tags", "path", "pixels"}

    def test_everything_is_found_in_a_batch_and_in_the_cache(self, dicom: Identified, tmp_path: Path) -> None:
        cached = PersistentDataset([item(dicom)], load(), tmp_path / "cache", track_meta=True)
        first = Compose(load())(item(dicom))
        assert found(list_data_collate([first, first]), dicom) == {"tags", "path", "pixels"}
        assert cached[0]["label"] == 1
        assert found(files_below(tmp_path / "cache"), dicom) == {"tags", "path", "pixels"}

    def test_the_standard_tags_of_a_dicom_are_found_one_by_one(self, dicom: Identified) -> None:
        # All but the private tag and its creator, which ITK does not read.
        assert len(found_texts(Compose(load())(item(dicom)), dicom)) == len(dicom.texts) - 2 >= 30

    def test_pixels_behind_a_view_are_found(self, nifti: Identified) -> None:
        assert "pixels" in found(first_slice(Compose(load())(item(nifti))["image"])[:, :1, :1], nifti)

    def test_pixels_are_found_in_every_type(self, dicom: Identified) -> None:
        pixels = torch.from_numpy(dicom.pixels.astype("int32"))
        for dtype in (torch.float32, torch.float64, torch.int16, torch.int32):
            assert "pixels" in found(pixels.to(dtype), dicom), dtype
            assert "pixels" in found(pixels.T.contiguous().to(dtype), dicom), dtype


@pytest.mark.parametrize(("source", "name"), CASES)
def test_nothing_identifying_is_reachable(
    source: str,
    name: str,
    tmp_path: Path,
    track_meta: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    identified = WRITERS[source](tmp_path / "source")
    caplog.set_level(logging.DEBUG)
    run = Compose([*load(), *VOLUMES[name]] if name in VOLUMES else [*slices(), *PRIVATIZING[name]])
    kept = kept_pixels(name, identified)
    allowed: set[str] = {"pixels"} if name == "strip" else set()

    result = run(item(identified))
    batch = list_data_collate([result, run(item(identified))])
    batch_of_loader = next(iter(DataLoader(Dataset([item(identified)] * 2, run), batch_size=2)))

    assert set(result) == {"image", "label"}
    for haystack in (result, result["image"], batch, batch_of_loader, pickle.loads(pickle.dumps(result))):
        assert found(haystack, identified, kept) == allowed
    assert found(all_said(caplog, capfd, recwarn), identified) == set()
    if "code" in name or "reconstruct" in name or not track_meta:
        assert type(result["image"]) is Tensor
        assert vars(result["image"]) == {}
    else:
        assert sorted(map(str, result["image"].meta)) == ["affine", "space"]
        assert result["image"].applied_operations == []
        assert result["image"].pending_operations == []
    assert result["image"].untyped_storage().nbytes() == result["image"].nbytes


@pytest.mark.parametrize("name", ["heartspot-code", "heartspot-image"])
def test_no_single_pixel_outside_the_mask_survives(name: str, dicom: Identified) -> None:
    result = Compose([*slices(), *PRIVATIZING[name]])(item(dicom))["image"]
    dropped = set(dicom.pixels.ravel().tolist()) - kept_pixels(name, dicom)
    assert len(dropped) > SIZE
    assert dropped.isdisjoint(result.int().flatten().tolist())


Loop = Callable[[Identified, list[Any], Path], list[Any]]


def _cache_dataset(identified: Identified, transforms: list[Any], folder: Path) -> list[Any]:
    dataset = CacheDataset([item(identified)] * 2, transforms, num_workers=2, progress=False)
    return [list(dataset._cache), list(DataLoader(dataset, batch_size=2))]


def _persistent_dataset(identified: Identified, transforms: list[Any], folder: Path) -> list[Any]:
    dataset = PersistentDataset([item(identified)] * 2, transforms, folder, track_meta=True)
    first, second = dataset[0], dataset[1]
    assert len(list(folder.iterdir())) == 1, "the second read must have come from the cache"
    return [first, second, files_below(folder)]


def _thread_data_loader(identified: Identified, transforms: list[Any], folder: Path) -> list[Any]:
    return list(ThreadDataLoader(Dataset([item(identified)] * 2, transforms), batch_size=2, num_workers=0))


def _two_processes(identified: Identified, transforms: list[Any], folder: Path) -> list[Any]:
    return list(DataLoader(Dataset([item(identified)] * 4, transforms), batch_size=2, num_workers=2))


@pytest.mark.parametrize("loop", [_cache_dataset, _persistent_dataset, _thread_data_loader, _two_processes])
@pytest.mark.parametrize("name", ["deepfixcx-code", "deepfixcx-small_image", "heartspot-image", "strip"])
def test_nothing_identifying_is_in_caches_and_batches(
    name: str,
    loop: Loop,
    dicom: Identified,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    caplog.set_level(logging.DEBUG)
    for haystack in loop(dicom, [*slices(), *PRIVATIZING[name]], tmp_path / "cache"):
        assert found(haystack, dicom, kept_pixels(name, dicom)) == ({"pixels"} if name == "strip" else set())
    assert found(all_said(caplog, capfd, recwarn), dicom) == set()


WRONG: dict[str, tuple[list[Any], str]] = {
    "still a path": ([DeepFixCXd("image", **SMALL)], "numeric numpy array or a torch.Tensor; got str"),
    "three spatial axes": ([*load(), DeepFixCXd("image", **SMALL)], r"must have 3 axes, \[C, H, W\]"),
    "too many levels": ([*slices(), DeepFixCXd("image", levels=9, patch_size=2)], "patch_size must be at most"),
    "another size": ([*slices(), HeartSpotd("image")], "images must be 320x320"),
    "an image, not a code": (
        [*load(), Reconstructd("image", {"codec": "deepfixcx", **SMALL}, (SIZE, SIZE))],
        r"code must have shape \[C, 64\]",
    ),
    "no such key": ([*slices(), StripMetadatad("mask")], "Key `mask` of transform `StripMetadatad` was missing"),
}


@pytest.mark.parametrize(("transforms", "message"), WRONG.values(), ids=WRONG)
def test_errors_say_nothing_about_the_patient(
    transforms: list[Any],
    message: str,
    dicom: Identified,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(RuntimeError, match="applying transform") as error:
        Compose(transforms)(item(dicom))
    assert error.value.__cause__ is not None
    with pytest.raises(type(error.value.__cause__), match=message):
        raise error.value.__cause__
    assert found("".join(traceback.format_exception(error.value)), dicom) == set()
    assert found(all_said(caplog, capfd, recwarn), dicom) == set()


def test_errors_say_nothing_about_the_patient_from_a_worker(dicom: Identified, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # how long torch waits for the failed
    loader = DataLoader(
        Dataset([item(dicom)] * 2, [*load(), DeepFixCXd("image", **SMALL)]), batch_size=2, num_workers=1
    )
    batches: Any = iter(loader)
    with pytest.raises(RuntimeError, match=r"key 'image': image must have 3 axes") as error:
        next(batches)
    batches._shutdown_workers()
    assert found("".join(traceback.format_exception(error.value)), dicom) == set()


def test_pixels_cropped_away_are_gone_from_the_storage(dicom: Identified) -> None:
    corner = Compose(slices())(item(dicom))["image"][:, :4, :4]
    stripped = StripMetadatad("image")({"image": corner})["image"]
    saved = io.BytesIO()
    torch.save(stripped, saved)
    assert "pixels" in found(corner, dicom)
    assert found((stripped, saved.getvalue()), dicom) == set()
    assert torch.equal(stripped.as_tensor(), corner.as_tensor())
