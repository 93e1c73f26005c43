"""The linear attacks against dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge  # type: ignore[import-untyped]
from torch import Tensor

from monai_deepfixcx.attacks import LinearInverse, LinearMMSE
from monai_deepfixcx.attacks.reconstruction.linear import AffinePart, RidgeRegression, best_ridge
from monai_deepfixcx.attacks.reconstruction.patients import fold_patients, split_patients
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from tests.attacks.reconstruction.cohort import SIDE, attacked, films

CODECS: dict[str, Codec] = {
    "identity": IdentityCodec(),
    "l1": DeepFixCXCodec(levels=1, patch_size=4),
    "sum": DeepFixCXCodec(levels=1, patch_size=5, features=["sum"], wavelet="coif1"),
    "pixels": HeartSpotCodec("rhline+heart", (SIDE, SIDE)),
    "sums": HeartSpotCodec("heart", (SIDE, SIDE), aggregate="sum"),
}


def dense(codec: Codec, entries: Tensor) -> tuple[Tensor, Tensor]:
    """A and y_0 of y = y_0 + A x, by differences of slightly changed grey images."""
    grey = torch.full((1, 1, SIDE, SIDE), 0.5, dtype=torch.float64)
    steps = torch.eye(SIDE**2, dtype=torch.float64).reshape(-1, 1, SIDE, SIDE) * 1e-3
    offset = codec.encode(grey).flatten(1)
    matrix = ((codec.encode(grey + steps).flatten(1) - offset) / 1e-3).T
    kept = entries.flatten()
    return matrix[kept], (offset.T - matrix @ grey.flatten()[:, None])[kept, 0]


@pytest.mark.parametrize("name", CODECS)
def test_the_affine_part_is_inverted_as_a_dense_pseudo_inverse_would(name: str) -> None:
    codec, images = CODECS[name], films()[:20].double()
    codes = codec.encode(images)
    part = AffinePart(codec, images, codes)
    matrix, offset = dense(codec, part.entries)
    mean = images.mean(0).flatten()
    rest = codes.flatten(1)[:, part.entries.flatten()] - offset - matrix @ mean
    expected = mean + rest @ torch.linalg.pinv(matrix, rtol=1e-7).T
    tolerance = 1e-4 if name == "sums" else 1e-5  # a singular operator: conjugate gradients stop earlier
    torch.testing.assert_close(part.inverse(codes).flatten(1), expected, atol=tolerance, rtol=0)


def test_what_is_affine_is_found() -> None:
    images = films()[:20]

    def entries(codec: Codec) -> Tensor:
        return AffinePart(codec, images, codec.encode(images)).entries[0]

    assert entries(CODECS["identity"]).all()
    assert entries(CODECS["sum"]).all()
    assert entries(CODECS["pixels"]).all()
    assert entries(CODECS["sums"]).all()
    lowest = entries(CODECS["l1"])
    assert lowest[:16].all()  # the lowest subband: sums of non-negative pixels
    assert lowest.float().mean() < 0.4
    assert not entries(HeartSpotCodec("median", (SIDE, SIDE))).any()
    assert not entries(DeepFixCXCodec(1, 4, features=["max"])).any()


@pytest.mark.parametrize(("images", "entries"), [(30, 12), (12, 30)])
def test_ridge_regression_is_scikit_learns(images: int, entries: int) -> None:
    """In either space."""
    generator = torch.Generator().manual_seed(0)
    x, y, new = (torch.randn(shape, generator=generator) for shape in ((images, entries), (images, 7), (5, entries)))
    unit = (x - x.mean(0)).square().sum() / min(images, entries)
    expected = Ridge(alpha=float(0.3 * unit)).fit(x.numpy(), y.numpy()).predict(new.numpy())
    torch.testing.assert_close(RidgeRegression(x, y, 0.3)(new), torch.from_numpy(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("images", "entries"), [(30, 12), (12, 30)])
@pytest.mark.parametrize("noise", [0.0, 0.3, 10.0])
def test_the_chosen_ridge_is_the_best_of_all(images: int, entries: int, noise: float) -> None:
    """Held against fitting and judging each one."""
    generator = torch.Generator().manual_seed(1)
    x, new = (torch.randn((n, entries), generator=generator).double() for n in (images, 9))
    weights = torch.randn((entries, 4), generator=generator).double()
    y, new_y = (given @ weights + noise * torch.randn((len(given), 4), generator=generator) for given in (x, new))
    ridges = [10.0**power for power in range(-7, 4)]
    errors = [float((RidgeRegression(x, y, ridge)(new) - new_y).square().sum()) for ridge in ridges]
    assert best_ridge(x, y, new, new_y) == ridges[int(np.argmin(errors))]


def test_a_given_ridge_is_used_and_a_huge_one_leaves_the_linear_inverse() -> None:
    codec = DeepFixCXCodec(levels=2, patch_size=4)
    inverse = attacked(LinearInverse(), codec, samples=0).output
    huge = LinearMMSE(ridge=1e9)
    torch.testing.assert_close(attacked(huge, codec, samples=0).output, inverse, atol=0.02, rtol=0)
    assert huge.chosen_ridge == 1e9
    chosen = LinearMMSE()
    assert attacked(chosen, codec).metrics["mse"].value < attacked(huge, codec).metrics["mse"].value
    with pytest.raises(ValueError, match="ridge must be above 0; got 0"):
        LinearMMSE(ridge=0)


def test_patients_are_parted_whole() -> None:
    names = [f"{k // 3}" for k in range(30)]
    learn, judge = split_patients(names, 0.25, seed=1)
    assert sorted([*learn.tolist(), *judge.tolist()]) == list(range(30))
    assert len(judge) == 6  # two of ten patients
    assert not {names[k] for k in learn} & {names[k] for k in judge}
    inside: list[int] = []
    for others, fold in fold_patients(names, 4, seed=1):
        assert not {names[k] for k in others} & {names[k] for k in fold}
        assert len(others) + len(fold) == 30
        inside += fold.tolist()
    assert sorted(inside) == list(range(30))
    assert len(list(fold_patients(["a", "b"], 4, seed=0))) == 2
