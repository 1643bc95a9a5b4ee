"""One module per paper; importing it registers what the paper adds."""

from . import cpnet, danet, dsrl, fastfcn, gscnn, hanet, hmsa, magnet, pixel_contrast, spnet

__all__ = [
    'cpnet',
    'danet',
    'dsrl',
    'fastfcn',
    'gscnn',
    'hanet',
    'hmsa',
    'magnet',
    'pixel_contrast',
    'spnet',
]
