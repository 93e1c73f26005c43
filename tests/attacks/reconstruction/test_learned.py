"""Training: from where it starts, when it stops, and how it goes on; and the search by gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from monai_deepfixcx.attacks import InPainting, LearnedInversion, LinearMMSE, MAPInversion
from monai_deepfixcx.attacks.reconstruction.correction import Correction, data_key, train_correction
from monai_deepfixcx.attacks.reconstruction.map_inversion import total_variation, wavelet_detail
from monai_deepfixcx.codecs import ConstantCodec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from tests.attacks.reconstruction.cohort import SIDE, attacked, films, people

CODEC = DeepFixCXCodec(levels=2, patch_size=4)


@pytest.mark.parametrize(("shape", "channels"), [((3, 2, 17, 22), (4, 8, 8)), ((2, 1, 9, 8, 7), (4, 8))])
def test_an_untrained_correction_changes_nothing_whatever_the_size(
    shape: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    starts = torch.rand(shape)
    network = Correction(len(shape) - 2, 2 * shape[1], shape[1], channels)
    assert torch.equal(network(starts, torch.cat([starts, starts], dim=1)), starts)
    assert torch.equal(network.correct(starts, torch.cat([starts, starts], dim=1)), starts)


def test_training_keeps_the_best_on_held_out_images() -> None:
    images = films()[:40]
    starts = F.avg_pool2d(images, 5, stride=1, padding=2)
    data = (starts[:30], starts[:30], images[:30]), (starts[30:], starts[30:], images[30:])
    network = Correction(2, 1, 1, (4, 8))
    before = float(F.mse_loss(starts[30:], images[30:]))
    error = train_correction(network, *data, steps=100, batch_size=8, learning_rate=3e-3, patience=9, seed=0)
    assert error < 0.8 * before
    assert float(F.mse_loss(network.correct(starts[30:], starts[30:]), images[30:])) == pytest.approx(error)
    # A hopeless training stops early, and leaves the start.
    network = Correction(2, 1, 1, (4, 8))
    spoilt = torch.rand(images[:30].shape)
    learn = (starts[:30], starts[:30], spoilt)
    error = train_correction(network, learn, data[1], 400, 8, 0.5, 1, 0)
    assert error == pytest.approx(before)
    assert torch.equal(network.correct(starts, starts), starts)


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    def result(steps: int, folder: Path | None) -> torch.Tensor:
        attack = LearnedInversion(steps=steps, channels=(4, 8), checkpoint_dir=folder)
        return attacked(attack, CODEC, samples=0).output

    result(50, tmp_path)
    (written,) = tmp_path.iterdir()
    assert written.name.startswith("LearnedInversion-")
    resumed, whole = result(100, tmp_path), result(100, None)
    assert torch.equal(resumed, whole)
    assert [path.name for path in tmp_path.iterdir()] == [written.name]
    saved = torch.load(written, weights_only=True)
    assert saved["step"] == 100
    # Another codec, or other data, has a file of its own.
    attacked(LearnedInversion(steps=1, channels=(4, 8), checkpoint_dir=tmp_path), DeepFixCXCodec(1, 4), samples=0)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_checkpoint_holds_no_image(tmp_path: Path) -> None:
    attacked(LearnedInversion(steps=1, channels=(4, 8), checkpoint_dir=tmp_path), CODEC, samples=0)
    (written,) = tmp_path.iterdir()
    saved = torch.load(written, weights_only=True)
    assert saved.keys() == {"network", "optimizer", "step", "generator", "best"}
    assert saved["best"].keys() == {"network", "error", "waited"}
    assert b"patient" not in written.read_bytes()


def test_keys_tell_data_apart() -> None:
    a, b = torch.rand(2, 3), torch.rand(2, 3)
    assert data_key("x", a) == data_key("x", a.clone())
    assert len({data_key("x", a), data_key("x", b), data_key("y", a)}) == 3


def test_nothing_is_trained_where_nothing_is_left_to_correct() -> None:
    attack = LearnedInversion(steps=10**6)
    assert attacked(attack, IdentityCodec(), samples=0).metrics["explained_variance"].value > 0.999
    assert attack.held_out_error < 1e-8


def test_in_painting_puts_the_kept_pixels_back() -> None:
    codec = HeartSpotCodec("rhline+heart", (SIDE, SIDE))
    output = attacked(InPainting(steps=50, channels=(4, 8)), codec, samples=0).output
    images = people()[1]["images"]
    assert torch.equal(output[:, :, codec.mask], images[:, :, codec.mask])


def test_the_search_lowers_its_cost_and_explains_the_code() -> None:
    linear = attacked(LinearMMSE(), CODEC, samples=0).output
    codes = CODEC.encode(people()[1]["images"])
    found = attacked(MAPInversion(weight=0.01), CODEC, samples=0).output
    assert float((CODEC.encode(found) - codes).square().sum()) < 0.05 * float(
        (CODEC.encode(linear) - codes).square().sum()
    )
    # More starts never cost more.
    costs = []
    for restarts in (1, 3):
        attack = MAPInversion(steps=5, restarts=restarts)
        output = attacked(attack, CODEC, samples=0).output
        costs.append(attack._cost(output, linear, codes))
    assert bool((costs[1] <= costs[0] + 1e-6).all())


def test_either_prior_beats_the_linear_attack() -> None:
    linear = attacked(LinearMMSE(), CODEC, samples=0).metrics["mse"].value
    for prior in ("tv", "wavelet"):
        attack = MAPInversion(prior=prior, restarts=1)
        assert attacked(attack, CODEC, samples=0).metrics["mse"].value < linear


def test_gradients_are_taken_also_where_the_caller_takes_none() -> None:
    with torch.no_grad():
        for attack in (MAPInversion(steps=1), LearnedInversion(steps=1, channels=(4, 8))):
            assert not attacked(attack, CODEC, samples=0).output.requires_grad


def test_a_code_that_says_nothing_leaves_the_mean() -> None:
    output = attacked(MAPInversion(steps=3), ConstantCodec(), samples=0).output
    torch.testing.assert_close(output, people()[0]["images"].mean(0).expand_as(output), atol=1e-5, rtol=0)


def test_priors_by_definition() -> None:
    flat, step = torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 1
    assert total_variation(flat).item() == pytest.approx(0.002)  # smoothed at 0, once per axis
    assert total_variation(step).item() == pytest.approx(1 / 7, abs=0.01)
    assert wavelet_detail(flat).item() == pytest.approx(0, abs=1e-6)
    assert wavelet_detail(torch.rand(1, 1, 8, 8)).item() > 0.1
    assert total_variation(torch.rand(2, 1, 4, 5, 6)).shape == (2,)
    assert wavelet_detail(torch.rand(2, 1, 4, 5, 6)).shape == (2,)


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="steps, batch_size and patience must be at least 1; got 0, 8 and 4"):
        LearnedInversion(steps=0)
    with pytest.raises(ValueError, match='prior must be "tv" or "wavelet"; got \'l2\''):
        MAPInversion(prior="l2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight must be at least 0, steps and restarts at least 1; got weight=-1"):
        MAPInversion(weight=-1)
    with pytest.raises(ValueError, match="restarts=0"):
        MAPInversion(restarts=0)
