"""Keys of a config, compared with those that its classes and the host read."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import mmengine.registry
import mmseg.registry
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..errors import UserError
from ..layers.feature_tap import WrapperHead
from .walk import nested_dicts, what_is_read

DATA = ('DATASETS', 'DATA_SAMPLERS', 'TRANSFORMS', 'FUNCTIONS')
REGISTRIES = {
    'model': ('MODELS', 'WEIGHT_INITIALIZERS', 'TASK_UTILS'),
    'tta_model': ('MODELS',),
    'train_dataloader': DATA,
    'val_dataloader': DATA,
    'test_dataloader': DATA,
    'tta_pipeline': ('TRANSFORMS',),
    'optim_wrapper': ('OPTIM_WRAPPERS', 'OPTIMIZERS'),
    'param_scheduler': ('PARAM_SCHEDULERS',),
    'train_cfg': ('LOOPS',),
    'val_cfg': ('LOOPS',),
    'test_cfg': ('LOOPS',),
    'val_evaluator': ('METRICS', 'EVALUATOR'),
    'test_evaluator': ('METRICS', 'EVALUATOR'),
    'visualizer': ('VISUALIZERS', 'VISBACKENDS'),
    'log_processor': ('LOG_PROCESSORS',),
}
# Classes of sections whose `type` may be omitted.
USUAL_TYPES = {
    'train_cfg': 'EpochBasedTrainLoop',
    'val_cfg': 'ValLoop',
    'test_cfg': 'TestLoop',
    'log_processor': 'LogProcessor',
}
# Keys that the host takes out of a dict before it builds the class.
BEFORE_BUILD = {
    '': {'type', '_scope_'},
    'model': {'_delete_', 'requires_grad', 'override', 'name', 'fallback_on_stride'},
    'optim_wrapper': {'constructor', 'optimizer', 'paramwise_cfg'},
    'param_scheduler': {'convert_to_iter_based', 'epoch_length'},
    'train_cfg': {'by_epoch'},
    'default_hooks': {'priority'},
    'custom_hooks': {'priority'},
}
CUSTOM_KEYS = 'optim_wrapper.paramwise_cfg.custom_keys.'
LEVELS = {'in_channels', 'in_index', 'input_transform'}
PROPOSALS = {'proposals_per_level', 'proposals_per_image', 'proposal_iou'}  # PANet
# Keys of dicts that are arguments of a class, which reads them by name.
PARTS = {
    ('EncoderDecoder', 'test_cfg'): {
        *('mode', 'crop_size', 'stride', 'windows_per_batch', 'full_height'),
        *('subdivision_steps', 'subdivision_num_points', 'scale_factor'),  # PointHead
        *('task', 'object_mask_threshold', 'overlap_threshold'),  # OneFormer
        *('max_instances', 'things_only'),
        *PROPOSALS,
        *('score_threshold', 'iou_threshold', 'mask_threshold'),
    },
    ('EncoderDecoder', 'train_cfg'): {
        *('num_points', 'oversample_ratio', 'importance_sample_ratio'),  # PointHead
        *('assigner', 'sampler', 'work_dir'),
        *PROPOSALS,
        *('anchors_per_image', 'anchor_positive', 'anchor_negative', 'rpn_beta', 'box_beta'),
        *('rois_per_image', 'foreground_fraction', 'foreground_iou'),
    },
    ('BaseSegDataset', 'data_prefix'): {
        *('img_path', 'seg_map_path', 'img_path2', 'depth_map_path'),
        *('prob_path', 'human_path'),  # PseudoLabelDataset
        'instance_path',  # ADE20KPanopticDataset
    },
    ('EncoderDecoder', 'levels'): LEVELS,
    ('EncoderDecoder', 'head_level'): LEVELS,
    ('SegDataPreProcessor', 'test_cfg'): {'size', 'size_divisor'},
    ('HRNet', 'extra'): {'stage1', 'stage2', 'stage3', 'stage4'},
    ('OptimWrapper', 'clip_grad'): {
        *('type', 'max_norm', 'norm_type', 'error_if_nonfinite', 'foreach', 'clip_value'),
    },
    ('OptimWrapper', 'paramwise_cfg'): {
        *('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult'),
        *('dwconv_decay_mult', 'dcn_offset_lr_mult', 'bypass_duplicate'),
    },
}
OURS_AND_THE_HOSTS = ('mmseg_ext', 'mmseg', 'mmcv', 'mmengine', 'torch')


def check_types(cfg: Config) -> None:
    """Refuses a ``type`` that is in no registry.

    Raises:
        UserError: A type is not registered; the message has the most similar names.
    """
    for section, value in what_is_read(cfg).items():
        registries = _registries(section)
        for path, node in nested_dicts(value, section):
            name = node.get('type')
            if not isinstance(name, str) or any(r.get(name) is not None for r in registries):
                continue
            registered = sorted({entry for r in registries for entry in _names(r)})
            suggestions = get_close_matches(name, registered, n=3)
            advice = _did_you_mean(suggestions) or 'see custom_imports'
            raise UserError(f'{path}.type={name!r} is not registered: {advice}')


def _registries(section: str) -> list[Registry]:
    names = REGISTRIES.get(section)
    if names is None:  # hooks may hold anything
        every = {k for k, v in vars(mmengine.registry).items() if isinstance(v, Registry)}
        names = ('HOOKS', *sorted(every - {'HOOKS'}))
    return [getattr(mmseg.registry, n, getattr(mmengine.registry, n)) for n in names]


def _names(registry: Registry | None) -> Iterator[str]:
    while registry is not None:
        yield from registry.module_dict
        registry = registry.parent


def check_keys(cfg: Config) -> None:
    """Refuses a key that nothing reads, in a dict whose readers are known.

    These are the arguments of registered classes, and the dicts of the host that have no type.

    Raises:
        UserError: Nothing reads a key; the message has the most similar ones.
    """
    for section, value in what_is_read(cfg).items():
        nodes = list(nested_dicts(value, section))
        ours = all(_is_ours(_class_of(section, path, node)) for path, node in nodes)
        for path, node in nodes:
            cls = _class_of(section, path, node)
            accepted = _untyped(path, node) if cls is None else arguments_of(cls, node, section)
            if accepted is not None:
                reader = cls.__name__ if cls is not None else _reader_of(path)
                _check_node(path, node, accepted, f'{reader} does not take')
            bases = {base.__name__ for base in getattr(cls, '__mro__', ())}
            for (base, key), accepted in PARTS.items():
                if ours and base in bases and isinstance(node.get(key), dict):
                    _check_node(f'{path}.{key}', node[key], accepted, f'{base} does not read')


def _check_node(path: str, node: dict, accepted: set[str], refusal: str) -> None:
    for key in map(str, node):
        if key in accepted:
            continue
        inside = [
            f'{deeper}.{like}'
            for deeper, inner in nested_dicts(node, path)
            if inner is not node
            for like in get_close_matches(key, map(str, inner))
        ]
        advice = _did_you_mean(get_close_matches(key, sorted(accepted)) or inside[:3])
        raise UserError(f'{path}.{key}: {refusal} {key}; {advice or "remove it"}')


def _did_you_mean(names: list[str]) -> str:
    return f'did you mean {" or ".join(names)}?' if names else ''


def _is_ours(cls: Any) -> bool:
    return cls is None or str(cls.__module__).partition('.')[0] in OURS_AND_THE_HOSTS


def _class_of(section: str, path: str, node: Mapping) -> Any:
    """Class or function that a dict is built with, None for a dict without a type."""
    name = node.get('type', USUAL_TYPES.get(section) if path == section else None)
    if path == 'optim_wrapper' and 'optimizer' in node:
        name = node.get('type', 'OptimWrapper')
    if not isinstance(name, str):
        return name
    registries = _registries(section)
    if path.endswith('init_cfg'):
        registries = [mmengine.registry.WEIGHT_INITIALIZERS]
    return next((c for c in (r.get(name) for r in registries) if c is not None), None)


def arguments_of(cls: Callable, node: Mapping, section: str) -> set[str] | None:
    """Names that a class or function takes from its dict; None if it takes any.

    A class with ``**kwargs`` hands them to its base, a wrapper head to the head inside it.

    Args:
        cls: Class or function.
        node: Dict of the config.
        section: First key of its path.
    """
    names = BEFORE_BUILD[''] | BEFORE_BUILD.get(section, set())
    inits = [vars(c)['__init__'] for c in getattr(cls, '__mro__', ()) if '__init__' in vars(c)]
    is_open = False
    for init in inits[:-1] if inits else [cls]:  # the last is that of `object`
        parameters = inspect.signature(init).parameters
        names |= set(parameters)
        is_open = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if not is_open:
            break
    if inspect.isclass(cls) and issubclass(cls, WrapperHead) and isinstance(node.get('head'), dict):
        inner = _class_of(section, 'head', node['head'])
        inner_names = None if inner is None else arguments_of(inner, node['head'], section)
        return None if inner_names is None else names | inner_names
    # A checkpoint hook hands its other arguments to a method that takes none of them.
    is_open &= not (inspect.isclass(cls) and issubclass(cls, CheckpointHook))
    return None if is_open else names


def _reader_of(path: str) -> str:
    return 'DataLoader' if path.endswith('_dataloader') else 'the host'


def _untyped(path: str, node: dict) -> set[str] | None:
    """Keys of a dict of the host without a type; None if any is read."""
    if _reader_of(path) == 'DataLoader':
        of_host = ('num_batch_per_epoch', 'disable_subprocess_warning')
        return {*inspect.signature(DataLoader.__init__).parameters, *of_host} - {'self'}
    if path.startswith(CUSTOM_KEYS):
        return {*('lr_mult', 'decay_mult', 'lr', 'weight_decay', 'momentum', 'betas', 'eps')}
    tables: dict[str, set[str]] = {
        'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
        'env_cfg.mp_cfg': {'mp_start_method', 'opencv_num_threads'},
        'randomness': {*inspect.signature(Runner.set_randomness).parameters} - {'self'},
        'auto_scale_lr': {'enable', 'base_batch_size'},
        'compile': {*inspect.signature(torch.compile).parameters, 'target'},
    }
    return tables.get(path)
