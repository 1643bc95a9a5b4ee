"""Probabilities of auto-labels compared with true labels."""

import json
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mmseg_ext.inference import reliability
from mmseg_ext.inference.auto_label_summary import reliability_table
from mmseg_ext.inference.reliability import Hits, bins_of, summarize_reliability
from mmseg_ext.visualization.reliability import draw_curves
from tests.inference.test_auto_label import CLASSES, experiment, labelled, read, run  # noqa: F401


def error_of_pixels(prob: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error of single pixels, bin by bin."""
    error = 0.0
    for low in range(0, 255, 17):
        in_bin = [
            (min((v + 0.5) / 255, 1), r)
            for v, r in zip(prob.tolist(), right.tolist(), strict=True)
            if low <= v < low + 17 or (low == 238 and v == 255)
        ]
        if in_bin:
            error += abs(sum(p - r for p, r in in_bin))
    return error / len(prob)


def hits_of(label: np.ndarray, prob: np.ndarray, right: np.ndarray, number: int = 3) -> Hits:
    counts = [np.zeros((number, 256), np.int64) for _ in range(2)]
    np.add.at(counts[0], (label, prob), 1)
    np.add.at(counts[1], (label[right], prob[right]), 1)
    return Hits(*counts)


def test_the_error_is_that_of_the_obvious_formula() -> None:
    rng = np.random.default_rng(0)
    label, prob = rng.integers(0, 3, 3000), rng.integers(80, 256, 3000)
    right = rng.random(3000) < np.array([1.0, 0.5, 0.8])[label]
    rows = summarize_reliability(hits_of(label, prob, right), CLASSES)
    for c, name in enumerate(CLASSES):
        of_class = label == c
        assert rows[name]['pixels'] == of_class.sum()
        assert rows[name]['accuracy'] == pytest.approx(right[of_class].mean(), abs=1e-6)
        expected = error_of_pixels(prob[of_class], right[of_class])
        assert rows[name]['calibration_error'] == pytest.approx(expected, abs=1e-6)
    assert rows['all']['calibration_error'] == pytest.approx(error_of_pixels(prob, right), abs=1e-6)


def test_calibrated_probabilities_have_no_error_and_sure_ones_that_are_wrong_all_of_it() -> None:
    rng = np.random.default_rng(0)
    prob = rng.integers(0, 256, 200_000)
    right = rng.random(200_000) < (prob + 0.5) / 256
    calibrated = hits_of(np.zeros_like(prob), prob, right)
    assert bins_of(calibrated).error[0] < 0.01
    wrong = hits_of(np.zeros(9, int), np.full(9, 255), np.zeros(9, bool))
    assert bins_of(wrong).error.tolist() == [1, 0, 0]


def write_true_labels(images: Path, out: Path, folder: Path) -> dict[str, tuple]:
    """True labels of the `.png` images but one: the predicted classes, some changed or ignored."""
    rng = np.random.default_rng(0)
    pixels = {}
    for path in sorted((out / 'label').rglob('*.png')):
        name = path.relative_to(out / 'label')
        if not (images / name).exists() or str(name) == '3.png':
            continue
        label, prob = read(path), read(out / 'prob' / name)
        true = np.where(rng.random(label.shape) < 0.3, (label + 1) % 3, label).astype(np.uint8)
        true[:4] = 255
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(true).save(folder / name)
        pixels[str(name)] = label[4:].ravel(), prob[4:].ravel(), (true == label)[4:].ravel()
    return pixels


def test_true_labels_of_some_images_are_compared(experiment, labelled, tmp_path):  # noqa: F811
    pixels = write_true_labels(experiment / 'images', labelled[0], tmp_path / 'true')
    out = tmp_path / 'out'
    written = run(experiment, out, true_labels=tmp_path / 'true')
    assert written == json.loads((out / 'auto_label.json').read_text())
    label, prob, right = (np.concatenate(parts) for parts in zip(*pixels.values(), strict=True))
    expected = summarize_reliability(hits_of(label, prob, right), CLASSES)
    assert written['reliability'] == expected and 0.6 < expected['all']['accuracy'] < 0.8
    assert cv2.imread(str(out / 'reliability.png')) is not None
    console = Console(width=80, file=StringIO())
    console.print(reliability_table(written))
    text = console.file.getvalue()
    assert f'{100 * expected["all"]["calibration_error"]:.1f}' in text
    assert '…' not in text
    assert {k: v for k, v in written.items() if k != 'reliability'} == labelled[1]


def test_every_class_has_a_curve_in_its_color(tmp_path):
    colors = [[200, 0, 0], [0, 0, 200]]
    probability = np.array([[0.1, 0.9], [np.nan, 0.5]])
    draw_curves(
        tmp_path / 'a.png', probability, np.array([[0.1, 0.2], [np.nan, 0.9]]), 'ab', colors
    )
    picture = cv2.imread(str(tmp_path / 'a.png'))[..., ::-1].astype(int)
    first, second = ((abs(picture - color).max(2) < 8)[:, :640].sum() for color in colors)
    assert first > 5 * second > 50  # a line, and a point


def test_what_cannot_be_compared_gets_a_sentence(
    experiment,  # noqa: F811
    labelled,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    out = tmp_path / 'out'
    with pytest.raises(ValueError, match='nowhere does not exist: set --true-labels'):
        run(experiment, out, true_labels=tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match=r'no image of .*images has a true label in .*empty; exp'):
        run(experiment, out, true_labels=tmp_path / 'empty')
    with pytest.raises(ValueError, match='omit --threshold'):
        run(experiment, out, true_labels=tmp_path / 'empty', threshold=0.5)
    write_true_labels(experiment / 'images', labelled[0], tmp_path / 'true')
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / 'true/b/2.png')
    with pytest.raises(ValueError, match=r'b/2\.png is 6x5 and its image .*b/2\.png is 50x40'):
        run(experiment, labelled[0], true_labels=tmp_path / 'true')
    monkeypatch.setattr(reliability, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match='needs matplotlib: pip install matplotlib'):
        run(experiment, out, true_labels=tmp_path / 'true')
    assert not out.exists()
