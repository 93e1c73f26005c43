"""What every transform over a codec does alike, then what is its own."""

import inspect
import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import monai.transforms
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.data.utils import pickle_hashing
from monai.transforms import Compose, Flip, InvertibleTransform
from torch import Tensor

from monai_deepfixcx import transforms
from monai_deepfixcx.codecs import Codec, DeepFixCXCodec, HeartSpotCodec, IdentityCodec
from monai_deepfixcx.transforms import (
    DeepFixCX,
    DeepFixCXd,
    HeartSpot,
    HeartSpotd,
    Reconstruct,
    Reconstructd,
)
from monai_deepfixcx.transforms.privatize import PrivatizingTransform

SIZE = (48, 40)
AFFINE = torch.tensor([[0.0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]], dtype=torch.float64)
PAIRS = ["DeepFixCX", "HeartSpot", "Reconstruct", "StripMetadata"]

# name -> the transform, and the shape of an image it takes
CASES: dict[str, tuple[Callable[..., PrivatizingTransform], tuple[int, ...]]] = {
    "deepfixcx": (lambda **output: DeepFixCX(2, 3, **output), (1, *SIZE)),
    "deepfixcx channels": (
        lambda **output: DeepFixCX(2, (3, 2), in_channels=3, channel_multiplier=2, **output),
        (3, *SIZE),
    ),
    "deepfixcx adaptive": (lambda **output: DeepFixCX(2, 3, adaptive="filters_1d", **output), (2, *SIZE)),
    "deepfixcx volume": (lambda **output: DeepFixCX(1, 2, "coif1", spatial_dims=3, **output), (1, 12, 10, 8)),
    "heartspot": (lambda **output: HeartSpot(spatial_shape=SIZE, **output), (1, *SIZE)),
    "heartspot everything": (lambda **output: HeartSpot("", SIZE, **output), (1, *SIZE)),
    "heartspot sum": (lambda **output: HeartSpot("rhline+median", SIZE, aggregate="sum", **output), (3, *SIZE)),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Callable[..., PrivatizingTransform], Tensor]:
    make, shape = CASES[request.param]
    return make, torch.rand(shape, generator=torch.Generator().manual_seed(3))


Case = tuple[Callable[..., PrivatizingTransform], Tensor]


def with_meta(result: Tensor) -> MetaTensor:
    assert isinstance(result, MetaTensor)
    return result


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


class TestSignatures:
    @pytest.mark.parametrize("name", PAIRS)
    def test_array_and_dictionary_version_take_the_same(self, name: str) -> None:
        of_array = parameters(getattr(transforms, name))
        of_dictionary = parameters(getattr(transforms, f"{name}d"))
        assert next(iter(of_dictionary)) == "keys"
        assert of_dictionary.pop("keys").default is inspect.Parameter.empty
        assert of_dictionary.pop("allow_missing_keys").default is False
        assert list(of_dictionary.values()) == list(of_array.values())

    @pytest.mark.parametrize(("transform", "codec"), [(DeepFixCX, DeepFixCXCodec), (HeartSpot, HeartSpotCodec)])
    def test_transform_and_codec_take_the_same(self, transform: type, codec: type) -> None:
        of_transform = parameters(transform)
        assert of_transform.pop("output").default == "code"
        assert list(of_transform.values()) == list(parameters(codec).values())

    @pytest.mark.parametrize(
        ("transform", "given"),
        [
            (
                DeepFixCX,
                {
                    "levels": 3,
                    "patch_size": [2, 3],
                    "wavelet": "coif2",
                    "features": ["max"],
                    "zero_mean": True,
                    "spatial_dims": 2,
                    "in_channels": 4,
                    "channel_multiplier": 2,
                    "adaptive": "filters_2d",
                    "seed": 9,
                },
            ),
            (
                HeartSpot,
                {
                    "prior": "quadtree+rline+heart",
                    "spatial_shape": [50, 60],
                    "seed": 2,
                    "line_count": 20,
                    "zero_top_fraction": 0.25,
                    "aggregate": "sum",
                    "region": {"polygon": [[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]},
                    "quadtree_threshold": 0.5,
                    "quadtree_criterion": "std",
                },
            ),
        ],
    )
    def test_every_parameter_reaches_the_codec(
        self, transform: type[PrivatizingTransform], given: dict[str, Any]
    ) -> None:
        of_dictionary = getattr(transforms, f"{transform.__name__}d")
        for built in (transform(**given, output="image"), of_dictionary("image", **given, output="image").transform):
            assert built.codec.parameters_config() == given
            assert built.output == "image"

    @pytest.mark.parametrize("name", PAIRS)
    def test_aliases(self, name: str) -> None:
        dictionary = getattr(transforms, f"{name}d")
        assert getattr(transforms, f"{name}D") is getattr(transforms, f"{name}Dict") is dictionary
        assert {name, f"{name}d", f"{name}D", f"{name}Dict"} <= set(transforms.__all__)

    @pytest.mark.parametrize("name", transforms.__all__)
    def test_no_name_is_monais(self, name: str) -> None:
        assert not hasattr(monai.transforms, name)

    @pytest.mark.parametrize("name", [*PAIRS, *(f"{name}d" for name in PAIRS)])
    def test_nothing_is_invertible(self, name: str) -> None:
        cls = getattr(transforms, name)
        assert not issubclass(cls, InvertibleTransform)
        assert not hasattr(cls, "inverse")

    def test_nothing_before_it_can_be_inverted_either(self) -> None:
        pipeline = Compose([Flip(0), DeepFixCX(2, 3, output="image")])
        with pytest.raises(RuntimeError, match="applying transform"):
            pipeline.inverse(pipeline(MetaTensor(torch.rand(1, *SIZE))))


class TestEveryCodecTransform:
    def test_a_code_is_the_codecs_own(self, case: Case) -> None:
        make, image = case
        transform = make()
        with torch.no_grad():
            assert torch.equal(transform(image), transform.codec.encode(image[None])[0])

    def test_an_image_is_the_codecs_own(self, case: Case) -> None:
        make, image = case
        transform = make(output="image")
        with torch.no_grad():
            assert torch.equal(transform(image), transform.codec(image[None])[0])

    def test_a_code_has_its_shape(self, case: Case) -> None:
        make, image = case
        code = make()(image)
        assert code.ndim == 2
        assert code.shape[1] == make().codec.code_length(image.shape[1:])

    @pytest.mark.parametrize("output", ["code", "image"])
    def test_numpy_tensor_and_metatensor_give_the_same(self, case: Case, output: str) -> None:
        make, image = case
        results = [make(output=output)(given) for given in (image, image.numpy(), MetaTensor(image, affine=AFFINE))]
        assert all(torch.equal(torch.as_tensor(result).as_subclass(torch.Tensor), results[0]) for result in results)
        assert [type(result) for result in results] == [Tensor, Tensor, Tensor if output == "code" else MetaTensor]

    @pytest.mark.parametrize("output", ["code", "image"])
    def test_storage_is_its_own_and_no_larger_than_needed(self, case: Case, output: str) -> None:
        make, image = case
        before = image.clone()
        result = make(output=output)(image.requires_grad_())
        assert not result.requires_grad
        assert result.untyped_storage().nbytes() == result.nbytes
        result.zero_()
        assert torch.equal(image, before)

    def test_float64_stays(self, case: Case) -> None:
        make, image = case
        for output in ("code", "image"):
            assert make(output=output)(image.double()).dtype == torch.float64

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "bool"])
    def test_integers_are_read_as_float32(self, case: Case, dtype: str) -> None:
        make, image = case
        values = (image * (1 if dtype == "bool" else 200)).round().numpy().astype(dtype)
        assert torch.equal(make()(values), make()(values.astype(np.float32)))

    @pytest.mark.parametrize("axes", ["missing", "extra"])
    def test_a_wrong_number_of_axes(self, case: Case, axes: str) -> None:
        make, image = case
        wrong = image[0] if axes == "missing" else image[None]
        spatial = "C, D, H, W" if image.ndim == 4 else "C, H, W"
        with pytest.raises(
            ValueError, match=rf"image must have {image.ndim} axes, \[{spatial}\]: channel first"
        ) as error:
            make()(wrong)
        assert str(list(wrong.shape)) in str(error.value)

    def test_an_unknown_output(self, case: Case) -> None:
        make, _ = case
        with pytest.raises(ValueError, match=r"output must be one of code, image(, small_image)?; got 'pixels'"):
            make(output="pixels")

    @pytest.mark.parametrize("output", ["code", "image"])
    def test_pickling_and_copying(self, case: Case, output: str) -> None:
        make, image = case
        transform = make(output=output)
        for again in (pickle.loads(pickle.dumps(transform)), deepcopy(transform)):
            assert again.codec.fingerprint() == transform.codec.fingerprint()
            assert torch.equal(again(image), transform(image))

    def test_one_configuration_has_one_pickle(self, case: Case) -> None:
        make, image = case
        used, fresh = make(), make()
        used(image)
        assert pickle_hashing([used]) == pickle_hashing([fresh]) != pickle_hashing([make(output="image")])

    def test_the_metadata_of_an_image(self, case: Case) -> None:
        make, image = case
        result = with_meta(make(output="image")(MetaTensor(image, affine=AFFINE, meta={"patient": "DOE^JANE"})))
        assert sorted(map(str, result.meta)) == ["affine", "space"]
        assert result.applied_operations == []

    def test_untracked(self, case: Case, untracked: None) -> None:
        make, image = case
        assert type(make(output="image")(MetaTensor(image, affine=AFFINE))) is Tensor

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    @pytest.mark.parametrize("output", ["code", "image"])
    def test_cuda(self, case: Case, output: str) -> None:
        make, image = case
        result = make(output=output)(image.cuda())
        assert result.is_cuda
        torch.testing.assert_close(result.cpu(), make(output=output)(image))


def test_learned_weights_are_pickled() -> None:
    transform = DeepFixCX(2, 3, adaptive="filters_1d")
    transform.codec.double()
    with torch.no_grad():
        transform.codec.analysis.filters.mul_(1 / 3)  # no float32
    again = pickle.loads(pickle.dumps(transform))
    fresh = DeepFixCX(2, 3, adaptive="filters_1d")
    assert again.codec.analysis.filters.requires_grad
    assert again.codec.fingerprint() == transform.codec.fingerprint() != fresh.codec.fingerprint()
    assert pickle_hashing([again]) != pickle_hashing([fresh])


class CornerCodec(IdentityCodec):
    """Its code is one pixel, and a view of all of them."""

    def _encode(self, images: Tensor) -> Tensor:
        return images.flatten(2)[..., :1]


def test_a_code_that_is_a_view_is_cut_loose() -> None:
    code = PrivatizingTransform(CornerCodec(), "code")(torch.rand(1, *SIZE))
    assert code.shape == (1, 1)
    assert code.untyped_storage().nbytes() == code.nbytes


class TestGeometry:
    @pytest.mark.parametrize("output", ["image", "small_image"])
    def test_sizes_that_the_grid_divides_need_no_shift(self, output: Any) -> None:
        image = MetaTensor(torch.rand(1, 64, 32), affine=AFFINE)
        result = with_meta(DeepFixCX(2, 4, output=output)(image))
        factors = [64 / result.shape[1], 32 / result.shape[2]]
        assert result.pixdim.tolist() == [3 * factors[0], 2 * factors[1]]
        # The outer corner of the first pixel stays where it is.
        corner = torch.tensor([-0.5, -0.5, 0, 1], dtype=torch.float64)
        assert torch.allclose(result.affine @ corner, AFFINE @ corner)

    @pytest.mark.parametrize("output", ["image", "small_image"])
    @pytest.mark.parametrize("wavelet", ["db1", "coif1"])
    @pytest.mark.parametrize(
        ("size", "levels", "patch_size"), [(64, 2, 4), (75, 3, 4), (60, 2, 7), (75, 2, 3), (91, 1, 5)]
    )
    def test_what_is_decoded_lies_where_it_was(
        self, output: Any, wavelet: str, size: int, levels: int, patch_size: int
    ) -> None:
        """A bright line, moved across the image, is on average where the affine says it is."""
        transform = DeepFixCX(levels, patch_size, wavelet, features=["sum"], output=output)
        lines = torch.eye(size)[:, :, None].expand(size, size, size)  # a channel for every line
        result = with_meta(transform(MetaTensor(lines, affine=AFFINE)))
        brightness = result.as_tensor().double().sum(2).abs()
        centres = (brightness @ torch.arange(brightness.shape[1]).double()) / brightness.sum(1)
        where = result.affine[1, 0] * centres + result.affine[1, 3]
        lay = AFFINE[1, 0] * torch.arange(size) + AFFINE[1, 3]
        inner = slice(size // 4, size - size // 4)
        pixels_off = float((where - lay)[inner].mean() / AFFINE[1, 0])
        assert abs(pixels_off) < size / patch_size / 8

    def test_volumes(self) -> None:
        image = MetaTensor(torch.rand(1, 16, 16, 8), affine=AFFINE)
        result = with_meta(DeepFixCX(1, 2, spatial_dims=3, output="small_image")(image))
        assert result.shape == (1, 4, 4, 4)
        assert result.pixdim.tolist() == [12, 8, 8]

    def test_heartspot_keeps_the_affine(self) -> None:
        result = HeartSpot("median", SIZE, output="image")(MetaTensor(torch.rand(1, *SIZE), affine=AFFINE))
        result = with_meta(result)
        assert torch.equal(result.affine, AFFINE)


class TestDictionaries:
    def test_the_codec_is_at_hand(self) -> None:
        assert DeepFixCXd("image", 2, 3).codec.fingerprint() == DeepFixCXCodec(2, 3).fingerprint()
        assert HeartSpotd("image").codec.fingerprint() == HeartSpotCodec().fingerprint()
        assert Reconstructd("code", IdentityCodec(), SIZE).codec.name == "identity"

    def test_every_key_is_privatized(self) -> None:
        images = {"frontal": torch.rand(1, *SIZE), "lateral": torch.rand(1, *SIZE)}
        result = DeepFixCXd(["frontal", "lateral"], 2, 3)({**images, "label": 1})
        for key, image in images.items():
            assert torch.equal(result[key], DeepFixCX(2, 3)(image))
        assert result["label"] == 1

    @pytest.mark.parametrize("make", [DeepFixCXd, HeartSpotd], ids=["deepfixcx", "heartspot"])
    def test_errors_name_the_key(self, make: Callable[..., Any]) -> None:
        arguments = (2, 3) if make is DeepFixCXd else ("rhline", SIZE)
        with pytest.raises(ValueError, match=r"^key 'image': image must have 3 axes"):
            make("image", *arguments)({"image": torch.rand(SIZE)})
        with pytest.raises(ValueError, match=r"^key 'image': (patch_size must be at most|images must be 48x40)"):
            make("image", *arguments)({"image": torch.rand(1, 3, 3)})

    def test_from_a_bundle_configuration(self) -> None:
        config = {
            "privatize": {
                "_target_": "monai_deepfixcx.transforms.DeepFixCXd",
                "keys": "image",
                "levels": 2,
                "patch_size": 3,
            },
            "reconstruct": {
                "_target_": "monai_deepfixcx.transforms.Reconstructd",
                "keys": "image",
                "codec": {"codec": "deepfixcx", "levels": 2, "patch_size": 3},
                "spatial_shape": [48, 40],
            },
        }
        parser = ConfigParser(config)
        pipeline = Compose([parser.get_parsed_content("privatize"), parser.get_parsed_content("reconstruct")])
        image = torch.rand(1, *SIZE)
        assert torch.equal(pipeline({"image": image})["image"], DeepFixCX(2, 3, output="image")(image))


class TestReconstruct:
    def test_it_draws_what_the_image_output_draws(self, case: Case) -> None:
        make, image = case
        transform = make()
        reconstruct = Reconstruct(transform.codec, image.shape[1:])
        drawn = reconstruct(transform(image))
        assert type(drawn) is Tensor
        assert torch.equal(drawn, make(output="image")(image))
        assert drawn.untyped_storage().nbytes() == drawn.nbytes

    def test_the_small_image(self) -> None:
        image = torch.rand(1, *SIZE)
        small = Reconstruct(DeepFixCXCodec(2, 3), SIZE, restore_size=False)(DeepFixCX(2, 3)(image))
        assert torch.equal(small, DeepFixCX(2, 3, output="small_image")(image))

    def test_codec_or_configuration(self) -> None:
        codec = HeartSpotCodec("hline+heart", SIZE)
        code = codec.encode(torch.rand(1, 2, *SIZE))[0]
        assert torch.equal(Reconstruct(codec, SIZE)(code), Reconstruct(codec.config(), list(SIZE))(code))

    def test_the_codec_is_copied(self) -> None:
        codec = DeepFixCXCodec(2, 3, adaptive="filters_1d")
        assert Reconstruct(codec, SIZE).codec is not codec

    @pytest.mark.parametrize("codec", [IdentityCodec(), HeartSpotCodec("", SIZE)])
    def test_an_image_shares_nothing_with_its_code(self, codec: Codec) -> None:
        code = torch.rand(1, codec.code_length(SIZE))
        drawn = Reconstruct(codec, SIZE)(code)
        assert torch.equal(drawn.flatten(), code.flatten())
        drawn.zero_()
        assert code.any()

    def test_numpy_and_metatensor_codes(self) -> None:
        reconstruct = Reconstruct(DeepFixCXCodec(2, 3), SIZE)
        code = torch.rand(1, reconstruct.code_length)
        for given in (code.numpy(), MetaTensor(code, meta={"patient": "DOE^JANE"})):
            drawn = reconstruct(given)
            assert type(drawn) is Tensor
            assert torch.equal(drawn, reconstruct(code))

    @pytest.mark.parametrize("shape", [(144,), (1, 143), (1, 1, 144)])
    def test_a_wrong_code(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=r"^key 'code': code must have shape \[C, 144\] for 48x40 images; got \["):
            Reconstructd("code", DeepFixCXCodec(2, 3), SIZE)({"code": torch.rand(shape)})

    def test_an_impossible_spatial_shape(self) -> None:
        with pytest.raises(ValueError, match="patch_size must be at most"):
            Reconstruct(DeepFixCXCodec(2, 3), (4, 4))

    def test_an_unknown_codec(self) -> None:
        with pytest.raises(ValueError, match="codec must be one of"):
            Reconstruct({"codec": "zip"}, SIZE)
