"""The published tables, with the headers that they have: what is read from them, and what is said if they lack it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_deepfixcx.data.datalist import Item, make_datalist
from monai_deepfixcx.data.datalist_sources import PARTS, READERS
from tests.data.test_datalist import EVERYTHING, everything, touch, write

NIH_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
NIH_2020 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
    '"OriginalImage[Width,Height]","OriginalImagePixelSpacing[x,y]"'
)
CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
MIMIC_METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
MIMIC_CHEXPERT = (
    "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,"
    "Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
PADCHEST = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,"
    "PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,"
    "WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,"
    "ExposureTime,RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,"
    "LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS"
)


@pytest.fixture(params=[(NIH_2017, "058Y"), (NIH_2020, "58")], ids=["2017", "2020"])
def nih(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    header, age = request.param
    write(
        tmp_path / "Data_Entry_2017_v2020.csv",
        header,
        f"00000001_000.png,Cardiomegaly|Emphysema,0,1,{age},M,PA,2682,2749,0.143,0.143,",
        "00000001_001.png,No Finding,1,1,059Y,M,AP,2894,2729,0.143,0.143,",
        "00000002_000.png,Pleural_Thickening,0,2,414,F,PA,2500,2048,0.171,0.171,",
        "00000003_000.png,Effusion,0,3,009M,F,PA,2500,2048,0.171,0.171,",
    )
    write(tmp_path / "train_val_list.txt", "00000001_000.png", "00000001_001.png", "00000003_000.png")
    write(tmp_path / "test_list.txt", "00000002_000.png")
    touch(tmp_path, "images_001/images/00000001_000.png", "images_001/images/00000001_001.png")
    touch(tmp_path, "images_002/images/00000002_000.png", "images_002/images/00000003_000.png")
    return tmp_path


def test_nih(nih: Path) -> None:
    items = everything("nih", nih, ["Cardiomegaly", "No Finding", "Hernia"])
    assert items["00000001_000.png"] == {
        "image": str(nih / "images_001/images/00000001_000.png"),
        "label": [1.0, 0.0, 0.0],
        "patient": "1",
        "sex": "M",
        "age": 58.0,
        "view": "PA",
    }
    assert items["00000001_001.png"]["label"] == [0.0, 1.0, 0.0]
    assert items["00000001_001.png"]["view"] == "AP"
    assert math.isnan(items["00000002_000.png"]["age"])  # the table has patients of 414 years
    assert items["00000003_000.png"]["age"] == 0.75
    label = everything("nih", nih)["00000002_000.png"]["label"]
    assert isinstance(label, list)
    assert len(label) == 15


def test_nih_published_split_draws_validation_from_its_training_patients(nih: Path) -> None:
    datalist = make_datalist("nih", nih, ["Effusion"], split="published", fractions=(0.5, 0.5, 0.0))
    assert {item["patient"] for item in datalist["testing"]} == {"2"}
    rest = [{item["patient"] for item in datalist[part]} for part in ("training", "validation")]
    assert sorted(map(sorted, rest)) == [["1"], ["3"]]
    whole = make_datalist("nih", nih, ["Effusion"], split="published", fractions=(0.8, 0.0, 0.2))
    assert [len(whole[part]) for part in PARTS] == [3, 0, 1]


@pytest.fixture(params=["CheXpert-v1.0-small", "CheXpert-v1.0"])
def chexpert(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    name = request.param
    write(
        tmp_path / "train.csv",
        CHEXPERT,
        f"{name}/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0",
        f"{name}/train/patient00002/study2/view1_frontal.jpg,Female,87,Frontal,PA,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
        f"{name}/train/patient00002/study2/view2_lateral.jpg,Female,87,Lateral,,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
        f"{name}/train/patient00003/study1/view1_frontal.jpg,Unknown,0,Frontal,LL,,,,,,,,,,,,,,",
    )
    write(
        tmp_path / "valid.csv",
        CHEXPERT,
        f"{name}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
    )
    touch(tmp_path, "train/patient00001/study1/view1_frontal.jpg", "train/patient00002/study2/view1_frontal.jpg")
    touch(tmp_path, "train/patient00002/study2/view2_lateral.jpg", "train/patient00003/study1/view1_frontal.jpg")
    touch(tmp_path, "valid/patient64541/study1/view1_frontal.jpg")
    return tmp_path


def chexpert_items(root: Path, **options: Any) -> dict[str, Item]:
    items = make_datalist("chexpert", root, ["Cardiomegaly", "Edema", "Pneumonia"], fractions=EVERYTHING, **options)
    return {item["patient"] + item["view"]: item for item in items["training"]}


def test_chexpert(chexpert: Path) -> None:
    items = chexpert_items(chexpert)
    assert items["patient00001AP"]["image"] == str(chexpert / "train/patient00001/study1/view1_frontal.jpg")
    assert (items["patient00001AP"]["sex"], items["patient00001AP"]["age"]) == ("F", 68.0)
    assert items["patient00003LATERAL"]["sex"] == ""
    assert items["patient64541AP"]["label"] == [1.0, 0.0, 0.0]
    assert set(items) == {
        "patient00001AP",
        "patient00002PA",
        "patient00002LATERAL",
        "patient00003LATERAL",
        "patient64541AP",
    }


@pytest.mark.parametrize(("uncertain", "value"), [("ignore", 2.0), ("positive", 1.0), ("negative", 0.0)])
@pytest.mark.parametrize(("blank", "empty"), [("negative", 0.0), ("ignore", 2.0)])
def test_uncertain_and_blank_labels_by_choice(
    chexpert: Path, uncertain: str, value: float, blank: str, empty: float
) -> None:
    items = chexpert_items(chexpert, uncertain=uncertain, blank=blank)
    assert items["patient00002PA"]["label"] == [value, value, empty]
    assert items["patient64541AP"]["label"] == [1.0, 0.0, 0.0]


def test_frontal_views_only(chexpert: Path) -> None:
    assert set(chexpert_items(chexpert, views="frontal")) == {"patient00001AP", "patient00002PA", "patient64541AP"}


def test_chexpert_published_split_draws_testing(chexpert: Path) -> None:
    datalist = make_datalist("chexpert", chexpert, split="published", fractions=(0.6, 0.1, 0.3))
    assert [item["patient"] for item in datalist["validation"]] == ["patient64541"]
    assert len({item["patient"] for item in datalist["testing"]}) == 1
    assert len({item["patient"] for item in datalist["training"]}) == 2


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize("people", [True, False])
def test_mimic(tmp_path: Path, suffix: str, people: bool) -> None:
    first, second, third = "02aa804e-bde0afdd", "174413ec-4ec4c1f7", "2a2277a9-b0ded155"
    write(
        tmp_path / f"mimic-cxr-2.0.0-metadata{suffix}",
        MIMIC_METADATA,
        f"{first},10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506,213014.531,"
        '"CHEST (PA AND LAT)",postero-anterior,Erect',
        f"{second},10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,213014.531,,lateral,Erect",
        f"{third},10000764,57375967,CHEST (PA AND LAT),AP,3056,2544,21321015,83047.0,,,",
        "no-labels,10000764,59999999,CHEST,AP,3056,2544,21321015,83047.0,,,",
    )
    write(
        tmp_path / f"mimic-cxr-2.0.0-chexpert{suffix}",
        MIMIC_CHEXPERT,
        "10000032,50414267,,,,,,,,,1.0,,,,,",
        "10000764,57375967,,,1.0,-1.0,,,,,,0.0,,-1.0,,",
    )
    write(
        tmp_path / f"mimic-cxr-2.0.0-split{suffix}",
        "dicom_id,study_id,subject_id,split",
        f"{first},50414267,10000032,train",
        f"{second},50414267,10000032,train",
        f"{third},57375967,10000764,validate",
        "no-labels,59999999,10000764,validate",
    )
    if people:
        rows = "10000032,F,52,2180,2014 - 2016,2180-09-09", "10000764,M,86,2132,2014 - 2016,"
        write(tmp_path / f"patients{suffix}", "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod", *rows)
    touch(tmp_path, *(f"files/p10/p10000032/s50414267/{name}.jpg" for name in (first, second)))
    touch(tmp_path, f"files/p10/p10000764/s57375967/{third}.jpg")
    datalist = make_datalist(
        "mimic", tmp_path, ["No Finding", "Edema", "Pleural Effusion"], split="published", fractions=(1, 0, 0)
    )
    pa, lateral = datalist["training"]
    (item,) = datalist["validation"]
    assert pa["image"] == str(tmp_path / f"files/p10/p10000032/s50414267/{first}.jpg")
    assert (pa["label"], lateral["label"], item["label"]) == ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0])
    assert [entry["view"] for entry in (pa, lateral, item)] == ["PA", "LATERAL", "AP"]
    assert [entry["patient"] for entry in (pa, lateral, item)] == ["10000032", "10000032", "10000764"]
    assert (pa["sex"], item["sex"]) == (("F", "M") if people else ("", ""))
    assert [str(entry["age"]) for entry in (pa, item)] == (["52.0", "86.0"] if people else ["nan", "nan"])


@pytest.mark.parametrize("suffix", ["_01.02.19.csv", ".csv.gz"])
@pytest.mark.parametrize("flat", [True, False])
def test_padchest(tmp_path: Path, suffix: str, flat: bool) -> None:
    def row(*cells: str) -> str:
        names = (
            "ImageID",
            "ImageDir",
            "StudyDate_DICOM",
            "PatientID",
            "PatientBirth",
            "PatientSex_DICOM",
            "Projection",
        )
        filled = dict(zip((*names, "Labels"), cells, strict=True))
        return ",".join(f'"{filled[name]}"' if name in filled else "" for name in PADCHEST.split(","))

    write(
        tmp_path / f"PADCHEST_chest_x_ray_images_labels_160K{suffix}",
        PADCHEST,
        row("a.png", "0", "20170124", "P1", "1953.0", "F", "PA", "['scoliosis', ' hemidiaphragm elevation']"),
        row("b.png", "10", "20170124", "P1", "1953.0", "F", "L", "['normal']"),
        row("c.png", "10", "20151023", "P2", "", "O", "AP_horizontal", "['COPD signs', 'pleural effusion']"),
        row("d.png", "27", "20151023", "P3", "1950", "M", "COSTAL", "[]"),
        row("e.png", "27", "20151023", "P3", "1950", "M", "PA", ""),
    )
    touch(
        tmp_path, *(["a.png", "b.png", "c.png", "d.png"] if flat else ["0/a.png", "10/b.png", "10/c.png", "27/d.png"])
    )
    items = everything("padchest", tmp_path, ["hemidiaphragm elevation", "pleural effusion"])
    assert [item["label"] for item in items.values()] == [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    assert [item["view"] for item in items.values()] == ["PA", "LATERAL", "AP", ""]
    assert [item["sex"] for item in items.values()] == ["F", "F", "", "M"]
    assert [str(item["age"]) for item in items.values()] == ["64.0", "64.0", "nan", "65.0"]
    with pytest.raises(
        ValueError, match=r"There are: COPD signs, hemidiaphragm elevation, normal, pleural effusion, sco"
    ):
        everything("padchest", tmp_path, ["Scoliosis"])
    with pytest.raises(ValueError, match=r"needs a part for every image; 4 of 4 have none. Use split='patients'"):
        everything("padchest", tmp_path, split="published")


# Errors


@pytest.mark.parametrize("source", sorted(set(READERS) - {"csv", "folder"}))
def test_absent_tables_are_named(tmp_path: Path, source: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"must hold .*\.csv or .*\.csv\.gz. Point root at the folder"):
        make_datalist(source, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"root must be the CSV file itself for source 'csv'"):
        make_datalist("csv", tmp_path)


def test_nih_without_its_lists_has_no_published_split(nih: Path) -> None:
    (nih / "test_list.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold test_list.txt"):
        everything("nih", nih, split="published")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda text: text.replace("Patient ID", "Patient"),
            r"Data_Entry_2017_v2020.csv must have a column 'Patient ID'",
        ),
        (
            lambda text: text.replace("Patient Gender", "G").replace("Patient Sex", "G"),
            r"must have a column 'Patient Gender' or 'Patient Sex'; it has Image Index, Finding Labels",
        ),
    ],
)
def test_absent_columns_of_a_published_table_are_named(nih: Path, edit: Callable[[str], str], message: str) -> None:
    path = nih / "Data_Entry_2017_v2020.csv"
    path.write_text(edit(path.read_text()))
    with pytest.raises(ValueError, match=message):
        everything("nih", nih)
