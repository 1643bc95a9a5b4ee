"""Files that a data set should not have, and some that it may: every command is right or explains.

``CASES`` lists the 38 cases, with the end of ``check_dataset``, ``train``, ``test``, ``predict``
and ``auto_label`` in each: ``r`` for a right result, ``s`` for a sentence.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mmseg_ext.errors import UserError
from tests.reliability import commands
from tests.reliability.tally import RIGHT, SENTENCE, Tally

KINDS = ('images', 'labels')
SIZE = (48, 40)  # width, height
NAME = '1'  # of the pair that a case changes, in train and in val
HOSTILE = 'a b\'"`$(touch pwned)`;&|<>*?[0]\\{x}%s\n--help -r'
LONG = 'x' * 251  # 255 characters with the suffix, as many as a file system takes

Change = Callable[[Path, Path], None]  # gets the paths of an image and of its label


def picture(mode: str = 'RGB', size: tuple[int, int] = SIZE) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values).convert(mode)


def label(value: int | None = None, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Classes 0 and 1, or the same value everywhere, uint8 (H, W)."""
    values = np.zeros(size[::-1], np.uint8)
    values[size[1] // 2 :] = 1
    return values if value is None else np.full_like(values, value)


# Changes of an image


def as_jpeg(image: Image.Image, **options: object) -> Change:
    def change(path: Path, _: Path) -> None:
        path.unlink()
        image.save(path.with_suffix('.jpg'), 'JPEG', **options)

    return change


def turned(path: Path, label_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a turn by 90 degrees when it is shown
    image = picture(size=SIZE[::-1])
    as_jpeg(image, exif=exif)(path.with_stem('0'), label_path)
    image.save(path, exif=exif)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-14])  # nearly all pixels are there


def truncated_jpeg(path: Path, label_path: Path) -> None:
    as_jpeg(picture())(path, label_path)
    truncated(path.with_suffix('.jpg'))


def sixteen_bits(path: Path, _: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65535, SIZE[::-1], np.uint16)
    Image.fromarray(values).save(path)


def floats(path: Path, _: Path) -> None:
    Image.fromarray(np.random.default_rng(0).random(SIZE[::-1], np.float32)).save(path, 'TIFF')


def bomb(path: Path, _: Path) -> None:
    """A PNG of a few bytes whose header declares 900 million pixels."""
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack('>II', 30_000, 30_000)
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    path.write_bytes(data)


def instead(make: Callable[[Path], object]) -> Change:
    """Puts something else in the place of an image."""

    def change(path: Path, _: Path) -> None:
        path.unlink()
        make(path)

    return change


def animated(path: Path, _: Path) -> None:
    frames = [picture().rotate(angle) for angle in (0, 90)]
    frames[0].save(path, 'GIF', save_all=True, append_images=frames[1:])


def modes(first: str, second: str) -> Change:
    def change(path: Path, _: Path) -> None:
        picture(first).save(path.with_stem('0'))
        picture(second).save(path)

    return change


# Changes of a label


def as_label(values: np.ndarray, format: str = 'PNG') -> Change:
    return lambda _, path: Image.fromarray(values).save(path, format)


def palette_label(_: Path, path: Path) -> None:
    image = Image.fromarray(label(), mode='P')
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.save(path)


# Changes of both, and of folders


def tiny(path: Path, label_path: Path) -> None:
    for stem, size in (('0', (1, 1)), (NAME, (48, 1))):
        picture(size=size).save(path.with_stem(stem))
        Image.fromarray(label(size=size)).save(label_path.with_stem(stem))


def renamed(name: str, suffix: str = '.png') -> Change:
    def change(path: Path, label_path: Path) -> None:
        path.rename(path.with_name(name + suffix))
        label_path.rename(label_path.with_name(f'{name}.png'))

    return change


def in_a_folder(path: Path, label_path: Path) -> None:
    for file in (path, label_path):
        target = file.parent / 'a/b.c' / (file.name if file is label_path else f'{NAME}.PNG')
        target.parent.mkdir(parents=True)
        file.rename(target)
        (file.parent / '.DS_Store').write_bytes(b'\0Bud1')
        (file.parent / '._0.png').write_bytes(b'\0\5\26\7')
        (file.parent / '.hidden').mkdir()
        (file.parent / '.hidden/0.png').write_bytes(b'')
        (file.parent / 'Thumbs.db').write_bytes(b'')


def emptied(path: Path, _: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()


CASES: dict[str, tuple[Change, str]] = {
    'missing image': (lambda image, _: image.unlink(), 'rrrrr'),
    'missing label': (lambda _, label: label.unlink(), 'sssrr'),
    'empty image': (lambda image, _: image.write_bytes(b''), 'sssss'),
    'empty label': (lambda _, label: label.write_bytes(b''), 'sssrr'),
    'truncated PNG': (lambda image, _: truncated(image), 'sssss'),
    'truncated JPEG': (truncated_jpeg, 'sssss'),
    'text named .png': (lambda image, _: image.write_text('image'), 'sssss'),
    'folder named .png': (instead(Path.mkdir), 'rrrrr'),
    'folder that holds itself': (lambda image, _: image.with_suffix('').symlink_to('.'), 'sssss'),
    'pipe named .png': (instead(os.mkfifo), 'sssss'),
    'link to nothing': (instead(lambda path: path.symlink_to('nowhere.png')), 'sssss'),
    'link to itself': (instead(lambda path: path.symlink_to(path.name)), 'sssss'),
    'grey images, without and with alpha': (modes('L', 'LA'), 'rrrrr'),
    'images with a palette and with alpha': (modes('P', 'RGBA'), 'rrrrr'),
    'image of 16 bits': (sixteen_bits, 'rrrrr'),
    'image of floats': (floats, 'sssss'),
    'huge declared size': (bomb, 'sssss'),
    'images that EXIF turns': (turned, 'rrrrr'),
    'JPEG in CMYK': (as_jpeg(picture('CMYK')), 'rrrrr'),
    'animated GIF named .png': (animated, 'rrrrr'),
    'label that is a folder': (lambda _, label: (label.unlink(), label.mkdir()), 'sssrr'),
    'label in JPEG': (as_label(label(), 'JPEG'), 'sssrr'),
    'label of fractions': (as_label(label() / np.float32(2), 'TIFF'), 'sssrr'),
    'label of 16 bits': (as_label(label().astype(np.uint16)), 'rrrrr'),
    'label in colours': (as_label(label()[..., None].repeat(3, 2)), 'sssrr'),
    'label with a palette': (palette_label, 'rrrrr'),
    'label of another size': (as_label(label(size=(1, 1))), 'sssrr'),
    'label with the value 200': (as_label(label(200)), 'sssrr'),
    'label with the value -1': (as_label(label().astype(np.int32) - 1, 'TIFF'), 'sssrr'),
    'label that ignores all': (as_label(label(255)), 'rrrrr'),
    'label of one class': (as_label(label(2)), 'rrrrr'),
    'pairs of 1x1 and of 48x1 pixels': (tiny, 'rrrrr'),
    'name for a shell': (renamed(HOSTILE), 'rrrrr'),
    'name in other scripts, and not in UTF-8': (renamed('Straße 東京 🚦 \udcff'), 'rrrrr'),
    'very long name': (renamed(LONG), 'rrrrr'),
    'two images of one name': (
        lambda image, _: picture().save(image.with_suffix('.jpg')),
        'sssss',
    ),
    'empty folder': (emptied, 'sssss'),
    'folders, hidden files, upper case': (in_a_folder, 'rrrrr'),
}


@pytest.fixture(scope='module')
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data, a config and a trained checkpoint."""
    folder = tmp_path_factory.mktemp('experiment')
    with commands.fast(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = commands.write_experiment(folder)
        commands.run('train', config, '--max-iters', 1, '--work-dir', 'trained')
        yield folder


class Runs:
    """The five commands in a folder with damaged data; each asserts what is right."""

    def __init__(self, folder: Path) -> None:
        self.images = folder / 'data/images/val'
        self.checkpoint = folder.parent / 'trained/iter_1.pth'

    def check_dataset(self) -> None:
        printed = commands.run('check_dataset', 'tiny.py')
        assert 'train: ' in printed and 'val: ' in printed

    def train(self) -> None:
        commands.run('train', 'tiny.py', '--max-iters', 1)
        state = torch.load('work_dirs/tiny/iter_1.pth')['state_dict']
        assert all(x.isfinite().all() for x in state.values())

    def test(self) -> None:
        printed = commands.run('test', 'tiny.py', self.checkpoint)
        assert 'mIoU' in printed and 'mIoU' in Path('work_dirs/tiny/table.md').read_text()

    def predict(self) -> None:
        commands.run('predict', 'tiny.py', self.checkpoint, self.images, '--out', 'predicted')
        self._check(Path('predicted/mask'))

    def auto_label(self) -> None:
        commands.run('auto_label', 'tiny.py', self.checkpoint, self.images, 'labelled')
        self._check(Path('labelled/label'))

    def _check(self, folder: Path) -> None:
        """Every image has a label of its size, as a person sees it."""
        paths = [path.relative_to(self.images) for path in self.images.rglob('*.*')]
        paths = [p for p in paths if not str(p).startswith('.') and '/.' not in str(p)]
        paths = [p for p in paths if (self.images / p).is_file() and p.suffix != '.db']
        labels = {path.relative_to(folder): path for path in folder.rglob('*.png')}
        assert labels.keys() == {path.with_suffix('.png') for path in paths}
        for path in paths:
            seen = ImageOps.exif_transpose(Image.open(self.images / path))
            values = np.array(Image.open(labels[path.with_suffix('.png')]))
            assert values.shape == seen.size[::-1] and values.max() < 3


COMMANDS = ('check_dataset', 'train', 'test', 'predict', 'auto_label')
ELSEWHERE = {  # read no data set
    'benchmark',
    'benchmark_ops',
    'convert_checkpoint',
    'make_shapes',
    'make_streets',
    'pssl_labels',  # its own tests have files of all kinds
    'train_classifier',
}


def test_the_matrix_has_38_cases_and_every_command_that_reads_data() -> None:
    assert len(CASES) == 38
    assert commands.names_in_tools() == {*COMMANDS, *ELSEWHERE}


@pytest.mark.parametrize('case', CASES)
def test_files(
    case: str, experiment: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    change, ends = CASES[case]
    folder = experiment / case.replace(' ', '_').replace('/', '_')
    folder.mkdir()
    monkeypatch.chdir(folder)
    commands.write_experiment(folder)
    named = []
    for split in ('train', 'val'):
        image, label_path = (folder / f'data/{kind}/{split}/{NAME}.png' for kind in KINDS)
        change(image, label_path)
        named += [
            str(path.parent if change is emptied else path.with_suffix(''))
            for path in (image, label_path)
        ]
    runs, tallied = Runs(folder), Tally('files', request)

    def attempt(command: str) -> None:
        try:
            getattr(runs, command)()
        except UserError as error:
            assert any(name in str(error) for name in named), f'no file is named: {error}'
            raise

    for command, end in zip(COMMANDS, ends, strict=True):
        expected = dict(r=RIGHT, s=SENTENCE)[end]
        tallied.run(f'{case}, {command}', partial(attempt, command), expected)
    tallied.check()
