"""The host: MMSegmentation, MMCV and MMEngine, which come from two families of distributions.

This is the only module that knows of the two families (``onedl-*``, maintained, and the original)
and of what has to be repaired for ours to plug into either.
"""

import logging
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import distributions
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the host is imported by functions: a missing one gets a sentence first
    from mmengine.config import Config
    from mmengine.dataset import InfiniteSampler
    from mmengine.optim import OptimWrapper
    from mmengine.runner import Runner
    from mmseg.datasets import BaseSegDataset
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from torch import Tensor

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
    'mmseg_ext.visualization.visualizer',
)
REGISTRIES = (
    'DATA_SAMPLERS',
    'DATASETS',
    'HOOKS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'PARAM_SCHEDULERS',
    'RUNNERS',
    'TRANSFORMS',
    'VISUALIZERS',
)

# Decode heads of the host that read several levels; its other heads read a single one.
HEADS_OF_LEVELS = ('FPNHead', 'LightHamHead', 'SegformerHead', 'SETRMLAHead', 'UPerHead')


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
    _print_no_debug_messages()
    from mmengine.config.utils import MODULE2PACKAGE
    from mmseg import registry

    # On the fork `mmseg::` configs look for a distribution "mmsegmentation"; the hub installs it.
    MODULE2PACKAGE.update(mmseg='mmseg', mmseg_ext='mmseg_ext')
    for name in REGISTRIES:
        add_locations(getattr(registry, name), LOCATIONS)


def _print_no_debug_messages() -> None:
    """Stops the host from printing its debug messages, such as 'Could not import OneDL'."""
    from mmengine import logging as host_logging

    plain = host_logging.print_log
    if plain.__module__ == __name__:
        return

    def print_log(msg: Any, logger: Any = None, level: int = logging.INFO) -> None:
        if logger is not None or level > logging.DEBUG:
            plain(msg, logger, level)

    host_logging.print_log = print_log


# Private attributes of the host that have no public form: tests/test_host.py fails with a sentence
# where a version of the host lacks one.


def set_config_filename(cfg: 'Config', filename: str) -> None:
    """Sets the file name under which the Runner dumps a config; only its reader can set it."""
    object.__setattr__(cfg, '_filename', filename)


def count_accumulated_steps(optim_wrapper: 'OptimWrapper') -> int:
    """Number of iterations between two updates; several optimisers count as 1."""
    return getattr(optim_wrapper, '_accumulative_counts', 1)


def seeds_ranks_apart(runner: 'Runner') -> bool:
    """Whether each process has a seed of its own, ``randomness.diff_rank_seed``."""
    return runner._randomness_cfg.get('diff_rank_seed', False)


def restart_sampler(sampler: 'InfiniteSampler') -> None:
    """Makes the next iterator begin at the first sample, and not where the last one stopped."""
    sampler.indices = sampler._indices_of_rank()


def normalizes(data_preprocessor: Any) -> bool:
    """Whether a data preprocessor subtracts a mean and divides by a deviation."""
    return getattr(data_preprocessor, '_enable_normalize', False)


def swaps_channels(data_preprocessor: Any) -> bool:
    """Whether a data preprocessor turns BGR into RGB, or RGB into BGR."""
    return getattr(data_preprocessor, '_channel_conversion', False)


def wrapped_index(wrapper: Any, index: int) -> Any:
    """Index in the data set inside a wrapper, with its number in a ``ConcatDataset``."""
    return wrapper._get_ori_dataset_idx(index)


def is_subset(dataset: 'BaseSegDataset') -> bool:
    """Whether a data set uses some of its images only, by its argument ``indices``."""
    return dataset._indices is not None


def has_training(runner: 'Runner') -> bool:
    """Whether the training loop is built; ``runner.iter`` would build it with all its data."""
    from mmengine.runner import BaseLoop

    return isinstance(runner._train_loop, BaseLoop)


def labels_of_batch(head: 'BaseDecodeHead', data_samples: list) -> 'Tensor':
    """Labels (N, H, W) of a batch, stacked as decode heads stack them."""
    return head._stack_batch_gt(data_samples).squeeze(1)


@contextmanager
def reads_checkpoints_by(load: Callable[[str, Any], Any]) -> Iterator[None]:
    """Lets the host read the checkpoints of this machine by ``load(path, map_location)``."""
    from mmengine.runner import CheckpointLoader

    before = CheckpointLoader._schemes['']
    CheckpointLoader.register_scheme('', load, force=True)
    try:
        yield
    finally:
        CheckpointLoader.register_scheme('', before, force=True)


def find_loaders_by_class() -> None:
    """Lets ``inference_model`` and ``MMSegInferencer`` find loaders by their class.

    The host finds them by the names of its own, and changes the model's config: after an array, a
    file fails. Safe to call again.
    """
    from mmcv.transforms import LoadAnnotations
    from mmseg.apis import inference, mmseg_inferencer
    from mmseg.apis.utils import _preprare_data
    from mmseg.registry import TRANSFORMS

    def is_a(transform: dict, parent: type) -> bool:
        kind = transform['type']
        return issubclass(TRANSFORMS.get(kind) if isinstance(kind, str) else kind, parent)

    def prepare_data(imgs: Any, model: Any) -> tuple[dict, bool]:
        pipeline = [dict(t) for t in model.cfg.test_pipeline if not is_a(t, LoadAnnotations)]
        return _preprare_data(imgs, SimpleNamespace(cfg=SimpleNamespace(test_pipeline=pipeline)))

    def find_transform(self: Any, pipeline: list[dict], name: str) -> int:
        parent = TRANSFORMS.get(name)
        return next((i for i, t in enumerate(pipeline) if parent and is_a(t, parent)), -1)

    inference._preprare_data = prepare_data
    mmseg_inferencer.MMSegInferencer._get_transform_idx = find_transform


def resizes_logits(loss: Any) -> bool:
    """Whether a loss resizes logits to the label by itself."""
    return getattr(loss, 'resizes_logits', False)


def hand_logits_to_losses() -> None:
    """Lets decode heads give logits to losses that resize them, ``resizes_logits``, as they are.

    The host resizes logits to the label before any loss sees them, which needs gigabytes for a
    thousand classes. A head with such losses alone logs no ``acc_seg``, which needs as much. Safe
    to call again.
    """
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    plain = BaseDecodeHead.loss_by_feat
    if plain.__module__ == __name__:
        return

    def loss_by_feat(head: Any, seg_logits: 'Tensor', batch_data_samples: list) -> dict:
        losses = head.loss_decode if isinstance(head.loss_decode, Iterable) else [head.loss_decode]
        if head.sampler is not None or not all(map(resizes_logits, losses)):
            return plain(head, seg_logits, batch_data_samples)
        label = labels_of_batch(head, batch_data_samples)
        keys = dict(ignore_index=head.ignore_index, align_corners=head.align_corners)
        values: dict[str, Tensor] = {}
        for loss in losses:
            value = loss(seg_logits, label, **keys)
            values[loss.loss_name] = values.get(loss.loss_name, 0) + value
        return values

    BaseDecodeHead.loss_by_feat = loss_by_feat


def add_locations(registry: Any, locations: Sequence[str]) -> None:
    """Lets a registry import modules of ours at its first look-up, as it imports the host's."""
    missing = [location for location in locations if location not in registry._locations]
    if missing:
        registry._locations = [*registry._locations, *missing]
        registry._imported = False  # it may have looked its own modules up already


def class_that_failed(error: BaseException) -> type | None:
    """Class that a registry was building when an error was raised, the innermost one, or None."""
    from mmengine.registry import build_from_cfg

    built = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is build_from_cfg.__code__:
            built = frame.f_locals.get('obj_cls', built)
    return built if isinstance(built, type) else None
