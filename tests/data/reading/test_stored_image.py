"""The rule that scales, against one float32 operation after the other."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_deepfixcx.data.reading.stored_image import LUMA, Floats, StoredImage, scale_image
from tests.data.reading.dicom_files import random_words


def stored_image(values: Floats, **how: Any) -> StoredImage:
    return StoredImage(values, np.eye(4), **{"ends": (-100.0, 4000.0), "full_range": True, **how})


@given(
    seed=st.integers(0, 99),
    low=st.sampled_from([0.0, -100.0, 12.3]),
    width=st.sampled_from([1.0, 255.0, 4095.0, 0.1]),
    inverted=st.booleans(),
    kind=st.sampled_from([np.float32, np.float64]),
)
@settings(deadline=None)
def test_scaling_is_a_difference_a_quotient_and_a_clip(
    seed: int, low: float, width: float, inverted: bool, kind: Any
) -> None:
    values = random_words(seed, (1, 4, 5), np.int16).astype(kind)
    image = stored_image(values.copy(), ends=(low, low + width), inverted=inverted)
    pixels, rule, scaling = scale_image(image, "grey", "auto")
    first, last = (low + width, low) if inverted else (low, low + width)
    assert (rule, scaling) == ("range", (first, last))
    for value, pixel in zip(values.flat, pixels.flat, strict=True):
        unit = (kind(first) - value if inverted else value - kind(first)) / kind(abs(last - first))
        assert np.float32(min(max(unit, 0), 1)) == pixel
    assert not np.signbit(pixels).any()


def test_grey_is_summed_in_the_order_red_green_blue() -> None:
    values = random_words(0, (3, 4, 5), np.uint16).astype(np.float32)
    pixels, _, _ = scale_image(stored_image(values), "grey", "none")
    red, green, blue = (plane * np.float32(weight) for plane, weight in zip(values, LUMA, strict=True))
    np.testing.assert_array_equal(pixels[0], (red + green) + blue)


@pytest.mark.parametrize("scale", ["range", "minmax", "none"])
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("low", [0.0, 7.0])
def test_what_was_decoded_is_left_as_it_is_and_not_shared(scale: Any, inverted: bool, low: float) -> None:
    values = np.array([[[low, 8, 4000]]], np.float32)
    image = stored_image(values.copy(), ends=(low, 4000.0), inverted=inverted, padding=np.array([[True, False, False]]))
    pixels, _, _ = scale_image(image, "keep", scale)
    pixels[:] = 5
    np.testing.assert_array_equal(image.values, values)


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([np.nan, 3, -2, np.inf], (-2, 3)),
        ([np.nan, -np.inf], (0, 0)),
        ([4, 9], (4, 9)),
        ([np.inf, 5], (5, 5)),
    ],
)
def test_the_ends_of_minmax_are_the_finite_ones(values: list[float], ends: tuple[float, float]) -> None:
    image = stored_image(np.array([[values]], np.float32), ends=None)
    assert scale_image(image, "grey", "minmax")[2] == ends
