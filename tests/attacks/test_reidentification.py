"""Linkage attacks at both ends, on SYNTHETIC films and volumes, in all three comparisons."""

import itertools
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from monai_deepfixcx.attacks import EuclideanLinkage, FeatureLinkage, LearnedLinkage, run_attack
from monai_deepfixcx.attacks.base import Auxiliary, Truth, Victims
from monai_deepfixcx.attacks.reconstruction import LinearMMSE, MeanImage
from monai_deepfixcx.attacks.reidentification import Against, LinkageAttack
from monai_deepfixcx.attacks.reidentification.features import Whitening
from monai_deepfixcx.attacks.reidentification.siamese import Siamese, contrastive_loss, others_mean
from monai_deepfixcx.codecs import Codec, ConstantCodec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from monai_deepfixcx.data import PhantomRadiographs
from monai_deepfixcx.metrics.linkage import verification
from monai_deepfixcx.metrics.linkage.metric import cosine_similarity

ATTACKS: list[type[LinkageAttack]] = [EuclideanLinkage, FeatureLinkage, LearnedLinkage]
AGAINST: tuple[Against, ...] = get_args(Against)
CHANCE = ("auc", "eer", "tpr_at_fpr_1e-3", "precision_at_1", "r_precision", "map_at_r", "auc_shuffled")
People = dict[str, Any]


@cache
def films() -> tuple[People, People]:
    """Auxiliary and victim patients of a phantom, three films each."""
    parts = [PhantomRadiographs(24, 3, 64, seed=1, first_patient=first).arrays() for first in (0, 24)]
    return {**parts[0]}, {**parts[1]}


def volumes(patients: int, first: int, visits: int = 3, size: int = 8) -> People:
    """Volumes whose patients are told by a few smooth patterns, and which change from visit to visit."""
    generator = torch.Generator().manual_seed(first)
    fixed = torch.Generator().manual_seed(99)
    patterns = torch.randn(6, 1, size, size, size, generator=fixed)
    who = torch.randn(patients, 6, generator=generator).repeat_interleave(visits, 0)
    noise = 0.5 * torch.randn(len(who), 1, size, size, size, generator=generator)
    shift = torch.randn(len(who), 1, 1, 1, 1, generator=generator)
    names = [f"{first + patient}" for patient in range(patients) for _ in range(visits)]
    return {"images": torch.einsum("np,pcxyz->ncxyz", who, patterns) + noise + shift, "patients": names}


def reach(attack: LinkageAttack, codec: Codec, samples: int = 0, seed: int = 0, **options: Any) -> Any:
    auxiliary, victims = films()
    return run_attack(attack, codec, auxiliary, victims, seed, samples=samples, **options)


@pytest.mark.parametrize("against", AGAINST)
@pytest.mark.parametrize("kind", ATTACKS)
def test_without_a_codec_linkage_finds_the_patient(kind: type[LinkageAttack], against: Against) -> None:
    found = reach(kind(against), IdentityCodec(), samples=100).metrics
    assert found["auc"].low > 0.7
    assert found["auc"].low > found["auc_shuffled"].high
    assert found["precision_at_1"].low > 5 * found["precision_at_1"].baseline
    assert found["eer"].high < 0.36
    assert found["ks"].low > found["ks"].baseline
    assert found["gallery_size"].value == 71


@pytest.mark.parametrize("against", AGAINST)
@pytest.mark.parametrize("kind", ATTACKS)
def test_without_information_linkage_is_at_chance(kind: type[LinkageAttack], against: Against) -> None:
    found = reach(kind(against), ConstantCodec(), samples=100).metrics
    for name in CHANCE:
        estimate = found[name]
        assert estimate.low - 1e-12 <= estimate.baseline <= estimate.high + 1e-12, name
        if not (kind is EuclideanLinkage and against == "raw"):  # there the undefended images differ in size
            assert estimate.value == pytest.approx(estimate.baseline), name


@pytest.mark.parametrize(
    "codec", [IdentityCodec(), DeepFixCXCodec(2, 8), HeartSpotCodec("hline+heart", (64, 64))], ids=lambda c: c.name
)
def test_stronger_attacks_beat_weaker_ones(codec: Codec) -> None:
    euclidean, features, learned, raw = (
        reach(attack, codec).metrics["auc"].value
        for attack in (EuclideanLinkage(), FeatureLinkage(), LearnedLinkage(), LearnedLinkage("raw"))
    )
    assert euclidean + 0.03 < features < learned
    assert raw > learned - 0.02
    assert learned > 0.9


def test_the_papers_statistic_is_that_of_euclidean_distances() -> None:
    stats = pytest.importorskip("scipy.stats")
    _, victims = films()
    codec = DeepFixCXCodec(3, 4)
    codes = codec.encode(victims["images"]).flatten(1).double()
    pairs = list(itertools.combinations(range(len(codes)), 2))
    distances = np.array([float((codes[i] - codes[j]).norm()) for i, j in pairs])
    same = np.array([victims["patients"][i] == victims["patients"][j] for i, j in pairs])
    found = reach(EuclideanLinkage(), codec).metrics["ks"]
    assert found.value == pytest.approx(stats.ks_2samp(distances[same], distances[~same]).statistic)


def test_a_coarser_code_leaves_less_of_the_undefended_skill() -> None:
    undefended = reach(LearnedLinkage(), IdentityCodec())
    fine, coarse = (
        reach(LearnedLinkage(), codec, samples=100, undefended=undefended).metrics["advantage"]
        for codec in (DeepFixCXCodec(2, 8), DeepFixCXCodec(1, 1))
    )
    assert coarse.value < 0.85 < fine.value
    assert coarse.low > coarse.baseline == 0
    assert reach(LearnedLinkage(), ConstantCodec(), undefended=undefended).metrics["advantage"].value == 0
    assert "advantage" not in undefended.metrics


def test_raw_images_are_given_to_attacks_on_raw_images_alone() -> None:
    for kind in ATTACKS:
        for against in AGAINST:
            attack = kind(against)
            assert attack.threat.raw_images == (against == "raw")
            assert ("undefended images of the victims" in attack.threat.sentence()) == (against == "raw")
    names = {kind(against).name for kind in ATTACKS for against in AGAINST}
    assert len(names) == 9
    assert EuclideanLinkage().name == "EuclideanLinkage"


@pytest.mark.parametrize("against", AGAINST)
def test_the_similarity_of_an_image_with_itself_is_never_scored(against: Against) -> None:
    auxiliary, victims = films()
    attack = EuclideanLinkage(against)
    result = run_attack(attack, IdentityCodec(), auxiliary, victims, samples=0)
    assert (result.output.diagonal() == 0).all()  # the greatest there is
    known = Auxiliary(IdentityCodec(), auxiliary["images"], tuple("ab"), auxiliary["images"].flatten(2))
    broken = result.output.clone().fill_diagonal_(-1e9)
    truth = Truth(victims["images"], tuple(map(str, victims["patients"])), samples=0)
    assert attack.measure(broken, known, truth) == result.metrics


def test_code_to_raw_encodes_the_images_for_the_codec_is_public() -> None:
    codec = DeepFixCXCodec(2, 4)
    torch.testing.assert_close(reach(FeatureLinkage("raw"), codec).output, reach(FeatureLinkage(), codec).output)
    _, victims = films()
    output = reach(EuclideanLinkage("raw"), codec).output
    drawn = codec(victims["images"][:1])
    assert output[0, 5].item() == pytest.approx(-float((drawn - victims["images"][5]).norm()), abs=1e-4)


def test_linkage_after_reconstruction_compares_what_the_given_attack_draws() -> None:
    codec = DeepFixCXCodec(2, 4)
    _, victims = films()
    attack = EuclideanLinkage("reconstruction", LinearMMSE())
    output = reach(attack, codec).output
    assert attack.reconstruction is not None
    drawn = attack.reconstruction.run(Victims(codec.encode(victims["images"])))
    assert output[0, 5].item() == pytest.approx(-float((drawn[0] - drawn[5]).norm()), abs=1e-4)
    blind = reach(LearnedLinkage("reconstruction", reconstruction=MeanImage()), codec).metrics["auc"]
    assert blind.value == 0.5


@pytest.mark.parametrize("against", AGAINST)
def test_the_same_seed_gives_the_same_outcome(against: Against) -> None:
    codec = DeepFixCXCodec(3, 2)
    outcomes = []
    for seed in (0, 0, 1):
        torch.rand(3)  # whatever the global generator has done before
        state = torch.random.get_rng_state()
        outcomes.append(reach(LearnedLinkage(against), codec, seed=seed).output)
        assert (torch.random.get_rng_state() == state).all()
    assert (outcomes[0] == outcomes[1]).all()
    assert (outcomes[0] != outcomes[2]).any()


@pytest.mark.parametrize("against", AGAINST)
@pytest.mark.parametrize("kind", ATTACKS)
def test_volumes(kind: type[LinkageAttack], against: Against) -> None:
    auxiliary, victims = volumes(12, 0), volumes(12, 100)
    options: dict[str, Any] = {"epochs": 5} if kind is LearnedLinkage else {}
    codec = DeepFixCXCodec(1, 2, spatial_dims=3)
    found = run_attack(kind(against, **options), codec, auxiliary, victims, samples=0).metrics
    if not (kind is EuclideanLinkage and against == "raw"):
        assert found["auc"].value > 0.6
    found = run_attack(kind(against, **options), ConstantCodec(3), auxiliary, victims, samples=0).metrics
    assert found["auc"].value == pytest.approx(0.5, abs=0.05)


class Mixed(nn.Module):
    """Random but fixed features; in training mode they are noise."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 40)

    def forward(self, values: Tensor) -> Tensor:
        features: Tensor = self.linear(values.flatten(1))
        return torch.randn_like(features) if self.training else features


@pytest.mark.parametrize(("inputs", "length"), [("images", 64 * 64), ("codes", 16 * 64)])
@pytest.mark.parametrize("against", AGAINST)
def test_features_of_a_frozen_network(inputs: Any, length: int, against: Against) -> None:
    torch.manual_seed(0)
    network = Mixed(length)
    if (inputs, against) == ("codes", "reconstruction"):
        with pytest.raises(ValueError, match='inputs must be "images" for against="reconstruction"; got "codes"'):
            FeatureLinkage(against, network, inputs)
        return
    attack = FeatureLinkage(against, network, inputs)
    assert attack.name.startswith("FeatureLinkage")
    assert attack.name.endswith("by Mixed")
    assert reach(attack, DeepFixCXCodec(2, 8)).metrics["auc"].value > 0.7
    assert network.training
    assert network.linear.weight.requires_grad


def test_whitening_is_that_of_a_singular_value_decomposition() -> None:
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((30, 80), (80, 30)):
        values = torch.randn(rows, columns, generator=generator, dtype=torch.float64) * torch.linspace(1, 3, columns)
        _, spread, axes = torch.linalg.svd(values - values.mean(0), full_matrices=False)
        expected = (values - values.mean(0)) @ axes[:10].T / spread[:10] * rows**0.5
        found = Whitening(10).fit(values)(values)
        torch.testing.assert_close(found.abs(), expected.abs())
    few = torch.randn(6, 9, generator=generator)
    assert Whitening(64).fit(few)(few).shape == (6, 3)
    assert (Whitening(64).fit(few[:1].expand(6, 9))(few[:1].expand(6, 9)) == 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_contrastive_loss_is_that_of_the_paper(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    embedded = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    patients = torch.randint(0, 4, (9,), generator=generator)
    normal = embedded / embedded.norm(dim=1, keepdim=True)
    losses = []
    for anchor in range(9):
        others = [j for j in range(9) if j != anchor]
        positives = [j for j in others if patients[j] == patients[anchor]]
        total = sum(float(torch.exp(normal[anchor] @ normal[j] / 0.1)) for j in others)
        terms = [np.log(float(torch.exp(normal[anchor] @ normal[j] / 0.1)) / total) for j in positives]
        losses += [-np.mean(terms)] if positives else []
    expected = float(np.mean(losses)) if losses else 0.0
    assert contrastive_loss(embedded, patients).item() == pytest.approx(expected)
    values, paired = others_mean(embedded, patients)
    for row in range(9):
        others = [j for j in range(9) if j != row and patients[j] == patients[row]]
        assert paired[row] == bool(others)
        torch.testing.assert_close(values[row], embedded[others].mean(0) if others else torch.zeros(4).double())


def test_training_learns_what_no_linear_map_finds() -> None:
    """Identity is in sizes whose signs change from visit to visit: any linear map is blind to it."""
    generator = torch.Generator().manual_seed(0)

    def draw(patients: int) -> tuple[Tensor, Tensor]:
        owners = torch.arange(patients).repeat_interleave(6)
        size = 2 * torch.rand(patients, 3, generator=generator)[owners]
        sign = torch.randint(0, 2, size.shape, generator=generator) * 2 - 1
        return sign * size + 0.1 * torch.randn(size.shape, generator=generator), owners

    known, (features, owners) = draw(60), draw(60)
    learner = Siamese(components=3, width=64).fit(*known)
    assert learner.best_epochs > 0
    linear = learner.network.linear(learner.whitening(features).float())
    blind, found = (
        verification(cosine_similarity(embedded, embedded), owners.tolist(), samples=0)["auc"].value
        for embedded in (linear.detach(), learner(features))
    )
    assert found > max(blind, 0.5) + 0.04


def test_a_progress_bar_is_shown_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    reach(LearnedLinkage("raw", epochs=2), DeepFixCXCodec(3, 1))
    assert capsys.readouterr().out == ""
    reach(LearnedLinkage("raw", epochs=2), DeepFixCXCodec(3, 1), progress=True)
    assert "LearnedLinkage code to raw" in capsys.readouterr().out


def test_errors_say_what_is_missing() -> None:
    auxiliary, victims = films()
    single = {"images": victims["images"][::3], "patients": victims["patients"][::3]}
    for kind in ATTACKS:
        with pytest.raises(ValueError, match="victims: no same-patient pair: each of the 24 images is of another"):
            run_attack(kind(), IdentityCodec(), auxiliary, single)
    alone = {"images": auxiliary["images"][::3], "patients": auxiliary["patients"][::3]}
    for kind in (EuclideanLinkage, FeatureLinkage):
        run_attack(kind(), IdentityCodec(), alone, victims, samples=0)
    with pytest.raises(ValueError, match=r"auxiliary must hold at least 4 patients with two images.*got 0"):
        run_attack(LearnedLinkage(), IdentityCodec(), alone, victims)
    with pytest.raises(ValueError, match="against must be one of code, raw, reconstruction; got 'images'"):
        EuclideanLinkage("images")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='reconstruction is used by against="reconstruction" alone; got against='):
        EuclideanLinkage("code", MeanImage())
    with pytest.raises(ValueError, match="reconstruction must be an attack that reconstructs; got FeatureLinkage"):
        EuclideanLinkage("reconstruction", FeatureLinkage())
    with pytest.raises(ValueError, match="components must be at least 1; got 0"):
        FeatureLinkage(components=0)
    with pytest.raises(ValueError, match='inputs must be "images" or "codes"; got \'pixels\''):
        FeatureLinkage(inputs="pixels")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="patience must be at least 1; got 0"):
        LearnedLinkage(patience=0)


def test_decoding_does_not_suit_a_code_of_several_features() -> None:
    codec = DeepFixCXCodec(1, 2, features=["l1", "max"])
    assert EuclideanLinkage().suits(codec)
    assert "one pooled feature" in str(EuclideanLinkage("raw").why_unsuited(codec))
