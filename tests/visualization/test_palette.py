import numpy as np

from mmseg_ext.visualization.palette import distinct_colors


def test_no_two_colours_are_alike():
    colors = np.array(distinct_colors(20))
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    assert distances[~np.eye(20, dtype=bool)].min() > 60
    assert len({tuple(color) for color in distinct_colors(300)}) == 300


def test_more_classes_do_not_change_the_first_colours():
    assert distinct_colors(30)[:5] == distinct_colors(5)
