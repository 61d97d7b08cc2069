"""The trained testbed answers, and prunes as a model does that reads its image."""

from __future__ import annotations

import pytest

from hf_token_compress.evaluation import measure_retention
from lab.testbed import load_testbed
from lab.testbed.samples import object_samples
from lab.testbed.training.accuracy import measure_accuracy
from lab.tests import testbed_models

pytestmark = pytest.mark.testbed


def test_it_answers_about_pictures_it_has_never_seen() -> None:
    """At least what is promised of attribute and place, less two standard errors of so few."""
    testbed_models.need_parts()
    kinds = ("attribute", "place")
    right, asked = measure_accuracy("drawings", 20, kinds=kinds, seed=9000)
    assert asked == dict.fromkeys(kinds, 20)
    assert min(right.values()) >= 14


def test_what_the_answer_rests_on_is_enough_for_it() -> None:
    testbed_models.need_parts()
    model, processor = load_testbed(dtype="float32")
    samples = object_samples(["attribute", "place"], 10, seed=9500)
    full, truth = measure_retention(
        model, processor, samples, scorers=["truth"], retention_ratios=[0.25], batch_size=4
    )
    assert full.accuracy() >= 0.7
    assert truth.accuracy() >= full.accuracy() - 0.15
