"""The phantom: what it draws is known, learnable, recognisable, reproducible and says that it is synthetic."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from scipy import ndimage
from skimage.draw import polygon2mask

from monai_deepfixcx.data import phantom as phantom_module
from monai_deepfixcx.data import phantom_anatomy, phantom_film
from monai_deepfixcx.data.datalist import make_datalist
from monai_deepfixcx.data.phantom import PhantomArrays, PhantomRadiographs, fake_dicom
from monai_deepfixcx.data.phantom_anatomy import draw_anatomy, draw_visit
from monai_deepfixcx.data.phantom_film import BodyGrid, expose, gaussian_blur, optical_depth

HEART = [  # METHODS.md: (row, column), fractions of the image
    *[(0.914, 0.769), (0.911, 0.712), (0.889, 0.617), (0.845, 0.571), (0.749, 0.516), (0.813, 0.427)],
    *[(0.856, 0.301), (0.851, 0.256), (0.814, 0.187), (0.748, 0.14), (0.638, 0.114), (0.569, 0.115)],
    *[(0.431, 0.147), (0.341, 0.184), (0.208, 0.275), (0.04, 0.472), (0.111, 0.585), (0.176, 0.664)],
    *[(0.39, 0.811), (0.486, 0.855), (0.666, 0.892), (0.81, 0.899), (0.831, 0.892), (0.867, 0.858)],
]
VISITS = 4


@pytest.fixture(scope="module")
def many() -> PhantomArrays:
    """800 films of 200 patients at 128 pixels."""
    return PhantomRadiographs(patients=200, visits_per_patient=VISITS, size=128, seed=1).arrays()


def widest_row(mask: torch.Tensor) -> int:
    columns = mask.any(0).nonzero()
    return int(columns.max() - columns.min()) + 1


def auroc(score: torch.Tensor, truth: torch.Tensor) -> float:
    positive, negative = score[truth > 0], score[truth == 0]
    return float((positive[:, None] > negative).float().mean())


def logistic(features: torch.Tensor, truth: torch.Tensor, steps: int = 300) -> torch.nn.Linear:
    torch.manual_seed(0)
    model = torch.nn.Linear(features.shape[1], 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, weight_decay=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(features)[:, 0], truth).backward()
        optimizer.step()
    return model


def thumbnails(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(images, 32).flatten(1)


# What a film is


@pytest.mark.parametrize("size", [64, 100, 512])
def test_a_film_holds_what_is_promised(size: int) -> None:
    item = PhantomRadiographs(patients=2, visits_per_patient=2, size=size, seed=5)[3]
    image = item["image"]
    assert image.shape == (1, size, size)
    assert image.dtype == torch.float32
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0.15
    assert (item["patient"], item["visit"]) == (1, 1)
    assert item["label"].dtype == torch.float32
    assert item["label"].tolist()[0] == float(item["cardiothoracic_ratio"] > 0.5)
    assert item["sex"] in ("M", "F")
    assert 20 <= item["age"] <= 94


def test_the_same_key_gives_the_same_bits_in_any_order_and_number() -> None:
    few = PhantomRadiographs(patients=3, visits_per_patient=2, size=64, seed=7)
    more = PhantomRadiographs(patients=9, visits_per_patient=5, size=64, seed=7)
    late = PhantomRadiographs(patients=1, visits_per_patient=2, size=64, seed=7, first_patient=2)
    backwards = {index: few[index]["image"] for index in reversed(range(len(few)))}
    for index, image in backwards.items():
        patient, visit = divmod(index, 2)
        assert torch.equal(image, more[patient * 5 + visit]["image"])
    assert torch.equal(backwards[5], late[1]["image"])
    assert late[1]["patient"] == 2
    phantom_module._anatomy.cache_clear()
    assert torch.equal(backwards[0], few[0]["image"])
    assert torch.equal(few[-1]["image"], few[5]["image"])


def test_patients_visits_and_seeds_differ() -> None:
    phantom = PhantomRadiographs(patients=2, visits_per_patient=2, size=64, seed=0)
    films = [phantom[index]["image"] for index in range(4)]
    films.append(PhantomRadiographs(patients=1, visits_per_patient=1, size=64, seed=1)[0]["image"])
    assert not any(torch.equal(films[a], films[b]) for a in range(5) for b in range(a))


def test_anatomy_stays_and_pose_exposure_fluid_change() -> None:
    anatomy = draw_anatomy(0, 3)
    first, second = (draw_visit(anatomy, 0, 3, visit)[0] for visit in (0, 1))
    changed = {
        field.name for field in dataclasses.fields(first) if getattr(first, field.name) != getattr(second, field.name)
    }
    assert changed >= {"right", "down", "turn", "scale", "breath", "ratio", "dose", "contrast", "darkness", "blur"}
    fluid = {draw_visit(anatomy, 0, 3, visit)[0].effusion != (0.0, 0.0) for visit in range(30)}
    assert fluid == {True, False}


def test_it_survives_a_process_border_and_a_loader() -> None:
    phantom = PhantomRadiographs(patients=2, visits_per_patient=2, size=64, seed=0)
    assert torch.equal(pickle.loads(pickle.dumps(phantom))[3]["image"], phantom[3]["image"])
    batch = next(iter(torch.utils.data.DataLoader(phantom, batch_size=4)))
    assert batch["image"].shape == (4, 1, 64, 64)
    assert batch["label"].shape == (4, 2)


def test_arrays_hold_the_items() -> None:
    phantom = PhantomRadiographs(patients=2, visits_per_patient=3, size=64, seed=0)
    arrays = phantom.arrays()
    assert arrays["images"].shape == (6, 1, 64, 64)
    assert arrays["patients"].tolist() == [0, 0, 0, 1, 1, 1]
    assert arrays["visits"].tolist() == [0, 1, 2, 0, 1, 2]
    for index, item in enumerate(phantom[i] for i in range(6)):
        assert torch.equal(arrays["images"][index], item["image"])
        assert torch.equal(arrays["labels"][index], item["label"])
        assert arrays["sex"][index] == item["sex"]
        assert arrays["age"][index] == pytest.approx(item["age"])
        assert arrays["cardiothoracic_ratio"][index] == pytest.approx(item["cardiothoracic_ratio"])


# Anatomy and physics


def test_the_measured_cardiothoracic_ratio_is_the_stated_one() -> None:
    phantom = PhantomRadiographs(patients=20, visits_per_patient=1, size=512, seed=2)
    for index in range(20):
        measured = widest_row(phantom.region("heart", index)) / widest_row(phantom.region("thorax", index))
        patient, visit, anatomy, film, _ = phantom._draw(index)
        assert measured == pytest.approx(film.ratio, abs=0.012), (patient, visit, anatomy.ratio)


def test_the_heart_lies_where_heartspot_looks() -> None:
    phantom = PhantomRadiographs(patients=40, visits_per_patient=1, size=128, seed=3)
    prior = torch.from_numpy(polygon2mask((128, 128), np.array(HEART) * 128))  # type: ignore[no-untyped-call]
    share = [float((heart & prior).sum() / heart.sum()) for heart in (phantom.region("heart", i) for i in range(40))]
    assert min(share) > 0.7  # a low heart reaches into the polygon's notch under the diaphragm
    assert float(np.mean(share)) > 0.9


def test_the_heart_points_to_the_viewers_right() -> None:
    phantom = PhantomRadiographs(patients=20, visits_per_patient=1, size=64, seed=3)
    columns = [phantom.region("heart", index).nonzero()[:, 1].float().mean() for index in range(20)]
    assert torch.stack(columns).mean() > 33


def test_film_polarity_is_bone_white_lung_dark() -> None:
    phantom = PhantomRadiographs(patients=10, visits_per_patient=1, size=128, seed=4)
    for index in range(10):
        image = phantom[index]["image"][0]
        lungs, heart = phantom.region("lungs", index), phantom.region("heart", index)
        assert not (lungs & heart).any()
        assert image[lungs].mean() + 0.2 < image[heart].mean()
        assert image[0, 0] < 0.1
        assert image[110:, 60:68].mean() > 0.7


def test_fluid_whitens_its_costophrenic_angle_and_climbs_the_wall() -> None:
    anatomy = draw_anatomy(0, 0)
    visit = dataclasses.replace(draw_visit(anatomy, 0, 0, 0)[0], effusion=(0.0, 0.0), turn=0.0)
    grid = BodyGrid(256, visit)
    dry, wet = (
        optical_depth(grid, anatomy, dataclasses.replace(visit, effusion=heights)) for heights in ((0, 0), (0, 0.15))
    )
    more = wet - dry
    assert more.min() > -0.2
    assert np.abs(more[grid.x < -0.03]).max() < 0.05  # the other side keeps its air
    wall, middle = (np.abs(grid.x - anatomy.cage * share) < 0.01 for share in (0.9, 0.6))
    top = [float(grid.y[column & (more > 0.5)].min()) for column in (wall, middle)]
    assert top[0] < top[1] - 0.02  # the meniscus


def test_noise_follows_the_dose_and_pixels_share_the_photons() -> None:
    anatomy = draw_anatomy(0, 0)
    visit = draw_visit(anatomy, 0, 0, 0)[0]
    depth = np.full((64, 64), 2.0, np.float32)

    def spread(dose: float) -> float:
        film = expose(depth, dataclasses.replace(visit, dose=dose), np.random.default_rng(0))
        return float(film.std())

    assert spread(0.25) == pytest.approx(2 * spread(1.0), rel=0.1)  # Poisson: one over the square root
    levels = expose(depth, visit, np.random.default_rng(0)) * phantom_film.GREY_LEVELS
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)


def test_thicker_is_whiter() -> None:
    visit = draw_visit(draw_anatomy(0, 0), 0, 0, 0)[0]
    depth = np.linspace(0, 5, 64 * 64, dtype=np.float32).reshape(64, 64)
    rows = expose(depth, visit, np.random.default_rng(0)).mean(1)
    assert (np.diff(rows) > -0.005).all()
    assert rows[0] < 0.05
    assert rows[-1] > 0.85


@pytest.mark.parametrize("sigma", [0.5, 1.3, 4.0])
def test_the_blur_is_gaussian(sigma: float) -> None:
    image = np.random.default_rng(0).random((20, 31), dtype=np.float32)
    slow = ndimage.gaussian_filter(image, sigma, mode="nearest", radius=int(np.ceil(3 * sigma)))
    np.testing.assert_allclose(gaussian_blur(image, sigma), slow, atol=1e-5)
    assert gaussian_blur(image, 0.1) is image


def test_body_coordinates_and_pixels_are_inverse() -> None:
    grid = BodyGrid(64, draw_visit(draw_anatomy(0, 1), 0, 1, 0)[0])
    column, row = grid.to_pixels(grid.x, grid.y)
    rows, columns = np.mgrid[:64, :64]
    np.testing.assert_allclose(column, columns, atol=1e-3)
    np.testing.assert_allclose(row, rows, atol=1e-3)


@pytest.mark.parametrize("device", ["none", "pacemaker", "wires", "port"])
def test_every_device_draws_in_single_precision(device: phantom_anatomy.Device) -> None:
    anatomy = dataclasses.replace(draw_anatomy(0, 0), device=device)
    visit = draw_visit(anatomy, 0, 0, 0)[0]
    depth = optical_depth(BodyGrid(64, visit), anatomy, visit)
    assert depth.dtype == np.float32
    assert np.isfinite(depth).all()
    bare = optical_depth(BodyGrid(64, visit), dataclasses.replace(anatomy, device="none"), visit)
    assert ((depth - bare).max() > 0.2) == (device != "none")


def test_sex_and_age_show_a_little() -> None:
    drawn = [draw_anatomy(0, patient) for patient in range(300)]
    women = np.array([anatomy.sex == "F" for anatomy in drawn])
    age = np.array([anatomy.age for anatomy in drawn])
    cage = np.array([anatomy.cage for anatomy in drawn])
    breast = np.array([anatomy.breast[0] for anatomy in drawn])
    bone = np.array([anatomy.bone for anatomy in drawn])
    assert 0.4 < women.mean() < 0.6
    assert cage[women].mean() < cage[~women].mean()
    assert (breast[women] > 0).all()
    assert (breast[~women] == 0).all()
    assert np.corrcoef(age, bone)[0, 1] < -0.2
    assert np.corrcoef(age, [anatomy.ratio for anatomy in drawn])[0, 1] > 0.02


# Learnable, and recognisable


def test_diagnoses_are_common_and_seldom_on_the_border(many: PhantomArrays) -> None:
    assert 0.35 < many["labels"][:, 0].mean() < 0.55
    assert 0.18 < many["labels"][:, 1].mean() < 0.40
    assert ((many["cardiothoracic_ratio"] - 0.5).abs() < 0.01).float().mean() < 0.1


@pytest.mark.parametrize(("label", "reach"), [(0, 0.95), (1, 0.90)])
def test_a_linear_model_learns_the_diagnosis_on_other_patients(many: PhantomArrays, label: int, reach: float) -> None:
    features, truth = thumbnails(many["images"]), many["labels"][:, label]
    seen = torch.from_numpy(many["patients"] < 140)
    features = (features - features[seen].mean(0)) / (features[seen].std(0) + 1e-3)
    model = logistic(features[seen], truth[seen])
    with torch.no_grad():
        assert auroc(model(features[~seen])[:, 0], truth[~seen]) >= reach


def test_patients_are_recognised_well_above_chance_but_not_by_pixels_alone(many: PhantomArrays) -> None:
    films = many["images"].flatten(1)
    films = torch.nn.functional.normalize(films - films.mean(1, keepdim=True), dim=1)
    probe, gallery = films[0::VISITS], films[1::VISITS]
    found = (probe @ gallery.T).argmax(1) == torch.arange(len(probe))
    chance = 1 / len(gallery)
    assert 10 * chance < found.float().mean() < 0.9


# Files


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[PhantomRadiographs, list[Path]]:
    phantom = PhantomRadiographs(patients=8, visits_per_patient=2, size=64, seed=0)
    return phantom, phantom.write_dicom(tmp_path_factory.mktemp("phantom"))


def test_dicom_holds_the_image_exactly(written: tuple[PhantomRadiographs, list[Path]]) -> None:
    phantom, paths = written
    seen = set()
    for index, path in enumerate(paths):
        dicom = pydicom.dcmread(path)
        levels = dicom.pixel_array.astype(np.float32)
        if dicom.PhotometricInterpretation == "MONOCHROME1":
            levels = 4095 - levels
        assert (dicom.BitsStored, dicom.HighBit) == (12, 11)
        assert torch.equal(torch.from_numpy(levels / np.float32(4095)), phantom[index]["image"][0])
        seen.add(dicom.PhotometricInterpretation)
    assert seen == {"MONOCHROME1", "MONOCHROME2"}


def test_dicom_identifies_somebody_who_does_not_exist(written: tuple[PhantomRadiographs, list[Path]]) -> None:
    phantom, paths = written
    headers = [pydicom.dcmread(path) for path in paths]
    for index, dicom in enumerate(headers):
        for keyword in (
            *("PatientName", "PatientID", "PatientAddress", "InstitutionName", "AccessionNumber", "StudyID"),
            *("ReferringPhysicianName", "OperatorsName", "StationName", "DeviceSerialNumber", "Manufacturer"),
        ):
            assert "PHANTOM" in str(dicom[keyword].value), keyword
        assert "PHANTOM" in dicom[0x0099, 0x1001].value
        assert dicom.SeriesDescription == dicom.ImageComments == "SYNTHETIC PHANTOM, NOT A PATIENT"
        assert (dicom.SyntheticData, dicom.QualityControlSubject) == ("YES", "YES")
        years = (int(dicom.StudyDate) - int(dicom.PatientBirthDate)) // 10_000
        assert abs(years - int(phantom[index]["age"])) <= 1
        assert dicom.PatientSex == phantom[index]["sex"]
    assert len({dicom.SOPInstanceUID for dicom in headers}) == len({dicom.StudyInstanceUID for dicom in headers}) == 16
    assert len({dicom.PatientID for dicom in headers}) == 8


def test_dicom_is_the_same_in_every_run(written: tuple[PhantomRadiographs, list[Path]]) -> None:
    phantom, paths = written
    item = phantom[3]
    again = fake_dicom(item, draw_anatomy(0, item["patient"]), seed=0)
    assert again.PixelData == pydicom.dcmread(paths[3]).PixelData
    assert again.SOPInstanceUID == pydicom.dcmread(paths[3]).SOPInstanceUID


@pytest.mark.parametrize("kind", ["png", "dicom"])
def test_written_films_come_with_a_table_for_make_datalist(tmp_path: Path, kind: str) -> None:
    phantom = PhantomRadiographs(patients=6, visits_per_patient=2, size=64, seed=0)
    paths = getattr(phantom, f"write_{kind}")(tmp_path / "films")
    datalist = make_datalist("csv", tmp_path / "films" / "labels.csv", phantom.labels, fractions=(0.5, 0.25, 0.25))
    items = {item["image"]: item for part in datalist.values() for item in part}
    assert set(items) == {str(path) for path in paths}
    for path, film in zip(paths, (phantom[i] for i in range(12)), strict=True):
        item = items[str(path)]
        assert item["label"] == film["label"].tolist()
        assert item["patient"] == phantom_module.patient_id(film["patient"])
        assert (item["sex"], item["view"]) == (film["sex"], "PA")
        assert item["age"] == pytest.approx(film["age"], abs=0.06)


def test_png_holds_the_image_in_8_bits(tmp_path: Path) -> None:
    from PIL import Image

    phantom = PhantomRadiographs(patients=1, visits_per_patient=1, size=64, seed=0)
    (path,) = phantom.write_png(tmp_path)
    levels = torch.from_numpy(np.array(Image.open(path)))
    assert levels.dtype == torch.uint8
    assert (levels / 255 - phantom[0]["image"][0]).abs().max() <= 0.5 / 255 + 1e-6


def test_it_says_everywhere_that_it_is_synthetic() -> None:
    assert "SYNTHETIC" in (PhantomRadiographs.__doc__ or "")
    for module in (phantom_module, phantom_anatomy, phantom_film):
        assert "synthetic" in (module.__doc__ or "").lower()


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patients": 0}, r"patients must be a whole number of at least 1; got 0"),
        ({"patients": True}, r"patients must be a whole number of at least 1; got True"),
        ({"visits_per_patient": 0}, r"visits_per_patient must be a whole number of at least 1; got 0"),
        ({"size": 32}, r"size must be a whole number from 64 to 512; got 32"),
        ({"size": 513}, r"size must be a whole number from 64 to 512; got 513"),
        ({"size": 128.0}, r"size must be a whole number from 64 to 512; got 128.0"),
        ({"seed": -1}, r"seed must be a whole number of at least 0; got -1"),
        ({"first_patient": -1}, r"first_patient must be a whole number of at least 0; got -1"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhantomRadiographs(**{"patients": 1, **arguments})


def test_unknown_films_and_regions_are_named() -> None:
    phantom = PhantomRadiographs(patients=1, visits_per_patient=2, size=64, seed=0)
    with pytest.raises(IndexError, match=r"index must be from 0 to 1 \(this phantom has 2 films\); got 2"):
        phantom[2]
    with pytest.raises(IndexError, match=r"got -3"):
        phantom.region("heart", -3)
    with pytest.raises(ValueError, match=r"name must be one of heart, lungs, thorax; got 'liver'"):
        phantom.region("liver", 0)
