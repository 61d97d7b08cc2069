"""From text, images and videos to the inputs of VILA1.5."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextvars import ContextVar
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.image_utils import make_flat_list_of_images
from transformers.models.llava.processing_llava import LlavaProcessor
from transformers.utils.import_utils import is_protobuf_available, is_sentencepiece_available
from typing_extensions import override

from .configuration import VilaConfig
from .conversation import CHAT_TEMPLATES, choose_conversation
from .frames import even_indices, frame_lists
from .original import is_original, place_placeholders
from .original_files import find_original_folder, hub_options, token_ids

IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<video>"

_IN_CHAT_TEMPLATE: ContextVar[bool] = ContextVar("_IN_CHAT_TEMPLATE", default=False)


class VilaProcessor(LlavaProcessor):
    """Processor of VILA1.5.

    `<image>` in a text stands for one image. `<video>` stands for one video, which becomes an image
    and a line break per frame, as in VILA1.5's training.

    Args:
        image_processor: SigLIP's on Pillow, with which the published models were trained.
        tokenizer: The language model's tokenizer with the two placeholders added.
        image_seq_length: Visual tokens of an image.
        num_video_frames: Frames sampled from a video that has more.
        chat_template: One of `hf_token_compress.models.vila.conversation.CHAT_TEMPLATES`.
        image_token: Text that stands for an image.
        video_token: Text that stands for a video.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_length: int = 196,
        num_video_frames: int = 8,
        chat_template: Any = None,
        image_token: str = IMAGE_TOKEN,
        video_token: str = VIDEO_TOKEN,
        **kwargs: Any,
    ) -> None:
        self.image_seq_length = image_seq_length
        self.num_video_frames = num_video_frames
        self.video_token = video_token
        self.video_token_id = tokenizer.convert_tokens_to_ids(video_token)
        super().__init__(
            image_processor, tokenizer, chat_template=chat_template, image_token=image_token
        )

    @classmethod
    @override
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> Any:
        """Load from a folder or Hub id in this library's format or the published one.

        Raises:
            ImportError: The tokenizer needs a package that is not installed.
            NotImplementedError: This kind of checkpoint is not supported.
            OSError: A part is missing or damaged.
        """
        location, options = pretrained_model_name_or_path, hub_options(kwargs)
        if is_original(location, **options):
            return cls._from_original(location, options)
        processor = super().from_pretrained(location, **kwargs)
        # By default Transformers uses the torchvision backend, which rounds differently.
        processor.image_processor = AutoImageProcessor.from_pretrained(
            location, backend="pil", **options
        )
        return processor

    @classmethod
    def _from_original(cls, location: Any, options: dict[str, Any]) -> VilaProcessor:
        folder = find_original_folder(location, **options)
        config = VilaConfig.from_pretrained(folder)
        place_placeholders(config, folder)
        side = config.image_side
        # VILA1.5 resizes every image bicubically before its image processor sees it.
        image_processor = AutoImageProcessor.from_pretrained(
            folder / "vision_tower",
            backend="pil",
            do_convert_rgb=True,
            do_resize=True,
            resample=Image.Resampling.BICUBIC,
            size={"height": side, "width": side},
        )
        conversation = choose_conversation(str(location), token_ids(folder))
        return cls(
            image_processor,
            _original_tokenizer(folder, config),
            image_seq_length=config.image_seq_length,
            num_video_frames=config.num_video_frames,
            chat_template=CHAT_TEMPLATES[conversation],
        )

    @override
    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        audio: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Prepare a prompt or a list of prompts.

        Args:
            images: Images in the order of the texts' `<image>`, flat or nested.
            text: One prompt or several.
            videos: Videos in the order of the texts' `<video>`: paths, lists of images or arrays.
            audio: Not supported.
            **kwargs: Options of every Transformers processor. `num_frames` overrides
                `num_video_frames`; `do_sample_frames=False` takes all frames.

        Returns:
            `input_ids`, `attention_mask`, `pixel_values` float [images, 3, H, W] and
            `pixel_values_videos` float [videos, frames, 3, H, W].

        Raises:
            ValueError: The texts do not have one mark per image and video, or the videos have
                different numbers of frames.
        """
        if _IN_CHAT_TEMPLATE.get():
            kwargs.pop("add_special_tokens", None)
        for_videos = kwargs.pop("videos_kwargs", None) or {}
        count = kwargs.pop("num_frames", for_videos.get("num_frames")) or self.num_video_frames
        sampled = kwargs.pop("do_sample_frames", for_videos.get("do_sample_frames", True))
        if videos is None:
            return super().__call__(images=images, text=text, audio=audio, **kwargs)
        clips = frame_lists(videos, count if sampled else None)
        lengths = {len(clip) for clip in clips}
        if len(lengths) != 1:
            raise ValueError(
                f"The videos of one call must have the same number of frames, but have "
                f"{sorted(lengths)}: pass num_frames={min(lengths, default=1)}, or call once for "
                "each."
            )
        # Process the frames as images, then give them their own placeholders and pixels.
        flat: Any = []
        if images is not None:
            flat = make_flat_list_of_images(self.image_processor.fetch_images(images))
        texts = [text] if isinstance(text, str) else list(text or [self.video_token * len(clips)])
        texts, flat, are_frames = self._frames_as_images(texts, flat, clips)
        inputs = super().__call__(images=flat, text=texts, **kwargs)
        self._mark_frames(inputs, are_frames)
        self._split_pixels(inputs, are_frames, lengths.pop())
        if text is None:
            inputs.pop("input_ids")
            inputs.pop("attention_mask", None)
        return inputs

    @override
    def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
        """Render a conversation; with `tokenize=True`, the ids are those of the rendered text.

        Transformers leaves out the tokenizer's BOS before a text that begins with one. VILA1.5 was
        trained with both.
        """
        token = _IN_CHAT_TEMPLATE.set(True)
        try:
            return super().apply_chat_template(*args, **kwargs)
        finally:
            _IN_CHAT_TEMPLATE.reset(token)

    def sample_frames(self, metadata: Any, num_frames: int | None = None) -> Any:
        """Which frames of a video are taken, as Transformers' video processors are asked for it."""
        return even_indices(metadata.total_num_frames, num_frames or self.num_video_frames)

    def _frames_as_images(
        self, texts: list[str], images: list[Any], clips: list[list[Any]]
    ) -> tuple[list[str], list[Any], list[bool]]:
        """Write videos as frames; returns the texts, all images in order, and which are frames."""
        marks = re.compile(f"{re.escape(self.image_token)}|{re.escape(self.video_token)}")
        found = [mark for text in texts for mark in marks.findall(text)]
        for mark, given in ((self.image_token, images), (self.video_token, clips)):
            if found.count(mark) != len(given):
                raise ValueError(
                    f"The texts have {found.count(mark)} {mark}, but {len(given)} were passed: "
                    "write one for each."
                )
        remaining_images, remaining_clips = iter(images), iter(clips)
        flat: list[Any] = []
        are_frames: list[bool] = []
        for mark in found:
            is_video = mark == self.video_token
            shown = next(remaining_clips) if is_video else [next(remaining_images)]
            flat += shown
            are_frames += [is_video] * len(shown)
        frames = f"{self.image_token}\n" * len(clips[0])
        return [text.replace(self.video_token, frames) for text in texts], flat, are_frames

    def _mark_frames(self, inputs: Any, are_frames: list[bool]) -> None:
        """Replace the image placeholders of frames by video placeholders."""
        of_frame = torch.tensor(are_frames).repeat_interleave(self.image_seq_length)
        given = inputs["input_ids"]
        samples = given if isinstance(given, Tensor) else [torch.as_tensor(ids) for ids in given]
        start = 0
        for ids in samples:
            positions = (ids == self.image_token_id).nonzero().flatten()
            own = of_frame[start : start + len(positions)].to(positions.device)
            ids[positions[own]] = self.video_token_id
            start += len(positions)
        if samples is not given:
            inputs["input_ids"] = [ids.tolist() for ids in samples]
        if "mm_token_type_ids" in inputs:
            types = self.create_mm_token_type_ids(inputs["input_ids"])
            inputs["mm_token_type_ids"] = torch.tensor(types) if given is samples else types

    @staticmethod
    def _split_pixels(inputs: Any, are_frames: list[bool], frames: int) -> None:
        """Move the pixels of frames from `pixel_values` to `pixel_values_videos`."""
        pixels = inputs.pop("pixel_values")
        of_videos = list(compress(pixels, are_frames))
        of_images = list(compress(pixels, [not is_frame for is_frame in are_frames]))
        clips = [of_videos[at : at + frames] for at in range(0, len(of_videos), frames)]
        stack: Any = torch.stack if isinstance(pixels, Tensor) else list
        inputs["pixel_values_videos"] = stack([stack(clip) for clip in clips])
        if of_images:
            inputs["pixel_values"] = stack(of_images)

    @override
    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: Any) -> str:
        return self.image_token * self.image_seq_length

    @override
    def get_text_with_replacements(self, text: list[str], *args: Any, **kwargs: Any) -> Any:
        if self.tokenizer.tokenize("a")[0].startswith("▁"):
            # VILA1.5 tokenizes the text after each image separately, and SentencePiece tokenizers
            # put a space before every text. Here the text is one, so write these spaces, and one
            # before a text that starts with a space, where Transformers would leave it out.
            mark = re.escape(self.image_token)
            start = re.compile(rf"\A(?= )|{mark}(?!{mark}|\Z)")
            text = [start.sub(lambda found: found.group() + " ", one) for one in text]
        return super().get_text_with_replacements(text, *args, **kwargs)

    @property
    @override
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "pixel_values_videos"]


def _original_tokenizer(folder: Path, config: VilaConfig) -> Any:
    """The tokenizer of a published checkpoint, with the placeholders at the ids of the config."""
    home = folder / "llm"
    if not any(home.glob("tokenizer*")):
        home = folder
    has_sentencepiece = is_sentencepiece_available() and is_protobuf_available()
    if not (has_sentencepiece or (home / "tokenizer.json").is_file()):
        raise ImportError(
            "The tokenizer of this VILA1.5 checkpoint is a SentencePiece model: install the "
            "packages that read it with pip install sentencepiece protobuf."
        )
    # VILA1.5 does not use the legacy treatment of spaces, whatever the checkpoint says. Generation
    # needs padding on the left.
    tokenizer = AutoTokenizer.from_pretrained(home, legacy=False, padding_side="left")
    free = config.image_token_index - len(tokenizer)
    if free < 0:
        raise ValueError(
            f"The tokenizer of the VILA1.5 checkpoint has {len(tokenizer)} tokens, but its "
            f"language model has {config.image_token_index}: the files in its folder llm do not "
            "belong together."
        )
    # The language model may have embeddings that the tokenizer has no token for.
    fillers = [f"<|unused_{number}|>" for number in range(free)]
    tokenizer.add_tokens([*fillers, IMAGE_TOKEN, VIDEO_TOKEN], special_tokens=True)
    return tokenizer
