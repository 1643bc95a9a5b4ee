"""Files that are no whole checkpoint of the model: every command is right or explains.

``CASES`` lists them, with the end of ``COMMANDS`` in each: ``r`` for a right result, ``s`` for a
sentence. Every converter refuses all of them, as they are of no released model.
"""

import pickle
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import mmseg_ext
from mmseg_ext.convert import converters
from mmseg_ext.errors import UserError
from tests.reliability import commands
from tests.reliability.tally import RIGHT, SENTENCE, Tally, is_sentence

COMMANDS = ('test', 'predict', 'auto_label', 'load', 'init', 'resume', 'convert')
ELSEWHERE = {  # read no checkpoint of a segmentor
    'benchmark',
    'benchmark_ops',
    'check_dataset',
    'make_shapes',
    'make_streets',
    'pssl_labels',
    'train_classifier',
}
FILE = 'x.pth'
CONV, HEAD = 'backbone.layer1.0.conv1.weight', 'decode_head.conv_seg.weight'
MEAN = 'backbone.layer1.0.bn1.running_mean'

Contents = dict[str, Any]
Write = Callable[[Contents, Path], object]  # gets a whole checkpoint, and a path to write to


class Touches:
    """Writes a file when it is unpickled without a check."""

    def __reduce__(self) -> tuple:
        return open, ('touched', 'w')


# Files


def a_part(whole: Contents, path: Path) -> None:
    torch.save(whole, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_a_flipped_byte(whole: Contents, path: Path) -> None:
    torch.save(whole, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def pickled(whole: Contents, path: Path) -> None:
    path.write_bytes(pickle.dumps({'state_dict': dict(weight=[1.0])}))


def zipped(whole: Contents, path: Path) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('word/document.xml', '<document/>')


def safetensors(whole: Contents, path: Path) -> None:
    header = b'{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, 'little') + header + bytes(4))


def in_the_old_format(whole: Contents, path: Path) -> None:
    torch.save(whole, path, _use_new_zipfile_serialization=False)


def from_a_gpu(whole: Contents, path: Path) -> None:
    with mock.patch('torch.serialization.location_tag', lambda storage: 'cuda:7'):
        torch.save(whole, path)


# Contents


def saved(change: Callable[[Contents], object]) -> Write:
    """Saves what a function makes of the checkpoint, or the checkpoint that it changed."""

    def write(whole: Contents, path: Path) -> None:
        content = change(whole)
        torch.save(whole if content is None else content, path)

    return write


def without(key: str, whole: Contents) -> Contents:
    return {name: value for name, value in whole.items() if name != key}


def weights(change: Callable[[dict[str, Tensor]], object]) -> Write:
    """Saves the checkpoint with other weights."""

    def write(whole: Contents) -> Contents:
        state = whole['state_dict']
        content = change(state)
        return {**whole, 'state_dict': state if content is None else content}

    return saved(write)


def of_type(dtype: torch.dtype) -> Write:
    return weights(
        lambda state: {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    )


def value(name: str, change: Callable[[Tensor], object]) -> Write:
    return weights(lambda state: {**state, name: change(state[name])})


def meta(**changes: object) -> Write:
    return saved(lambda whole: whole['meta'].update(changes))


def classes(**changes: object) -> Write:
    return saved(lambda whole: whole['meta']['dataset_meta'].update(changes))


def wider_optimizer(whole: Contents) -> None:
    for state in whole['optimizer']['state'].values():
        state['momentum_buffer'] = state['momentum_buffer'].repeat_interleave(2, 0)


def as_adam(whole: Contents) -> None:
    (group,) = whole['optimizer']['param_groups']
    for name in ('momentum', 'dampening', 'nesterov'):
        del group[name]
    group.update(betas=(0.9, 0.999), eps=1e-8, amsgrad=False)
    for state in whole['optimizer']['state'].values():
        momentum = state.pop('momentum_buffer')
        state.update(step=torch.tensor(1.0), exp_avg=momentum, exp_avg_sq=momentum**2)


def infinite_momentum(whole: Contents) -> None:
    for state in whole['optimizer']['state'].values():
        state['momentum_buffer'].fill_(torch.inf)


CASES: dict[str, tuple[Write, str]] = {
    'missing': (lambda whole, path: None, 'ssssss'),
    'folder': (lambda whole, path: path.mkdir(), 'ssssss'),
    'empty': (lambda whole, path: path.write_bytes(b''), 'ssssss'),
    'text': (lambda whole, path: path.write_text('weights\n'), 'ssssss'),
    'truncated': (a_part, 'ssssss'),
    'flipped byte': (with_a_flipped_byte, 'ssssss'),
    'malicious pickle': (lambda whole, path: path.write_bytes(pickle.dumps(Touches())), 'ssssss'),
    'malicious entry': (saved(lambda whole: {**whole, 'more': Touches()}), 'ssssss'),
    'pickle of Python': (pickled, 'ssssss'),
    'whole model': (saved(lambda whole: torch.nn.Conv2d(1, 1, 1)), 'ssssss'),
    'zip of another kind': (zipped, 'ssssss'),
    'safetensors': (safetensors, 'ssssss'),
    'old format': (in_the_old_format, 'rrrrrr'),
    'saved on a GPU': (from_a_gpu, 'rrrrrr'),
    'list': (saved(lambda whole: list(whole['state_dict'].values())), 'ssssss'),
    'single tensor': (saved(lambda whole: torch.zeros(3)), 'ssssss'),
    'weights alone': (saved(lambda whole: whole['state_dict']), 'rrrrrs'),
    'weights under "model"': (saved(lambda whole: dict(model=whole['state_dict'])), 'ssssss'),
    'weights twice inside': (weights(lambda state: dict(state_dict=state)), 'ssssss'),
    'weights in a list': (weights(lambda state: list(state.items())), 'ssssss'),
    'no weights': (weights(lambda state: {}), 'ssssss'),
    'weights that are None': (weights(lambda state: dict.fromkeys(state)), 'ssssss'),
    'weights that are text': (weights(lambda state: 'weights'), 'ssssss'),
    'prefix of a parallel model': (
        weights(lambda state: {f'module.{name}': x for name, x in state.items()}),
        'rrrrrr',
    ),
    'prefix of a compiled model': (
        weights(lambda state: {f'_orig_mod.{name}': x for name, x in state.items()}),
        'ssssss',
    ),
    'names that are numbers': (weights(lambda state: dict(enumerate(state.values()))), 'ssssss'),
    'a name that is a number': (weights(lambda state: {**state, 7: torch.zeros(1)}), 'ssssss'),
    'another model': (
        weights(lambda state: {name.replace('layer', 'stage'): x for name, x in state.items()}),
        'ssssss',
    ),
    'other number of classes': (
        weights(lambda state: {k: v[:2] if 'conv_seg' in k else v for k, v in state.items()}),
        'ssssrs',
    ),
    'missing name': (
        weights(lambda state: {k: v for k, v in state.items() if k != CONV}),
        'ssssss',
    ),
    'unexpected name': (weights(lambda state: {**state, 'neck.bias': torch.ones(1)}), 'ssssrs'),
    'other shape': (value(CONV, lambda x: x[..., :1]), 'ssssss'),
    'no shape': (value('decode_head.conv_seg.bias', torch.sum), 'ssssrs'),
    'NaN': (value(HEAD, lambda x: x * torch.nan), 'ssssss'),
    'infinite statistics': (value(MEAN, lambda x: x + torch.inf), 'ssssss'),
    'no tensor': (value(CONV, lambda x: x.tolist()), 'ssssss'),
    'integers': (value(CONV, lambda x: x.int()), 'ssssss'),
    'complex numbers': (value(CONV, lambda x: x.to(torch.complex64)), 'ssssss'),
    'tensor without values': (value(CONV, lambda x: x.to('meta')), 'ssssss'),
    'sparse tensor': (value(CONV, lambda x: x.to_sparse()), 'ssssss'),
    'half precision': (of_type(torch.half), 'rrrrrr'),
    'bfloat16': (of_type(torch.bfloat16), 'rrrrrr'),
    'float8': (of_type(torch.float8_e4m3fn), 'rrrrrr'),
    'double precision that overflows': (value(HEAD, lambda x: x.double() * 1e300), 'ssssss'),
    'double precision': (of_type(torch.double), 'rrrrrr'),
    'no meta': (saved(partial(without, 'meta')), 'rrrrrs'),
    'meta that is None': (saved(lambda whole: whole.update(meta=None)), 'rrrrrs'),
    'meta that is text': (saved(lambda whole: whole.update(meta='x')), 'ssssss'),
    'data set that is text': (meta(dataset_meta='x'), 'ssssss'),
    'no data set': (meta(dataset_meta=None), 'rrrrrr'),
    'classes that are a number': (classes(classes=3), 'ssssss'),
    'classes in another order': (classes(classes=('floor', 'wall', 'cat')), 'srrrrs'),
    'more classes in meta': (classes(classes=tuple('abcd'), palette=[[0] * 3] * 4), 'rsssrr'),
    'fewer colours in meta': (classes(palette=[[1, 2, 3]]), 'rrrrrr'),
    'colours that are none': (classes(palette=[[300, -1], 'x', 7]), 'rrrrrr'),
    'names of classes that are numbers': (classes(classes=(0, 1, 2)), 'ssssss'),
    'no optimizer': (saved(partial(without, 'optimizer')), 'rrrrrs'),
    'optimizer of another model': (
        saved(lambda whole: whole['optimizer']['param_groups'][0]['params'].pop() and None),
        'rrrrrs',
    ),
    'optimizer of another type': (saved(as_adam), 'rrrrrs'),
    'optimizer of other shapes': (saved(wider_optimizer), 'rrrrrs'),
    'optimizer that is text': (saved(lambda whole: whole.update(optimizer='x')), 'rrrrrs'),
    'optimizer that is not finite': (saved(infinite_momentum), 'rrrrrs'),
    'schedule that is text': (saved(lambda whole: whole.update(param_schedulers='x')), 'rrrrrs'),
    'messages that are empty': (saved(lambda whole: whole.update(message_hub={})), 'rrrrrs'),
    'optimizer without state': (saved(lambda whole: whole['optimizer'].clear()), 'rrrrrs'),
    'messages that are text': (saved(lambda whole: whole.update(message_hub='x')), 'rrrrrs'),
    'iteration that is text': (meta(iter='x'), 'rrrrrs'),
    'iteration that is negative': (meta(iter=-5), 'rrrrrs'),
    'iteration beyond the end': (meta(iter=10**6), 'rrrrrr'),
    'code in its config': (meta(config="open('touched', 'w')\n"), 'rrrrrr'),
    'seed that is text': (meta(seed='x'), 'rrrrrs'),
}


# a seed: the prediction of rounded weights differs for some weights at more pixels than for others
EXTRA = "optim_wrapper['optimizer']['momentum'] = 0.9\nrandomness = dict(seed=0)\n"


@pytest.fixture(scope='module')
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data, a config, a trained checkpoint and its prediction."""
    folder = tmp_path_factory.mktemp('experiment')
    with commands.fast(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = commands.write_experiment(folder)
        config.write_text(config.read_text() + EXTRA)
        commands.run('train', config, '--max-iters', 1, '--work-dir', 'trained')
        Runs(folder, Path('trained/iter_1.pth')).predict()
        yield folder


class Runs:
    """The commands with a checkpoint; each asserts that it uses the weights of the whole file."""

    def __init__(self, experiment: Path, checkpoint: Path) -> None:
        self.experiment, self.checkpoint = experiment, checkpoint
        self.config, self.images = experiment / 'tiny.py', experiment / 'data/images/val'

    def test(self) -> None:
        assert 'mIoU' in commands.run('test', self.config, self.checkpoint)

    def predict(self) -> None:
        commands.run('predict', self.config, self.checkpoint, self.images, '--out', 'predicted')
        self._check(Path('predicted/mask'))

    def auto_label(self) -> None:
        commands.run('auto_label', self.config, self.checkpoint, self.images, 'labelled')
        self._check(Path('labelled/label'))

    def load(self) -> None:
        self._check_weights(mmseg_ext.load(self.config, self.checkpoint).state_dict())

    def init(self) -> None:
        self._train('new', '--max-iters', 1, '--init', self.checkpoint)
        self._check_weights(torch.load('new/iter_1.pth')['state_dict'])

    def resume(self) -> None:
        printed = self._train('more', '--max-iters', 2, '--resume', self.checkpoint)
        if 'nothing was left to train' not in printed:
            self._check_weights(torch.load('more/iter_2.pth')['state_dict'])

    def convert(self) -> None:
        """Every converter of released weights refuses the file; the last sentence is the result."""
        for paper in sorted({*converters()} - {'pssl'}):  # it only removes the classifier
            with pytest.raises(UserError) as refusal:
                commands.run('convert_checkpoint', paper, FILE, 'converted.pth')
            assert is_sentence(str(refusal.value)) and not Path('converted.pth').exists()
        raise refusal.value

    def _train(self, folder: str, *arguments: object) -> str:
        return commands.run('train', self.config, '--work-dir', folder, *arguments)

    def _check(self, folder: Path) -> None:
        """The pictures are nearly those of the whole file."""
        for path in (self.experiment / 'predicted/mask').glob('*.png'):
            whole, now = (np.array(Image.open(p)) for p in (path, folder / path.name))
            assert (whole == now).mean() > 0.9

    def _check_weights(self, state: dict[str, Tensor]) -> None:
        whole = torch.load(self.experiment / 'trained/iter_1.pth')['state_dict'][CONV]
        assert (state[CONV] - whole).norm() < 0.1 * whole.norm()
        assert all(x.isfinite().all() for x in state.values())


def test_every_command_that_reads_a_checkpoint_is_in_the_matrix() -> None:
    tools = {*COMMANDS, 'train', 'convert_checkpoint'} - {'load', 'init', 'resume', 'convert'}
    assert commands.names_in_tools() == {*tools, *ELSEWHERE}


@pytest.mark.parametrize('case', CASES)
def test_checkpoints(
    case: str,
    experiment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    write, ends = CASES[case]
    monkeypatch.chdir(tmp_path)
    write(torch.load(experiment / 'trained/iter_1.pth'), Path(FILE))
    runs, tallied = Runs(experiment, Path(FILE)), Tally('checkpoints', request)

    def attempt(name: str) -> None:
        try:
            getattr(runs, name)()
        except UserError as error:
            assert FILE in str(error) or name == 'convert', f'the file is not named: {error}'
            raise
        finally:
            assert not Path('touched').exists(), 'code of the file has run'

    for name, end in zip(COMMANDS, f'{ends}s', strict=True):
        expected = dict(r=RIGHT, s=SENTENCE)[end]
        tallied.run(f'{case}, {name}', partial(attempt, name), expected)
    tallied.check()
