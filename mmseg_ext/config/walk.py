"""Walks over a config: its nested dicts, its data sets, the sections that a run reads."""

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import DATASETS

# Keys of a config that the Runner and the tools read, beside the Runner's arguments.
READ_KEYS = set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | {
    'activation_checkpointing',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'init_classes',
    'initial_weights',
    'model_wrapper_cfg',
    'paper',
    'channels_last',
    'runner_type',
    'server_prefix',
    'sync_bn',
    'tta',
    'tta_model',
    'tta_pipeline',
}


def nested_dicts(node: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """All dicts inside ``node``, which may be nested in lists and tuples, with their dotted paths.

    ``node`` comes first if it is a dict.
    """
    if isinstance(node, dict):
        yield path, node
        children = list(node.items())
    elif isinstance(node, list | tuple):
        children = list(enumerate(node))
    else:
        return
    for key, child in children:
        yield from nested_dicts(child, f'{path}.{key}' if path else str(key))


def leaf_datasets(cfg: Any) -> list[dict]:
    """Data sets in a config that read files; those that wrap other data sets are left out."""
    return [
        node
        for _, node in nested_dicts(cfg)
        if isinstance(node.get('type'), str)
        and not node.keys() & {'dataset', 'datasets'}
        and DATASETS.get(node['type']) is not None
    ]


def class_names_of(dataset: Any) -> tuple[str, ...]:
    """Names of the classes of a data set's config, possibly inside wrappers."""
    leaf = leaf_datasets(dataset)[0]
    meta = {**DATASETS.get(leaf['type']).METAINFO, **(leaf.get('metainfo') or {})}
    return tuple(meta.get('classes') or ())


def what_is_read(cfg: Config) -> dict[str, Any]:
    """Sections of a config that a run reads, without the variables of its files."""
    return {key: value for key, value in cfg.items() if key in READ_KEYS}


def as_list(value: Any) -> list:
    """List of a value of a config that may be a single item, a list or None."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
