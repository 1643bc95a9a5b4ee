"""Settings of MagNet's inference."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ...errors import UserError
from ...layers.sizes import Size


@dataclass(frozen=True, kw_only=True)
class Inference:
    """Entries of ``test_cfg``.

    Args:
        n_points: Number of points refined per scale; a value of 1 or less is a fraction of the
            pixels. If only some patches are refined, the number is limited to, and the fraction
            taken of, as many pixels as these patches have of all patches.
        n_patches: Number of patches refined per scale, those with the largest mean uncertainty
            (MagNet-Fast); None refines all patches.
        min_patch_uncertainty: Smallest mean uncertainty, in [0, 1], of a patch that is refined; 0
            refines confident patches too.
        smooth_kernel: Side of the median filter of the scores, odd.
        border: Width of the frame of a chosen patch that is not refined, because context is missing
            there, in pixels of the scale; at most a quarter of a patch.
        stages: Number of scales, after which inference stops; 1 is the segmentor alone. None uses
            all scales.
        memory_limit: Memory in MiB that inference may use in addition to the image and the result.
            Half of it is for the maps of a scale. The rest is for patches in the networks: as many
            at a time as fit, and at least a single patch. If the model has no ``scales``, an image
            with larger maps is cut into tiles, and each tile is predicted like an image.

    Raises:
        UserError: A number is out of range.
    """

    n_points: float = 32768
    n_patches: int | None = None
    min_patch_uncertainty: float = 0.0
    smooth_kernel: int = 5
    border: int = 10
    stages: int | None = None
    memory_limit: float = 4096

    def __post_init__(self) -> None:
        lowest = dict(n_points=0, n_patches=0, smooth_kernel=1, border=0, stages=1)
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f'test_cfg.{name}={value} must be at least {least}')
        if self.smooth_kernel % 2 == 0:
            raise UserError(
                f'test_cfg.smooth_kernel={self.smooth_kernel} has no middle: take an odd number'
            )
        if not 0 <= self.min_patch_uncertainty <= 1:
            raise UserError(
                f'test_cfg.min_patch_uncertainty={self.min_patch_uncertainty} must be in [0, 1]'
            )
        if self.memory_limit <= 0:
            raise UserError(f'test_cfg.memory_limit={self.memory_limit} must be above 0 MiB')

    @classmethod
    def from_cfg(cls, test_cfg: Mapping[str, Any] | None) -> 'Inference':
        """Settings of a config.

        Raises:
            UserError: ``test_cfg`` has an unknown key.
        """
        cfg = dict(test_cfg or {})
        names = [field.name for field in fields(cls)]
        if unknown := sorted(cfg.keys() - set(names)):
            raise UserError(
                f'MagNet does not know test_cfg.{unknown[0]}: it reads {", ".join(names)}'
            )
        return cls(**cfg)

    def count_points(self, size: Size, num_chosen: int, num_patches: int) -> int:
        """Number of refined pixels of a scale of ``size``.

        Args:
            size: Size (h, w) of the scale.
            num_chosen: Number of refined patches.
            num_patches: Number of all patches of the scale.
        """
        pixels = size[0] * size[1]
        if self.n_points <= 1:
            return int(pixels * self.n_points * num_chosen / num_patches)
        return int(min(self.n_points, pixels * num_chosen / num_patches))
