"""The host: MMSegmentation, MMCV and MMEngine, which come from two families of distributions.

This is the only module that knows of the two families (``onedl-*``, maintained, and the original)
and of what has to be repaired for ours to plug into either.
"""

import warnings
from importlib.metadata import distributions
from importlib.util import find_spec

RECIPE = "pip install torch, then pip install -e '.[onedl]' in the folder of mmsegmentation-ext"
ORIGINALS = ('mmcv', 'mmcv-full', 'mmcv-lite', 'mmengine', 'mmengine-lite', 'mmsegmentation')
FORKS = ('onedl-mmcv', 'onedl-mmengine', 'onedl-mmsegmentation')

# Imported by the host's registries at their first look-up, as they import the host's own modules:
# `import mmseg_ext` stays fast and needs no order of imports.
LOCATIONS = (
    'mmseg_ext.losses',
    'mmseg_ext.segmentors',
    'mmseg_ext.baselines',
    'mmseg_ext.datasets',
    'mmseg_ext.papers',
    'mmseg_ext.engine',
    'mmseg_ext.evaluation',
)
REGISTRIES = (
    'DATA_SAMPLERS',
    'DATASETS',
    'HOOKS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'OPTIM_WRAPPERS',
    'RUNNERS',
    'TRANSFORMS',
)


def check_host() -> None:
    """Says what to run when the host is missing or installed twice.

    Raises:
        ImportError: torch, mmengine, mmcv or mmseg cannot be found.
    """
    missing = [name for name in ('torch', 'mmengine', 'mmcv', 'mmseg') if find_spec(name) is None]
    if missing:
        raise ImportError(f'mmseg_ext needs {", ".join(missing)}: run {RECIPE}')
    installed = {(d.metadata['Name'] or '').lower().replace('_', '-') for d in distributions()}
    originals = sorted(installed.intersection(ORIGINALS))
    forks = sorted(installed.intersection(FORKS))
    if originals and forks:
        warnings.warn(
            f'{", ".join(originals)} and {", ".join(forks)} own the same folders and have '
            f'overwritten each other: pip uninstall {" ".join(originals + forks)}, then {RECIPE}.',
            stacklevel=3,
        )


def prepare_host() -> None:
    """Checks the host, then makes it find our modules; cheap and safe to call again."""
    check_host()
    # mmcv warns at every import that it has no compiled ops; nothing of ours needs them.
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    from mmengine.config.utils import MODULE2PACKAGE
    from mmseg import registry

    # On the fork `mmseg::` configs look for a distribution "mmsegmentation"; the hub installs it.
    MODULE2PACKAGE.update(mmseg='mmseg', mmseg_ext='mmseg_ext')
    for name in REGISTRIES:
        node = getattr(registry, name)
        fresh = [location for location in LOCATIONS if location not in node._locations]
        if fresh:
            node._locations = [*node._locations, *fresh]
            node._imported = False  # it may have looked its own modules up already
