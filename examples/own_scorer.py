"""Write a scorer of your own, and compare it with others.

    python examples/own_scorer.py
    python examples/own_scorer.py --model Qwen/Qwen2.5-VL-3B-Instruct --retention-ratio 0.5

A scorer gives every visual token a number, and those with the highest are kept. This one likes
tokens that are unlike the rest of the image, and tokens that are like the words of the question.
It is measured by how often the answer is that of the model with all tokens, and compared with the
default, gated_fusion, which also passes over tokens that resemble one already kept.
"""

import argparse
import dataclasses

import torch
from torch.nn.functional import normalize
from transformers import AutoModelForImageTextToText, AutoProcessor

from hf_token_compress import Scorer, register_scorer
from hf_token_compress.data.scenes import KINDS
from hf_token_compress.evaluation import measure_retention, scene_samples
from hf_token_compress.tiny import resolve_model

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", default="tiny-qwen2-vl", help="a Hub id, a folder or a tiny model")
parser.add_argument("--retention-ratio", type=float, default=0.25)
parser.add_argument("--per-kind", type=int, default=5, help="questions of each of seven kinds")
args = parser.parse_args()


@register_scorer("novelty")
@dataclasses.dataclass
class Novelty(Scorer):
    """How unlike the mean visual token, and how like the question.

    Args:
        text_weight: What the question counts; an option of the scorer.
    """

    text_weight: float = 0.5

    def score(self, prompt):
        """One score for every token of B prompts of S tokens: [B, S]. Only visual ones count."""
        embeddings = normalize(prompt.inputs_embeds.float(), dim=-1)  # [B, S, D]
        mean_visual = self.mean(embeddings, prompt.visual_mask)  # [B, D, 1]
        mean_word = self.mean(embeddings, prompt.instruction_mask)  # [B, D, 1]
        novelty = 1 - (embeddings @ mean_visual).squeeze(-1)  # [B, S]
        likeness = (embeddings @ mean_word).squeeze(-1)  # [B, S]
        return novelty + self.text_weight * likeness

    @staticmethod
    def mean(embeddings, mask):
        """The direction of the mean embedding of some tokens, [B, D, 1]."""
        weights = mask.to(embeddings).unsqueeze(-1)  # [B, S, 1]
        return normalize((embeddings * weights).sum(dim=1), dim=-1).unsqueeze(-1)


model = AutoModelForImageTextToText.from_pretrained(resolve_model(args.model), dtype="auto")
model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
processor = AutoProcessor.from_pretrained(resolve_model(args.model))

# Without a right answer, that of the model with all tokens counts as right.
questions = [
    dataclasses.replace(sample, answer=None)
    for sample in scene_samples(KINDS, per_kind=args.per_kind, seed=500)
]
# By its name it is known everywhere: in from_pretrained(token_compression={"scorer": "novelty",
# "scorer_options": {"text_weight": 1.0}}), and here.
rows = measure_retention(
    model,
    processor,
    questions,
    scorers=("novelty", "gated_fusion", "attention", "uniform", "random"),
    retention_ratios=(args.retention_ratio,),
)
for row in rows:
    name = row.scorer or "all tokens"
    print(
        f"{name:12} {row.kept_share:4.0%} of the tokens, {row.accuracy():4.0%} of the answers kept"
    )
