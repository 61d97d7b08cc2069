"""What a visual token is to say, in word embeddings of the language model.

A token of an object is to be the sum of the embeddings of the object's name and colour, a token of
the background their mean over the vocabulary: so the language model reads images as words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..objects.names import COLOURS, NAMES
from ..objects.scene import ObjectScene, SceneObject

BACKGROUND = -1
"""Class of a token that lies on no object."""

_SHARPNESS = 4.0
_PULL = 0.5


class ObjectVocabulary:
    """Names and colours as classes and as directions among the word embeddings.

    Args:
        tokenizer: Tokenizer of the language model.
        words: [vocabulary, D] its word embeddings.
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
        """[..., D] tokens that say exactly these (...,) classes; `BACKGROUND` says nothing."""
        said = (self.names[names.clamp(min=0)] + self.colours[colours.clamp(min=0)]) / 2**0.5
        on_object = (names != BACKGROUND)[..., None]
        return self.centre + self._length * said * on_object

    def loss(self, tokens: Tensor, names: Tensor, colours: Tensor) -> Tensor:
        """How badly visual tokens say what they lie on.

        Args:
            tokens: [B, N, D] float32.
            names: [B, N] int64 classes, `BACKGROUND` elsewhere.
            colours: [B, N] int64.

        Returns:
            Scalar: classification losses on objects, and the distance to the ideal tokens.
        """
        distance = (tokens - self.ideal(names, colours)).square().mean() / self._scale
        on_object = names != BACKGROUND
        said = tokens[on_object]
        loss = _PULL * distance
        for scores, classes in (
            (self.name_scores(said), names),
            (self.colour_scores(said), colours),
        ):
            loss = loss + nn.functional.cross_entropy(scores, classes[on_object])
        return loss

    def name_scores(self, tokens: Tensor) -> Tensor:
        """[..., names] logits of tokens [..., D]."""
        return _SHARPNESS * (tokens - self.centre) @ self.names.T

    def colour_scores(self, tokens: Tensor) -> Tensor:
        """[..., colours] logits of tokens [..., D]."""
        return _SHARPNESS * (tokens - self.centre) @ self.colours.T


def object_classes(objects: Sequence[SceneObject]) -> tuple[Tensor, Tensor]:
    """[T,] int64 classes of names and of colours."""
    colours = tuple(COLOURS)
    return (
        torch.tensor([NAMES.index(obj.name) for obj in objects]),
        torch.tensor([colours.index(obj.colour) for obj in objects]),
    )


def patch_classes(scene: ObjectScene, patches: int) -> tuple[Tensor, Tensor]:
    """What the centre of every patch lies on.

    Args:
        scene: The scene.
        patches: Patches a side.

    Returns:
        (patches², ) int64 classes of names and of colours, `BACKGROUND` where no object is; where
        boxes overlap the smaller one counts.
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


def _area(obj: SceneObject) -> int:
    left, top, right, bottom = obj.box
    return (right - left) * (bottom - top)
