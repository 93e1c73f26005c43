"""Write the golden arrays of tests/golden from the reference: `python -m tests.make_golden`.

Laid out as the shared golden data are: a JSON list under `cases.json`, and arrays under NAME/... per case.
Inputs are not stored; they follow from a case's seed and shape. Two runs write the same bytes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests import reference as ref

FOLDER = Path(__file__).parent / "golden"
Arrays = dict[str, NDArray[Any]]
Case = dict[str, Any]

# name, shape, J, P, wavelet, features
DEEPFIXCX = [
    ("db1_one_level", (2, 1, 32, 32), 1, 5, "db1", ["l1"]),
    ("haar_grid_per_axis", (1, 3, 32, 40), 2, (3, 5), "haar", ["l1"]),
    ("db2_odd", (1, 1, 43, 37), 2, 4, "db2", ["l2"]),
    ("db4_sum", (1, 1, 40, 48), 3, 3, "db4", ["sum"]),
    ("sym4", (1, 1, 44, 44), 2, 4, "sym4", ["l1"]),
    ("coif1_batch", (2, 1, 36, 36), 3, 3, "coif1", ["l1"]),
    ("bior2.2", (1, 1, 48, 40), 3, 3, "bior2.2", ["sum"]),
    ("rbio3.1_max", (1, 1, 40, 40), 2, 5, "rbio3.1", ["max"]),
    ("dmey_median", (1, 1, 48, 48), 1, 6, "dmey", ["median"]),
    ("all_features_odd", (1, 2, 37, 43), 2, 3, "db1", list(ref.FEATURES)),
    ("zero_mean", (1, 2, 32, 32), 4, (1, 2), "db1", ["l1"]),
    ("nothing_pooled", (1, 1, 32, 32), 2, 8, "db1", ["sum"]),
    ("sum_neg", (1, 1, 33, 41), 2, (2, 3), "db2", ["sum_neg"]),
    ("volume", (1, 1, 12, 16, 13), 2, 2, "db1", ["l1"]),
    ("volume_db2", (1, 2, 12, 10, 11), 1, (2, 3, 2), "db2", ["sum_pos"]),
]
ZERO_MEAN = {"zero_mean", "volume_db2"}

MASK_SHAPES = [(320, 320), (160, 200), (97, 131)]
# Every prior at every shape with seed 1; these three, from which the rest follow, with seeds 2 and 3 too.
PRIORS = ["hline", "rline", "rhline", "heart", "hline+heart", "rline+heart", "rhline+heart", "median"]
PRIORS += ["median+hline", "median+rline", "median+heart", "median+rhline+heart"]
SEEDED_PRIORS = {"rline", "rhline+heart", "median+rhline+heart"}

HEARTSPOT_VALUES: list[Case] = [
    {"kind": "median_pool", "shape": (48, 40), "kernel": 12, "stride": 2},
    {"kind": "quadtree", "shape": (60, 64), "criterion": "entropy", "threshold": 6.0},
    {"kind": "quadtree", "shape": (47, 33), "criterion": "entropy", "threshold": 12.0},
    {"kind": "quadtree", "shape": (60, 64), "criterion": "std", "threshold": 0.16},
    {"kind": "sum_aggregate", "shape": (97, 131), "prior": "rhline+heart"},
    {"kind": "quantile_pool", "shape": (40, 48), "kernel": 24, "stride": 1, "q": 0.9},
    {"kind": "pixels", "shape": (61, 75), "prior": "rline+heart"},
    {"kind": "pixels", "shape": (96, 130), "prior": "median+rhline+heart"},
]


def deepfixcx_cases() -> Iterator[Case]:
    """Yield what names each DeepFixCX case: name, seed, shape, J, P, wavelet, features, zero_mean."""
    for seed, (name, shape, levels, grid, wavelet, features) in enumerate(DEEPFIXCX, start=100):
        case = {"name": name, "seed": seed, "shape": shape, "J": levels, "P": grid, "wavelet": wavelet}
        yield {**case, "features": features, "zero_mean": name in ZERO_MEAN}


def heartspot_cases() -> Iterator[Case]:
    """Yield what names each HeartSpot case: name, kind, shape (H, W), seed and the kind's own arguments."""
    for shape in MASK_SHAPES:
        for prior in PRIORS:
            for seed in (1, 2, 3) if prior in SEEDED_PRIORS else (1,):
                name = f"{prior}_{shape[0]}x{shape[1]}_seed{seed}"
                yield {"name": name, "kind": "mask", "prior": prior, "shape": shape, "seed": seed}
    top = {"kind": "mask", "prior": "rhline", "shape": (97, 131), "seed": 1, "zero_top_fraction": 0.4}
    yield {"name": "rhline_zero_top", **top}
    few = {"kind": "mask", "prior": "rline", "shape": (97, 131), "seed": 1, "line_count": 20}
    yield {"name": "rline_few", **few}
    for seed, case in enumerate(HEARTSPOT_VALUES, start=200):
        yield {"name": f"{case['kind']}_{seed}", "seed": seed, **case}


def heartspot_input(case: Case) -> ref.Array:
    """Return the `[H, W]` input of a HeartSpot case other than a mask.

    A quadtree's has its top left quarter rounded to quarters, so that it holds both smooth and noisy blocks;
    a quantile pool's keeps every seventh row, as a scattered attribution would.
    """
    height, width = case["shape"]
    x: ref.Array = ref.golden_image(case["seed"], (1, 1, height, width))[0, 0].astype(np.float64)
    if case["kind"] == "quadtree":
        x[: height // 2, : width // 2] = np.round(4 * x[: height // 2, : width // 2]) / 4
    if case["kind"] == "quantile_pool":
        x[np.arange(height) % 7 != 0] = 0.0
    return x


def heartspot_value(case: Case) -> ref.Array:
    """Return the reference's answer to a HeartSpot case other than a mask."""
    x = heartspot_input(case)
    match case["kind"]:
        case "median_pool":
            return ref.median_pool(x, case["kernel"], case["stride"])
        case "quadtree":
            return ref.quadtree(x, case["threshold"], case["criterion"])
        case "quantile_pool":
            return ref.quantile_pool(x, case["kernel"], case["stride"], case["q"])
    # Lines of the published seed; the case's seed is the image's.
    mask = ref.heartspot_mask(case["prior"], case["shape"])
    if case["kind"] == "sum_aggregate":
        return ref.sum_aggregate(np.where(mask, x, 0.0))
    return (ref.median_pool(x) if "median" in case["prior"] else x)[mask]


def with_cases(cases: list[Case], arrays: Arrays) -> Arrays:
    """Return the arrays with the cases' JSON beside them, as bytes."""
    return {"cases.json": np.frombuffer(json.dumps(cases).encode(), dtype=np.uint8), **arrays}


def deepfixcx_arrays() -> Arrays:
    """Return NAME/z, the codes; where one feature is pooled also NAME/rec_full and NAME/rec_small. Float32."""
    arrays: Arrays = {}
    cases = list(deepfixcx_cases())
    for case in cases:
        options = (case["J"], case["P"], case["wavelet"])
        images = ref.golden_image(case["seed"], case["shape"])
        channels = [channel.astype(np.float64) for item in images for channel in item]
        codes = [ref.encode(x, *options, case["features"], case["zero_mean"]) for x in channels]
        found = {"z": codes}
        if len(case["features"]) == 1:
            size = case["shape"][2:]
            found["rec_full"] = [ref.decode(code, size, *options) for code in codes]
            found["rec_small"] = [ref.decode(code, size, *options, restore_size=False) for code in codes]
        for key, results in found.items():
            batch = np.reshape(results, (*case["shape"][:2], *results[0].shape))
            arrays[f"{case['name']}/{key}"] = batch.astype(np.float32)
    return with_cases(cases, arrays)


def heartspot_arrays() -> Arrays:
    """Return NAME/mask, the packed bits, its shape being the case's `grid`, or NAME/value, float32."""
    arrays: Arrays = {}
    cases = list(heartspot_cases())
    for case in cases:
        name = case["name"]
        if case["kind"] == "mask":
            options = {k: v for k, v in case.items() if k not in {"name", "kind"}}
            mask = ref.heartspot_mask(**options)
            arrays[f"{name}/mask"] = np.packbits(mask)
            case["grid"] = mask.shape
        else:
            arrays[f"{name}/value"] = heartspot_value(case).astype(np.float32)
    return with_cases(cases, arrays)


def main() -> None:
    """Write both files."""
    FOLDER.mkdir(exist_ok=True)
    # savez stamps its members 1980-01-01, so the bytes depend on the arrays alone (and on zlib's version).
    np.savez_compressed(FOLDER / "deepfixcx.npz", **deepfixcx_arrays())  # type: ignore[arg-type]
    np.savez_compressed(FOLDER / "heartspot.npz", **heartspot_arrays())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
