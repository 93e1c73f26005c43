from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, LoadImaged, Zoom
from monai.utils.enums import SpaceKeys
from torch import Tensor, nn

from monai_deepfixcx.transforms import StripMetadata, StripMetadatad, rebuild, strip
from tests.transforms.leaks import Identified

AFFINE = torch.tensor([[0.0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]], dtype=torch.float64)


def named(*shape: int) -> MetaTensor:
    return MetaTensor(
        torch.rand(shape),
        affine=AFFINE.clone(),
        meta={"filename_or_obj": "/data/jane_doe.dcm", "0010|0010": "DOE^JANE"},
        applied_operations=[{"class": "Flip", "extra_info": {"path": "/data/jane_doe.dcm"}}],
    )


class TestStrip:
    @pytest.mark.parametrize(
        "dtype", ["uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "bool"]
    )
    def test_numpy_types_torch_knows_are_kept(self, dtype: str) -> None:
        values = np.arange(24).reshape(1, 4, 6).astype(dtype)
        stripped = strip(values)
        assert stripped.numpy().dtype == values.dtype
        np.testing.assert_array_equal(stripped.numpy(), values)

    @pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", ">i2", ">u2", ">f4", ">f8"])
    def test_other_numpy_types_keep_their_values(self, dtype: str) -> None:
        values = np.array([[0, 1, 65535 if dtype == "uint16" else 99]]).astype(dtype)
        np.testing.assert_array_equal(strip(values).numpy(), values)

    def test_reversed_and_transposed_arrays(self) -> None:
        values = np.arange(24.0).reshape(1, 4, 6)[:, ::-1, :].transpose(0, 2, 1)
        np.testing.assert_array_equal(strip(values).numpy(), values)

    def test_a_memory_map_is_copied_and_its_path_forgotten(self, tmp_path: Path) -> None:
        values = np.memmap(tmp_path / "jane_doe.dat", np.float32, "w+", shape=(1, 4, 4))
        stripped = strip(values)
        values[:] = 1
        assert stripped.sum() == 0

    @pytest.mark.parametrize(
        "values", [torch.rand(1, 4, 4), nn.Parameter(torch.rand(1, 4, 4)), named(1, 4, 4), np.ones((1, 4, 4))]
    )
    def test_the_result_is_a_plain_tensor_with_storage_of_its_own(self, values: Any) -> None:
        before = np.array(torch.as_tensor(values).tolist())
        stripped = strip(values)
        assert type(stripped) is Tensor
        assert not stripped.requires_grad
        stripped.zero_()
        np.testing.assert_array_equal(torch.as_tensor(values).tolist(), before)

    def test_a_view_loses_the_rest_of_the_image(self) -> None:
        assert strip(torch.rand(1, 64, 64)[:, 3:5, ::2]).untyped_storage().nbytes() == 2 * 32 * 4

    def test_the_memory_layout_does_not_show(self) -> None:
        image = torch.rand(1, 4, 6)
        transposed = image.transpose(1, 2).contiguous().transpose(1, 2)
        assert strip(transposed).stride() == strip(image).stride()

    def test_attributes_of_the_tensor_go(self) -> None:
        pixels: Any = torch.rand(1, 4, 4)
        pixels.patient = "DOE^JANE"
        assert vars(strip(pixels)) == {}

    @pytest.mark.parametrize(
        ("values", "got"),
        [
            ("/data/jane_doe.dcm", "str"),
            (Path("/data/jane_doe.dcm"), "PosixPath"),
            ([1.0, 2.0], "list"),
            (np.array(["DOE^JANE"]), "an array of <U8"),
            (np.array([1j]), "an array of complex128"),
        ],
    )
    def test_anything_else_is_refused_without_being_shown(self, values: Any, got: str) -> None:
        with pytest.raises(
            TypeError, match=f"data must be a numeric numpy array or a torch.Tensor; got {got}. Load"
        ) as error:
            strip(values)
        assert "doe" not in str(error.value).lower()

    def test_pending_operations_are_refused(self) -> None:
        pending = Zoom(0.5, lazy=True)(MetaTensor(torch.rand(1, 8, 8)))
        for transform in (strip, StripMetadata()):
            with pytest.raises(ValueError, match="data must have no pending lazy operations"):
                transform(pending)

    def test_compose_applies_pending_operations_first(self) -> None:
        pipeline = Compose([Zoom(0.5, keep_size=False), StripMetadata()], lazy=True)
        stripped = pipeline(MetaTensor(torch.rand(1, 8, 8)))
        assert stripped.shape == (1, 4, 4)
        assert stripped.pending_operations == stripped.applied_operations == []


class TestRebuild:
    def test_only_the_affine_is_kept(self) -> None:
        rebuilt = rebuild(torch.zeros(1, 4, 4), like=named(1, 8, 8))
        assert isinstance(rebuilt, MetaTensor)
        assert sorted(map(str, rebuilt.meta)) == ["affine", "space"]
        assert rebuilt.meta["space"] == SpaceKeys.RAS
        assert rebuilt.applied_operations == []
        assert torch.equal(rebuilt.affine, AFFINE)
        assert rebuilt.pixdim.tolist() == [3, 2]
        assert rebuilt.spatial_ndim == 2

    def test_nothing_of_x_but_its_values_is_kept(self) -> None:
        assert type(rebuild(named(1, 4, 4), like=torch.rand(1, 4, 4))) is Tensor

    def test_untracked(self, untracked: None) -> None:
        assert type(rebuild(torch.zeros(1, 4, 4), like=named(1, 4, 4))) is Tensor

    def test_the_affine_is_a_copy_without_attributes(self) -> None:
        image = named(1, 4, 4)
        carrier: Any = AFFINE.clone()
        carrier.patient = "DOE^JANE"
        image.meta["affine"] = carrier
        rebuilt = rebuild(image, like=image)
        assert isinstance(rebuilt, MetaTensor)
        assert vars(rebuilt.affine) == {}
        rebuilt.affine.zero_()
        assert torch.equal(image.affine, AFFINE)

    def test_an_affine_in_lps_is_turned_to_ras(self, dicom: Identified) -> None:
        ras, lps = (
            LoadImaged("image", ensure_channel_first=True, affine_lps_to_ras=to_ras)({"image": dicom.path})["image"]
            for to_ras in (True, False)
        )
        assert not torch.equal(ras.affine, lps.affine)
        rebuilt = rebuild(lps, like=lps)
        assert isinstance(rebuilt, MetaTensor)
        assert torch.equal(rebuilt.affine, ras.affine)

    @pytest.mark.parametrize("rank", [2, 3])
    def test_the_index_map_comes_before_the_affine(self, rank: int) -> None:
        image = MetaTensor(torch.rand(1, 4, 4), affine=AFFINE[-rank - 1 :, -rank - 1 :])
        index_map = np.array([[2.0, 0, 0.5], [0, 3, 1.5], [0, 0, 1]])
        rebuilt = rebuild(torch.zeros(1, 2, 2), like=image, index_map=index_map)
        assert isinstance(rebuilt, MetaTensor)
        index = np.array([1.0, 1.0])
        inner = (*(index_map[:2, :2] @ index + index_map[:2, 2]), *[0.0] * (rank - 2), 1.0)
        outer = (*index, *[0.0] * (rank - 2), 1.0)
        np.testing.assert_allclose(rebuilt.affine.numpy() @ outer, image.affine.numpy() @ inner)


class TestStripMetadata:
    @pytest.mark.parametrize("shape", [(8,), (8, 8), (1, 8, 8), (2, 8, 8, 8)])
    def test_pixels_and_affine_stay(self, shape: tuple[int, ...]) -> None:
        image = named(*shape)
        stripped = StripMetadata()(image)
        assert isinstance(stripped, MetaTensor)
        assert torch.equal(stripped.as_tensor(), image.as_tensor())
        assert torch.equal(stripped.affine, AFFINE)
        assert set(image.meta) == {"filename_or_obj", "0010|0010", "affine", "space"}, "the input is left alone"

    def test_numpy_becomes_torch(self) -> None:
        assert type(StripMetadata()(np.ones((1, 4, 4)))) is Tensor


class TestDictionaries:
    def test_what_monai_leaves_beside_the_key_goes(self, dicom: Identified, untracked: None) -> None:
        loaded = Compose([LoadImaged("image", image_only=False, ensure_channel_first=True), Flipd("image", 0)])
        item = loaded({"image": dicom.path, "label": 1})
        assert "image_meta_dict" in item
        beside: dict[str, Any] = {"image_orig_meta_dict": {}, "image_transforms": [{"class": "Flip"}]}
        assert set(StripMetadatad("image")({**item, **beside})) == {"image", "label"}

    def test_it_goes_even_where_the_image_is_missing(self) -> None:
        strip_both = StripMetadatad(["image", "prior"], allow_missing_keys=True)
        assert set(strip_both({"image": np.ones((1, 4, 4)), "prior_meta_dict": {"0010|0010": "DOE^JANE"}})) == {"image"}

    def test_other_items_are_the_users_own(self) -> None:
        item = {"image": np.ones((1, 4, 4)), "label_meta_dict": {"a": 1}, "label": 1, 7: "x"}
        result = StripMetadatad("image")(item)
        assert list(result) == list(item)
        assert all(result[key] is item[key] for key in ("label_meta_dict", "label", 7))

    def test_the_item_passed_in_is_left_alone(self) -> None:
        item = {"image": named(1, 4, 4), "image_meta_dict": {}}
        before = dict(item)
        StripMetadatad("image")(item)
        assert item == before

    def test_a_missing_image(self) -> None:
        with pytest.raises(KeyError, match="Key `image` of transform `StripMetadatad` was missing"):
            StripMetadatad("image")({})
        assert StripMetadatad("image", allow_missing_keys=True)({}) == {}

    def test_errors_name_the_key(self) -> None:
        with pytest.raises(TypeError, match=r"^key 'image': data must be a numeric"):
            StripMetadatad(["mask", "image"])({"mask": np.ones((1, 4)), "image": "/data/jane_doe.dcm"})
        with pytest.raises(ValueError, match=r"^key 'image': data must have no pending"):
            StripMetadatad("image")({"image": Zoom(0.5, lazy=True)(MetaTensor(torch.rand(1, 8, 8)))})
