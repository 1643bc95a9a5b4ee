"""The test of one model of a table, in a separate process, and its result on disk."""

import hashlib
import json
import os
import sys
import traceback
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import DATASETS

from mmseg_ext.benchmark.measuring import in_fresh_process, machine
from mmseg_ext.benchmark.model_costs import Costs, measure_costs
from mmseg_ext.checkpoints.write import write_atomically
from mmseg_ext.config import prepare, walk
from mmseg_ext.config.task import SEGMENT_METRICS
from mmseg_ext.config.walk import leaf_datasets
from mmseg_ext.engine import launch
from mmseg_ext.errors import UserError
from mmseg_ext.evaluation.class_iou import ClassIoUMetric

RESULT, LOG = 'result.json', 'log.txt'
BORDER = 3  # pixels, the radius of the boundary F-score
IOU_METRICS = ('IoUMetric', 'ClassIoUMetric')
SEGMENT_SCORES = ('PQ', 'AP', 'box_AP')  # of PanopticQuality and InstanceAP


@dataclass(frozen=True)
class ModelResult:
    """Scores and costs of a tested model with K classes.

    Args:
        images: Number of tested images.
        classes: Names of the classes.
        palette: Colours of the classes.
        scores: Means ``mIoU``, ``mAcc``, ``aAcc`` and ``boundary_f`` in per cent, and ``PQ``,
            ``AP`` and ``box_AP`` where the config has these metrics; None if no class has a score.
        iou: IoU of each class in per cent; None for a class that occurs neither in labels nor in
            predictions.
        confusion: Number of pixels, K rows of labels and K columns of predictions.
        costs: Costs of the first image.
        device: Machine on which the costs were measured.
    """

    images: int
    classes: list[str]
    palette: list[list[int]]
    scores: dict[str, float | None]
    iou: list[float | None]
    confusion: list[list[int]]
    costs: Costs
    device: str

    @staticmethod
    def load(folder: Path) -> 'ModelResult | None':
        """Reads the result that ``run_in_process`` wrote to a folder; None without a result."""
        if not (folder / RESULT).is_file():
            return None
        values = json.loads((folder / RESULT).read_text())
        return ModelResult(**{**values, 'costs': Costs(**values['costs'])})


def content_key(cfg: Config, config: str, checkpoint: str) -> str:
    """Digest of everything that a result depends on: config, checkpoint and data.

    It depends on the bytes of the checkpoint (or on its URL), and on path, size and time of the
    data's files.
    """
    digest = hashlib.sha256(str(Path(config).resolve()).encode())
    no_matter = ('work_dir', 'load_from', 'launcher', 'paper')
    settings = {k: v for k, v in walk.what_is_read(cfg).items() if k not in no_matter}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    if '://' in checkpoint:
        digest.update(checkpoint.encode())
    else:
        with open(checkpoint, 'rb') as file:
            while block := file.read(2**20):
                digest.update(block)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    infos = (dataset.get_data_info(i) for i in range(len(dataset)))
    files = (info.get(key) for info in infos for key in ('img_path', 'seg_map_path'))
    for path in (getattr(dataset, 'ann_file', None), *files):
        if path and Path(path).is_file():
            stat = os.stat(path)
            digest.update(f'{path} {stat.st_size} {stat.st_mtime_ns}'.encode())
    return digest.hexdigest()


def data_set_name(cfg: Config) -> tuple[str, str]:
    """Name of the tested data, or of its folder, and name of its split: ``('CamVid', 'test')``.

    The split is the stem of ``ann_file``, else the last folder of images that is not ``images``.
    """
    leaf = next(iter(leaf_datasets(cfg.test_dataloader)))
    name = str(leaf['type']).replace('Dataset', '')
    root = Path(leaf.get('data_root') or '').name
    folders = Path((leaf.get('data_prefix') or {}).get('img_path') or '').parts
    splits = [Path(leaf.get('ann_file') or '').stem, *(f for f in folders[::-1] if f != 'images')]
    form = name.removesuffix('Panoptic').removesuffix('Instance')
    says_little = name in ('BaseSeg', 'Folder', 'CityscapesIds') or (
        form != name and form in ('Cityscapes', 'Coco')
    )
    return root if root and says_little else form, next(filter(None, splits), '')


def run_in_process(
    config: str, checkpoint: str, folder: Path, *, gpu: int | None = None, **options: Any
) -> str:
    """Tests a model in a new process, which writes its result, predictions and log to a folder.

    Args:
        config: Config file.
        checkpoint: Path or URL.
        folder: Output folder.
        gpu: Index among the visible GPUs; None for any GPU, or for the CPU.
        **options: Options of ``prepare.prepare_test``.

    Returns:
        Sentence with the reason of a failure; empty after a success.
    """
    folder.mkdir(parents=True, exist_ok=True)
    args = (os.getcwd(), gpu, config, checkpoint, folder.resolve(), options)
    try:
        return in_fresh_process(_run, *args)
    except BrokenProcessPool:
        return f'its process was killed, perhaps because memory was full; see {folder / LOG}'


def _run(cwd: str, gpu: int | None, config: str, *args: Any) -> str:
    checkpoint, folder, options = args
    os.chdir(cwd)
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        os.environ.pop(name, None)  # a single process, whatever started the table
    if gpu is not None:
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        os.environ['CUDA_VISIBLE_DEVICES'] = visible.split(',')[gpu] if visible else str(gpu)
    with open(folder / LOG, 'w', buffering=1) as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    try:
        result = _test(config, checkpoint, folder, **options)
    except Exception as error:
        traceback.print_exc()
        message = str(error).strip().split('\n')[0]
        return (
            error.sentence
            if isinstance(error, UserError)
            else f'{type(error).__name__}: {message}; see {folder / LOG}'
        )
    finally:
        sys.stdout.flush()
    write_atomically(json.dumps(asdict(result)).encode(), folder / RESULT)
    return ''


def _test(config: str, checkpoint: str, folder: Path, **options: Any) -> ModelResult:
    cfg = prepare.prepare_test(config, checkpoint, work_dir=str(folder), **options)
    _set_metrics(cfg, folder)
    costs: list[Costs] = []

    def measure(runner: Runner) -> None:
        loader = runner.test_loop.dataloader
        runner.model.eval()
        costs.append(measure_costs(runner.model, loader.collate_fn([loader.dataset[0]])))

    runner, metrics, _ = launch.run_test(cfg, before_test=measure)
    scores = {name: metrics.get(name) for name in ('mIoU', 'mAcc', 'aAcc')}
    scores |= {name: metrics[name] for name in SEGMENT_SCORES if name in metrics}
    scores['boundary_f'] = metrics[f'mBF.{BORDER}']
    dataset = runner.test_loop.dataloader.dataset
    meta = dataset.metainfo
    counts = next(m for m in runner.test_evaluator.metrics if isinstance(m, ClassIoUMetric))
    assert counts.confusion is not None
    return ModelResult(
        images=len(dataset),
        classes=list(meta['classes']),
        palette=[list(map(int, color)) for color in meta['palette']],
        scores={name: _number(value) for name, value in scores.items()},
        iou=[_number(metrics[f'IoU.{name}']) for name in meta['classes']],
        confusion=counts.confusion.tolist(),
        costs=costs[0],
        device=machine(str(next(runner.model.parameters()).device)),
    )


def _set_metrics(cfg: Config, folder: Path) -> None:
    """Sets the metrics of a table.

    They are the IoU and the metrics of segments of the config, the boundary F-score and saved
    predictions.
    """
    configured = walk.as_list(cfg.test_evaluator)
    metrics = [dict(e, type='ClassIoUMetric') for e in configured if e['type'] in IOU_METRICS]
    if not metrics:
        raise UserError(
            f'test_evaluator of {cfg.filename} has no {" or ".join(IOU_METRICS)}: a table needs one'
        )
    ignore = dict(ignore_index=metrics[0].get('ignore_index', 255))
    border = dict(type='BoundaryFScore', thresholds=(BORDER,), **ignore)
    saved = dict(type='SavedPredictions', folder=str(folder), **ignore)
    segments = [entry for entry in configured if entry['type'] in SEGMENT_METRICS]
    metrics = [metrics[0], *segments, border, saved]
    cfg.test_evaluator = dict(type='BackgroundEvaluator', metrics=metrics)


def _number(value: Any) -> float | None:
    """A score as the host prints it; None for NaN."""
    return None if value is None or value != value else round(float(value), 2)
