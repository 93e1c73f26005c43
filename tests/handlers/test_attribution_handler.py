"""The attribution handler inside MONAI's evaluator and trainer, on one process and on two."""

import copy
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from torch import Tensor

from monai_deepfixcx.attribution import attribute, subband_grid
from monai_deepfixcx.codecs import Codec, ConstantCodec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from monai_deepfixcx.data import PhantomRadiographs
from monai_deepfixcx.handlers import PrivatizedAttributionHandler
from monai_deepfixcx.handlers.attribution_measures import AttributionSettings
from monai_deepfixcx.networks import PrivatizedNetwork, privatized_mlp
from tests.handlers.attribution_ranks import NAMES, SPLITS, batch, explain, run_rank, small_network
from tests.handlers.attribution_runs import QUICK, read, run
from tests.two_ranks import on_two_ranks

# ------------------------------------------------------------------------------------------------- in MONAI's engines


@pytest.mark.parametrize("decollate", [True, False])
def test_an_evaluation_writes_what_attribute_finds(tmp_path: Path, decollate: bool) -> None:
    network = small_network(inputs="codes")
    data = batch(network)
    items = [{"image": data["code"][row], "label": data["label"][row]} for row in range(6)]
    handler = PrivatizedAttributionHandler(
        network, tmp_path, NAMES, code_key="image", samples=20, drawn=2 if decollate else 0, limit=5, region="heart"
    )
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=4),
        network=network,
        val_handlers=[handler],
        decollate=decollate,
    )
    evaluator.run()
    found = read(tmp_path)
    for target, name in enumerate(NAMES):
        expected = attribute(network, data["code"][:5], network.codec, (32, 32), target=target)
        assert expected.subband_bias is not None
        assert expected.spatial_bias is not None
        assert expected.image is not None
        subbands = subband_grid(expected.subband_bias, 2)
        entry = found["labels"][name]
        assert entry["cases"] == 5
        assert [case["case"] for case in entry["each"]] == [0, 1, 2, 3, 4]
        for row, case in enumerate(entry["each"]):
            assert case["output"] == pytest.approx(float(expected.output[row]), rel=1e-5)
            np.testing.assert_allclose(case["spatial_bias"], expected.spatial_bias[row], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(case["subband_bias"], subbands[row], rtol=1e-4, atol=1e-5)
        mean = entry["cohort"]["all"]
        np.testing.assert_allclose(mean["spatial_bias"], expected.spatial_bias.mean(0), rtol=1e-4, atol=1e-5)
        positive = data["label"][:5, target] == 1
        assert entry["cohort"]["positive"]["cases"] == int(positive.sum())
        np.testing.assert_allclose(
            entry["cohort"]["positive"]["subband_bias"], subbands[positive].mean(0), rtol=1e-4, atol=1e-5
        )
        for row in (0, 1) if decollate else ():
            volume: Any = nibabel.load(tmp_path / "cases" / f"case_{row:04d}_{name}.nii.gz")
            array = np.asarray(volume.dataobj)[:, :, 0].T
            np.testing.assert_allclose(array, expected.image[row, 0], rtol=1e-4, atol=1e-6)
    metrics = found["labels"]["Cardiomegaly"]["metrics"]
    assert metrics["completeness_gap"]["value"] < 0.01 * metrics["completeness_gap"]["baseline"]
    assert metrics["insertion_auc"]["value"] > metrics["insertion_auc"]["baseline"]
    assert metrics["deletion_auc"]["value"] < metrics["deletion_auc"]["baseline"]
    assert set(metrics) > {"infidelity", "spearman", "top_k_overlap", "pointing_game_edges", "mass_inside_centre"}
    if not decollate:
        return
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    kinds = [f"cases/case_000{row}_{name}.{kind}" for row in (0, 1) for name in NAMES for kind in ("png", "nii.gz")]
    assert names == {"attributions.json", "cohort_Cardiomegaly.png", "cohort_Effusion.png", *kinds}


def trained(folder: Path | None) -> tuple[dict[str, Tensor], Any]:
    """Four epochs of training, with or without the handler."""
    network = small_network(inputs="codes")
    data = batch(network)
    items = [{"image": data["code"][row], "label": (data["label"][row] == 1).float()} for row in range(6)]
    handlers = []
    if folder is not None:
        options = {**QUICK, "measures": ("faithfulness",), "drawn": 1, "labels": ["Effusion"]}
        handlers = [PrivatizedAttributionHandler(network, folder, NAMES, code_key="image", every=2, **options)]
    torch.manual_seed(3)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=4,
        train_data_loader=DataLoader(Dataset(items), batch_size=3, shuffle=True),
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), 1e-2),
        loss_function=torch.nn.BCEWithLogitsLoss(),
        train_handlers=handlers,
    )
    trainer.run()
    return network.state_dict(), network


def test_training_is_explained_every_other_epoch_and_not_disturbed(tmp_path: Path) -> None:
    with_handler, network = trained(tmp_path)
    without, _ = trained(None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_0002", "epoch_0004"]
    assert network.training
    assert all(torch.equal(with_handler[name], without[name]) for name in without)
    second, fourth = (read(tmp_path / epoch)["labels"]["Effusion"]["each"] for epoch in ("epoch_0002", "epoch_0004"))
    assert len(second) == len(fourth) == 6
    assert second != fourth


# --------------------------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize(
    ("codec", "shape", "spatial", "subbands", "pictures"),
    [
        (DeepFixCXCodec(2, (3, 4), wavelet="db2"), (37, 45), (3, 4), (4, 4), True),
        (DeepFixCXCodec(1, 2, features=["l1", "max"]), (32, 32), (2, 2), (2, 2), False),
        (DeepFixCXCodec(1, (2, 3, 2), spatial_dims=3), (14, 20, 12), (2, 3, 2), (2, 2, 2), True),
        (HeartSpotCodec("rhline+heart", (48, 48)), (48, 48), (16, 16), None, True),
        (HeartSpotCodec("median+rhline+heart", (64, 64)), (64, 64), (16, 16), None, True),
        (IdentityCodec(), (24, 30), (12, 15), None, True),
        (ConstantCodec(), (16, 16), None, None, True),
    ],
    ids=["uneven", "two features", "3-D", "heartspot", "median", "identity", "constant"],
)
def test_every_codec_is_explained(
    codec: Codec, shape: tuple[int, ...], spatial: Any, subbands: Any, pictures: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = privatized_mlp(codec, shape, width=4, normalization="none").eval()
    region = torch.zeros(2, 1, *shape, dtype=torch.bool)
    region[:, :, 3:12, 3:12] = True
    data = {"code": network.encode(torch.rand(2, 1, *shape)), "where": region}
    options: dict[str, Any] = {"measures": ("faithfulness", "localization"), "region_key": "where", "drawn": 1}
    found = run(network, data, tmp_path, ["Mass"], **options)["labels"]["Mass"]
    (case, _) = found["each"]
    assert (np.shape(case["spatial_bias"]) if "spatial_bias" in case else None) == spatial
    assert (np.shape(case["subband_bias"]) if "subband_bias" in case else None) == subbands
    total = case["output"] - case["baseline_output"]
    if spatial is not None:  # completeness: the patches' shares add up to the output's distance from the baseline's
        assert np.sum(case["spatial_bias"]) == pytest.approx(total, abs=0.02 * abs(total) + 1e-3)
    assert (tmp_path / "cases" / "case_0000_Mass.png").is_file()
    assert (tmp_path / "cases" / "case_0000_Mass.nii.gz").is_file() == pictures
    assert ("mass_inside" in found["metrics"]) == pictures


def test_class_indices_tell_the_groups(tmp_path: Path) -> None:
    network = small_network()
    found = run(network, {**batch(network), "label": torch.tensor([[0], [1], [1], [1], [0], [1]])}, tmp_path)
    cohort = found["labels"]["Effusion"]["cohort"]
    assert (cohort["positive"]["cases"], cohort["negative"]["cases"]) == (4, 2)
    unlabelled = run(network, {"code": batch(network)["code"]}, tmp_path)
    assert set(unlabelled["labels"]["Effusion"]["cohort"]) == {"all"}


def test_intervals_are_over_patients_who_are_not_named(tmp_path: Path) -> None:
    network = small_network()
    options: dict[str, Any] = {"measures": ("agreement",), "samples": 200}
    own = run(network, batch(network), tmp_path, **options)
    patients = ["SECRET-A"] * 5 + ["SECRET-B"]
    two = run(network, {**batch(network), "patient": patients}, tmp_path, **options)
    narrow, wide = (found["labels"]["Effusion"]["metrics"]["spearman"] for found in (own, two))
    assert narrow["value"] == wide["value"]
    assert (narrow["low"], narrow["high"]) != (wide["low"], wide["high"])
    assert "SECRET" not in (tmp_path / "attributions.json").read_text()


def test_what_cannot_be_read_keeps_its_number(tmp_path: Path) -> None:
    network = small_network()
    problems = ["", "cut", "", "cut", "", ""]
    found = run(network, {**batch(network), "problem": problems}, tmp_path, limit=5)
    assert [case["case"] for case in found["labels"]["Effusion"]["each"]] == [0, 2, 4]


def test_the_region_moves_with_the_decoded_image(tmp_path: Path) -> None:
    """The decoder shifts what it draws where the grid does not divide the image; the region must follow."""
    codec, shape = DeepFixCXCodec(2, 3), (48, 50)
    handler = PrivatizedAttributionHandler(
        privatized_mlp(codec, shape), tmp_path, ["Mass"], region=[(0.0, 0.5), (0.0, 1.0), (1.0, 1.0), (1.0, 0.5)]
    )
    assert handler.report.region is not None
    assert not handler.report.region[:, :24].any()
    moved = handler.report._places(None, 1)
    assert moved is not None
    torch.testing.assert_close(moved[0, 0, :, :-1], handler.report.region[:, 1:])
    assert not moved[0, 0, :, -1].any()


def test_tensorboard_gets_pictures_and_metrics(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options: dict[str, Any] = {"drawn": 1, "measures": ("agreement",), "labels": ["Effusion"]}
    run(small_network(), batch(small_network()), tmp_path, tensorboard_dir=tmp_path / "board", **options)
    board = accumulators.EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    tags = board.Tags()
    assert set(tags["images"]) == {"attribution/case_0000_Effusion", "attribution/cohort_Effusion"}
    assert "attribution/Effusion/spearman" in tags["scalars"]
    shown = board.Images("attribution/case_0000_Effusion")[0]
    assert shown.width > 3 * shown.height / 2


def test_deletion_over_patches_and_of_bare_gradients(tmp_path: Path) -> None:
    network = small_network()
    for options in ({"over": "patches"}, {"method": "saliency", "options": {"absolute": False}}):
        found = run(network, batch(network), tmp_path, measures=("faithfulness",), **options)
        metrics = found["labels"]["Cardiomegaly"]["metrics"]
        assert metrics["insertion_auc"]["value"] > metrics["insertion_auc_random"]["value"]
        assert metrics["infidelity"]["value"] < 1


def test_disabled_it_does_nothing(tmp_path: Path) -> None:
    engine = Engine(lambda _, given: None)
    PrivatizedAttributionHandler(small_network(), tmp_path / "out", NAMES, enabled=False).attach(engine)
    engine.run([{}])
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------------- ranks


def test_two_ranks_find_what_one_does(tmp_path: Path) -> None:
    on_two_ranks(run_rank, tmp_path, seconds=60)
    explain(tmp_path / "alone", slice(0, 6))
    alone = read(tmp_path / "alone")["labels"]
    for split, first in SPLITS.items():
        written = {path.parent.name for path in (tmp_path / split).rglob("attributions.json")}
        assert written == (set() if first is None else {"0"}), split
        if first is None:
            continue
        found = read(tmp_path / split / "0")["labels"]
        for name in NAMES:
            # Rank 0 numbers its cases 0, 2, 4, ..., rank 1 its own 1, 3, 5, ...
            order = {2 * row if row < first else 2 * (row - first) + 1: row for row in range(6)}
            assert sorted(order) == [case["case"] for case in found[name]["each"]]
            for case in found[name]["each"]:
                expected = alone[name]["each"][order[case.pop("case")]]
                for key, values in case.items():
                    np.testing.assert_allclose(values, expected[key], rtol=1e-3, atol=1e-5, err_msg=split)
            assert found[name]["cohort"]["positive"]["cases"] == alone[name]["cohort"]["positive"]["cases"]
            for metric, estimate in alone[name]["metrics"].items():
                if "random" not in metric:
                    assert found[name]["metrics"][metric]["value"] == pytest.approx(
                        estimate["value"], rel=0.05, abs=0.05
                    )
    pictures = {path.name for path in (tmp_path / "uneven").rglob("case_*.png")}
    assert pictures == {f"case_000{row}_{name}.png" for row in (0, 1) for name in NAMES}


# ---------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be at least 1, or none; got 0"),
        ({"method": "magic"}, "method must be one of integrated_gradients, .*; got 'magic'"),
        ({"compare": "magic"}, "compare must be one of"),
        ({"measures": ["truth"]}, "measures must be any of faithfulness, .*; got 'truth'"),
        ({"limit": 0}, "limit must be at least 1 or none, drawn at least 0; got limit=0"),
        ({"labels": ["Mass"]}, "labels must be of Cardiomegaly, Effusion; got 'Mass'"),
        ({"region": "lungs"}, "region must be \"heart\", a polygon or a mask; got 'lungs'"),
        ({"region": torch.zeros(8, 8, dtype=torch.bool)}, r"a bool mask \[32, 32\]; got torch.bool of shape \[8, 8\]"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrivatizedAttributionHandler(small_network(), tmp_path, NAMES, **options)


def test_a_network_without_a_codec_needs_one(tmp_path: Path) -> None:
    network = small_network()
    with pytest.raises(ValueError, match="codec and spatial_shape must be given for a network that is no Privatized"):
        PrivatizedAttributionHandler(network.network, tmp_path, NAMES)
    options: dict[str, Any] = {"codec": network.codec, "spatial_shape": (32, 32)}
    alone = run(network.network, batch(network), tmp_path / "alone", **options)
    assert alone["labels"] == run(network, batch(network), tmp_path / "whole")["labels"]


@pytest.mark.parametrize("key", ["code_key", "region_key"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(KeyError, match=f"{key}: there is no 'absent' in the engine's state"):
        run(small_network(), batch(small_network()), tmp_path, None, **{key: "absent"})


def test_what_attribute_refuses_stops_the_run(tmp_path: Path) -> None:
    network = small_network()
    broken = copy.deepcopy(batch(network))
    broken["code"][2, 0, 5] = torch.nan
    with pytest.raises(ValueError, match="codes must be finite; got NaN"):
        run(network, broken, tmp_path)
    with pytest.raises(ValueError, match="codes were made by another codec"):
        run(network, batch(network), tmp_path, fingerprint="0" * 64)


def test_settings_are_checked_on_their_own() -> None:
    assert AttributionSettings(limit=None).limit is None
    with pytest.raises(ValueError, match="drawn at least 0"):
        AttributionSettings(drawn=-1)


def test_the_phantoms_heart_is_found_in_a_network_that_looks_there(tmp_path: Path) -> None:
    """A head that adds up the patches of the heart, and no other, must be seen to."""
    phantom = PhantomRadiographs(4, 1, 64, seed=3)
    codec = DeepFixCXCodec(2, 8)
    hearts = torch.stack([phantom.region("heart", index) for index in range(4)])[:, None]
    inside = torch.nn.functional.avg_pool2d(hearts.float(), 8).mean((0, 1)) > 0.9
    linear = torch.nn.Linear(1024, 1)
    linear.weight.data = inside.float().flatten().repeat(16).view(1, -1)
    head = torch.nn.Sequential(torch.nn.Flatten(), linear)
    network = PrivatizedNetwork(codec, head, (64, 64), inputs="codes").eval()
    codes = codec.encode(torch.stack([phantom[index]["image"] for index in range(4)]))
    options: dict[str, Any] = {"measures": ("localization", "faithfulness"), "region_key": "heart", "baseline": "zero"}
    found = run(network, {"code": codes, "heart": hearts}, tmp_path, ["Mass"], **options)
    metrics = found["labels"]["Mass"]["metrics"]
    assert metrics["pointing_game"]["value"] == 1
    for kind in ("random", "edges", "centre"):
        assert metrics["mass_inside"]["value"] > 1.5 * metrics[f"mass_inside_{kind}"]["value"]
    assert metrics["infidelity"]["value"] == pytest.approx(0, abs=1e-4)
