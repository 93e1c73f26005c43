"""Explain what a bundle's network sees in a folder of images or a store of codes, from the codes alone."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor

from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.handlers.attribution_measures import AttributionSettings
from monai_deepfixcx.handlers.attribution_report import AttributionReport
from monai_deepfixcx.metrics.explanations import AttributionLeakMetric
from monai_deepfixcx.networks import PrivatizedNetwork

_NEEDED = ("network_def", "label_names")


@dataclass(frozen=True)
class Model:
    """A trained network, and the configuration that it came from.

    Attributes:
        network: with its codec, in evaluation mode.
        label_names: of its outputs.
        config: the bundle's, for its data set.
        fingerprint: of the codec.
    """

    network: PrivatizedNetwork
    label_names: list[str]
    config: ConfigParser
    fingerprint: str


@dataclass(frozen=True)
class Explained:
    """What a run found.

    Attributes:
        cases: that were explained.
        unread: what could not be explained: file or id, and why.
        found: as in ``attributions.json``; `None` without a case.
        leak: per label, SSIM to the originals; `None` if it was not asked for.
    """

    cases: int
    unread: list[tuple[str, str]]
    found: dict[str, Any] | None
    leak: dict[str, Any] | None


@dataclass(frozen=True)
class _Case:
    number: int
    name: str
    code: Tensor | None
    image: Tensor | None = None
    problem: str = ""


def load_model(bundle: Path, checkpoint: Path | None = None) -> Model:
    """Build a bundle's network and load its weights.

    A configuration may run any Python code: take bundles from sources you trust only.

    Args:
        bundle: folder of a bundle, whose ``configs/inference.yaml`` (or json) is read, or a configuration file that
            defines ``network_def`` (a `PrivatizedNetwork`) and ``label_names``.
        checkpoint: the weights, as MONAI's CheckpointSaver writes them; default: the configuration's ``ckpt_path``.

    Raises:
        FileNotFoundError: no configuration, or no weights.
        ValueError: the configuration lacks something, or the weights do not fit the network.
    """
    file = _configuration(bundle)
    config = ConfigParser()
    config.read_config(str(file))
    if missing := [key for key in _NEEDED if key not in config]:
        raise ValueError(f"bundle: {file} must define {', '.join(_NEEDED)}; it lacks {', '.join(missing)}.")
    if file.parent.name == "configs":
        config["bundle_root"] = str(file.parents[1].resolve())
    network = config.get_parsed_content("network_def")
    if not isinstance(network, PrivatizedNetwork):
        raise ValueError(f"bundle: network_def of {file} must be a PrivatizedNetwork; got {type(network).__name__}.")
    if checkpoint is None and "ckpt_path" in config:
        checkpoint = Path(config.get_parsed_content("ckpt_path"))
    if checkpoint is None or not checkpoint.is_file():
        raise FileNotFoundError(f"checkpoint must be a file of weights; {checkpoint} is not there. Train first.")
    try:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
        network.load_state_dict(weights.get("network", weights))
    except Exception as error:  # whatever torch makes of another kind of file
        raise ValueError(
            f"checkpoint: {checkpoint} does not hold the weights of the bundle's network "
            f"({type(error).__name__}). Was it trained with another configuration?"
        ) from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = [str(name) for name in config.get_parsed_content("label_names")]
    return Model(network.eval().to(device), names, config, network.codec.fingerprint())


def explain(
    source: Path,
    output: Path,
    model: Model,
    settings: AttributionSettings | None = None,
    leak: bool = False,
    batch_size: int = 16,
    plan: Callable[[int], None] = lambda cases: None,
    advance: Callable[[int], None] = lambda done: None,
) -> Explained:
    """Explain the first cases of a folder of images or of a store, and write what was found; see `AttributionReport`.

    Images are read and encoded as the bundle's configuration says; only codes go on. Case n is the n-th file of the
    folder, sorted by path, or the n-th code of the store, from 0.

    Args:
        source: a folder of images, or a `CodeStore`'s.
        output: folder to write into; made if absent.
        model: from `load_model`.
        settings: what to explain, and how.
        leak: compare the attribution maps with the originals, too, and write ``leak.json``. For the data holder, and
            for images only.
        batch_size: cases explained together.
        plan: told how many cases there are.
        advance: told how many cases are through.

    Returns:
        What was found.

    Raises:
        ValueError: another codec's store, a `leak` without images, no file, or what `attribute` refuses.
        FileNotFoundError: no such folder.
        OSError: the output cannot be written.
    """
    settings = settings or AttributionSettings()
    is_store = (source / "store.json").is_file()
    if is_store and leak:
        raise ValueError("leak needs the original images, to which maps are compared; a store has none of them.")
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is not a folder of images, nor a store of codes.")
    cases, total = _stored(source, model) if is_store else _encoded(source, output, model)
    total = total if settings.limit is None else min(total, settings.limit)
    plan(total)
    network = model.network
    report = AttributionReport(
        network, network.codec, network.spatial_shape, model.label_names, settings, fingerprint=model.fingerprint
    )
    leaks = {name: AttributionLeakMetric(settings.samples, settings.seed) for name in report.targets} if leak else {}
    unread, done = [], 0
    for start in range(0, total, batch_size):
        batch = [next(cases) for _ in range(min(batch_size, total - start))]
        readable = [case for case in batch if case.code is not None]
        unread += [(case.name, case.problem) for case in batch if case.code is None]
        if readable:
            codes = torch.stack([case.code for case in readable if case.code is not None])
            attributions = report.add(codes, [case.number for case in readable], output)
            for name, metric in leaks.items():
                drawn, images = attributions[name].image, [case.image for case in readable if case.image is not None]
                if drawn is not None:
                    metric(drawn, torch.stack(images), network.codec.decode(codes, network.spatial_shape).detach())
        done += len(readable)
        advance(start + len(batch))
    found = report.finish(output)
    leaked = None
    if leaks and found is not None:
        leaked = {
            name: {kind: estimate.as_dict() for kind, estimate in metric.aggregate().items()}
            for name, metric in leaks.items()
        }
        (output / "leak.json").write_text(json.dumps(leaked, indent=1, allow_nan=False) + "\n")
    return Explained(done, unread, found, leaked)


def _configuration(bundle: Path) -> Path:
    if bundle.is_file():
        return bundle
    places = [bundle / "configs" / f"inference.{ending}" for ending in ("yaml", "yml", "json")]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(f"bundle must be a bundle's folder or a configuration file; {places[0]} is not there.")


def _encoded(source: Path, output: Path, model: Model) -> tuple[Iterator[_Case], int]:
    """The codes of a folder's images, made as the bundle's configuration makes them."""
    if "dataset" not in model.config:
        raise ValueError(
            "bundle: its configuration must define dataset, to read images. Explain a store of codes instead."
        )
    model.config["dataset_dir"], model.config["output_dir"] = str(source), str(output)
    try:
        dataset = model.config.get_parsed_content("dataset")
    except RuntimeError as error:
        raise ValueError(str(_first_cause(error))) from None

    def cases() -> Iterator[_Case]:
        device = next(model.network.parameters()).device
        for number in range(len(dataset)):
            item = dataset[number]
            if item.get("problem"):
                yield _Case(number, item["path"], None, problem=item["problem"])
                continue
            image = torch.as_tensor(item["image"]).as_subclass(Tensor)
            with torch.no_grad():
                yield _Case(number, item["path"], model.network.encode(image[None].to(device))[0], image)

    return cases(), len(dataset)


def _stored(source: Path, model: Model) -> tuple[Iterator[_Case], int]:
    store = CodeStore.open(source)
    if store.fingerprint != model.fingerprint:
        there, here = store.codec.config(), model.network.codec.config()
        differing = [key for key in sorted(there | here) if there.get(key) != here.get(key)]
        differing = ["codec"] if "codec" in differing else differing  # two methods share no other argument
        changes = ", ".join(f"{key}: {there.get(key)!r} there, {here.get(key)!r} in the bundle" for key in differing)
        raise ValueError(
            f"{source} holds codes of another codec than the bundle's network was built for "
            f"({changes or 'other learned parameters'}). Privatize the images again with the bundle's, or take the "
            "bundle that was trained on these codes."
        )
    shape = list(model.network.spatial_shape)

    def cases() -> Iterator[_Case]:
        for number, item in enumerate(store):
            if list(item["spatial_shape"]) == shape:
                yield _Case(number, item["id"], item["code"])
            else:
                sizes = ("x".join(map(str, size)) for size in (item["spatial_shape"], shape))
                problem = "the code of a {} image; the network was built for {}".format(*sizes)
                yield _Case(number, item["id"], None, problem=problem)

    return cases(), len(store)


def _first_cause(error: BaseException) -> BaseException:
    """What MONAI's resolver wraps once for each reference."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
