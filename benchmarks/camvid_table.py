"""Tests the finished trainings of a queue on CamVid, and prints a table with the mean over seeds.

Example: python benchmarks/camvid_table.py benchmarks/camvid_queue.txt --data-root data/camvid

Each result is a line of benchmarks/camvid.csv, with the score of the checkpoint that was best on
val. What stands there is kept, so that several machines can add to the file.
"""

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import mean, median
from typing import Any

from train_queue import FINISHED, name_of, read_queue

from mmseg_ext.benchmark.table import make_row
from mmseg_ext.engine.launch import best_checkpoint

CSV = Path(__file__).with_name('camvid.csv')
SPLIT = 'test_dataloader.dataset.data_prefix'
VAL = {f'{SPLIT}.img_path': 'val', f'{SPLIT}.seg_map_path': 'valannot'}
SCALES = 'model.test_scales'
# Further tests of the trained config: name in the table, config, options.
FURTHER: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    'hmsa/efflite0_camvid_plain': [
        ('hmsa/efflite0_camvid_averaged', 'hmsa/efflite0_camvid_averaged', {}),
    ],
    'hmsa/efflite0_camvid': [
        ('hmsa/efflite0_camvid at 1', 'hmsa/efflite0_camvid', {SCALES: (1.0,)}),
        ('hmsa/efflite0_camvid at 0.5, 1, 2', 'hmsa/efflite0_camvid', {SCALES: (0.5, 1.0, 2.0)}),
    ],
    'magnet/efflite0_camvid': [
        ('magnet/efflite0_camvid_fast', 'magnet/efflite0_camvid_fast', {}),
    ],
}


@dataclass
class Result:
    """Scores of a training in per cent, its minutes without validation, and the machine."""

    config: str
    seed: int
    test: float
    boundary_f: float  # on test, within 3 pixels
    val: float
    minutes: float
    machine: str


@dataclass
class Training:
    """A training of the queue."""

    config: str  # config file
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Paper and name of the config."""
        return f'{Path(self.config).parent.name}/{Path(self.config).stem}'


def trainings_of(queue: Sequence[Sequence[str]], out: Path) -> list[Training]:
    """Trainings of the lines of a queue; the seed is 0 where a line names none."""
    return [
        Training(
            words[0],
            int(words[words.index('--seed') + 1]) if '--seed' in words else 0,
            out / name_of(words),
        )
        for words in queue
    ]


def tests_of(training: Training) -> list[tuple[str, str, dict[str, Any]]]:
    """Name in the table, config file and options of each test of a training."""
    folder = Path(training.config).parents[1]
    further = FURTHER.get(training.name, [])
    return [
        (training.name, training.config, {}),
        *((name, str(folder / f'{config}.py'), options) for name, config, options in further),
    ]


def best_on_val(folder: Path) -> float:
    """Largest mIoU of the validations of a training."""
    points = json.loads((folder / 'curves.json').read_text())
    return max(point['mIoU'] for point in points if 'mIoU' in point)


def minutes_of(folder: Path) -> float:
    """Minutes of all iterations, from the median time in the logs of all resumed runs."""
    logs = folder.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    times = [record['time'] for record in records if 'loss' in record]
    points = json.loads((folder / 'curves.json').read_text())
    return median(times) * max(point['iter'] for point in points) / 60


def test_model(model: str, out: Path, **options: Any) -> Any:
    """Result of ``tools/test.py --table`` for ``CONFIG=CHECKPOINT``.

    Raises:
        RuntimeError: The test failed.
    """
    row = make_row(model, out, **options)
    if row.result is None:
        raise RuntimeError(f'{row.name}: {row.problem}')
    return row.result


def new_results(
    trainings: Sequence[Training], known: set[tuple[str, int]], out: Path, **options: Any
) -> Iterator[Result]:
    """Tests the finished trainings whose name and seed are not known.

    Args:
        trainings: All trainings of the queue.
        known: Names and seeds of the existing results.
        out: Folder of the tests.
        **options: Options of ``prepare.prepare_test``.
    """
    for training in trainings:
        if not (training.folder / FINISHED).exists():
            continue
        for name, config, changes in tests_of(training):
            if (name, training.seed) in known:
                continue
            model = f'{config}={best_checkpoint(training.folder)}'
            result = test_model(model, out, cfg_options=changes, **options)
            val = best_on_val(training.folder)
            if name != training.name:
                on_val = test_model(model, out, cfg_options=changes | VAL, **options)
                val = on_val.scores['mIoU']
            yield Result(
                name,
                training.seed,
                result.scores['mIoU'],
                result.scores['boundary_f'],
                round(val, 2),
                round(minutes_of(training.folder), 1),
                result.device,
            )


def read_results(path: Path) -> list[Result]:
    """Results in a csv file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline='') as file:
        return [
            Result(row['config'], int(row['seed']), *map(float, numbers), row['machine'])
            for row in csv.DictReader(file)
            for numbers in [(row[f.name] for f in fields(Result)[2:-1])]
        ]


def write_results(results: Sequence[Result], path: Path) -> None:
    """Writes a csv file with a line for each result."""
    with path.open('w', newline='') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow([field.name for field in fields(Result)])
        writer.writerows(map(astuple, results))


def markdown(results: Sequence[Result]) -> str:
    """Table with the means over the seeds of each config; the spread is the largest difference."""
    lines = [
        '| config | mIoU test | spread | seeds | mIoU val | boundary F | minutes |',
        '|---|---:|---:|---:|---:|---:|---:|',
    ]
    for name in dict.fromkeys(result.config for result in results):
        runs = [result for result in results if result.config == name]
        scores = [run.test for run in runs]
        spread = f'{max(scores) - min(scores):.2f}' if len(runs) > 1 else ''
        val, border, minutes = (
            mean(getattr(run, key) for run in runs) for key in ('val', 'boundary_f', 'minutes')
        )
        lines.append(
            f'| {name} | {mean(scores):.2f} | {spread} | {len(runs)} | {val:.2f} | {border:.2f} '
            f'| {minutes:.0f} |'
        )
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('queue', help='file of train_queue.py')
    parser.add_argument(
        '--out', type=Path, default='work_dirs/camvid', help='its folder (work_dirs/camvid)'
    )
    parser.add_argument('--csv', type=Path, default=CSV, help=f'file of the results ({CSV.name})')
    parser.add_argument('--data-root', metavar='DIR', help='folder of the data set')
    args = parser.parse_args()
    trainings = trainings_of(read_queue(args.queue), args.out)
    order = [test[0] for training in trainings for test in tests_of(training)]
    results = read_results(args.csv)
    known = {(result.config, result.seed) for result in results}
    for result in new_results(trainings, known, args.out / 'tests', data_root=args.data_root):
        results.append(result)
        results.sort(key=lambda r: (order.index(r.config) if r.config in order else -1, r.seed))
        write_results(results, args.csv)
    print(markdown(results))


if __name__ == '__main__':
    main()
