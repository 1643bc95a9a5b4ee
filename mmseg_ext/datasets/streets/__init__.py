"""Streets: a small data set drawn by code, in Cityscapes' classes and folder layout.

One pinhole camera stands on a street; everything is placed in metres (x right, y up, z ahead) and
drawn from far to near, so that size, occlusion and shadows follow. A scene depends on nothing but
its seed and size.
"""

from .writer import coarse_labels, draw_scene, make_streets

__all__ = ['coarse_labels', 'draw_scene', 'make_streets']
