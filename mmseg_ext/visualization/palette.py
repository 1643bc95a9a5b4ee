"""Colours of classes that have none."""

from itertools import product

import cv2
import numpy as np

FIRST = (128, 64, 128)  # of the road in Cityscapes


def distinct_colors(count: int) -> list[list[int]]:
    """RGB colours (0 to 255), each as far as possible from all before it, in CIE Lab.

    Args:
        count: Number of colours; after 343 they repeat.
    """
    levels = np.linspace(0, 255, 7).round()
    candidates = np.array(list(product(levels, repeat=3)), np.float32)
    unit = np.vstack([[FIRST], candidates]).astype(np.float32) / 255
    lab = cv2.cvtColor(unit[None], cv2.COLOR_RGB2LAB)[0]
    colors = [list(FIRST)]
    distance = np.linalg.norm(lab[1:] - lab[0], axis=1)
    while len(colors) < min(count, len(candidates)):
        index = int(distance.argmax())
        colors.append(candidates[index].astype(int).tolist())
        distance = np.minimum(distance, np.linalg.norm(lab[1:] - lab[1 + index], axis=1))
    return [colors[i % len(colors)] for i in range(count)]
