"""How maps become panels: each line of the convention, by the colours of pixels."""

import cv2
import numpy as np
import pytest
import torch

from mmseg_ext.visualization.curves import draw_curves
from mmseg_ext.visualization.pictures import (
    Panel,
    class_legend,
    color_labels,
    draw_maps,
    draw_strip,
    label_panel,
    write_picture,
)

PALETTE = [[200, 0, 0], [0, 200, 0], [0, 0, 200]]
SIZE = (20, 30)
BLACK = np.zeros((*SIZE, 3), np.uint8)


def draw(name: str, values: torch.Tensor, image: np.ndarray = BLACK) -> Panel:
    (panel,) = draw_maps({name: values}, image, PALETTE)
    assert panel.picture.shape == image.shape and panel.picture.dtype == np.uint8
    return panel


def brightness(panel: Panel) -> np.ndarray:
    return panel.picture.astype(int).sum(2)


def test_predictions_have_the_colours_of_the_best_class():
    logits = torch.zeros(3, 10, 15)
    logits[0, :, :8], logits[2, :, 8:] = 1, 1
    picture = draw('prediction_0.5', logits).picture
    assert picture[5, 2].tolist() == [100, 0, 0] and picture[5, 28].tolist() == [0, 0, 100]


def test_one_logit_of_two_classes_is_positive_for_the_second():
    logits = torch.linspace(-1, 1, 15).expand(1, 10, 15)
    picture = draw('prediction', logits).picture
    assert picture[5, 2].tolist() == [100, 0, 0] and picture[5, 28].tolist() == [0, 100, 0]


def test_images_are_shown_as_they_are():
    colors = torch.tensor([1.0, 0.5, 0.0])[:, None, None].expand(3, 10, 15)
    assert draw('image_input', colors).picture[5, 2].tolist() == [255, 128, 0]
    with pytest.raises(ValueError, match="'image_input' has 2 channels, expected red, green"):
        draw('image_input', colors[:2])


def test_weights_are_mixed_from_red_green_and_blue():
    weights = torch.zeros(3, *SIZE)
    weights[0, :, :10], weights[1, :, 10:20], weights[1:, :, 20:] = 1, 1, 0.5
    picture = draw('scale_weight', weights).picture
    assert [picture[3, x].tolist() for x in (2, 15)] == [[255, 0, 0], [0, 255, 0]]
    assert np.abs(picture[3, 27] - np.array([0, 127.5, 127.5])).max() <= 1


@pytest.mark.parametrize('scales', [['0.5', '1'], ['0.25', '0.5', '1', '2']])
def test_the_names_of_predictions_explain_the_weights_colours(scales):
    maps = {f'prediction_{s}': torch.zeros(3, 5, 5) for s in scales}
    maps['scale_weight'] = torch.full((len(scales), 5, 5), 1 / len(scales))
    legend = draw_maps(maps, BLACK, PALETTE)[-1].legend
    assert [word for word, _ in legend] == scales
    assert len({tuple(color) for _, color in legend}) == len(scales)


def test_heat_maps_span_zero_to_one_where_the_values_do():
    half = draw('attention_0.5', torch.full((1, 4, 4), 0.5))
    assert [word for word, _ in half.legend] == ['0', '0.5', '1']
    rising = brightness(draw('attention_0.5', torch.linspace(0, 1, 5).expand(1, 4, 5)))
    assert (np.diff(rising[3, ::6]) > 0).all()
    assert rising[3, 0] < brightness(half)[3, 0] < rising[3, -1]


def test_other_values_span_their_own_range():
    panel = draw('score', torch.linspace(-3, 7, 5).expand(1, 4, 5))
    assert [word for word, _ in panel.legend] == ['-3', '2', '7']
    assert brightness(panel)[3, 0] < brightness(panel)[3, -1]


def test_a_heat_map_shows_the_image_below():
    image = BLACK.copy()
    image[:, 15:] = 255
    values = brightness(draw('edge', torch.zeros(1, 4, 4), image))
    assert values[3, 20] > values[3, 5]


def test_booleans_integers_and_features_are_told_apart():
    marked = torch.zeros(1, *SIZE, dtype=torch.bool)
    marked[0, 5, 5] = True
    assert brightness(draw('selected', marked)).argmax() == 5 * SIZE[1] + 5
    stage = draw('stage', torch.tensor([[[0, 2], [255, 1]]])).picture
    corners = [stage[y, x].tolist() for y in (0, -1) for x in (0, -1)]
    assert corners == [[100, 0, 0], [0, 0, 100], [0, 0, 0], [0, 100, 0]]
    features = torch.zeros(64, 4, 6)
    features[:, :, 4] = -3
    panel = draw('features', features)
    assert 'norm of 64 channels' in panel.caption and panel.legend[-1][0] == '24'
    assert brightness(panel)[3, 22] > brightness(panel)[3, 2]


def test_a_table_has_rows_and_channels():
    gate = torch.zeros(3, 2, 1)
    gate[2, 1] = 1  # the last channel, in the lower row
    panel = draw('gate', gate)
    assert 'rows x 3 channels' in panel.caption
    bright = brightness(panel) > brightness(panel).min()
    assert bright[10:, 20:].all() and bright.sum() == 10 * 10


def test_maps_that_break_their_names_promise_are_refused():
    with pytest.raises(ValueError, match="'prediction_1' has 4 channels.*3 classes"):
        draw('prediction_1', torch.zeros(4, 5, 5))
    with pytest.raises(ValueError, match='7 channels, expected at most 6'):
        draw('scale_weight', torch.zeros(7, 5, 5))
    with pytest.raises(ValueError, match=r'\(1, 3, 5, 5\), expected \(C, H, W\)'):
        draw('attention', torch.zeros(1, 3, 5, 5))


def test_ignored_pixels_are_black():
    label = np.array([[0, 1, 2, 3, 255, -1]])
    assert color_labels(label, PALETTE)[0].tolist() == PALETTE + [[0, 0, 0]] * 3


@pytest.mark.parametrize('size', [(1, 1), (16, 900), (300, 20), (1080, 1920)])
def test_a_strip_keeps_the_panels_shape_and_is_as_wide_as_its_columns(size):
    image = np.full((*size, 3), 128, np.uint8)
    overlay = label_panel('b', image, np.zeros(size, int), PALETTE)
    strip = draw_strip([Panel('a' * 300, image), *[overlay] * 3], [('word', (1, 2, 3))])
    width = int(np.clip(size[1], 400, 960))
    assert strip.shape[1] == 3 * (width + 6)
    assert strip.shape[0] == 2 * (26 + max(1, round(size[0] * width / size[1]))) + 26


def test_the_legend_names_every_class_of_every_panel():
    panels = [label_panel('label', BLACK, np.array([[0, 255], [0, 3]]), PALETTE)]
    panels += draw_maps({'stage': torch.tensor([[[2, -1]]])}, BLACK, PALETTE)
    assert class_legend(panels, 'abc', PALETTE) == [('a', PALETTE[0]), ('c', PALETTE[2])]


def test_captions_stay_inside_of_their_panels():
    image = np.full((50, 100, 3), 128, np.uint8)
    strip = draw_strip([Panel('wide ' * 60, image), Panel('', image)])
    second = strip[:20, 406:]
    assert (second == 255).all() and (strip[:20, :400] < 128).any()


def test_pictures_are_written_in_rgb_and_failures_are_said(tmp_path):
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    write_picture(tmp_path / 'new/folder/red.png', red)
    assert cv2.imread(str(tmp_path / 'new/folder/red.png'))[0, 0].tolist() == [0, 0, 255]
    (tmp_path / 'red.png').mkdir()
    with pytest.raises(ValueError, match='red.png cannot be written'):
        write_picture(tmp_path / 'red.png', red)


def test_curves_are_drawn_from_incomplete_points(tmp_path):
    points = [{'iter': i, 'loss': 1 / i, 'lr': 0.1} for i in range(1, 200)]
    found = []
    for name, more in (('without', []), ('with', [{'iter': 99, 'mIoU': 3.0}])):
        draw_curves(tmp_path / f'{name}.png', [*points, *more], ('loss', 'lr', 'mIoU'))
        blue = (cv2.imread(str(tmp_path / f'{name}.png')) == (180, 119, 31)).all(2)
        found.append([part.any() for part in (blue[30:255], blue[270:490], blue[510:720])])
    assert found == [[True, True, False], [True, True, True]]
