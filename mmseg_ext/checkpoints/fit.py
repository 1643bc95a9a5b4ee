"""Comparison of a checkpoint with a model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from mmengine.runner import Runner
from torch import Tensor, nn

from mmseg_ext.errors import UserError
from mmseg_ext.layers.unwrapping import unwrap

from .finite import first_not_finite
from .read import (
    classes_of,
    is_pretrained,
    latest_checkpoint,
    local_file,
    read_checkpoint,
    require_type,
    state_dict_of,
)

Shape = tuple[int, ...]


@dataclass
class Fit:
    """Differences between the tensors of a checkpoint and of a module.

    Args:
        missing: Names that only the module has.
        unexpected: Names that only the checkpoint has.
        other_shape: Shapes in the checkpoint and in the module, by name, where they differ.
        unusable: Names in both whose value in the checkpoint is no tensor or is not finite, with
            the problem.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    other_shape: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        differences = (
            (self.missing, 'not in it'),
            (self.unexpected, 'not in the model'),
            (list(self.other_shape), 'of another shape'),
        )
        return '; '.join(
            f'{len(names)} {relation}: {_short(names)}' for names, relation in differences if names
        )

    def without(self, prefixes: tuple[str, ...]) -> 'Fit':
        """Differences without names that start with one of ``prefixes``."""
        return Fit(
            [name for name in self.missing if not name.startswith(prefixes)],
            [name for name in self.unexpected if not name.startswith(prefixes)],
            {n: shapes for n, shapes in self.other_shape.items() if not n.startswith(prefixes)},
            self.unusable,
        )

    def class_counts(self) -> tuple[int, int] | None:
        """Numbers of classes of the checkpoint and of the module; None if anything else differs."""
        classifies = all('_seg.' in name for name in self.other_shape)
        pairs = self.other_shape.values()
        only_classes = classifies and all(t[1:] == ours[1:] and t for t, ours in pairs)
        if self.missing or self.unexpected or not only_classes:
            return None
        counts = {(theirs[0], ours[0]) for theirs, ours in pairs}
        return counts.pop() if len(counts) == 1 else None


def _short(names: list[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')


def load_and_compare(module: nn.Module, state: dict[str, Any]) -> Fit:
    """Loads the tensors that fit and returns the differences.

    Old names are translated by the rules of the modules, as in ``load_state_dict``.

    Raises:
        UserError: A tensor cannot be loaded for another reason than its name or its shape.
    """
    fit, errors = Fit(), []  # type: tuple[Fit, list[str]]
    state = dict(state)

    def load(submodule: nn.Module, prefix: str) -> None:
        submodule._load_from_state_dict(  # type: ignore[operator]
            state, prefix, {}, True, fit.missing, fit.unexpected, errors
        )
        for name, child in submodule.named_children():
            load(child, f'{prefix}{name}.')

    load(module, '')
    fit.missing = [name for name in fit.missing if not name.endswith('num_batches_tracked')]
    ours = module.state_dict()
    for name in ours.keys() & state.keys():
        if problem := _problem(state[name], ours[name]):
            fit.unusable[name] = problem
    for error in errors:
        match = re.match(r'size mismatch for (\S+):', error)
        if match:
            name = match[1]
            fit.other_shape[name] = tuple(state[name].shape), tuple(ours[name].shape)
        elif not fit.unusable:
            raise UserError(f'the checkpoint cannot be loaded: {error}')
    return fit


def _problem(value: Any, ours: Tensor) -> str | None:
    """Reason why a value cannot be loaded into a tensor of any shape, or None."""
    if not isinstance(value, Tensor):
        return f'is of type {type(value).__name__} and no tensor'
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        return 'is a sparse or quantized tensor, or holds no values'
    if ours.is_floating_point() and not value.is_floating_point():
        return f'is of type {value.dtype} and not of {ours.dtype}'
    return None if first_not_finite({'': value.to(ours.dtype)}) is None else 'is not finite'


def require_class_order(checkpoint: str, classes: Sequence[str]) -> None:
    """Refuses a checkpoint with the same classes as the data, but in another order."""
    trained = classes_of(read_checkpoint(checkpoint))
    if trained != tuple(classes) and sorted(map(str, trained)) == sorted(classes):
        i = next(i for i, name in enumerate(classes) if trained[i] != name)
        raise UserError(
            f'{checkpoint} was trained with {trained[i]} as class {i}, which is {classes[i]} in '
            'the data: give metainfo.classes of the config the order of the training'
        )


def starts_pretrained(module: nn.Module) -> bool:
    """Whether the ``init_cfg`` of a module reads its weights from a checkpoint."""
    init_cfgs: Any = getattr(module, 'init_cfg', None)
    return any(map(is_pretrained, init_cfgs if isinstance(init_cfgs, list) else [init_cfgs]))


def require_frozen_part(model: nn.Module) -> None:
    """Refuses a training without a checkpoint whose model has a frozen part without weights.

    Raises:
        UserError: The ``frozen_part`` that the model declares is not pretrained.
    """
    name = getattr(model, 'frozen_part', '').rstrip('.')
    if name and not starts_pretrained(model.get_submodule(name)):
        raise UserError(
            f'{type(model).__name__} needs the weights of a trained {name}: name its checkpoint '
            f'with --init PATH, or in the config with {name}='
            "dict(init_cfg=dict(type='Pretrained', checkpoint=PATH))"
        )


def require_usable(checkpoint: str | Path, fit: Fit) -> None:
    """Refuses a checkpoint whose values cannot be used, whatever the model.

    Raises:
        UserError: A value is no tensor or is not finite.
    """
    if fit.unusable:
        name = min(fit.unusable)
        hidden = f' ({len(fit.unusable) - 1} more)' if len(fit.unusable) > 1 else ''
        raise UserError(
            f'{checkpoint}: {name} {fit.unusable[name]}{hidden}: give another '
            'checkpoint, such as an earlier one'
        )


def other_model(checkpoint: str | Path, module: nn.Module, fit: Fit) -> str:
    """Sentence that refuses a checkpoint of another model."""
    if counts := fit.class_counts():
        return (
            f'{checkpoint} has {counts[0]} classes, but {type(module).__name__} of the config has '
            f'{counts[1]}: give the config that it was trained with, or another checkpoint'
        )
    return (
        f'{checkpoint} is a checkpoint of another model than {type(module).__name__} of '
        f'the config: {fit}; convert released weights with tools/convert_checkpoint.py'
    )


def starting_parts(model: nn.Module) -> tuple[str, ...]:
    """Prefixes of the weights that a checkpoint must hold to start a training.

    They name the model's ``frozen_part`` if it has one, else every submodule called ``backbone``.
    """
    frozen_part = getattr(model, 'frozen_part', None)
    backbones = (name for name, _ in model.named_modules() if f'.{name}'.endswith('.backbone'))
    return (frozen_part,) if frozen_part else tuple(f'{name}.' for name in backbones)


def require_resumable(checkpoint: str, *, has_schedule: bool) -> None:
    """Refuses to resume from a checkpoint that holds less than the state of a training.

    Args:
        checkpoint: Path or address.
        has_schedule: Whether the training has a schedule.

    Raises:
        UserError: A part is missing, as in a file of the best weights, or is of another type.
    """
    loaded = read_checkpoint(checkpoint)
    meta = loaded.get('meta') or {}
    keys = ('optimizer', 'message_hub', 'meta', *(['param_schedulers'] if has_schedule else []))
    missing = [key for key in keys if loaded.get(key) is None]
    missing += [key for key in ('epoch', 'iter') if key not in meta]
    if not missing:
        _require_state_of_training(checkpoint, loaded)
        return
    folder = Path(checkpoint).parent
    latest = latest_checkpoint(folder)
    if latest and Path(latest).is_file() and not Path(latest).samefile(checkpoint):
        advice = f'give --resume {latest}'
    else:
        advice = f'start a new training from its weights by --init {checkpoint}'
    raise UserError(
        f'{checkpoint} has no {missing[0]}, so that no training can resume from it: {advice}'
    )


def _require_state_of_training(checkpoint: str, loaded: dict[str, Any]) -> None:
    meta, messages = loaded['meta'], loaded['message_hub']
    schedules = loaded.get('param_schedulers', [])
    require_type(checkpoint, 'optimizer', loaded['optimizer'], (dict,))
    require_type(checkpoint, 'param_schedulers', schedules, (list, dict, NoneType))
    require_type(checkpoint, 'message_hub', messages, (dict,))
    for key in ('log_scalars', 'runtime_info', 'resumed_keys'):
        require_type(checkpoint, f'message_hub.{key}', messages.get(key), (dict,))
    for key in ('epoch', 'iter'):
        require_type(checkpoint, f'meta.{key}', meta[key], (int,))
    require_type(checkpoint, 'meta.seed', meta.get('seed'), (int, NoneType))
    if min(meta['epoch'], meta['iter'], meta.get('seed') or 0) < 0:
        raise UserError(f'{checkpoint} holds a negative epoch, iter or seed: give another file')


def check_weights(
    runner: Runner,
    checkpoint: str | None,
    *,
    strict: bool,
    not_needed: tuple[str, ...] = (),
) -> None:
    """Loads a checkpoint and refuses that of another model.

    Args:
        runner: Runner with its model built.
        checkpoint: Path or address; None loads the local files of ``Pretrained`` submodules.
        strict: Whether every tensor must match. Otherwise only ``starting_parts`` must, and the
            other differences are printed.
        not_needed: Prefixes of names that may differ, such as those of parts that only training
            has.

    Raises:
        UserError: The checkpoint is of another model, and the message has the names that differ; or
            a value is no tensor or is not finite.
    """
    model = unwrap(runner.model)
    if checkpoint is not None:
        needed = ('',) if strict else starting_parts(model)
        _check_fit(model, checkpoint, needed, strict=strict, not_needed=not_needed)
        return
    require_frozen_part(model)
    for _, submodule in model.named_modules():
        init_cfgs: Any = getattr(submodule, 'init_cfg', None)
        for init_cfg in init_cfgs if isinstance(init_cfgs, list) else [init_cfgs]:
            if is_pretrained(init_cfg) and local_file(init_cfg['checkpoint']):
                _check_fit(submodule, init_cfg['checkpoint'], ('',))


def _check_fit(
    module: nn.Module,
    checkpoint: str,
    needed: tuple[str, ...],
    *,
    strict: bool = False,
    not_needed: tuple[str, ...] = (),
) -> None:
    """Loads a checkpoint into a module and refuses it if it does not fit.

    Args:
        module: Model or submodule.
        checkpoint: Path or address.
        needed: Prefixes of the names that the checkpoint must hold.
        strict: Whether names that the module does not have are refused too.
        not_needed: Prefixes of names that may differ.
    """
    fit = load_and_compare(module, state_dict_of(checkpoint))
    require_usable(checkpoint, fit)
    fit = fit.without(not_needed)
    lacking = [name for name in (*fit.missing, *fit.other_shape) if name.startswith(needed)]
    frozen_part: Any = getattr(module, 'frozen_part', None)
    starts_frozen = bool(frozen_part) and needed == (frozen_part,)
    if lacking and starts_frozen:
        raise UserError(
            f'{checkpoint} does not fit {type(module).__name__}.{frozen_part.rstrip(".")}, which '
            f'is not trained: {fit}; give a checkpoint of its config, which the first lines of '
            'this config name'
        )
    if lacking or (strict and fit.unexpected):
        raise UserError(other_model(checkpoint, module, fit))
    if str(fit):
        # A model starts from its frozen part alone; a backbone's file has a classifier too.
        usual = needed == ('',) or starts_frozen and not (fit.unexpected or fit.other_shape)
        print(f'{"" if usual else "warning: "}{checkpoint}: {fit}')
