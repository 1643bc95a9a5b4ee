"""The command lines as a person runs them."""

import runpy
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.tiny_run import CLASSES, forget_visualizers, write_config, write_folder, write_pair

ROOT = Path(__file__).parents[1]


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data'))


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """Runs a tool in this process; what it printed, and why it ended (None: well)."""

    def run(tool, *args):
        monkeypatch.chdir(tmp_path)
        forget_visualizers()
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
        end = None
        try:
            runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
        except SystemExit as error:
            end = error.code or None
        return capfd.readouterr().out, end

    return run


def one_line(end):
    assert isinstance(end, str), 'the tool ended well'
    assert end.startswith('error: ')
    assert '\n' not in end
    return end


@pytest.mark.parametrize('tool', sorted(ROOT.glob('tools/*.py')), ids=lambda path: path.stem)
def test_every_option_is_explained(tool, monkeypatch):
    parsers = []

    def parse(parser, *arguments):
        parsers.append(parser)
        sys.exit()

    monkeypatch.setattr(ArgumentParser, 'parse_args', parse)
    monkeypatch.setattr(ArgumentParser, 'parse_intermixed_args', parse)
    with pytest.raises(SystemExit):
        runpy.run_path(str(tool), run_name='__main__')
    (parser,) = parsers
    assert all(action.help for action in parser._actions if action.option_strings)


def test_train_resume_and_test_from_the_command_line(config, run, tmp_path):
    command = [sys.executable, str(ROOT / 'tools/train.py'), str(config), '--max-iters', '2']
    done = subprocess.run(
        [*command, '--amp', 'bf16', '--seed', '1'], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 'train data: 4 images, 4 labels read' in done.stdout
    assert 'results in work_dirs/tiny' in done.stdout
    assert 'python tools/test.py' in done.stdout

    _, end = run('train.py', config, '--max-iters', '3', '--resume')
    assert end is None
    checkpoint = torch.load(tmp_path / 'work_dirs/tiny/iter_3.pth', weights_only=False)
    assert (checkpoint['meta']['iter'], checkpoint['meta']['seed']) == (3, 1)

    out, end = run('train.py', config, '--max-iters', '2', '--resume')
    assert end is None
    assert 'nothing was left to train: ' in out and 'iter_3.pth has 3 iterations done' in out
    assert 'max_iters=2 asks for no more; --max-iters with a larger number' in out

    trained = (tmp_path / 'work_dirs/tiny/tiny.py').read_text()
    out, end = run('test.py', config, 'work_dirs/tiny/iter_3.pth', '--out', 'predicted', '--tta')
    assert end is None
    assert (tmp_path / 'work_dirs/tiny/tiny.py').read_text() == trained
    assert 'SegTTAModel' in (tmp_path / 'work_dirs/tiny/tiny_test.py').read_text()
    assert 'best constant prediction (wall everywhere): 16.66' in out
    table = (tmp_path / 'work_dirs/tiny/table.md').read_text()
    assert f'iter_3.pth with {config} on BaseSegDataset of {tmp_path}/data/images/val;' in table
    assert '- constant_mIoU: that of predicting wall everywhere.' in table
    predicted = cv2.imread(str(tmp_path / 'predicted/0.png'), cv2.IMREAD_UNCHANGED)
    assert predicted.shape == (40, 48)
    assert predicted.max() < len(CLASSES)


def test_check_dataset_prints_counts_and_weights(config, run):
    out, end = run('check_dataset.py', config)
    assert end is None
    assert 'train: 4 images; 48x40 (4)' in out
    assert 'best constant prediction: wall everywhere, mIoU 16.66' in out
    assert 'class_weight=[0.9677, 1.0, 29.0]' in out
    assert out.count('val: 2 images') == 1
    assert 'test:' not in out  # the same as val


def test_check_dataset_lists_all_problems_and_fails(config, run, tmp_path):
    (tmp_path / 'data/labels/train/1.png').unlink()
    cv2.imwrite(str(tmp_path / 'data/labels/val/0.png'), np.full((40, 48), 200, np.uint8))
    out, end = run('check_dataset.py', config)
    assert end == '2 problems'
    assert out.count('problem: ') == 2


@pytest.mark.parametrize('tool', ['check_dataset.py', 'train.py', 'test.py'])
def test_a_config_without_data_is_refused(config, run, tmp_path, tool):
    splits = ''.join(f'{split}_dataloader = None\n' for split in ('train', 'val', 'test'))
    config.write_text(config.read_text() + splits)
    torch.save({}, tmp_path / 'x.pth')
    _, end = run(tool, config, *(['x.pth'] if tool == 'test.py' else []))
    assert 'the config has no data: give it a dataset in t' in one_line(end)


def test_the_data_root_of_the_command_line_is_checked(config, run):
    _, end = run('check_dataset.py', config, '--data-root', 'nowhere')
    assert 'nowhere' in one_line(end)


def test_a_dry_run_refuses_a_work_directory_that_is_none(config, run):
    for folder in ('tiny.py', 'tiny.py/x'):
        _, end = run('train.py', config, '--dry-run', '--work-dir', folder)
        assert f'cannot be written to {folder} (' in one_line(end)


def test_a_dry_run_writes_nothing(config, run, tmp_path):
    before = sorted(tmp_path.rglob('*'))
    out, end = run('train.py', config, '--dry-run', '--crop-size', 24, 40)
    assert end is None
    assert 'one training batch, loss' in out
    assert 'one validation batch' in out
    assert sorted(tmp_path.rglob('*')) == before


def test_a_training_says_where_it_is_not_the_recipe(config, run):
    config.write_text(config.read_text() + "initial_weights = 'weights of elsewhere'\n")
    other = ('--cfg-options', 'auto_scale_lr.base_batch_size=8')
    out, end = run('train.py', config, '--dry-run', *other)
    assert end is None
    assert 'warning: the training starts from random weights, but the recipe' in out
    assert 'warning: a batch has 2 images (1 x 2), but the learning rate is for 8: ' in out
    out, end = run(
        'train.py', config, '--max-iters', 1, '--init', 'none', *other, '--auto-scale-lr'
    )
    assert end is None
    assert 'Scaling the original LR by 0.25.' in out
    assert 'warning: ' not in out
    _, end = run('train.py', config, '--dry-run', '--auto-scale-lr')
    assert 'give --cfg-options auto_scale_lr.base_batch_size=N' in one_line(end)


def test_images_smaller_than_the_crop_are_padded(config, run):
    _, end = run('train.py', config, '--dry-run', '--crop-size', 64, 96)
    assert end is None


def test_predictions_are_drawn_where_asked(config, run, tmp_path):
    run('train.py', config, '--max-iters', 1)
    _, end = run('test.py', config, 'work_dirs/tiny/iter_1.pth', '--show-dir', 'drawn')
    assert end is None
    assert len(list((tmp_path / 'drawn').glob('*.png'))) == 2


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (lambda data: (data / 'labels/train/0.png').unlink(), ('0.png', 'does not exist')),
        (lambda data: write_label(data, np.full((40, 48), 200)), ('1.png', '200')),
        (lambda data: write_label(data, np.zeros((40, 48, 3))), ('1.png', '3 channels')),
        (lambda data: write_label(data, np.zeros((8, 8))), ('1.png', '8x8', '48x40')),
        (lambda data: [p.unlink() for p in (data / 'images/val').iterdir()], ('images/val',)),
    ],
    ids=['no label', 'value 200', 'three channels', 'other size', 'empty folder'],
)
def test_bad_data_stops_a_training_before_it_starts(config, run, tmp_path, damage, words):
    damage(tmp_path / 'data')
    _, end = run('train.py', config)
    assert all(word in one_line(end) for word in words)
    assert not (tmp_path / 'work_dirs').exists()


def write_label(data, array):
    assert cv2.imwrite(str(data / 'labels/train/1.png'), array.astype(np.uint8))


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['--cfg-options', 'model.decode_head.num_classes=7'], ('num_classes=7', '3 classes')),
        (['--cfg-options', 'model.decode_head.type=FCNHaed'], ('FCNHaed', 'FCNHead')),
        (['--cfg-options', 'crop_size=9'], ('crop_size', '--crop-size')),
        (['--cfg-options', 'load_from=http://127.0.0.1:9/x.pth'], ('127.0.0.1', '--init none')),
        (['--data-root', 'nowhere'], ('nowhere', '--data-root')),
        (['--init', 'gone.pth'], ('gone.pth', '--init none')),
        (['--max-epochs', '2'], ('--max-iters',)),
        (['--max-iters', '0'], ('--max-iters 0',)),
        (['--crop-size', '0', '8'], ('--crop-size 0 8',)),
        (['--work-dir', 'tiny.py/x'], ('tiny.py/x', 'name another folder')),
        (['--cfg-options', 'compile'], ('--cfg-options compile: give KEY=VALUE',)),
        (['--cfg-options', 'crop_size=[1,(2]'], ('crop_size=[1,(2]', 'brackets that close')),
    ],
    ids=[
        'class count',
        'head',
        'unread option',
        'weights',
        'data root',
        'init',
        'unit',
        'length',
        'crop',
        'work dir',
        'no value',
        'open bracket',
    ],
)
def test_a_bad_command_stops_before_it_starts(config, run, tmp_path, args, words):
    _, end = run('train.py', config, *args)
    assert all(word in one_line(end) for word in words)
    assert not (tmp_path / 'work_dirs').exists()


@pytest.mark.parametrize(
    ('option', 'advice'),
    [
        ('model.decode_head.chanels=9', 'chanels; did you mean channels'),
        ('model.tets_cfg=9', 'tets_cfg; did you mean test_cfg'),
        ('train_dataloader.batchsize=9', 'DataLoader does not take batchsize; did you mean batch'),
    ],
)
def test_a_key_that_its_class_does_not_take_is_named(config, run, option, advice):
    _, end = run('train.py', config, '--cfg-options', option)
    assert one_line(end).startswith(f'error: {option.split("=")[0]}: ')
    assert advice in end


def test_maps_too_small_for_batch_norm_are_refused(config, run):
    batch_of_one = ['--cfg-options', 'train_dataloader.batch_size=1']
    _, end = run('train.py', config, '--dry-run', '--crop-size', 8, 8, *batch_of_one)
    assert 'too small for BatchNorm' in one_line(end)


def test_an_epoch_shorter_than_a_batch_is_refused(tmp_path, run):
    epochs = "train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)"
    config = write_config(tmp_path / 'tiny.py', write_folder(tmp_path / 'data'), extra=epochs)
    large = ['train_dataloader.batch_size=9', 'train_dataloader.drop_last=True']
    _, end = run('train.py', config, '--cfg-options', *large)
    assert '8 images for each process, less than a batch of 9' in one_line(end)


def test_a_config_that_cannot_be_read_is_named(run, tmp_path):
    (tmp_path / 'child.py').write_text("_base_ = './gone.py'")
    (tmp_path / 'broken.py').write_text('x = (')
    for name in ('child.py', 'broken.py'):
        _, end = run('train.py', tmp_path / name)
        assert f'{name} cannot be read' in one_line(end)


def test_a_checkpoint_of_another_model_is_not_tested(config, run, tmp_path):
    torch.save({'state_dict': {'backbone.conv9.weight': torch.zeros(3)}}, tmp_path / 'x.pth')
    _, end = run('test.py', config, 'x.pth')
    assert 'another model' in one_line(end)
    assert 'backbone.conv9.weight' in end
    _, end = run('test.py', config, 'gone.pth')
    assert 'gone.pth does not exist' in one_line(end)


def test_a_damaged_image_in_the_middle_of_training_is_named(config, run, tmp_path):
    write_pair(tmp_path / 'data', 'train/9')
    image = tmp_path / 'data/images/train/9.png'
    image.write_bytes(image.read_bytes()[:2000])  # its header is whole
    text = config.read_text().replace('LoadImageFromFile', 'LoadImage')
    config.write_text(text.replace('num_workers=0', 'num_workers=1', 1))
    in_order = ['--cfg-options', 'train_dataloader.sampler.shuffle=False']
    _, end = run('train.py', config, '--max-iters', 8, *in_order)
    assert 'images/train/9.png' in one_line(end)
    assert (tmp_path / 'work_dirs/tiny/interrupted.pth').is_file()


def test_a_tilde_that_the_shell_leaves_is_the_home_folder(config, run, monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    _, end = run('train.py', config, '--work-dir=~/runs', '--cfg-options', 'train_cfg.max_iters=1')
    assert end is None
    assert (tmp_path / 'home' / 'runs' / 'iter_1.pth').is_file()
    assert not (tmp_path / '~').exists()


def test_two_starts_are_refused(config, run, tmp_path):
    (tmp_path / 'a.pth').touch()
    _, end = run('train.py', config, '--resume', 'a.pth', '--init', 'a.pth')
    assert 'name two starts' in one_line(end)


@pytest.mark.parametrize('option', ['--out', '--show-dir'])
def test_a_file_is_no_folder_for_results_of_a_test(config, run, tmp_path, option):
    (tmp_path / 'a.pth').touch()
    _, end = run('test.py', config, 'a.pth', option, 'a.pth')
    assert 'results cannot be written to a.pth' in one_line(end)


def test_a_window_needs_a_display(config, run, tmp_path, monkeypatch):
    (tmp_path / 'a.pth').touch()
    monkeypatch.setattr(sys, 'platform', 'linux')
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    _, end = run('test.py', config, 'a.pth', '--show')
    assert 'no display here: write pictures by --show-dir' in one_line(end)
