"""Converters and the tool around them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmseg_ext.convert import convert, converters, read_weights

TOOL = Path(__file__).parents[2] / 'tools' / 'convert_checkpoint.py'
RELEASED = {
    'module.backbone.conv1.weight': torch.ones(2),
    'module.ocr.cls_head.weight': torch.zeros(3),
}


def test_unknown_names_are_listed() -> None:
    unknown = r'1 of 3 names .* another model: classifier\.bias; if it is not of hmsa, .*, plain'
    with pytest.raises(ValueError, match=unknown):
        convert('hmsa', RELEASED | {'module.classifier.bias': torch.ones(1)})


def test_several_files_are_taken_where_the_paper_was_released_so() -> None:
    with pytest.raises(ValueError, match='hmsa was released in one file, got 2: give one'):
        convert('hmsa', RELEASED, RELEASED)
    segmentor = {'last_layer.0.bias': torch.zeros(1)}
    with pytest.raises(ValueError, match='file 2 of 2 is no refiner'):
        convert('magnet', segmentor, segmentor)


def test_unknown_paper_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match='hmsa.*plain'):
        convert('hsma', RELEASED)


def test_single_scale_checkpoint_gets_the_plain_names() -> None:
    assert set(convert('hmsa', RELEASED)) == {
        'backbone.conv1.weight',
        'decode_head.conv_seg.weight',
    }


def test_attention_makes_it_the_wrapped_model() -> None:
    weights = convert('hmsa', RELEASED | {'scale_attn.conv2.weight': torch.ones(1)})
    assert 'decode_head.head.conv_seg.weight' in weights
    assert 'decode_head.scale_attn.conv_attention.weight' in weights


def test_every_converter_names_its_paper() -> None:
    assert {'hmsa', 'plain'} <= set(converters())


def test_released_checkpoint_with_its_other_fields_is_read(tmp_path: Path) -> None:
    path = tmp_path / 'released.pth'
    torch.save(dict(state_dict=RELEASED, epoch=3, arch='ocrnet.HRNet', command='train'), path)
    assert set(read_weights(path)) == set(RELEASED)


@pytest.mark.parametrize('content', [b'', b'<html>', b'\x80\x04K\x01.'], ids=str)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / 'broken.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='broken.pth'):
        read_weights(path)


def test_tool_converts_and_explains(tmp_path: Path) -> None:
    src, dst = tmp_path / 'a.pth', tmp_path / 'new' / 'b.pth'
    torch.save(dict(state_dict=RELEASED), src)
    command = [sys.executable, str(TOOL), 'hmsa', str(src), str(dst)]
    assert '2 tensors' in subprocess.run(command, capture_output=True, text=True).stdout
    assert 'backbone.conv1.weight' in read_weights(dst)
    command[3] = str(tmp_path / 'missing.pth')
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith(f'error: {command[3]} is not a file')
