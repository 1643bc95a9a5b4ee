"""Streets: a small data set drawn by code, in Cityscapes' classes and folder layout.

One pinhole camera stands on a street. Objects are placed in metres (x right, y up, z ahead) and
drawn from far to near, which gives correct sizes, occlusion and shadows. A scene depends on its
seed and size alone.
"""

from .writer import coarse_labels, draw_scene, make_streets

__all__ = ['coarse_labels', 'draw_scene', 'make_streets']
