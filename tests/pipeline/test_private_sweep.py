"""The sweep: the same recipe with and without privacy, one table, figures, and no private statistic."""

import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.dp import epsilon_of
from monai_deepfixcx.dp.accounting import Steps
from monai_deepfixcx.networks import CodeMLP, ResNet9
from monai_deepfixcx.pipeline.private_sweep import (
    Contender,
    Recipe,
    dp_head,
    film_parts,
    load_parts,
    publicly_normalized_mlp,
    run_sweep,
    sweep_table,
    train_contender,
    write_figures,
)

LABELS = ["Cardiomegaly", "Effusion"]
CODEC = DeepFixCXCodec(2, 4)
HEAD = functools.partial(publicly_normalized_mlp, CODEC, (64, 64), out_channels=2, inputs="codes", public_patients=8)
CODE = Contender("code", HEAD, CODEC, Recipe(epochs=3, batch_size=16), ("normalization",))


@pytest.fixture(scope="module")
def parts() -> dict[str, list[Any]]:
    return film_parts((40, 16, 30), seed=3)


@pytest.fixture(scope="module")
def swept(parts: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sweep")
    image = Contender("film | ResNet9", functools.partial(ResNet9, 1, 2, 32), None, Recipe(1, 16, 1e-3, 1.0, 8))
    options: dict[str, Any] = {"delta": 1e-3, "attributes": ["sex", "age"], "min_patients": 3, "samples": 20}
    options |= {"accountant": "rdp", "noise_seed": 0, "data": "SYNTHETIC films"}
    return folder, run_sweep(parts, [CODE, image], LABELS, folder, (None, 8.0, 2.0), **options)


def test_parts_share_no_patient(parts: dict[str, list[Any]]) -> None:
    patients = [{item["patient"] for item in items} for items in parts.values()]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 86


def test_every_run_is_reported_and_within_its_budget(swept: tuple[Path, dict[str, Any]]) -> None:
    folder, result = swept
    assert json.loads((folder / "sweep.json").read_text()) == json.loads(json.dumps(result))
    everything = []
    for name, contender in result["contenders"].items():
        plain, *private = contender["runs"]
        assert plain["privacy"] is None
        history = []
        for run in private:
            privacy = run["privacy"]
            assert 0.95 * run["epsilon"] < privacy["epsilon"] <= run["epsilon"]
            history.append(Steps(privacy["noise_multiplier"], privacy["sample_rate"], privacy["steps"]))
        # A stricter budget needs more noise, and both networks together cost more than one.
        assert history[0].noise_multiplier < history[1].noise_multiplier
        composed = epsilon_of(history, 1e-3, "rdp").epsilon
        assert contender["composed_epsilon"] == pytest.approx(composed)
        assert composed > 8
        everything += history
        runs = [folder / ("code" if name == "code" else "film___ResNet9") / run for run in ("non-private", "epsilon 8")]
        for run in runs:
            assert {"fairness.json", "fairness.md", "thresholds.json"} <= {path.name for path in run.iterdir()}
    assert result["composed_epsilon"] == pytest.approx(epsilon_of(everything, 1e-3, "rdp").epsilon)


def test_thresholds_come_from_validation_patients(swept: tuple[Path, dict[str, Any]]) -> None:
    folder, result = swept
    chosen = json.loads((folder / "code" / "epsilon 8" / "thresholds.json").read_text())
    report = result["contenders"]["code"]["runs"][1]["report"]
    assert {label: report["labels"][label]["threshold"] for label in LABELS} == chosen
    validation = json.loads((folder / "code" / "epsilon 8" / "validation" / "metrics.json").read_text())
    assert (validation["images"], report["images"]) == (16, 30)


def test_one_table_holds_every_run(swept: tuple[Path, dict[str, Any]]) -> None:
    folder, result = swept
    text = (folder / "sweep.md").read_text()
    assert text == sweep_table(json.loads((folder / "sweep.json").read_text()))
    rows = [line.replace(r"\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 6
    assert {row.count("|") for row in rows} == {12}
    assert r"| film \| ResNet9 | non-private |" in text
    plain, _, strict = (run["report"]["mean"]["auroc"]["value"] for run in result["contenders"]["code"]["runs"])
    assert f"| {plain - strict:.3f} |" in text
    assert "Epsilon covers the training records; validation and test patients are outside it." in text


def test_panels_hold_what_the_reports_say(swept: tuple[Path, dict[str, Any]]) -> None:
    panels = swept[1]["contenders"]["code"]["panels"]
    runs = swept[1]["contenders"]["code"]["runs"]
    assert list(panels["drop_against_count"]) == ["epsilon 8", "epsilon 2"]
    labels = runs[0]["report"]["labels"]
    for label, (count, drop) in panels["drop_against_count"]["epsilon 8"]["points"].items():
        assert count == labels[label]["positives"]
        after = runs[1]["report"]["labels"][label]["auroc"]["value"]
        assert drop == pytest.approx(labels[label]["auroc"]["value"] - after)
    gaps = panels["gap_against_epsilon"]["sex"]["points"]
    assert [point[0] for point in gaps.values()] == [8.0, 2.0]


def test_figures_are_drawn_also_from_json_and_without_intervals(
    swept: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, result = swept
    names = ["auroc_against_epsilon", "auroc_by_subgroup", "fairness_against_epsilon", "panels"]
    assert sorted(path.stem for path in folder.glob("*.png")) == sorted(names)
    text = json.dumps(result)
    bare = json.loads(text)
    for contender in bare["contenders"].values():
        for run in contender["runs"]:
            run["report"]["mean"]["auroc"] |= {"low": None, "high": None}
        contender["runs"][1]["report"]["mean"]["auroc"]["value"] = None
    for path in write_figures(bare, tmp_path):
        with Image.open(path) as picture:
            assert len(set(picture.convert("L").getdata())) > 20


def test_the_same_seeds_give_the_same_network_and_privacy_changes_it(parts: dict[str, list[Any]]) -> None:
    items = CODE.inputs(parts["training"])

    def weights(epsilon: float | None, **options: Any) -> torch.Tensor:
        trained = train_contender(CODE, items, epsilon, 1e-3, accountant="rdp", **options)
        assert len(trained.epoch_seconds) == 3
        return torch.cat([parameter.detach().flatten() for parameter in trained.network.parameters()])

    assert torch.equal(weights(None, seed=1), weights(None, seed=1))
    assert torch.equal(weights(8.0, noise_seed=5), weights(8.0, noise_seed=5))
    assert not torch.equal(weights(8.0), weights(8.0))  # secret noise
    assert not torch.equal(weights(None, seed=1), weights(None, seed=2))


def test_contenders_see_codes_only(parts: dict[str, list[Any]]) -> None:
    items = CODE.inputs(parts["validation"])
    expected = CODEC.encode(torch.stack([item["image"] for item in parts["validation"]]))
    torch.testing.assert_close(torch.stack([item["image"] for item in items]), expected)
    assert all(item["image"].untyped_storage().nbytes() == 4 * item["image"].numel() for item in items)


def test_public_normalization_reads_no_private_data(parts: dict[str, list[Any]]) -> None:
    """The same whatever is trained on, and the statistics are those of synthetic patients of another seed."""
    network = HEAD()
    head = network.network
    assert isinstance(head, CodeMLP)
    public = film_parts((8, 1, 1), seed=1000)["training"]
    codes = CODEC.encode(torch.stack([item["image"] for item in public])).double()
    torch.testing.assert_close(head.normalization.mean, codes.mean(0))
    assert int(head.normalization.samples) == 8
    trained = train_contender(CODE, CODE.inputs(parts["training"]), None).network.state_dict()
    torch.testing.assert_close(trained["network.normalization.mean"], head.normalization.mean)
    colour = publicly_normalized_mlp(CODEC, (64, 64), in_channels=3, public_patients=2)
    assert colour(torch.rand(2, 3, 64, 64)).shape == (2, 1)
    volume = publicly_normalized_mlp(DeepFixCXCodec(1, 4, spatial_dims=3), (16, 16, 16), public_patients=3)
    assert volume(torch.rand(2, 1, 16, 16, 16)).shape == (2, 1)


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ({"codec": "deepfixcx", "levels": 2, "patch_size": 4}, {"width": 8, "normalization": "batchnorm"}),
        ({"codec": "heartspot", "prior": "rhline+heart", "spatial_shape": [64, 64]}, {"widths": [16, 8]}),
    ],
    ids=["deepfixcx", "heartspot"],
)
def test_the_other_bundles_heads_can_be_trained_privately(codec: dict[str, Any], options: dict[str, Any]) -> None:
    network = dp_head(codec, (64, 64), out_channels=2, inputs="codes", **options)
    assert not [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert [module for module in network.modules() if isinstance(module, nn.GroupNorm)]
    network.double().eval()
    codes = torch.rand(6, 1, network.codec.code_length((64, 64)), dtype=torch.float64)
    alone = torch.cat([network(code[None]) for code in codes])
    torch.testing.assert_close(network(codes), alone)  # mixes no two samples


def test_load_parts_applies_the_transform() -> None:
    found = load_parts({"training": [{"image": 1}], "testing": []}, lambda item: {**item, "image": item["image"] + 1})
    assert found == {"training": [{"image": 2}], "testing": []}


def test_errors_say_what_was_expected(parts: dict[str, list[Any]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"contenders must have different names; got \['code', 'code'\]"):
        run_sweep(parts, [CODE, CODE], LABELS, tmp_path)
    with pytest.raises(ValueError, match="epsilons must be different numbers or None, at least one"):
        run_sweep(parts, [CODE], LABELS, tmp_path, epsilons=(8.0, 8.0))
    with pytest.raises(ValueError, match="parts must hold items for training, validation and testing; testing has"):
        run_sweep({**parts, "testing": []}, [CODE], LABELS, tmp_path)
    with pytest.raises(ValueError, match=r"spatial_shape must have equal sides, as the phantom has; got \[64, 32\]"):
        publicly_normalized_mlp(CODEC, (64, 32))
    private = Contender("code", HEAD, CODEC, Recipe(1, 16))
    with pytest.raises(ValueError, match="they are private statistics"):
        train_contender(private, CODE.inputs(parts["training"]), 8.0, 1e-3)
    with pytest.raises(ValueError, match="epsilon must be above 0"):
        train_contender(CODE, CODE.inputs(parts["training"]), 0.0, 1e-3)


def test_learning_under_a_wide_budget_nearly_equals_learning_without(parts: dict[str, list[Any]]) -> None:
    """With little noise and no clipping DP-SGD is SGD on Poisson batches: the two lose alike."""
    recipe = Recipe(epochs=12, batch_size=20, learning_rate=5e-3, max_grad_norm=50.0)
    contender = Contender("code", HEAD, CODEC, recipe, ("normalization",))
    items = contender.inputs(parts["training"])
    losses = []
    for epsilon in (None, 5000.0):
        network = train_contender(contender, items, epsilon, 1e-3, accountant="rdp", noise_seed=0).network
        with torch.no_grad():
            logits = network(torch.stack([item["image"] for item in items]))
        labels = torch.stack([item["label"] for item in items])
        losses.append(float(nn.functional.binary_cross_entropy_with_logits(logits, labels)))
    assert all(math.isfinite(loss) and loss < 0.45 for loss in losses), losses
