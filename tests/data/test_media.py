"""Images and videos are read as the models' processors take them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from errors import one_sentence
from matrix import one_at_a_time
from PIL import ExifTags, Image
from places import DATA
from sample_files import write_video
from transformers.image_utils import load_image
from transformers.utils import import_utils
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata, load_video

from hf_token_compress import load_tiny
from hf_token_compress.data.chat import encode_samples, user_turn
from hf_token_compress.data.fields import sample_from_fields
from hf_token_compress.data.media import (
    frames_to_take,
    read_image,
    read_video,
    upright,
    with_frames,
)
from hf_token_compress.data.media_folder import MediaFolder
from hf_token_compress.data.sample import Sample
from hf_token_compress.data.scenes import make_clip
from hf_token_compress.evaluation.truth import has_ground_truth

VIDEOS = [DATA / "realshort.mp4", DATA / "cockatoo.mp4"]
MODELS = ["qwen2-vl-video", "llava-onevision", "vila"]


@cache
def processor_of(model: str) -> Any:
    return load_tiny(model)[1]


@pytest.fixture(scope="module")
def clip() -> list[Image.Image]:
    return make_clip(0, 4, frames_per_scene=2).images


@pytest.fixture(scope="module")
def video(clip: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", clip)


# Images


def test_images_are_upright_as_transformers_reads_them(tmp_path: Path) -> None:
    """A camera writes them as its sensor lies, and in an EXIF tag how it was held."""
    image = Image.new("RGB", (40, 20))
    image.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / "camera.jpg", exif=exif)
    expected = load_image(str(tmp_path / "camera.jpg"))
    assert expected.size == (20, 40)
    asked = {"question": "What is it?"}
    by_path = sample_from_fields({**asked, "image": "camera.jpg"}, MediaFolder(tmp_path))
    frames = sample_from_fields({**asked, "video": ["camera.jpg"]}, MediaFolder(tmp_path))
    opened = Image.open(tmp_path / "camera.jpg")
    by_image = sample_from_fields({**asked, "image": opened}, MediaFolder(tmp_path))
    read = read_image(tmp_path / "camera.jpg")
    for found in (read, by_path.image, frames.frames[0], by_image.image):
        assert found.size == expected.size
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_becomes_rgb_as_in_transformers(mode: str) -> None:
    image = make_clip(0, 1).images[0].convert(mode)
    assert upright(image).tobytes() == load_image(image).tobytes()


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_greyscale_of_16_bits_keeps_its_shades(kind: str, tmp_path: Path) -> None:
    shades = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(shades.astype(np.uint16) << 8).save(tmp_path / f"deep.{kind}")
    found = np.asarray(read_image(tmp_path / f"deep.{kind}"))
    np.testing.assert_array_equal(found, np.repeat(shades[..., None], 3, axis=2))


def test_what_is_not_an_image(tmp_path: Path) -> None:
    text, cut = tmp_path / "text.png", tmp_path / "cut.png"
    text.write_text("no image")
    make_clip(0, 1).images[0].save(cut)
    cut.write_bytes(cut.read_bytes()[:3000])
    for path, kind, word in [
        (tmp_path / "none.png", FileNotFoundError, "no image file"),
        (tmp_path, IsADirectoryError, "folder"),
        (text, ValueError, "not an image"),
        (cut, ValueError, "cannot be read"),
    ]:
        with one_sentence(kind, word):
            read_image(path)


# Frames


@pytest.mark.parametrize(
    ("model", "path", "num_frames"),
    one_at_a_time(MODELS, [pytest.param(path, id=path.stem) for path in VIDEOS], [None, 3, 8]),
)
def test_the_frames_are_those_that_the_processor_takes_of_the_file(
    model: str, path: Path, num_frames: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(self: Any, videos: list[str], sample_indices_fn: Any = None) -> Any:
        """As Transformers, but with PyAV: it takes torchcodec, which may not be installed."""
        decoded = [
            load_video(video, backend="pyav", sample_indices_fn=sample_indices_fn)
            for video in videos
        ]
        return list(zip(*decoded, strict=True))

    monkeypatch.setattr(VideoProcessorMixin, "fetch_videos", decode)
    processor = processor_of(model)
    options = {} if num_frames is None else {"num_frames": num_frames}
    expected = processor.apply_chat_template(
        [user_turn("What happens?", videos=[str(path)])],
        **{"tokenize": True, "add_generation_prompt": True, "return_dict": True},
        **{"return_tensors": "pt", "processor_kwargs": options},
    )
    sample = Sample("video", (str(path),), "What happens?")
    found = encode_samples(processor, [sample], num_frames)
    frames = read_video(path, processor, num_frames)
    given = encode_samples(processor, [Sample("video", (tuple(frames),), "What happens?")])
    assert found.keys() == given.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(found[name]), torch.as_tensor(value)), name
        assert torch.equal(torch.as_tensor(given[name]), torch.as_tensor(value)), name


@pytest.mark.parametrize(
    ("model", "expected"),
    [("qwen2-vl", [0, 2, 4, 6]), ("llava-onevision", [0, 2, 5]), ("vila", [0, 3, 7])],
)
def test_each_processor_has_a_sampler_of_its_own(
    model: str, expected: list[int], video: Path, clip: list[Image.Image]
) -> None:
    processor = processor_of(model)
    assert frames_to_take(processor, VideoMetadata(8), 3) == expected
    frames = read_video(video, processor, 3)
    assert len(frames) == len(expected)
    for frame, number in zip(frames, expected, strict=True):
        differences = [np.abs(np.asarray(frame) - np.asarray(c, float)).mean() for c in clip]
        assert int(np.argmin(differences)) in (number, number ^ 1)  # scenes are shown twice
        assert frame.size == clip[0].size


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("num_frames", [8, 50, None])
def test_a_short_video_gives_all_its_frames(
    model: str, num_frames: int | None, video: Path
) -> None:
    assert len(read_video(video, processor_of(model), num_frames)) == 8


def test_a_processor_that_joins_frames_cannot_take_one(
    video: Path, clip: list[Image.Image], tmp_path: Path
) -> None:
    animation = tmp_path / "clip.webp"
    clip[0].save(animation, save_all=True, append_images=clip[1:])
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, image in enumerate(clip):
        image.save(folder / f"{number}.png")
    for path in (video, animation, folder):
        with one_sentence(ValueError, str(path), "cannot take 1 of its frames", "ask for more"):
            read_video(path, processor_of("qwen2-vl"), 1)


def test_boxes_of_a_video_file_are_no_ground_truth(video: Path) -> None:
    """They count frames of the file, and only some of those are taken."""
    boxes: Any = {"relevant_boxes": ((0, 0, 9, 9),), "relevant_frames": (7,)}
    sample = with_frames(Sample("video", (str(video),), "?", **boxes), processor_of("vila"), 3)
    assert not has_ground_truth(sample)
    given = with_frames(Sample("video", (sample.frames,), "?", **boxes), processor_of("vila"), 3)
    assert has_ground_truth(given)


def test_the_frames_of_a_folder_are_sampled_where_a_number_is_given(
    clip: list[Image.Image], tmp_path: Path
) -> None:
    for number, image in enumerate(clip):
        image.save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    for num_frames, numbers in ((3, (0, 3, 7)), (None, range(8))):
        frames = read_video(tmp_path, processor_of("vila"), num_frames)
        assert [frame.tobytes() for frame in frames] == [clip[i].tobytes() for i in numbers]


@pytest.mark.parametrize("kind", ["webp", "png"])
def test_frames_of_an_animation_are_sampled_as_of_a_video(kind: str, tmp_path: Path) -> None:
    clip = make_clip(0, 6).images
    path = tmp_path / f"clip.{kind}"
    clip[0].save(path, save_all=True, append_images=clip[1:], lossless=True, duration=500)
    frames = read_video(path, processor_of("vila"), 3)
    assert [frame.tobytes() for frame in frames] == [clip[i].tobytes() for i in (0, 2, 5)]


def test_a_still_image_is_a_video_of_one_frame(tmp_path: Path) -> None:
    make_clip(0, 1).images[0].save(tmp_path / "still.png")
    assert len(read_video(tmp_path / "still.png", processor_of("vila"), 3)) == 1


def test_what_is_not_a_video(video: Path, tmp_path: Path) -> None:
    text, cut, mpeg = (tmp_path / name for name in ("text.mp4", "cut.mp4", "text.mpg"))
    (tmp_path / "empty").mkdir()
    for path in (text, mpeg):
        path.write_text("no video")
    cut.write_bytes(video.read_bytes()[:2000])
    for path, kind, word in [
        (tmp_path / "none.mp4", FileNotFoundError, "no video file"),
        (tmp_path / "empty", ValueError, "no images"),
        (text, ValueError, "cannot be read"),
        (mpeg, ValueError, "cannot be read"),
        (cut, ValueError, "cannot be read"),
    ]:
        with one_sentence(kind, word):
            read_video(path, processor_of("vila"), 4)


def test_frames_that_differ_in_size(tmp_path: Path) -> None:
    for name, size in (("a", (64, 48)), ("b", (64, 48)), ("c", (32, 48))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    with one_sentence(ValueError, "64 × 48", "c.png", "32 × 48"):
        read_video(tmp_path, processor_of("vila"))


def test_an_animation_that_is_cut_off(clip: list[Image.Image], tmp_path: Path) -> None:
    """Its first frame can be read."""
    path = tmp_path / "clip.gif"
    clip[0].save(path, save_all=True, append_images=clip[1:])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with one_sentence(ValueError, str(path), "cannot be read"):
        read_video(path, processor_of("vila"), 4)


def test_a_missing_decoder_says_what_to_install(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_utils, "is_av_available", lambda: False)
    monkeypatch.setattr(import_utils, "is_torchcodec_available", lambda: False)
    with one_sentence(ImportError, "hf-token-compress[video]"):
        read_video(video, processor_of("vila"), 4)
