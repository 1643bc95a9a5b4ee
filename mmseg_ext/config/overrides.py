"""Changes of a config by the command line, in every place where the config repeats a value."""

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS

from mmseg_ext.checkpoints.class_rows import class_names
from mmseg_ext.checkpoints.read import is_pretrained, local_file, state_dict_of
from mmseg_ext.config.values import check_kind
from mmseg_ext.config.walk import READ_KEYS, as_list, leaf_datasets, nested_dicts, what_is_read
from mmseg_ext.errors import UserError

OPTIONS = {
    'crop_size': '--crop-size H W',
    'data_root': '--data-root DIR',
    'max_epochs': '--max-epochs N',
    'max_iters': '--max-iters N',
    'seed': '--seed N',
}


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Merges ``--cfg-options`` into a config.

    Raises:
        UserError: Nothing reads an option, such as a variable that the file used only for itself,
            a position of a list does not exist, or the present value cannot be replaced so.
    """
    for option, value in options.items():
        key = option.partition('.')[0]
        if key not in READ_KEYS:
            raise UserError(f'--cfg-options {option}: nothing reads {key}; {_advice(cfg, key)}')
        check_kind(option, _present_value(cfg, option), value)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError) as error:
        raise UserError(f'--cfg-options cannot be merged: {error.args[0]}') from error


def _present_value(cfg: Config, option: str) -> Any:
    """Value of a dotted key before it is changed; None if there is none."""
    node: Any = cfg
    path = ''
    for key in option.split('.'):
        if isinstance(node, list | tuple):
            if not key.isdigit() or int(key) >= len(node):
                raise UserError(
                    f'--cfg-options {option}: {path} has the items 0 to {len(node) - 1}'
                )
            node = node[int(key)]
        elif isinstance(node, dict | Config):
            node = node.get(key)
        else:
            if node is not None:
                raise UserError(f'--cfg-options {option}: {path} is {node!r} and has no {key}')
            return None
        path = f'{path}.{key}' if path else key
    return node


def _advice(cfg: Config, key: str) -> str:
    if key in OPTIONS:
        return f'give {OPTIONS[key]}'
    paths = [f'{path}.{key}' for path, node in nested_dicts(what_is_read(cfg)) if key in node]
    suggestions = paths[:3] or get_close_matches(key, READ_KEYS, cutoff=0.4)
    return (
        f'did you mean {" or ".join(suggestions)}?' if suggestions else 'see the keys of the config'
    )


def set_data_root(cfg: Config, root: str) -> None:
    """Makes every data set that reads files read those under ``root``."""
    for leaf in leaf_datasets(what_is_read(cfg)):
        leaf['data_root'] = root


def set_cache_dir(cfg: Config, folder: str) -> None:
    """Sets the folder for cached statistics of data sets, unless the config sets it."""
    for _, node in nested_dicts(what_is_read(cfg)):
        cls = DATASETS.get(node['type']) if isinstance(node.get('type'), str) else None
        if cls is not None and 'cache_dir' in inspect.signature(cls).parameters:
            node.setdefault('cache_dir', folder)


def set_crop_size(cfg: Config, size: tuple[int, int]) -> None:
    """Sets every ``crop_size`` (h, w) and the values that depend on it.

    The data preprocessor pads to the new size. The stride of sliding windows, the size of ``Pad``
    and ``PadPanoptic``, and the arguments that a class names in ``follows_crop`` change in
    proportion. Resizes stay, except a random one of the size of the crop.

    Raises:
        UserError: A side is below 1, or the training has no crops or crops of several sizes.
    """
    if min(size) < 1:
        raise UserError(f'--crop-size {size[0]} {size[1]}: give at least 1 pixel for each side')
    before = _training_crop(cfg)
    for path, node in nested_dicts(what_is_read(cfg)):
        if node.get('crop_size') is not None:
            if node.get('stride') is not None:
                node['stride'] = _in_proportion(node['stride'], size, _pair(node['crop_size']))
            node['crop_size'] = size
        if path.endswith('data_preprocessor') and node.get('size') is not None:
            node['size'] = size
        _set_padding_and_jitter(node, size[::-1], before[::-1])
        cls = MODELS.get(node['type']) if isinstance(node.get('type'), str) else None
        for key in getattr(cls, 'follows_crop', ()):
            if key in node:
                node[key] = _in_proportion(node[key], size, before)
    if 'crop_size' in cfg:  # a variable of the file, which the config in the work directory shows
        cfg.crop_size = size


def _set_padding_and_jitter(node: Any, size: tuple[int, int], before: tuple[int, int]) -> None:
    """Makes ``Pad``, and a random resize of the size of the crop, follow it; sizes are (w, h)."""
    if node.get('type') in ('Pad', 'PadPanoptic') and node.get('size') is not None:
        node['size'] = _in_proportion(node['size'], size, before)
    if node.get('type') == 'RandomResize' and node.get('scale') == before:
        node['scale'] = size


def _training_crop(cfg: Config) -> tuple[int, int]:
    """Size (h, w) of the crops that the training pipelines make."""
    crops = {
        _pair(node['crop_size'])
        for _, node in nested_dicts(cfg.get('train_dataloader'))
        if node.get('crop_size') is not None
    }
    if not crops:
        raise UserError(f'--crop-size: no crop_size in the training data of {cfg.filename}')
    if len(crops) > 1:
        raise UserError(
            f'--crop-size: {cfg.filename} trains on crops of several sizes, '
            f'{", ".join(map(str, sorted(crops)))}: change its pipeline instead'
        )
    return crops.pop()


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)  # type: ignore[return-value]


def _in_proportion(value: Any, new: tuple[int, int], old: tuple[int, int]) -> tuple[int, int]:
    """Pair of sizes that are to ``new`` as ``value`` is to ``old``, rounded up."""
    first, second = (-(-v * n // o) for v, n, o in zip(_pair(value), new, old, strict=True))
    return first, second


def set_training_length(
    cfg: Config, *, max_iters: int | None = None, max_epochs: int | None = None
) -> None:
    """Sets the length of training and scales the schedule to it.

    Raises:
        UserError: The config counts in the other unit, or the length is below 1.
    """
    key, new = ('max_epochs', max_epochs) if max_iters is None else ('max_iters', max_iters)
    if new is None:
        raise UserError('give max_iters or max_epochs')
    if new < 1:
        raise UserError(f'--{key.replace("_", "-")} {new}: a training has at least 1')
    opposite = 'max_epochs' if key == 'max_iters' else 'max_iters'
    if not cfg.train_cfg.get(key):
        raise UserError(
            f'{cfg.filename} counts {opposite.removeprefix("max_")}: '
            f'give --{opposite.replace("_", "-")} instead of --{key.replace("_", "-")}'
        )
    old, by_epoch = cfg.train_cfg[key], key == 'max_epochs'
    cfg.train_cfg[key] = new
    if 'param_scheduler' in cfg:
        cfg.param_scheduler = _stretch(cfg.param_scheduler, by_epoch, new, old)
    sampler = (cfg.get('train_dataloader') or {}).get('sampler') or {}
    if by_epoch and sampler.get('extra_epochs'):
        sampler['extra_epochs'] = round(sampler['extra_epochs'] * new / old)
    cfg.train_cfg['val_interval'] = min(cfg.train_cfg.get('val_interval', 1), new)
    for name, counts_epochs in (('checkpoint', by_epoch), ('logger', False)):
        hook = cfg.get('default_hooks', {}).get(name) or {}
        if 'interval' in hook and hook.get('by_epoch', counts_epochs) == by_epoch:
            hook['interval'] = min(hook['interval'], new)


def _stretch(schedulers: Any, by_epoch: bool, new: int, old: int) -> Any:
    """Schedulers with their lengths scaled by new / old, if they count in the unit of the training.

    Begin and end are rounded, so that neighbours still meet. A warm-up of length 0 is removed.
    """
    if isinstance(schedulers, list | tuple):
        scaled = [_stretch(scheduler, by_epoch, new, old) for scheduler in schedulers]
        return [s for s in scaled if s.get('begin', 0) < s.get('end', float('inf'))]
    if 'type' not in schedulers:  # several optimisers
        return {key: _stretch(value, by_epoch, new, old) for key, value in schedulers.items()}
    scheduler = dict(schedulers)
    if scheduler.get('by_epoch', True) != by_epoch:
        return scheduler
    for key in ('begin', 'end'):
        if key in scheduler:
            scheduler[key] = round(scheduler[key] * new / old)
    for key in ('T_max', 'total_iters', 'step_size'):
        if scheduler.get(key):
            scheduler[key] = max(round(scheduler[key] * new / old), 1)
    if 'milestones' in scheduler:
        scheduler['milestones'] = [max(round(m * new / old), 1) for m in scheduler['milestones']]
    return scheduler


def scale_learning_rate(cfg: Config) -> None:
    """Lets the host scale the learning rate with the batch of all processes.

    Raises:
        UserError: The config does not say for which batch its learning rate is.
    """
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise UserError(
            f'--auto-scale-lr: {cfg.filename} does not say for which batch its learning rate is: '
            'give --cfg-options auto_scale_lr.base_batch_size=N'
        )
    cfg.auto_scale_lr['enable'] = True


def set_initial_weights(cfg: Config, init: str) -> None:
    """Sets the starting weights: random (``none``), a file, or those of an installed package.

    A file holds a model, which ``load_from`` reads, if most of its names start with a module of the
    model, such as ``decode_head.``. Any other file holds a backbone. The built model is checked
    against it later.
    """
    for _, node in nested_dicts(cfg.model):
        if node.get('pretrained'):
            node['pretrained'] = None
        inits = as_list(node.get('init_cfg'))
        remaining = [init_cfg for init_cfg in inits if not is_pretrained(init_cfg)]
        if len(remaining) < len(inits):
            if remaining:
                node['init_cfg'] = remaining
            else:
                del node['init_cfg']
    cfg.load_from = None
    cfg.pop('initial_weights', None)
    if init == 'none':
        return
    if local_file(init) is None:
        raise UserError(f'--init {init}: no such file; "--init none" starts from random weights')
    owner = next((node for _, node in nested_dicts(cfg.model) if 'backbone' in node), None)
    prefixes = tuple(
        f'{name}.'
        for name, module in [*cfg.model.items(), *(owner or {}).items()]
        if isinstance(module, dict) and 'type' in module
    )
    names = list(state_dict_of(init))
    if owner is None or sum(name.startswith(prefixes) for name in names) > len(names) / 2:
        cfg.load_from = init
    else:
        owner['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint=init)


def set_initial_classes(cfg: Config, names: Sequence[str]) -> None:
    """Sets the classes of the starting weights, whose classifier is then taken by their names.

    Args:
        cfg: Config with its starting weights set.
        names: As for ``class_rows.class_names``.

    Raises:
        UserError: The training does not start from a model, or see ``class_names``.
    """
    if not cfg.get('load_from'):
        raise UserError(
            '--init-classes: the training does not start from a model with a classifier: give one '
            'with --init PATH'
        )
    cfg.init_classes = class_names(names, cfg.load_from)


def starting_weights(cfg: Config) -> list[str]:
    """Files and addresses from which weights are read before training."""
    sources = [cfg.load_from] if cfg.get('load_from') and not cfg.get('resume') else []
    for _, node in nested_dicts(cfg.model):
        sources += [node['pretrained']] if isinstance(node.get('pretrained'), str) else []
        sources += [i['checkpoint'] for i in as_list(node.get('init_cfg')) if is_pretrained(i)]
    return list(dict.fromkeys(sources))


def explain_unreadable_images(cfg: Config) -> None:
    """Puts ``LoadImage`` in the place of the host's loader, whose errors name no file."""
    for _, node in nested_dicts(what_is_read(cfg)):
        if node.get('type') == 'LoadImageFromFile':
            node['type'] = 'LoadImage'
