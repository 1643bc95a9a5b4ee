"""Scores of classes as logits."""

import torch

from mmseg_ext.segmentors.scores import as_logits


def test_the_softmax_of_the_logits_is_the_distribution_of_the_scores() -> None:
    scores = torch.rand(3, 4, 5) + 0.1
    expected = scores / scores.sum(0)
    torch.testing.assert_close(as_logits(scores.clone()).softmax(0), expected)


def test_pixels_without_a_score_have_finite_logits() -> None:
    assert as_logits(torch.zeros(2, 3, 4, 5)).isfinite().all()


def test_the_score_of_a_single_class_is_a_probability() -> None:
    assert as_logits(torch.tensor([[[0.3, 1.7]]])).tolist() == [[[torch.tensor(0.3).item(), 1.0]]]
