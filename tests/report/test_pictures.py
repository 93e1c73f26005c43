import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from monai_deepfixcx.attacks.reconstruction import LinearMMSE
from monai_deepfixcx.codecs import DeepFixCXCodec, IdentityCodec
from monai_deepfixcx.report import Gallery, draw_pictures
from monai_deepfixcx.report.pictures import draw_originals, draw_settings, png


def pixels(uri: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))))


def people(seed: int, names: str) -> dict[str, Any]:
    images = torch.rand((len(names), 1, 16, 16), generator=torch.Generator().manual_seed(seed))
    return {"images": images, "patients": list(names)}


def test_png_is_the_image() -> None:
    image = torch.rand(1, 5, 7)
    assert (pixels(png(image)) == (image[0] * 255).round().byte().numpy()).all()
    assert pixels(png(torch.rand(3, 5, 7))).shape == (5, 7, 3)


def test_png_of_a_volume_is_its_middle_slice() -> None:
    volume = torch.zeros(1, 4, 6, 5)
    volume[0, 3, 0, 2] = 1.0  # x = 3, y = 0: right, at the bottom
    shown = pixels(png(volume))
    assert shown.shape == (6, 4)
    assert shown[-1, 3] == 255
    assert shown.sum() == 255


def test_values_outside_the_range_are_clipped() -> None:
    image: Tensor = torch.tensor([[[-1.0, 2.0]]])
    assert pixels(png(image)).tolist() == [[0, 255]]


def test_one_picture_a_patient() -> None:
    gallery = Gallery(people(0, "aabb"), people(1, "ccdd"), "", synthetic=True)
    assert len(draw_originals(gallery)) == 2
    drawn = draw_pictures(gallery, IdentityCodec(), LinearMMSE())
    assert {kind: len(uris) for kind, uris in drawn.items()} == {"privatized": 2, "attacked": 2}
    assert drawn["privatized"] == draw_originals(gallery)  # the identity privatizes nothing


def test_codes_that_cannot_be_decoded_are_not_drawn() -> None:
    gallery = Gallery(people(0, "aabb"), people(1, "ccdd"), "", synthetic=True)
    drawn = draw_pictures(gallery, DeepFixCXCodec(1, 2, features=["l1", "max"]), LinearMMSE())
    assert drawn["privatized"] == []
    assert len(drawn["attacked"]) == 2


@pytest.mark.parametrize("synthetic", [True, False])
def test_victims_are_refused(synthetic: bool) -> None:
    gallery = Gallery(people(0, "aabb"), people(1, "ccdd"), "", synthetic)
    gallery.refuse(["e", "f"])
    for victim in "ad":
        with pytest.raises(ValueError, match="pictures must show no victim; 1 victims are among"):
            gallery.refuse(["e", victim])


def test_who_is_pictured_is_not_learnt_from() -> None:
    gallery = Gallery(people(0, "aabb"), people(1, "aadd"), "", synthetic=True)
    with pytest.raises(ValueError, match="must be different patients"):
        draw_pictures(gallery, IdentityCodec(), LinearMMSE())


def test_drawing_of_settings_is_a_picture() -> None:
    shown = pixels(draw_settings(DeepFixCXCodec(2, 4), (1, 64, 64)))
    assert min(shown.shape[:2]) > 200
