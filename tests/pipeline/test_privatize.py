"""`deepfixcx privatize`: the main job on good, bad and mixed folders."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

from monai_deepfixcx.codecs import DeepFixCXCodec, HeartSpotCodec
from monai_deepfixcx.data.code_store import CodeStore
from monai_deepfixcx.data.reading import read_image
from monai_deepfixcx.pipeline import privatize as pipeline
from monai_deepfixcx.pipeline.encode import crop_to_square
from monai_deepfixcx.pipeline.workspace import Workspace
from tests.pipeline.conftest import BAD, GOOD, Run, write_picture

SMALL = ("--levels", 2, "--patch-size", 3, "--workers", 0)
CODEC = DeepFixCXCodec(2, 3)
NIH = Path(__file__).parents[3] / "shared" / "data" / "nih1000"


def read_quarantine(output: Path) -> dict[str, str]:
    with (output.with_name(output.name + "-private") / "quarantine.csv").open() as file:
        return {row["source"]: row["reason"] for row in csv.DictReader(file)}


def codes_of(output: Path) -> dict[str, torch.Tensor]:
    return {item["id"]: item["code"] for item in CodeStore(output)}


def test_good_files_become_codes_and_bad_ones_a_reason(mixed: Path, tmp_path: Path, run: Run) -> None:
    status, out, _ = run("privatize", mixed, tmp_path / "out", *SMALL)
    assert status == 3
    codes, workspace = codes_of(tmp_path / "out"), Workspace.reopen(tmp_path / "out")
    assert set(codes) == {workspace.pseudonym(name) for name in GOOD}
    for name in GOOD:
        expected = CODEC.encode(torch.from_numpy(read_image(mixed / name).pixels)[None])[0]
        torch.testing.assert_close(codes[workspace.pseudonym(name)], expected)
    reasons = read_quarantine(tmp_path / "out")
    assert reasons.keys() == BAD.keys()
    for name, reason in BAD.items():
        assert reason in reasons[name]
        assert "\n" not in reasons[name]
        assert f"quarantined  {name}: " in out
    assert "done now" in out
    assert "pixels kept" in out
    assert "on disk" in out


def test_the_table_counts_what_there_is(mixed: Path, tmp_path: Path, run: Run) -> None:
    _, out, _ = run("privatize", mixed, tmp_path / "out", *SMALL)
    pixels, values = 3 * 64 * 72 + 80 * 64, 4 * 144
    lines = {line[:13].strip(): line[13:].strip() for line in out.splitlines()}
    assert lines["done now"] == "4"
    assert lines["quarantined"] == "7"
    assert lines["pixels kept"] == f"{100 * values / pixels:.3g} % ({values} of {pixels:,})"
    assert lines["in memory"] == f"{pixels / values:,.1f} times smaller (float32)"


def test_a_second_run_goes_on_where_the_first_stopped(mixed: Path, tmp_path: Path, run: Run) -> None:
    run("privatize", mixed, tmp_path / "out", *SMALL)
    before = codes_of(tmp_path / "out")
    write_picture(mixed / "new.png", 11)
    write_picture(mixed / "cut.png", 4)  # exported again, whole this time
    status, out, _ = run("privatize", mixed, tmp_path / "out", *SMALL)
    assert status == 3
    assert "4 files were done by an earlier run" in out
    after = codes_of(tmp_path / "out")
    assert len(after) == len(before) + 2
    assert all(torch.equal(after[name], code) for name, code in before.items())
    assert read_quarantine(tmp_path / "out").keys() == BAD.keys() - {"cut.png"}


def test_nothing_quarantined_is_status_zero(mixed: Path, tmp_path: Path, run: Run) -> None:
    for name in BAD:
        (mixed / name).unlink()
    assert run("privatize", mixed, tmp_path / "out", *SMALL)[0] == 0
    assert run("privatize", mixed, tmp_path / "out", *SMALL)[0] == 0
    assert run("verify", tmp_path / "out")[:2] == (0, "1 shards with 4 codes are as they were written.\n")


def test_a_changed_configuration_does_not_mix(mixed: Path, tmp_path: Path, run: Run) -> None:
    run("privatize", mixed, tmp_path / "out", *SMALL)
    status, _, err = run("privatize", mixed, tmp_path / "out", "--levels", 3, "--patch-size", 3, "--workers", 0)
    assert status == 2
    assert err.count("\n") == 1
    assert "holds codes of another configuration (levels: 2 there, 3 now)" in err


def test_same_input_and_config_are_the_same_bytes_in_any_process(mixed: Path, tmp_path: Path, run: Run) -> None:
    outputs = [tmp_path / name for name in ("first", "second")]
    run("privatize", mixed, outputs[0], *SMALL[:-1], 0)
    outputs[1].with_name("second-private").mkdir()
    key = (tmp_path / "first-private" / "site.key").read_bytes()
    (tmp_path / "second-private" / "site.key").write_bytes(key)
    run("privatize", mixed, outputs[1], *SMALL[:-1], 2)
    files = sorted(path.relative_to(outputs[0]) for path in outputs[0].rglob("*") if path.is_file())
    assert len(files) == 4
    for name in files:
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes(), name


def test_n_jobs_share_a_run(mixed: Path, tmp_path: Path, run: Run) -> None:
    run("privatize", mixed, tmp_path / "whole", *SMALL)
    whole = Workspace.reopen(tmp_path / "whole")
    for part in ("1/3", "2/3", "3/3"):
        assert run("privatize", mixed, tmp_path / "out", *SMALL, "--shard", part)[0] in (0, 3)
    codes, shared = codes_of(tmp_path / "out"), Workspace.reopen(tmp_path / "out")
    assert set(codes) == {shared.pseudonym(name) for name in GOOD}
    for name in GOOD:
        assert torch.equal(codes[shared.pseudonym(name)], codes_of(tmp_path / "whole")[whole.pseudonym(name)])
    assert read_quarantine(tmp_path / "out").keys() == BAD.keys()


def test_a_killed_run_loses_and_doubles_nothing(tmp_path: Path, run: Run) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    for number in range(3 * 256):
        write_picture(source / f"{number}.png", number, (96, 96))
    command = [sys.executable, "-c", "from monai_deepfixcx.cli import main; main()"]
    arguments = ["privatize", str(source), str(output), *map(str, SMALL)]
    job = subprocess.Popen(command + arguments, stdout=subprocess.DEVNULL, start_new_session=True)
    while not list(output.glob("shards/*.done.json")) and job.poll() is None:
        time.sleep(0.005)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    done = len(CodeStore(output))
    assert 0 < done < 768
    status, out, _ = run("privatize", source, output, *SMALL)
    assert status == 0
    assert f"{done} files were done by an earlier run" in out
    ids = [row["id"] for row in CodeStore(output).rows]
    assert len(ids) == len(set(ids)) == 768
    assert CodeStore(output).verify() == []


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_is_one_line_and_can_be_resumed(mixed: Path, tmp_path: Path, run: Run, workers: int) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))"
    script = f"from monai_deepfixcx.cli import main; {limit}; main()"
    large = ("privatize", mixed, tmp_path / "out", "--levels", 2, "--patch-size", 9, "--workers")
    code = [sys.executable, "-c", f"if __name__ == '__main__':\n    {script}"]
    full = subprocess.run([*code, *map(str, large), str(workers)], capture_output=True, text=True)
    assert full.returncode == 1
    assert full.stderr.count("\n") == 1
    assert "File too large. What is finished is safe; make room and run the same command again" in full.stderr
    assert len(CodeStore(tmp_path / "out")) == 0
    assert run(*large, 0)[0] == 3
    assert len(CodeStore(tmp_path / "out")) == len(GOOD)


def test_no_identifier_and_no_original_pixel_reaches_the_output(tmp_path: Path, run: Run) -> None:
    secrets = ["Mustermann", "PID-4711", "19570302", "ACC-998877", "Sankt-Anna", "1.2.826.0.1.3680043.8.498.77"]
    source = tmp_path / "in" / "Mustermann-Erika" / "PID-4711"
    source.mkdir(parents=True)
    dataset = pydicom.dcmread(str(get_testdata_file("RG1_UNCR.dcm", download=False)))
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Mustermann^Erika", "PID-4711", "19570302"
    dataset.AccessionNumber, dataset.InstitutionName = "ACC-998877", "Sankt-Anna"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(secrets[-1])
    dataset.save_as(source / "thorax.dcm")
    dataset.save_as(source / "broken.dcm")
    (source / "broken.dcm").write_bytes((source / "broken.dcm").read_bytes()[:100_000])
    original = dataset.pixel_array.astype(np.uint16)
    haystacks = {"the input": (source / "thorax.dcm").read_bytes()}
    status, out, err = run("privatize", tmp_path / "in", tmp_path / "out", "--images", "--workers", 0)
    assert status == 3
    for path in (tmp_path / "out").rglob("*"):
        haystacks[str(path)] = path.relative_to(tmp_path / "out").as_posix().encode()
        if path.is_file():
            haystacks[str(path)] += path.read_bytes()
    # What is found by path is told to the person at the terminal, who has to find the file; never what is in it.
    haystacks["terminal"] = (out + err).replace("Mustermann-Erika/PID-4711/broken.dcm", "").encode()
    needles = [secret.encode() for secret in secrets]
    row = original[900, 800:816]
    needles += [row.astype(kind).tobytes() for kind in ("<u2", "<f4", "<f8")]
    needles += [(row / 32767).astype(kind).tobytes() for kind in ("<f4", "<f8")]
    needles += [(1 - row / 32767).astype(kind).tobytes() for kind in ("<f4", "<f8")]
    assert sum(needle in haystacks["the input"] for needle in needles) >= len(secrets), "the search finds what is there"
    del haystacks["the input"]
    assert len(haystacks) >= 6
    for name, haystack in haystacks.items():
        for needle in needles:
            assert needle not in haystack, name


def test_the_private_folder_is_for_its_owner_only(mixed: Path, tmp_path: Path, run: Run) -> None:
    run("privatize", mixed, tmp_path / "out", *SMALL)
    private = tmp_path / "out-private"
    assert private.stat().st_mode & 0o777 == 0o700
    assert (private / "site.key").stat().st_mode & 0o777 == 0o600
    assert len((private / "site.key").read_text()) == 64


def test_codes_in_a_store_are_not_in_the_order_of_the_folders(tmp_path: Path, run: Run) -> None:
    for number in range(12):
        write_picture(tmp_path / "in" / f"{number:02}.png", number)
    run("privatize", tmp_path / "in", tmp_path / "out", *SMALL)
    workspace = Workspace.reopen(tmp_path / "out")
    in_folder = [workspace.pseudonym(f"{number:02}.png") for number in range(12)]
    in_store = [row["id"] for row in CodeStore(tmp_path / "out").rows]
    assert in_store == sorted(in_folder)
    assert in_store != in_folder


def test_privatized_images_are_what_the_codes_show(mixed: Path, tmp_path: Path, run: Run) -> None:
    run("privatize", mixed, tmp_path / "out", *SMALL, "--images")
    store = CodeStore(tmp_path / "out")
    assert len(list((tmp_path / "out" / "images").iterdir())) == len(GOOD)
    for item in store:
        shown = CODEC.decode(item["code"][None], item["spatial_shape"])[0, 0].clamp(0, 1)
        picture = np.asarray(Image.open(tmp_path / "out" / "images" / f"{item['id']}.png"))
        np.testing.assert_allclose(picture / 255, shown, atol=0.5 / 255 + 1e-6)


def test_volumes_need_three_dimensions(mixed: Path, tmp_path: Path, run: Run) -> None:
    status, _, _ = run("privatize", mixed, tmp_path / "out", *SMALL, "--spatial-dims", 3, "--images")
    assert status == 3
    (item,) = CodeStore(tmp_path / "out")
    assert item["spatial_shape"] == [12, 14, 10]
    codec = DeepFixCXCodec(2, 3, spatial_dims=3)
    image = nibabel.Nifti1Image.from_filename(tmp_path / "out" / "images" / f"{item['id']}.nii.gz")
    np.testing.assert_allclose(image.get_fdata(), codec.decode(item["code"][None], [12, 14, 10])[0, 0], atol=1e-5)
    np.testing.assert_allclose(image.affine, np.diag([-2, -2, 3, 1]))
    assert "a 2-D image (64x72), and this run encodes 3-D ones" in read_quarantine(tmp_path / "out")[GOOD[0]]


def test_shards_of_volumes_hold_fewer_files(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "SHARD_FILES", 16)
    monkeypatch.setattr(pipeline, "SHARD_VOLUMES", 1)
    for number in range(4):
        write_picture(tmp_path / "pictures" / f"{number}.png", number, (32, 32))
        volume = np.random.default_rng(number).normal(size=(12, 14, 10)).astype(np.float32)
        (tmp_path / "volumes").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "volumes" / f"{number}.nii.gz")
    assert run("privatize", tmp_path / "pictures", tmp_path / "2d", *SMALL)[0] == 0
    assert run("privatize", tmp_path / "volumes", tmp_path / "3d", *SMALL, "--spatial-dims", 3)[0] == 0
    assert [len(CodeStore(tmp_path / name).shards) for name in ("2d", "3d")] == [2, 4]


def test_heartspot_scales_and_crops_to_its_size(mixed: Path, tmp_path: Path, run: Run) -> None:
    arguments = ("--method", "heartspot", "--prior", "rhline", "--size", 48, "--workers", 0)
    run("privatize", mixed, tmp_path / "out", *arguments)
    codec, workspace = HeartSpotCodec("rhline", (48, 48)), Workspace.reopen(tmp_path / "out")
    codes = codes_of(tmp_path / "out")
    for name in GOOD:
        pixels = crop_to_square(torch.from_numpy(read_image(mixed / name).pixels), 48)
        torch.testing.assert_close(codes[workspace.pseudonym(name)], codec.encode(pixels[None])[0])


def test_colour_is_made_grey_or_kept(tmp_path: Path, run: Run) -> None:
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "in" / "fundus.png")
    write_picture(tmp_path / "in" / "grey.png", 1)
    run("privatize", tmp_path / "in", tmp_path / "grey", *SMALL)
    assert {tuple(code.shape) for code in codes_of(tmp_path / "grey").values()} == {(1, 144)}
    run("privatize", tmp_path / "in", tmp_path / "colour", *SMALL, "--color", "keep", "--images")
    assert {tuple(code.shape) for code in codes_of(tmp_path / "colour").values()} == {(1, 144), (3, 144)}
    modes = {Image.open(path).mode for path in (tmp_path / "colour" / "images").iterdir()}
    assert modes == {"RGB", "L"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--levels", "x"), "invalid literal"),
        (("--levels", 0), "levels must be an integer of at least 1"),
        (("--patch-size", "1,2,3"), "patch_size must be a positive integer, or 2 of them"),
        (("--wavelet", "morl"), "wavelet must be a discrete PyWavelets wavelet"),
        (("--features", "l1,mean"), "features must be a non-empty list"),
        (("--features", "l1,max", "--images"), "--images needs a single feature"),
        (("--method", "heartspot", "--prior", "lungs"), "prior must join any of"),
        (("--spatial-dims", 3, "--size", 64), "--size is for 2-D images"),
        (("--shard", "4/3"), "--shard must be i/n with 1 <= i <= n, as 3/8; got '4/3'"),
        (("--method", "jpeg"), "'jpeg' is not one of"),
    ],
)
def test_wrong_options_are_usage_errors(
    mixed: Path, tmp_path: Path, run: Run, arguments: tuple[object, ...], text: str
) -> None:
    status, _, err = run("privatize", mixed, tmp_path / "out", *arguments)
    assert status == 2
    assert text in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_used_are_one_line(mixed: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for source, output, text in [
        (tmp_path / "nowhere", tmp_path / "out", "is not a folder"),
        (tmp_path / "empty", tmp_path / "out", "has no files to privatize"),
        (mixed, mixed, "must not hold the input"),
        (mixed, tmp_path, "must not hold the input"),
        (mixed, tmp_path / "file" / "out", "cannot write to"),
    ]:
        status, _, err = run("privatize", source, output, *SMALL)
        assert status == 2
        assert text in err
        assert err.count("\n") == 1
    status, _, err = run("privatize", mixed, tmp_path / "out", *SMALL, "--private", tmp_path / "out" / "private")
    assert status == 2
    assert "must lie outside the output" in err


def test_an_output_below_the_input_is_not_an_input(mixed: Path, run: Run) -> None:
    for _ in range(2):
        assert run("privatize", mixed, mixed / "codes", *SMALL)[0] == 3
    assert len(CodeStore(mixed / "codes")) == len(GOOD)
    assert read_quarantine(mixed / "codes").keys() == BAD.keys()


def test_odd_names_and_odd_files(tmp_path: Path, run: Run) -> None:
    source = tmp_path / "in"
    write_picture(source / "a.png", 1)
    (source / "a.png").rename(source / os.fsdecode(b"M\xfcller [bold] \n.png"))  # Latin-1, markup, a line break
    (source / os.fsdecode(b"\xe4.png")).write_text("text")
    (source / "gone.png").symlink_to("nowhere")
    os.mkfifo(source / "pipe.dcm")
    status, out, _ = run("privatize", source, tmp_path / "out", *SMALL)
    assert status == 3
    assert len(CodeStore(tmp_path / "out")) == 1
    assert "quarantined  ?.png: not an image: starts with text" in out
    assert "quarantined  pipe.dcm: not a file but a folder, a pipe or a device" in out
    assert b"\xe4.png,not an image" in (tmp_path / "out-private" / "quarantine.csv").read_bytes()
    status, _, _ = run("privatize", source, tmp_path / "out", *SMALL)
    assert len(CodeStore(tmp_path / "out")) == 1


def test_a_lost_key_or_another_source_is_refused(mixed: Path, tmp_path: Path, run: Run) -> None:
    run("privatize", mixed, tmp_path / "out", *SMALL)
    moved = mixed.rename(tmp_path / "moved")
    status, _, err = run("privatize", moved, tmp_path / "out", *SMALL)
    assert status == 2
    assert "this output was made from" in err
    assert "say --moved if these are" in err
    status, out, _ = run("privatize", moved, tmp_path / "out", *SMALL, "--moved")
    assert status == 3
    assert "4 files were done by an earlier run" in out
    (tmp_path / "out-private" / "site.key").unlink()
    status, _, err = run("privatize", moved, tmp_path / "out", *SMALL)
    assert status == 2
    assert "site.key is missing, but the output already holds codes" in err


@pytest.mark.skipif(not NIH.exists(), reason="the real radiographs are not on this machine")
def test_real_radiographs_end_to_end(tmp_path: Path, run: Run) -> None:
    status, _, _ = run("privatize", NIH / "images", tmp_path / "out", "--levels", 2, "--workers", 2)
    assert status == 0
    store = CodeStore(tmp_path / "out")
    assert len(store) == 733
    assert store.verify() == []
    labels = NIH / "labels.csv"
    status, _, _ = run("index", tmp_path / "out", "--labels", labels, "--split", "split", "-o", tmp_path / "list.json")
    assert status == 0
    parts = json.loads((tmp_path / "list.json").read_text())
    assert sum(map(len, parts.values())) == 733
    with labels.open() as file:
        findings = sorted(row["findings"] for row in csv.DictReader(file))
    assert sorted(item["findings"] for part in parts.values() for item in part) == findings
