"""Linear attacks: undo the part of the code that is linear in the image, and regress the rest on auxiliary patients."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from monai_deepfixcx.attacks.base import Auxiliary, Victims
from monai_deepfixcx.attacks.reconstruction.base import ReconstructionAttack
from monai_deepfixcx.attacks.reconstruction.patients import split_patients
from monai_deepfixcx.codecs import Codec
from monai_deepfixcx.metrics.reconstruction.scores import Distance

_BATCH = 256
_ITERATIONS = 50  # of conjugate gradients; one is enough where patches do not overlap
_GRID = tuple(10.0**power for power in range(-7, 4))  # ridges tried, in units of the codes' mean variance


class AffinePart:
    """The entries of a code that are affine in the image, y = y_0 + A (x - x_0), and how to invert them.

    They are found, not assumed: A is the codec's derivative at an even grey image, and an entry counts if it predicts
    that entry of every auxiliary code to .1 % of its standard deviation. Among them are the lowest subband of
    non-negative images under "l1", every "sum", HeartSpot's pixels and sums, and entries that never change.

    Args:
        codec: the codec.
        images: auxiliary, ``[N, C, *S]``.
        codes: theirs, ``[N, C, D]``.

    Attributes:
        entries: bool ``[C, D]``, those that are affine.
        mean: ``[1, C, *S]``, the mean image: what is known of what A does not show.
    """

    def __init__(self, codec: Codec, images: Tensor, codes: Tensor) -> None:
        self._codec = codec
        self._grey = torch.full_like(images[:1], 0.5)
        self.entries = torch.ones(codes.shape[1:], dtype=torch.bool, device=codes.device)
        with torch.no_grad():
            offset = codec.encode(self._grey)
        tolerance = 1e-3 * codes.std(0, correction=0) + 1e-5 * codes.abs().amax(0)
        # A few images first: where they leave no entry, the others need not be looked at.
        for image, code in zip(_few_first(images), _few_first(codes), strict=True):
            if self.entries.any():
                wrong = (code - offset - self._forward(image - self._grey)).abs().amax(0)
                self.entries &= wrong <= tolerance
        self.mean = images.mean(0, keepdim=True)
        self._expected = offset + self._forward(self.mean - self._grey)

    def inverse(self, codes: Tensor) -> Tensor:
        """The image nearest to the mean image that has the affine entries of each code: mean + A^+ (y - A mean).

        Args:
            codes: ``[N, C, D]``.

        Returns:
            ``[N, C, *S]``, not clipped.
        """
        return torch.cat([self._inverse(batch) for batch in codes.split(_BATCH)])

    def _inverse(self, codes: Tensor) -> Tensor:
        """Conjugate gradients on A A^T u = y - A mean, for all codes at once."""
        residual = (codes - self._expected) * self.entries
        u, direction = torch.zeros_like(residual), residual
        norm = residual.square().sum((1, 2), keepdim=True)
        enough = 1e-10 * norm
        for _ in range(_ITERATIONS):
            if bool((norm <= enough).all()):
                break
            image = self._adjoint(direction)
            step = _safe_ratio(norm, image.square().flatten(1).sum(1).reshape(norm.shape))
            u = u + step * direction
            residual = residual - step * self._forward(image)
            norm, before = residual.square().sum((1, 2), keepdim=True), norm
            direction = residual + _safe_ratio(norm, before) * direction
        return self.mean + self._adjoint(u)

    def _forward(self, images: Tensor) -> Tensor:
        """A x: the derivative of the derivative's adjoint, which every codec that can be trained through has."""
        weights = torch.zeros((len(images), *self.entries.shape), dtype=images.dtype, device=images.device)
        weights.requires_grad_()
        with torch.enable_grad():
            back = self._pull(weights, create_graph=True)
            if not back.requires_grad:
                return torch.zeros_like(weights)
            (found,) = torch.autograd.grad(back, weights, images)
        return found * self.entries

    def _adjoint(self, codes: Tensor) -> Tensor:
        """A^T y."""
        with torch.enable_grad():
            return self._pull(codes * self.entries).detach()

    def _pull(self, weights: Tensor, create_graph: bool = False) -> Tensor:
        at = self._grey.expand(len(weights), *self._grey.shape[1:]).clone().requires_grad_()
        encoded = self._codec.encode(at)
        if not encoded.requires_grad:  # the code does not depend on the image
            return torch.zeros_like(at)
        return torch.autograd.grad(encoded, at, weights, create_graph=create_graph)[0]


class LinearInverse(ReconstructionAttack):
    """The pseudo-inverse of the part of the code that is affine in the image (`AffinePart`), around the mean image.

    Of all images that have those entries of the code it gives the one nearest to the mean auxiliary image. Entries that
    are not affine, such as the sign-less detail subbands, are not used; where none is, it gives the mean image.

    >>> from monai_deepfixcx.attacks import run_attack
    >>> from monai_deepfixcx.codecs import DeepFixCXCodec
    >>> films = torch.rand(8, 1, 16, 16)
    >>> people = {"images": films[:4], "patients": ["a", "a", "b", "b"]}
    >>> victims = {"images": films[4:], "patients": ["c", "c", "d", "d"]}
    >>> codec = DeepFixCXCodec(levels=1, patch_size=8, features=["sum"])
    >>> result = run_attack(LinearInverse(), codec, people, victims, samples=0)
    >>> round(result.metrics["explained_variance"].value, 3)
    1.0
    """

    name: str = "LinearInverse"

    def fit(self, auxiliary: Auxiliary) -> Self:
        """Find the affine entries."""
        self._part = AffinePart(auxiliary.codec, auxiliary.images, auxiliary.codes)
        return self

    def run(self, victims: Victims) -> Tensor:
        """Invert them, clipped to [0, 1]."""
        return self._part.inverse(victims.codes).clamp(0, 1)


class LinearMMSE(ReconstructionAttack):
    """The best linear estimate of the image from the code, by means and covariances of the auxiliary patients.

    A ridge regression of what `LinearInverse` leaves, on all entries of the code: the image is
    B(y) + C_xy (C_yy + ridge I)^-1 (y - mean_y). It is solved in the smaller space of code entries and images, and the
    ridge is the one that reconstructs held-out auxiliary patients best; a large ridge leaves `LinearInverse`.

    Args:
        ridge: in units of the codes' mean variance; None chooses it.
        perceptual: as for `ReconstructionAttack`.

    Raises:
        ValueError: a ridge that is not positive.

    >>> from monai_deepfixcx.attacks import run_attack
    >>> from monai_deepfixcx.codecs import IdentityCodec
    >>> films = torch.rand(8, 1, 16, 16)
    >>> people = {"images": films[:4], "patients": ["a", "a", "b", "b"]}
    >>> victims = {"images": films[4:], "patients": ["c", "c", "d", "d"]}
    >>> result = run_attack(LinearMMSE(), IdentityCodec(), people, victims, samples=0)
    >>> round(result.metrics["explained_variance"].value, 3)
    1.0
    """

    name: str = "LinearMMSE"

    def __init__(self, ridge: float | None = None, perceptual: Distance | None = None) -> None:
        super().__init__(perceptual)
        if ridge is not None and ridge <= 0:
            raise ValueError(f"ridge must be above 0; got {ridge}.")
        self.ridge = ridge

    def fit(self, auxiliary: Auxiliary) -> Self:
        """Choose the ridge on a quarter of the patients, then fit to all."""
        self._part = AffinePart(auxiliary.codec, auxiliary.images, auxiliary.codes)
        left = (auxiliary.images - self._part.inverse(auxiliary.codes)).flatten(1)
        codes = auxiliary.codes.flatten(1)
        if self.ridge is None:
            learn, judge = split_patients(auxiliary.patients, 0.25, auxiliary.seed)
            self.chosen_ridge = best_ridge(codes[learn], left[learn], codes[judge], left[judge])
        else:
            self.chosen_ridge = self.ridge
        self._regress = RidgeRegression(codes, left, self.chosen_ridge)
        return self

    def run(self, victims: Victims) -> Tensor:
        """The estimate, clipped to [0, 1]."""
        known = self._part.inverse(victims.codes)
        return (known + self._regress(victims.codes.flatten(1)).reshape(known.shape)).clamp(0, 1)


class RidgeRegression:
    """Targets ``[N, M]`` from inputs ``[N, D]``, both centred, solved in the smaller of D and N dimensions.

    Args:
        inputs: ``[N, D]``.
        targets: ``[N, M]``.
        ridge: above 0, in units of the inputs' mean variance over the smaller space's dimensions.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, ridge: float) -> None:
        self._mean, self._target_mean = inputs.mean(0), targets.mean(0)
        self._inputs, self._targets = inputs - self._mean, targets - self._target_mean
        self._dual = inputs.shape[0] <= inputs.shape[1]
        gram = _gram(self._inputs, self._dual)
        gram.diagonal().add_(ridge * _unit(gram))
        self._factor = torch.linalg.cholesky(gram)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Predict ``[n, M]`` from ``[n, D]``: a weighted sum of the targets."""
        x = inputs - self._mean
        if self._dual:
            weights = torch.cholesky_solve((self._inputs @ x.T).double(), self._factor).T.to(x)
        else:
            weights = torch.cholesky_solve(x.T.double(), self._factor).T.to(x) @ self._inputs.T
        return weights @ self._targets + self._target_mean


def best_ridge(inputs: Tensor, targets: Tensor, held_inputs: Tensor, held_targets: Tensor) -> float:
    """The ridge with which `RidgeRegression` predicts held-out images best, of powers of ten from 1e-7 to 1000.

    One eigendecomposition G = U diag(g) U^T serves all ridges. A prediction is P diag(1 / (g + ridge)) Q, so that its
    squared error is a quadratic form in 1 / (g + ridge).

    Args:
        inputs: ``[N, D]``.
        targets: ``[N, M]``.
        held_inputs: ``[n, D]``, of other patients.
        held_targets: ``[n, M]``.
    """
    mean, target_mean = inputs.mean(0), targets.mean(0)
    x, y, new_x, new_y = inputs - mean, targets - target_mean, held_inputs - mean, held_targets - target_mean
    dual = x.shape[0] <= x.shape[1]
    gram = _gram(x, dual)
    values, vectors = torch.linalg.eigh(gram)
    basis = vectors.to(x)
    p = (new_x @ (x.T @ basis) if dual else new_x @ basis).double()
    q = basis.T @ (y if dual else x.T @ y)
    cross = (p * (new_y @ q.T).double()).sum(0)
    square = (p.T @ p) * (q @ q.T).double()

    def error(ridge: float) -> float:
        shrunk = 1 / (values.clamp(min=0) + ridge * _unit(gram))
        return float(shrunk @ square @ shrunk - 2 * cross @ shrunk)

    return min(_GRID, key=error)


def _few_first(values: Tensor) -> list[Tensor]:
    return [values[:8], *values[8:].split(_BATCH)] if len(values) > 8 else [values]


def _gram(x: Tensor, dual: bool) -> Tensor:
    return (x @ x.T if dual else x.T @ x).double()


def _unit(gram: Tensor) -> Tensor:
    """The mean eigenvalue; a tiny number where the inputs never change, so that nothing is divided by 0."""
    return gram.diagonal().mean() + 1e-12


def _safe_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator.clamp(min=torch.finfo(denominator.dtype).tiny), 0.0)
