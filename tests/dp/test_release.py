"""Released codes carry the noise they should, drawn anew every time, and every release is entered in the ledger."""

import copy
import fcntl
import json
import math
import re
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, Dataset, MetaTensor, PersistentDataset
from monai.transforms import Compose, InvertibleTransform
from scipy.integrate import quad
from scipy.stats import norm
from torch.utils.data import DataLoader

from monai_deepfixcx.codecs import DeepFixCXCodec
from monai_deepfixcx.dp import (
    DPRelease,
    DPReleased,
    ReleaseLedger,
    check_release_dataset,
    gaussian_delta,
    gaussian_epsilon,
    noise_scale,
)
from monai_deepfixcx.transforms import DeepFixCXd

KEY = b"of the site"


def delta_by_integration(epsilon: float, mu: float) -> float:
    """The hockey-stick divergence of N(mu, 1) from N(0, 1), where the first is more likely by exp(epsilon)."""
    start = epsilon / mu + mu / 2
    excess: Callable[[float], float] = lambda x: norm.pdf(x - mu) - math.exp(epsilon + norm.logpdf(x))  # noqa: E731
    return float(quad(excess, start, start + mu + 40, epsabs=1e-14, limit=500, points=[max(mu, start + 1e-9)])[0])


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 8.0, 30.0])
@pytest.mark.parametrize("mu", [0.05, 0.5, 1.0, 3.0, 8.0])
def test_delta_is_that_of_numerical_integration(epsilon: float, mu: float) -> None:
    assert gaussian_delta(epsilon, mu) == pytest.approx(delta_by_integration(epsilon, mu), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("delta", [1e-10, 1e-5, 0.1])
@pytest.mark.parametrize("epsilon", [0.01, 1.0, 8.0, 100.0])
def test_the_noise_is_just_enough(epsilon: float, delta: float) -> None:
    noise = noise_scale(epsilon, delta, sensitivity=3.0)
    assert gaussian_delta(epsilon, 3.0 / noise) <= delta
    assert gaussian_delta(epsilon, 3.0 / (0.9999 * noise)) > delta
    assert gaussian_epsilon(delta, 3.0 / noise) == pytest.approx(epsilon, rel=1e-6)
    if epsilon <= 1:  # where the classical mechanism is proven, it needs more
        assert noise < 3.0 * math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def test_mechanism_agrees_with_dp_accounting() -> None:
    mechanism = pytest.importorskip("dp_accounting.pld.privacy_loss_mechanism", reason="a second implementation")
    loss = mechanism.GaussianPrivacyLoss(2.0)
    for epsilon in (0.5, 2.0, 5.0):
        assert gaussian_delta(epsilon, 0.5) == pytest.approx(loss.get_delta_for_epsilon(epsilon), rel=1e-6, abs=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_scale(0.0, 1e-5, 1.0), "epsilon must be above 0 and finite; got 0.0"),
        (lambda: noise_scale(math.inf, 1e-5, 1.0), "epsilon must be above 0 and finite"),
        (lambda: noise_scale(1.0, 0.0, 1.0), "delta must lie between 0 and 1; got 0.0"),
        (lambda: noise_scale(1.0, 1e-5, 0.0), "sensitivity must be above 0"),
        (lambda: gaussian_epsilon(1.0, 1.0), "delta must lie between 0 and 1"),
        (lambda: gaussian_epsilon(1e-5, 1e9), "There is next to no noise"),
        (lambda: DPRelease(1.0, 1e-5, 0.0), "clip_norm must be above 0; got 0.0"),
        (lambda: DPRelease(-1.0, 1e-5, 1.0), "epsilon must be above 0"),
        (lambda: DPRelease(1.0, 1e-5, 1.0, "patient"), "relation must be one of image, m_pixels; got 'patient'"),  # type: ignore[arg-type]
        (lambda: DPRelease(1.0, 1e-5, 1.0, "m_pixels"), "needs codec, spatial_shape and pixels"),
    ],
)
def test_arguments_out_of_range_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_a_code_is_clipped_and_the_noise_is_that_of_the_mechanism() -> None:
    release = DPRelease(epsilon=4.0, delta=1e-5, clip_norm=5.0)
    assert release.noise == noise_scale(4.0, 1e-5, 10.0)
    for scale, norm_left in ((100.0, 5.0), (0.1, 0.1 * 200)):
        code = torch.full((1, 40_000), scale)
        noise = release(code).double() - code.double() * min(1.0, 5.0 / float(code.norm()))
        assert abs(float(noise.mean())) < 5 * release.noise / 200, norm_left
        assert float(noise.std()) == pytest.approx(release.noise, rel=0.02)
        assert norm.cdf(release.noise, scale=float(noise.std())) == pytest.approx(
            float((noise < release.noise).double().mean()), abs=0.01
        )


def test_pixels_cost_less_noise_than_images() -> None:
    codec = DeepFixCXCodec(levels=2, patch_size=4)
    few = DPRelease(8.0, 1e-5, 50.0, "m_pixels", codec.config(), (32, 32), pixels=9)
    whole = DPRelease(8.0, 1e-5, 50.0, "image", codec)
    assert few.sensitivity == pytest.approx(2 * 3, rel=1e-4)
    assert whole.sensitivity == pytest.approx(50 * math.sqrt(2))
    many = DPRelease(8.0, 1e-5, 1.0, "m_pixels", codec, (32, 32), pixels=900)
    assert many.sensitivity == DPRelease(8.0, 1e-5, 1.0, "image", codec).sensitivity
    assert few.signal_to_noise(codec.code_length((32, 32))) > whole.signal_to_noise(codec.code_length((32, 32)))


def test_noise_is_fresh_whatever_the_seeds_copies_and_workers() -> None:
    release, code = DPRelease(8.0, 1e-5, 1.0), torch.ones(1, 50)
    drawn = []
    for transform in (release, copy.deepcopy(release), release):
        torch.manual_seed(0)
        transform.set_random_state(seed=0)
        drawn.append(transform(code))
    data = Dataset([{"code": code}] * 4, DPReleased("code", 8.0, 1e-5, 1.0))
    drawn += [batch["code"][0] for batch in DataLoader(data, num_workers=2)]
    for index, one in enumerate(drawn):
        assert all(not (one == other).any() for other in drawn[:index])


def test_a_seed_repeats_experiments_but_never_noise_on_another_code() -> None:
    code, other = torch.ones(1, 50), torch.zeros(1, 50)
    first, second = DPRelease(8.0, 1e-5, 1.0, seed=1), DPRelease(8.0, 1e-5, 1.0, seed=1)
    assert torch.equal(first(code), second(code))
    assert not torch.equal(first(code), DPRelease(8.0, 1e-5, 1.0, seed=1)(code)), "fresh noise each call"
    twin = copy.deepcopy(first)  # as a forked worker has it
    difference = first(code) - twin(other)
    assert float(difference.std()) > 1.2 * first.noise, "the noise would cancel"


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor, MetaTensor, lambda x: torch.as_tensor(x).int()])
def test_what_comes_out_is_a_plain_tensor_that_nothing_can_undo(make: Callable[[Any], Any]) -> None:
    code = make(np.ones((2, 30), dtype=np.float32))
    released = DPRelease(8.0, 1e-5, 1.0)(code)
    assert type(released) is torch.Tensor
    assert released.dtype == torch.float32
    item = {"code": code, "code_meta_dict": {"patient": "Jane Doe"}, "label": 1}
    transform = DPReleased("code", 8.0, 1e-5, 1.0)
    assert sorted(transform(item)) == ["code", "label"]
    assert not isinstance(transform, InvertibleTransform)
    assert not hasattr(transform, "inverse")


def test_codes_that_no_noise_can_hide_are_refused() -> None:
    with pytest.raises(ValueError, match="code must be finite"):
        DPRelease(8.0, 1e-5, 1.0)(torch.tensor([[math.nan]]))
    with pytest.raises(TypeError, match="key 'code'"):
        DPReleased("code", 8.0, 1e-5, 1.0)({"code": "x"})
    with pytest.raises(KeyError, match="code"):
        DPReleased("code", 8.0, 1e-5, 1.0)({})


def test_a_caching_dataset_never_keeps_a_release_and_one_on_disk_is_refused(tmp_path: Path) -> None:
    steps = Compose([DeepFixCXd("image", levels=1, patch_size=2), Compose([DPReleased("image", 8.0, 1e-5, 1.0)])])
    data = CacheDataset([{"image": torch.rand(1, 8, 8)}], steps, progress=False)
    assert not torch.equal(data[0]["image"], data[0]["image"])
    check_release_dataset(data)
    on_disk = PersistentDataset([{"image": torch.rand(1, 8, 8)}], steps, cache_dir=tmp_path)
    for dataset in (on_disk, torch.utils.data.Subset(on_disk, [0])):
        with pytest.raises(ValueError, match="PersistentDataset writes to disk what goes into the release"):
            check_release_dataset(dataset)
    check_release_dataset(PersistentDataset([], DeepFixCXd("image", levels=1, patch_size=2), cache_dir=tmp_path))


def test_the_ledger_adds_up_and_refuses_what_would_pass_the_budget(tmp_path: Path) -> None:
    ledger = ReleaseLedger(tmp_path / "site" / "ledger.jsonl", epsilon=10.0, delta=1e-5, key=KEY)
    release = DPReleased("code", 4.0, 1e-5, 1.0, ledger=ledger)
    item = {"code": torch.ones(1, 8), "patient": "Jane Doe"}
    mu = release.release.sensitivity / release.release.noise
    done = next(n for n in range(1, 100) if gaussian_epsilon(1e-5, mu * (n + 1) ** 0.5) > 10.0)
    for _ in range(done):
        release(item)
    with pytest.raises(ValueError, match="another release of this patient would come to epsilon") as refusal:
        release(item)
    assert done > 10 / 4, "less than the sum of the epsilons"
    assert ledger.spent("Jane Doe") == pytest.approx(gaussian_epsilon(1e-5, mu * done**0.5))
    release({**item, "patient": "another"})
    again = ReleaseLedger(ledger.path, 10.0, 1e-5, KEY)
    assert again.spent("Jane Doe") == ledger.spent("Jane Doe")
    text = ledger.path.read_text()
    assert "Jane" not in text + str(refusal.value)
    assert len(text.splitlines()) == done + 1
    assert set(json.loads(text.splitlines()[0])) == {"patient", "mu", "relation"}


def test_the_ledger_keeps_relations_apart_and_wants_a_patient(tmp_path: Path) -> None:
    ledger = ReleaseLedger(tmp_path / "l.jsonl", 10.0, 1e-5, KEY)
    ledger.enter("a", 0.1, "image")
    with pytest.raises(ValueError, match="releases for another relation than '4 pixels by 1'"):
        ledger.enter("a", 0.1, "4 pixels by 1")
    with pytest.raises(ValueError, match="patient must be given"):
        DPRelease(1.0, 1e-5, 1.0, ledger=ledger)(torch.ones(1, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be above 0"),
        ({"delta": 2.0}, "delta must lie between 0 and 1"),
        ({"key": b""}, "key must be a secret of the site"),
    ],
)
def test_bad_ledgers_are_refused(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReleaseLedger(**{"path": tmp_path / "l", "epsilon": 1.0, "delta": 1e-5, "key": KEY, **arguments})


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l").write_text('{"patient": "a"}\n')
    with pytest.raises(ValueError, match="is no ledger"):
        ReleaseLedger(tmp_path / "l", 1.0, 1e-5, KEY)


def enter_many(path: str) -> int:
    ledger, entered = ReleaseLedger(path, 8.0, 1e-5, KEY), 0
    try:
        while True:
            ledger.enter("a", 0.2, "image")
            entered += 1
    except ValueError:
        return entered


def test_processes_share_a_ledger_and_never_pass_the_budget_together(tmp_path: Path) -> None:
    path = str(tmp_path / "l.jsonl")
    with get_context("fork").Pool(2) as pool:
        entered = pool.map(enter_many, [path, path])
    most = next(n for n in range(1000) if gaussian_epsilon(1e-5, 0.2 * (n + 1) ** 0.5) > 8.0)
    assert sum(entered) == most == len(Path(path).read_text().splitlines())


def enter_once(path: str, ready: Any, refused: Any) -> None:
    ledger = ReleaseLedger(path, 8.0, 1e-5, KEY)
    ready.set()
    try:
        ledger.enter("a", 0.2, "image")
    except ValueError:
        refused.set()


def test_a_release_waits_for_the_one_that_another_process_is_entering(tmp_path: Path) -> None:
    path, context = tmp_path / "l.jsonl", get_context("fork")
    ReleaseLedger(path, 8.0, 1e-5, KEY).enter("a", 0.1, "image")
    ready, refused = context.Event(), context.Event()
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        other = context.Process(target=enter_once, args=(str(path), ready, refused))
        other.start()
        ready.wait()
        time.sleep(0.3)  # long enough to go wrong without the lock; with it the outcome does not depend on it
        spent = {**json.loads(path.read_text().splitlines()[0]), "mu": 2.0}
        file.write(json.dumps(spent).encode() + b"\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_UN)  # closing would not do: the other process has inherited the file
    other.join()
    assert refused.is_set()
