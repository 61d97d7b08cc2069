"""The trained testbed reads its images, with all visual tokens and with the relevant ones."""

from __future__ import annotations

import pytest

from hf_token_compress.evaluation import measure_retention
from lab.testbed import load_testbed
from lab.testbed.samples import object_samples
from lab.testbed.training.accuracy import measure_accuracy
from lab.tests import testbed_models

pytestmark = pytest.mark.testbed


def test_it_answers_about_new_images() -> None:
    """Accuracy is that of the model card, up to two standard errors of so few questions."""
    testbed_models.need_parts()
    kinds = ("attribute", "place")
    right, asked = measure_accuracy("drawings", 20, kinds=kinds, seed=9000)
    assert asked == dict.fromkeys(kinds, 20)
    assert min(right.values()) >= 14


def test_relevant_tokens_are_enough_for_the_answer() -> None:
    testbed_models.need_parts()
    model, processor = load_testbed(dtype="float32")
    samples = object_samples(["attribute", "place"], 10, seed=9500)
    full, truth = measure_retention(
        model, processor, samples, scorers=["truth"], retention_ratios=[0.25], batch_size=4
    )
    assert full.accuracy() >= 0.7
    assert truth.accuracy() >= full.accuracy() - 0.15
