"""Trains a list of configs, several at a time with one thread each; the same command continues.

Example: python benchmarks/train_queue.py queue.txt --out work_dirs/camvid --data-root data/camvid

A line of the file is a config and options of tools/train.py; # starts a comment:

    configs/fcn/efflite0_camvid.py --seed 0
    configs/fcn/efflite0_camvid.py --seed 1

Each training has a work directory of its own in --out, named after its line, and a log beside it. A
training that was stopped resumes from its latest checkpoint. One that is finished, which the file
`finished` in its work directory says, is omitted. A failed training does not stop the others. When
the queue is stopped, its trainings save a checkpoint and stop too.

An option with a *, such as --init work_dirs/camvid/fcn_efflite0_camvid_seed_0/best_*.pth, is the
file that it matches. The training starts after that of the folder is finished.
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from glob import glob
from pathlib import Path

FINISHED = 'finished'  # file in the work directory of a finished training
TRAIN = [sys.executable, str(Path(__file__).parents[1] / 'tools' / 'train.py')]


def read_queue(path: str | Path) -> list[list[str]]:
    """Arguments of each training in a file."""
    lines = Path(path).read_text().splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def name_of(words: Sequence[str]) -> str:
    """Name of a training: the paper, the config, and the options."""
    config = Path(words[0])
    options = [re.sub(r'[^\w.=-]', '_', word).lstrip('-') for word in words[1:]]
    return '_'.join([config.parent.name, config.stem, *options])


def needed_folders(words: Sequence[str]) -> list[Path]:
    """Work directories of the trainings whose checkpoints a training starts from."""
    return [Path(word).parent for word in words if '*' in word]


def is_ready(words: Sequence[str]) -> bool:
    """Whether the trainings that a training needs are finished."""
    return all((folder / FINISHED).exists() for folder in needed_folders(words))


def start(words: Sequence[str], folder: Path, common: Sequence[str]) -> subprocess.Popen:
    """Starts or resumes a training, which appends to the log beside its work directory."""
    environment = dict(os.environ, OMP_NUM_THREADS='1')
    words = [max(glob(word), default=word) if '*' in word else word for word in words]
    command = [*TRAIN, *words, '--work-dir', str(folder), '--resume', *common]
    with open(folder.with_name(f'{folder.name}.log'), 'a') as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def run_queue(
    queue: Sequence[Sequence[str]], out: str | Path, *, workers: int = 2, common: Sequence[str] = ()
) -> list[str]:
    """Runs all trainings that are not finished.

    Args:
        queue: Arguments of each training, as of ``read_queue``.
        out: Folder of the work directories.
        workers: Number of trainings at a time.
        common: Further options of every training.

    Returns:
        Names of the trainings that failed.
    """
    Path(out).mkdir(parents=True, exist_ok=True)
    waiting = [(Path(out) / name_of(words), words) for words in queue]
    waiting = [(folder, words) for folder, words in waiting if not (folder / FINISHED).exists()]
    running: dict[Path, subprocess.Popen] = {}
    failed = []
    print(f'{len(waiting)} of {len(queue)} trainings are not finished', flush=True)
    try:
        while waiting or running:
            while ready := [job for job in waiting if is_ready(job[1])][: workers - len(running)]:
                folder, words = ready[0]
                waiting.remove(ready[0])
                running[folder] = start(words, folder, common)
                print(f'{time.strftime("%H:%M")} started {folder.name}', flush=True)
            if not running:
                for folder, words in waiting:
                    failed.append(folder.name)
                    needed = ', '.join(map(str, needed_folders(words)))
                    print(f'not started, because it needs the finished {needed}: {folder.name}')
                break
            time.sleep(0.5)
            for folder in [folder for folder, job in running.items() if job.poll() is not None]:
                status = running.pop(folder).returncode
                if status == 0:
                    (folder / FINISHED).touch()
                else:
                    failed.append(folder.name)
                outcome = 'finished' if status == 0 else f'failed, see {folder}.log:'
                print(f'{time.strftime("%H:%M")} {outcome} {folder.name}', flush=True)
    finally:
        for job in running.values():
            job.terminate()
        for job in running.values():
            job.wait()
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('queue', help='file with a config and its options in each line')
    parser.add_argument('--out', default='work_dirs/queue', help='folder (work_dirs/queue)')
    parser.add_argument('--workers', type=int, default=2, help='trainings at a time (2)')
    args, common = parser.parse_known_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('stopped: the same command continues'))
    failed = run_queue(read_queue(args.queue), args.out, workers=args.workers, common=common)
    if failed:
        sys.exit(f'{len(failed)} trainings failed or did not start: {", ".join(failed)}')


if __name__ == '__main__':
    main()
