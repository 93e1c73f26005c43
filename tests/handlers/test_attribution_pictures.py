"""The pictures that the attribution handler draws."""

from typing import Any

import numpy as np
import torch

from monai_deepfixcx.handlers.attribution_pictures import Shown, case_figure, cohort_figure, flat


def shown(**change: Any) -> Shown:
    parts: dict[str, Any] = {
        "title": "case 7",
        "image": torch.rand(16, 20),
        "attribution": torch.randn(16, 20),
        "spatial": torch.randn(2, 2),
        "edges": (0.0, 16.0, 0.0, 20.0),
        "subbands": torch.randn(4, 4),
        "region": torch.zeros(16, 20, dtype=torch.bool),
        "size": (16, 20),
        "units": ("logit per pixel", "logit per patch", "logit per subband"),
    }
    return Shown(**{**parts, **change})


def test_every_panel_has_a_scale_with_a_unit_centred_at_zero() -> None:
    figure = case_figure(shown())
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert [label for label in labels if label.startswith("logit")] == list(shown().units)
    bars = [axes for axes in figure.axes if axes.get_xlabel().startswith("logit")]
    for bar in bars:
        low, high = bar.get_xlim()
        assert low == -high


def test_a_cohorts_rows_share_their_scale() -> None:
    small, large = shown(image=None, spatial=torch.ones(2, 2)), shown(image=None, spatial=9 * torch.ones(2, 2))
    figure = cohort_figure({"all": small, "positive": large}, "means")
    bars = [axes.get_xlim() for axes in figure.axes if axes.get_xlabel() == "logit per patch"]
    assert bars == [(-9.0, 9.0)] * 2


def test_a_volume_is_drawn_by_its_middle_slice_with_x_to_the_right_and_y_up() -> None:
    volume = torch.arange(2 * 3 * 4).reshape(2, 3, 4).float()
    assert flat(volume).tolist() == volume[:, :, 2].T.flip(0).tolist()
    assert flat(volume, total=True).tolist() == volume.sum(2).T.flip(0).tolist()
    # Frequencies, which have no up and down, begin at the top left.
    figure = case_figure(shown(subbands=torch.arange(8).reshape(2, 2, 2).float()))
    (axes,) = [axes for axes in figure.axes if axes.get_ylabel() == "down a column"]
    assert np.asarray(axes.images[0].get_array()).tolist() == [[1, 9], [5, 13]]
