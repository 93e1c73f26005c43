"""Every attack that suits a codec, on the codec and on undefended images; and what was not run, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from monai_deepfixcx.attacks.base import Attack, AttackResult, run_attack, without_output
from monai_deepfixcx.attacks.reconstruction import (
    DecoderAttack,
    InPainting,
    LearnedInversion,
    LinearInverse,
    LinearMMSE,
    LowPassThumbnail,
    MAPInversion,
    MeanFill,
    MeanImage,
    NearestNeighbor,
)
from monai_deepfixcx.attacks.reidentification import EuclideanLinkage, FeatureLinkage, LearnedLinkage
from monai_deepfixcx.codecs import Codec, IdentityCodec

Selection = Literal["default"] | Sequence[str | Attack]

# By kind, and within a kind by strength as expected.
ATTACKS: dict[str, Callable[[], Attack]] = {
    "MeanImage": MeanImage,
    "NearestNeighbor": NearestNeighbor,
    "DecoderAttack": DecoderAttack,
    "LowPassThumbnail": LowPassThumbnail,
    "MeanFill": MeanFill,
    "LinearInverse": LinearInverse,
    "LinearMMSE": LinearMMSE,
    "MAPInversion": MAPInversion,
    "LearnedInversion": LearnedInversion,
    "InPainting": InPainting,
    "EuclideanLinkage": EuclideanLinkage,
    "FeatureLinkage": FeatureLinkage,
    "LearnedLinkage": LearnedLinkage,
    "EuclideanLinkage code to raw": lambda: EuclideanLinkage("raw"),
    "FeatureLinkage code to raw": lambda: FeatureLinkage("raw"),
    "LearnedLinkage code to raw": lambda: LearnedLinkage("raw"),
    "EuclideanLinkage after reconstruction": lambda: EuclideanLinkage("reconstruction"),
    "FeatureLinkage after reconstruction": lambda: FeatureLinkage("reconstruction"),
    "LearnedLinkage after reconstruction": lambda: LearnedLinkage("reconstruction"),
}


# What a suite cannot make on its own; it is run if it is given, ready to use.
NEEDS_MORE = {"RMIA": "needs a network trained on the codes, and who was trained on"}


@dataclass(frozen=True)
class SuiteResult:
    """What the attacks of a suite reached, on the codec and on undefended images.

    Attributes:
        codec: the codec's configuration.
        fingerprint: the codec's fingerprint.
        results: of every attack that ran, without what it gave: that may show a victim.
        undefended: of the same attacks with `IdentityCodec`, by name; give it to the next codec's `run_suite`.
        failed: name to reason, of attacks that were tried.
        not_run: name to reason, of attacks that were not.
    """

    codec: dict[str, Any]
    fingerprint: str
    results: tuple[AttackResult, ...]
    undefended: dict[str, AttackResult] = field(repr=False, compare=False)
    failed: dict[str, str]
    not_run: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values; nothing that shows a victim."""
        return {
            "codec": self.codec,
            "fingerprint": self.fingerprint,
            "attacks": [result.as_dict() for result in self.results],
            "undefended": [result.as_dict() for result in self.undefended.values()],
            "failed": dict(self.failed),
            "not_run": dict(self.not_run),
        }


def run_suite(
    codec: Codec,
    auxiliary: Mapping[str, Any],
    victims: Mapping[str, Any],
    attacks: Selection = "default",
    seed: int = 0,
    samples: int = 1000,
    progress: bool = False,
    undefended: Mapping[str, AttackResult] | None = None,
    device: torch.device | str | None = None,
) -> SuiteResult:
    """Run every attack that suits the codec, and its twin on undefended images.

    One attack that fails costs no other: it is named, with the reason.

    Args:
        codec: what the victims' images are encoded with.
        auxiliary: ``images`` [N, C, *S] and ``patients`` (N names), as for `run_attack`.
        victims: the same of other patients; ``codes`` and ``fingerprint`` as for `run_attack`.
        attacks: "default", or names of `ATTACKS` and attacks of your own.
        seed: of everything drawn.
        samples: resamples of the victim patients for the intervals; 0 gives none.
        progress: show a progress bar.
        undefended: `SuiteResult.undefended` of an earlier codec on the same data and seed: saves running it again.
        device: where to run; the images' own device if None.

    Returns:
        The results, in the order in which they were run.

    Raises:
        ValueError: an unknown name, two attacks of one name, `undefended` of other data, or data that no attack can
            be run on (fewer than two patients, a patient in both parts, no same-patient pair where only linkage was
            asked for, codes of another codec).

    >>> import torch
    >>> from monai_deepfixcx.codecs import ConstantCodec
    >>> people = {"images": torch.rand(4, 1, 16, 16), "patients": ["a", "a", "b", "b"]}
    >>> victims = {"images": torch.rand(4, 1, 16, 16), "patients": ["c", "c", "d", "d"]}
    >>> suite = run_suite(ConstantCodec(), people, victims, ["MeanImage", "LowPassThumbnail"], samples=0)
    >>> [result.attack for result in suite.results], suite.not_run["LowPassThumbnail"][:15], suite.failed
    (['MeanImage'], 'needs DeepFixCX', {})
    """
    chosen = _choose(attacks)
    known = dict(undefended or {})
    _check_undefended(known, victims, seed)
    images = {key: value for key, value in victims.items() if key not in ("codes", "fingerprint")}
    identity = IdentityCodec(codec.spatial_dims)
    failed: dict[str, str] = {}
    results: list[AttackResult] = []
    not_run = {name: make().why_unsuited(codec) or "not asked for" for name, make in ATTACKS.items()} | NEEDS_MORE
    not_run = {name: reason for name, reason in not_run.items() if name not in chosen}
    with _bar(len(chosen), progress) as advance:
        for name, attack in chosen.items():
            advance(name)
            if not attack.suits(codec):
                not_run[name] = str(attack.why_unsuited(codec))
                continue
            run = partial(run_attack, attack, seed=seed, samples=samples, device=device)
            if name not in known and attack.suits(identity) and attack.threat.goal != "infer membership":
                try:
                    known[name] = run(identity, auxiliary, images)
                except Exception as error:  # whatever it is, it must not cost the other attacks
                    failed[f"{name} on undefended images"] = _reason(error)
            try:
                results.append(without_output(run(codec, auxiliary, victims, undefended=known.get(name))))
            except Exception as error:
                failed[name] = _reason(error)
    if failed and not results:  # the data are to blame, not an attack
        reasons = sorted(set(failed.values()))
        raise ValueError(reasons[0] if len(reasons) == 1 else f"no attack could be run: {'; '.join(reasons)}")
    return SuiteResult(codec.config(), codec.fingerprint(), tuple(results), known, failed, not_run)


def make_attack(name: str) -> Attack:
    """A fresh attack of the package.

    Args:
        name: one of `ATTACKS`.

    Raises:
        ValueError: an unknown name.

    >>> make_attack("LinearMMSE").threat.goal
    'reconstruct'
    """
    if name not in ATTACKS:
        raise ValueError(f"attack must be one of {', '.join(ATTACKS)}; got {name!r}.")
    return ATTACKS[name]()


def _choose(attacks: Selection) -> dict[str, Attack]:
    if attacks == "default":
        return {name: make() for name, make in ATTACKS.items()}
    asked = [attacks] if isinstance(attacks, str) else attacks
    made = [make_attack(attack) if isinstance(attack, str) else attack for attack in asked]
    chosen = {attack.name: attack for attack in made}
    if not made or len(chosen) < len(made):
        raise ValueError(f"attacks must be one or more, each of its own name; got {[attack.name for attack in made]}.")
    return chosen


def _check_undefended(undefended: Mapping[str, AttackResult], victims: Mapping[str, Any], seed: int) -> None:
    for name, result in undefended.items():
        if (
            result.codec["codec"] != IdentityCodec.name
            or result.seed != seed
            or (result.victim_images != len(victims["patients"]))
        ):
            raise ValueError(
                f"undefended must come from run_suite on the same patients with the same seed; {name} is of codec "
                f"{result.codec['codec']}, seed {result.seed} and {result.victim_images} victim images."
            )


def _reason(error: Exception) -> str:
    """One line. Texts of unforeseen errors may quote the data, so only their type is told."""
    return " ".join(str(error).split()) if isinstance(error, ValueError) else f"unforeseen {type(error).__name__}"


@contextmanager
def _bar(attacks: int, shown: bool) -> Iterator[Callable[[str], None]]:
    """A progress bar over attacks, on standard error; it is told each attack's name before it starts."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=attacks)
        started = 0

        def advance(name: str) -> None:
            nonlocal started
            bar.update(task, description=name, completed=started)
            started += 1

        yield advance
