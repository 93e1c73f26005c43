"""Every attack that suits the codec is run; a failure costs nothing else; what was not run is said."""

import json
from typing import Any, Self

import pytest
import torch
from torch import Tensor

from monai_deepfixcx.attacks.base import Attack, AttackResult, Auxiliary, ThreatModel, Truth, Victims, run_attack
from monai_deepfixcx.attacks.membership import RMIA
from monai_deepfixcx.attacks.suite import ATTACKS, make_attack, run_suite
from monai_deepfixcx.codecs import ConstantCodec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from monai_deepfixcx.data.phantom import PhantomRadiographs
from monai_deepfixcx.metrics import Estimate
from monai_deepfixcx.networks import CodeMLP

QUICK = ["MeanImage", "LinearMMSE", "EuclideanLinkage"]
DEEPFIXCX, HEARTSPOT = DeepFixCXCodec(2, 4), HeartSpotCodec("hline", (64, 64))


def films(first: int, patients: int = 6) -> dict[str, Any]:
    arrays = PhantomRadiographs(patients, 2, 64, seed=5, first_patient=first).arrays()
    return {"images": arrays["images"], "patients": arrays["patients"]}


AUXILIARY, VICTIMS = films(0), films(100)


class Counting(Attack):
    """Guesses zero; counts how often it is fitted, and to what."""

    name: str = "Counting"
    threat: ThreatModel = ThreatModel("reconstruct")

    def __init__(self) -> None:
        self.fitted: list[str] = []

    def fit(self, auxiliary: Auxiliary) -> Self:
        self.fitted.append(auxiliary.codec.name)
        return self

    def run(self, victims: Victims) -> Tensor:
        return torch.zeros(len(victims.codes))

    def measure(self, output: Tensor, auxiliary: Auxiliary, truth: Truth) -> dict[str, Estimate]:
        twin = float("nan") if truth.undefended is None else float(len(truth.undefended))
        return {"explained_variance": Estimate(0.0, 0.0, 0.0, 0.0), "twin": Estimate(twin, twin, twin)}


class Failing(Counting):
    name: str = "Failing"

    def __init__(self, error: Exception, codec: str = "") -> None:
        super().__init__()
        self.error, self.codec = error, codec

    def fit(self, auxiliary: Auxiliary) -> Self:
        if auxiliary.codec.name.startswith(self.codec):
            raise self.error
        return self


def test_a_result_is_that_of_run_attack() -> None:
    suite = run_suite(DEEPFIXCX, AUXILIARY, VICTIMS, QUICK, seed=3, samples=20)
    assert [result.attack for result in suite.results] == QUICK
    for result in suite.results:
        twin = run_attack(make_attack(result.attack), IdentityCodec(), AUXILIARY, VICTIMS, 3, samples=20)
        alone = run_attack(make_attack(result.attack), DEEPFIXCX, AUXILIARY, VICTIMS, 3, samples=20, undefended=twin)
        assert result.as_dict()["metrics"] == alone.as_dict()["metrics"]  # where nan, which is no two alike, is None
    assert suite.fingerprint == DEEPFIXCX.fingerprint()


def test_nothing_that_shows_a_victim_is_kept() -> None:
    suite = run_suite(DEEPFIXCX, AUXILIARY, VICTIMS, QUICK, samples=0)
    assert all(result.output.numel() == 0 for result in suite.results)
    assert len(json.dumps(suite.as_dict(), allow_nan=False)) < 50_000
    assert "tensor" not in repr(suite)


def test_the_undefended_twin_is_run_once_for_all_codecs() -> None:
    attack = Counting()
    first = run_suite(DEEPFIXCX, AUXILIARY, VICTIMS, [attack], samples=0)
    second = run_suite(HEARTSPOT, AUXILIARY, VICTIMS, [attack], samples=0, undefended=first.undefended)
    assert attack.fitted == ["identity", "deepfixcx", "heartspot"]
    assert first.results[0].metrics["twin"].value == second.results[0].metrics["twin"].value == len(VICTIMS["images"])


@pytest.mark.parametrize(
    ("error", "reason"),
    [(ValueError("too few\nimages."), "too few images."), (RuntimeError("pixel 0.1234"), "unforeseen RuntimeError")],
)
def test_a_failing_attack_costs_no_other(error: Exception, reason: str) -> None:
    suite = run_suite(DEEPFIXCX, AUXILIARY, VICTIMS, ["MeanImage", Failing(error), "LinearMMSE"], samples=0)
    assert [result.attack for result in suite.results] == ["MeanImage", "LinearMMSE"]
    assert suite.failed == {"Failing": reason, "Failing on undefended images": reason}


def test_a_twin_that_fails_does_not_cost_the_attack() -> None:
    suite = run_suite(DEEPFIXCX, AUXILIARY, VICTIMS, [Failing(MemoryError(), "identity")], samples=0)
    assert [result.attack for result in suite.results] == ["Failing"]
    assert suite.failed == {"Failing on undefended images": "unforeseen MemoryError"}


def test_what_was_not_run_has_a_reason() -> None:
    suite = run_suite(HEARTSPOT, AUXILIARY, VICTIMS, [*QUICK, "LowPassThumbnail"], samples=0)
    ran = {result.attack for result in suite.results}
    assert ran | suite.not_run.keys() == ATTACKS.keys() | {"RMIA"}
    assert not ran & suite.not_run.keys()
    assert "needs DeepFixCX" in suite.not_run["LowPassThumbnail"]
    assert suite.not_run["LearnedInversion"] == "not asked for"
    assert "needs the pixels" in run_suite(DEEPFIXCX, AUXILIARY, VICTIMS, QUICK, samples=0).not_run["MeanFill"]


def test_without_two_images_of_a_victim_only_linking_fails() -> None:
    once = {"images": VICTIMS["images"][::2], "patients": VICTIMS["patients"][::2]}
    suite = run_suite(DEEPFIXCX, AUXILIARY, once, QUICK, samples=0)
    assert [result.attack for result in suite.results] == ["MeanImage", "LinearMMSE"]
    assert "pair" in suite.failed["EuclideanLinkage"]
    with pytest.raises(ValueError, match=r"victims: .* pair"):
        run_suite(DEEPFIXCX, AUXILIARY, once, ["EuclideanLinkage", "FeatureLinkage"], samples=0)
    with pytest.raises(ValueError, match=r"no attack could be run: unforeseen RuntimeError; victims: .* pair"):
        run_suite(DEEPFIXCX, AUXILIARY, once, ["EuclideanLinkage", Failing(RuntimeError())], samples=0)


def test_data_that_no_attack_can_use_is_an_error() -> None:
    alone = {"images": VICTIMS["images"][:2], "patients": VICTIMS["patients"][:2]}
    with pytest.raises(ValueError, match="victims must hold at least two patients; got 1"):
        run_suite(DEEPFIXCX, AUXILIARY, alone, QUICK)
    with pytest.raises(ValueError, match="auxiliary and victims must be different patients; 6 in both"):
        run_suite(DEEPFIXCX, AUXILIARY, AUXILIARY, QUICK)


def test_codes_of_another_codec_are_refused() -> None:
    given = {**VICTIMS, "codes": DEEPFIXCX.encode(VICTIMS["images"]), "fingerprint": DEEPFIXCX.fingerprint()}
    from_codes, from_images = (
        run_suite(DEEPFIXCX, AUXILIARY, victims, ["LinearMMSE"], samples=0) for victims in (given, VICTIMS)
    )
    assert from_codes.results[0].metrics == from_images.results[0].metrics
    with pytest.raises(ValueError, match="victims' codes were made by codec"):
        run_suite(DEEPFIXCX, AUXILIARY, {**given, "fingerprint": HEARTSPOT.fingerprint()}, ["LinearMMSE"])


def test_membership_is_run_if_it_is_given_a_network() -> None:
    labels = (torch.arange(12) % 2).float()[:, None]
    rmia = RMIA(CodeMLP(256), train=lambda codes, labels, seed: CodeMLP(256), references=1)
    members = {**VICTIMS, "labels": labels, "members": torch.arange(12) < 6}
    suite = run_suite(DEEPFIXCX, {**AUXILIARY, "labels": labels}, members, ["MeanImage", rmia], samples=0)
    assert [result.attack for result in suite.results] == ["MeanImage", "RMIA"]
    assert "RMIA" not in suite.undefended
    assert "RMIA" not in suite.not_run
    assert "needs a network" in run_suite(DEEPFIXCX, AUXILIARY, VICTIMS, ["MeanImage"], samples=0).not_run["RMIA"]


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        (["Telepathy"], "attack must be one of MeanImage, .*; got 'Telepathy'"),
        ([], "attacks must be one or more"),
        (["MeanImage", "MeanImage"], "each of its own name"),
    ],
)
def test_attacks_that_cannot_be_chosen(attacks: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_suite(DEEPFIXCX, AUXILIARY, VICTIMS, attacks)


def test_undefended_results_of_other_data_are_refused() -> None:
    suite = run_suite(ConstantCodec(), AUXILIARY, VICTIMS, ["MeanImage"], samples=0)
    known: dict[str, AttackResult] = suite.undefended
    with pytest.raises(ValueError, match="same patients with the same seed; MeanImage is of codec identity, seed 0"):
        run_suite(DEEPFIXCX, AUXILIARY, VICTIMS, ["MeanImage"], seed=1, undefended=known)
    with pytest.raises(ValueError, match="12 victim images"):
        run_suite(DEEPFIXCX, AUXILIARY, films(100, 5), ["MeanImage"], undefended=known)
    with pytest.raises(ValueError, match="is of codec constant"):
        run_suite(DEEPFIXCX, AUXILIARY, VICTIMS, ["MeanImage"], undefended={"MeanImage": suite.results[0]})


def test_a_progress_bar_is_shown_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    run_suite(ConstantCodec(), AUXILIARY, VICTIMS, ["MeanImage"], samples=0, progress=True)
    assert not capsys.readouterr().out


def test_names_are_those_of_the_attacks() -> None:
    for name, make in ATTACKS.items():
        assert make().name == name


@pytest.mark.slow
def test_every_attack_runs_on_both_methods() -> None:
    auxiliary, victims = films(0, 10), films(100, 10)
    undefended: dict[str, AttackResult] = {}
    for codec in (DEEPFIXCX, HEARTSPOT):
        suite = run_suite(codec, auxiliary, victims, samples=20, undefended=undefended)
        undefended = suite.undefended
        assert not suite.failed
        assert len(suite.results) + len(suite.not_run) == len(ATTACKS) + 1
        assert len(suite.results) >= 17
