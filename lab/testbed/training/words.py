"""Target visual tokens, built from the word embeddings of the language model.

The target of a patch on an object is the sum of the embeddings of its name and colour; the target
of a background patch is the mean embedding of the vocabulary. The language model then reads images
as words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..objects.names import COLOURS, NAMES
from ..objects.scene import ObjectScene, SceneObject
from .vision import pixels_of

BACKGROUND = -1
"""Class of a patch without an object."""

_SHARPNESS = 4.0
_PULL = 0.5


class ObjectVocabulary:
    """Names and colours as classes, and as directions in the space of word embeddings.

    Args:
        tokenizer: Tokenizer of the language model.
        words: Its word embeddings [vocabulary, D].
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, words: Tensor) -> None:
        words = words.detach().float()
        self.centre = words.mean(0)  # [D,]
        self._length = float((words - self.centre).norm(dim=-1).mean())
        self._scale = float((words - self.centre).square().mean())
        self.names = self._directions(tokenizer, words, NAMES)
        self.colours = self._directions(tokenizer, words, tuple(COLOURS))

    def _directions(
        self, tokenizer: PreTrainedTokenizerBase, words: Tensor, texts: Sequence[str]
    ) -> Tensor:
        """[classes, D] unit vectors."""
        ids = [tokenizer(f" {text}", add_special_tokens=False)["input_ids"] for text in texts]
        first = torch.tensor([one[0] for one in ids], device=words.device)
        return nn.functional.normalize(words[first] - self.centre, dim=-1)

    def ideal(self, names: Tensor, colours: Tensor) -> Tensor:
        """Target tokens [..., D] of these classes [...]; `BACKGROUND` gets the mean embedding."""
        direction = (self.names[names.clamp(min=0)] + self.colours[colours.clamp(min=0)]) / 2**0.5
        on_object = (names != BACKGROUND)[..., None]
        return self.centre + self._length * direction * on_object

    def loss(self, tokens: Tensor, names: Tensor, colours: Tensor) -> Tensor:
        """Loss of visual tokens against their targets.

        Args:
            tokens: [B, N, D] float32.
            names: [B, N] int64 classes, `BACKGROUND` elsewhere.
            colours: [B, N] int64.

        Returns:
            Scalar: classification losses on objects, plus the distance to the target tokens.
        """
        distance = (tokens - self.ideal(names, colours)).square().mean() / self._scale
        on_object = names != BACKGROUND
        described = tokens[on_object]
        loss = _PULL * distance
        for scores, classes in (
            (self.name_scores(described), names),
            (self.colour_scores(described), colours),
        ):
            loss = loss + nn.functional.cross_entropy(scores, classes[on_object])
        return loss

    def name_scores(self, tokens: Tensor) -> Tensor:
        """Logits [..., names] of tokens [..., D]."""
        return _SHARPNESS * (tokens - self.centre) @ self.names.T

    def colour_scores(self, tokens: Tensor) -> Tensor:
        """Logits [..., colours] of tokens [..., D]."""
        return _SHARPNESS * (tokens - self.centre) @ self.colours.T


def object_classes(objects: Sequence[SceneObject]) -> tuple[Tensor, Tensor]:
    """int64 [objects] classes of names and of colours."""
    colours = tuple(COLOURS)
    return (
        torch.tensor([NAMES.index(obj.name) for obj in objects]),
        torch.tensor([colours.index(obj.colour) for obj in objects]),
    )


def patch_classes(scene: ObjectScene, patches: int) -> tuple[Tensor, Tensor]:
    """Classes of the object under the centre of each patch.

    Args:
        scene: The scene.
        patches: Patches per side.

    Returns:
        int64 [patches²] classes of names and of colours, `BACKGROUND` where there is no object;
        where boxes overlap, the smaller box counts.
    """
    names = torch.full((patches, patches), BACKGROUND)
    colours = names.clone()
    centres = (torch.arange(patches) + 0.5) * scene.image.width / patches
    found = object_classes(scene.objects)
    order = sorted(range(len(scene.objects)), key=lambda i: -_area(scene.objects[i]))
    for index in order:
        left, top, right, bottom = scene.objects[index].box
        down = (centres >= top) & (centres < bottom)
        across = (centres >= left) & (centres < right)
        inside = down[:, None] & across[None, :]
        names[inside], colours[inside] = found[0][index], found[1][index]
    return names.flatten(), colours.flatten()


def labelled_pixels(scenes: Sequence[ObjectScene], patches: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels [B, H, W, 3] uint8 of scenes, and their patch classes [B, patches²] int64."""
    classes = [patch_classes(scene, patches) for scene in scenes]
    return (
        pixels_of([scene.image for scene in scenes]),
        torch.stack([names for names, _ in classes]),
        torch.stack([colours for _, colours in classes]),
    )


def _area(obj: SceneObject) -> int:
    left, top, right, bottom = obj.box
    return (right - left) * (bottom - top)
