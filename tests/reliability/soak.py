"""Trains a small model of each paper for long: once in peace, and once with kills and resumes.

Example: python -m tests.reliability.soak --papers hmsa danet --iterations 400 --kills 3

The first training must not need more memory and descriptors as time goes by, and the second must
end with the same bits. Both are commands of ``tools/train.py`` on drawn streets.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn

from mmseg_ext.checkpoints.safe_load import load_file
from mmseg_ext.config.overrides import set_crop_size, set_data_root
from mmseg_ext.config.walk import READ_KEYS
from mmseg_ext.datasets.streets import make_streets
from tests.test_processes import descendants, wait_until_ended
from tests.tiny import CONFIG_DIR, dicts_in, shrink

ROOT = CONFIG_DIR.parent
CROP, SCENE, BATCH = (32, 64), (64, 128), 2
VALIDATIONS = 4
LIMIT = 0.01  # growth of memory that is none, in parts
MARGIN = 4  # open files of a process that come and go: queues, locks, the log
SILENCE = 900  # seconds without a logged iteration after which a training counts as hanging
EXCHANGES = {'all_gather', 'all_reduce', 'all_to_all', 'broadcast', 'reduce_scatter'}
COLUMNS = (
    'model',
    'iterations',
    'processes',
    'MiB after the first validation',
    'MiB at the end',
    'growth',
    'descriptors then and at the end',
    'kills',
    'same bits',
)
HEADER = f'| {" | ".join(COLUMNS)} |\n|{" --- |" * len(COLUMNS)}'


@dataclass(frozen=True)
class Sample:
    """Memory in bytes and open files of all processes of a training, at an iteration."""

    iteration: int
    memory: int
    descriptors: int


@dataclass(frozen=True)
class Result:
    """Outcome of the two trainings of a model."""

    name: str
    iterations: int
    processes: int
    samples: list[Sample]
    kills: int
    differing: list[str]

    def row(self) -> str:
        (memory, descriptors), (last_memory, last_descriptors) = self.windows()
        cells = (
            self.name,
            self.iterations,
            self.processes,
            f'{memory / 2**20:.1f}',
            f'{last_memory / 2**20:.1f}',
            f'{last_memory / memory - 1:+.2%}',
            f'{descriptors:.0f}, {last_descriptors:.0f}',
            self.kills,
            ('no' if self.differing else 'yes') if self.kills else '',
        )
        return f'| {" | ".join(map(str, cells))} |'

    def problems(self) -> list[str]:
        """Sentences about what grew or differs."""
        (memory, descriptors), (last_memory, last_descriptors) = self.windows()
        sentences = []
        if last_memory >= memory * (1 + LIMIT):
            sentences.append(f'{self.name}: bytes of {memory:.0f} grew to {last_memory:.0f}')
        if last_descriptors > descriptors + MARGIN * self.processes:
            sentences.append(
                f'{self.name}: descriptors of {descriptors:.0f} grew to {last_descriptors:.0f}'
            )
        if self.differing:
            names = ', '.join(self.differing[:5])
            sentences.append(f'{self.name}: {names} differ after {self.kills} kills')
        return sentences

    def windows(self) -> list[tuple[float, float]]:
        """Memory and descriptors after the first validation, and before the last one.

        They are medians of a fifth of the training: a checkpoint that is being written does not
        count.
        """
        medians = []
        for begin in (self.iterations / VALIDATIONS, self.iterations * 0.8):
            end = begin + self.iterations / 5
            window = [s for s in self.samples if begin < s.iteration < end]
            assert window, f'no sample between the iterations {begin} and {end}'
            medians.append(
                (median(s.memory for s in window), median(s.descriptors for s in window))
            )
        return medians


def find_differences(a: Any, b: Any, path: str = '') -> Iterator[str]:
    """Paths at which the values of two checkpoints differ in a bit."""
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a.keys() | b.keys():
            if key in a and key in b:
                yield from find_differences(a[key], b[key], f'{path}.{key}')
            else:
                yield f'{path}.{key}'
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or a.shape != b.shape or not torch.equal(_bytes(a), _bytes(b)):
            yield path
    elif type(a) is not type(b) or a != b:
        yield path


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def smallest_config(paper: str) -> Path:
    """The config on streets with most of the paper's classes; among equals the smallest model."""
    module, ranks = f'mmseg_ext.papers.{paper}', {}
    for path in sorted((CONFIG_DIR / paper).glob('*_streets*.py')):
        model = MODELS.build(ConfigDict(shrink(Config.fromfile(path).model.to_dict())))
        classes = {type(m) for m in model.modules() if type(m).__module__.startswith(module)}
        ranks[path] = -len(classes), sum(p.numel() for p in model.parameters())
    return min(ranks, key=ranks.__getitem__)


def exchanges_data(model: nn.Module) -> bool:
    """Whether a layer sends data to other processes; ``SyncBN`` does not, on CPUs."""
    files = {sys.modules[type(module).__module__] for module in model.modules()}
    ours = (file for file in files if file.__name__.startswith('mmseg_ext.'))
    return any(EXCHANGES & vars(file).keys() for file in ours)


class Training:
    """A training command for a shrunk config, which starts, is watched and is killed.

    Args:
        config: Config of the model.
        folder: Folder for the shrunk config and for results.
        iterations: Number of iterations; a validation ends each quarter.
    """

    def __init__(self, config: Path, folder: Path, iterations: int) -> None:
        init_default_scope('mmseg')
        self.iterations = iterations
        self.work_dir = folder / 'run'
        self.log = folder / 'log.txt'
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

        cfg = Config.fromfile(config)
        model = shrink(cfg.model.to_dict())
        self.processes = 2 if exchanges_data(MODELS.build(ConfigDict(model))) else 1
        self.by_epoch = 'max_epochs' in cfg.train_cfg
        self.epochs = VALIDATIONS * max(1, iterations // 400)  # a checkpoint each
        images = iterations // self.epochs * BATCH * self.processes
        assert iterations % self.epochs == 0, f'make iterations a multiple of {self.epochs}'
        data = folder.parent / f'streets_{images}'
        make_streets(data, num_train=images, num_val=2, num_extra=0, size=SCENE, progress=False)
        if 'segmentor' in model:  # it has to be trained before
            weights = folder / 'segmentor.pth'
            torch.manual_seed(0)
            torch.save(MODELS.build(ConfigDict(model['segmentor'])).state_dict(), weights)
            model['segmentor']['init_cfg'] = dict(type='Pretrained', checkpoint=str(weights))
        self._write(cfg, model, data, folder / config.name)
        length = ('--max-epochs', self.epochs) if self.by_epoch else ('--max-iters', iterations)
        options = ('--work-dir', self.work_dir, *length)
        if self.processes == 1:
            start = (sys.executable, ROOT / 'tools/train.py', folder / config.name)
        else:
            start = ('bash', ROOT / 'tools/dist_train.sh', folder / config.name, self.processes)
        self.command = list(map(str, (*start, *options)))

    def _write(self, cfg: Config, model: dict, data: Path, path: Path) -> None:
        """Writes the config without what a training does not read."""
        unread = {'tta_model', 'tta_pipeline', 'test_dataloader', 'test_evaluator', 'test_cfg'}
        kept = {key: cfg[key] for key in cfg if key in READ_KEYS - unread} | dict(model=model)
        cfg = Config(kept | dict(custom_imports=cfg.custom_imports))
        cfg.train_dataloader.update(batch_size=BATCH, num_workers=1)
        cfg.val_dataloader.update(num_workers=1)
        cfg.optim_wrapper.optimizer.fused = True  # a loop over parameters takes longer than a model
        count = self.epochs if self.by_epoch else self.iterations
        cfg.train_cfg.val_interval = count // VALIDATIONS
        cfg.default_hooks.checkpoint.interval = count // self.epochs
        cfg.default_hooks.logger.interval = self._log_interval
        set_data_root(cfg, str(data))
        if any('crop_size' in node for node in dicts_in(cfg.to_dict())):
            set_crop_size(cfg, CROP)
        cfg.dump(str(path))

    @property
    def _log_interval(self) -> int:
        return max(1, min(10, self.iterations // 100))

    @property
    def pace(self) -> float:
        """Seconds between two samples, and longest wait before a kill."""
        return min(1.0, max(0.1, self.iterations / 1000))

    def start(self, *options: str) -> None:
        env = {**os.environ, 'PYTHON': sys.executable, 'CUDA_VISIBLE_DEVICES': ''}
        env |= {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
        with self.log.open('a') as log:
            command = [*self.command, *options]
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        self.seen = time.monotonic()
        self.last_size = self.last_step = 0
        self.before = set(self.work_dir.glob('*/vis_data/scalars.json'))

    def is_running(self) -> bool:
        """Whether it runs; raises AssertionError where it failed or hangs."""
        code = self.process.poll()
        assert not code, f'training failed: see {self.log}'
        if code is None and time.monotonic() - self.seen > SILENCE:
            self.kill()
            raise AssertionError(f'training hangs: see {self.log}')
        return code is None

    def iteration(self) -> int:
        """Last iteration in the log, from 0; the log of an earlier start does not count."""
        log = next(iter(set(self.work_dir.glob('*/vis_data/scalars.json')) - self.before), None)
        size = log.stat().st_size if log else 0
        if log and size != self.last_size:
            self.seen, self.last_size = time.monotonic(), size
            lines = log.read_text().splitlines()
            steps = [json.loads(line)['step'] for line in lines[-3:] if line.endswith('}')]
            self.last_step = max(steps, default=0)  # the line of a validation counts epochs
        return self.last_step

    def tree(self) -> set[int]:
        return descendants(self.process.pid) | {self.process.pid}

    def sample(self) -> Sample:
        iteration = self.iteration()
        counts = [memory_and_descriptors(pid) for pid in self.tree()]
        return Sample(iteration, *map(sum, zip(*counts, strict=True)))

    def kill(self) -> None:
        """Kills all processes at once."""
        tree = self.tree()
        for pid in tree:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        wait_until_ended(tree)

    def last_checkpoint(self) -> dict:
        name = f'epoch_{self.epochs}' if self.by_epoch else f'iter_{self.iterations}'
        checkpoint = load_file(self.work_dir / f'{name}.pth')
        assert checkpoint['meta']['iter'] == self.iterations
        return checkpoint


def memory_and_descriptors(pid: int) -> tuple[int, int]:
    """Memory in bytes and number of open files of a process; 0 for a process that has ended.

    Memory is what belongs to the process: anonymous and shared pages, in memory or swapped out.
    Pages of files, such as libraries, are left out. The kernel drops and reads them as it likes,
    and other programs use them too. A page that a forked worker shares with its parent counts for
    both. If it counted once, each page that the parent writes afterwards would look like growth.
    """
    try:
        lines = Path(f'/proc/{pid}/status').read_text().splitlines()
        descriptors = len(os.listdir(f'/proc/{pid}/fd'))
    except OSError:
        return 0, 0
    values = dict(line.split(':', 1) for line in lines)
    sizes = (values.get(name, '0').split()[0] for name in ('RssAnon', 'RssShmem', 'VmSwap'))
    return sum(map(int, sizes)) * 1024, descriptors


def run_in_peace(training: Training) -> list[Sample]:
    """Trains to the end and samples all the while."""
    samples = []
    training.start()
    while training.is_running():
        samples.append(training.sample())
        time.sleep(training.pace)
    return samples


def run_with_kills(training: Training, kills: int) -> int:
    """Kills a training at random moments and resumes it each time; returns the number of kills.

    Each fifth moment is while the training starts, the others are in it.
    """
    rng = random.Random(0)
    begin, end = training.iterations // 20, training.iterations * 9 // 10
    moments = sorted(rng.randint(begin, end) for _ in range(kills))
    done = 0
    for number, moment in enumerate(moments):
        training.start(*['--resume'][: min(number, 1)])
        starts = number % 5 == 4
        while not starts and training.is_running() and training.iteration() < moment:
            time.sleep(0.2)
        time.sleep(rng.uniform(0, 10 if starts else training.pace))
        if training.is_running():
            training.kill()
            done += 1
    training.start(*['--resume'][: min(kills, 1)])
    while training.is_running():
        training.iteration()
        time.sleep(training.pace)
    return done


def soak(config: Path, out: Path, *, iterations: int, kills: int) -> Result:
    """Trains a config twice at the same time, once with kills; without kills it trains once."""
    folder = out / config.parent.name
    name = f'{config.parent.name}/{config.stem}'
    if not kills:
        whole = Training(config, folder / 'whole', iterations)
        return Result(name, iterations, whole.processes, run_in_peace(whole), 0, [])
    whole, cut = (Training(config, folder / name, iterations) for name in ('whole', 'cut'))
    with ThreadPoolExecutor() as pool:
        sampled = pool.submit(run_in_peace, whole)
        killed = pool.submit(run_with_kills, cut, kills)
        samples, done = sampled.result(), killed.result()
    keys = ('state_dict', 'optimizer', 'param_schedulers')
    a, b = ({k: t.last_checkpoint()[k] for k in keys} for t in (whole, cut))
    differing = list(itertools.islice(find_differences(a, b), 100))
    return Result(name, iterations, whole.processes, samples, done, differing)


def main() -> None:
    papers = [p.stem for p in sorted((ROOT / 'mmseg_ext/papers').glob('[a-z]*'))]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--papers', nargs='+', choices=papers, default=papers, metavar='PAPER')
    parser.add_argument('--iterations', type=int, default=2000, help='of each training (2000)')
    parser.add_argument(
        '--kills', type=int, default=10, help='of the second training (10); 0: none'
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/soak'), help='results')
    args = parser.parse_args()
    init_default_scope('mmseg')
    torch.set_num_threads(1)
    problems = []
    print(HEADER, flush=True)
    for paper in args.papers:
        config = smallest_config(paper)
        try:
            result = soak(config, args.out, iterations=args.iterations, kills=args.kills)
        except AssertionError as error:  # the other papers are still of interest
            problems.append(f'{paper}: {error}')
            continue
        print(result.row(), flush=True)
        problems += result.problems()
    sys.exit('\n'.join(problems) or None)


if __name__ == '__main__':
    main()
