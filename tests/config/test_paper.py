"""The papers' numbers in the configs."""

from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_ext.benchmark.model_result import data_set_name
from mmseg_ext.config import prepare
from mmseg_ext.config.paper import PaperScore, paper_score
from mmseg_ext.errors import UserError
from tests.tiny import CONFIG_DIR, CONFIGS

# Every config for which its paper, or its authors' code, has a number.
NUMBERS = {
    'cpnet/r101_ade20k': 46.27,
    'cpnet/r101_cityscapes': 81.3,
    'cpnet/r101_pascal_context': 53.9,
    'cpnet/r50_ade20k': 44.46,
    'danet/r101_cityscapes': 79.93,
    'danet/r101_coco_stuff10k': 39.7,
    'danet/r101_pascal_context': 52.6,
    'dsrl/espnetv2_cityscapes': 60.61,
    'dsrl/espnetv2_cityscapes_1024x2048': 66.5,
    'fastfcn/r101_jpu_encnet_ade20k': 44.34,
    'fastfcn/r101_jpu_encnet_pascal_context': 54.03,
    'fastfcn/r50_jpu_aspp_pascal_context': 50.07,
    'fastfcn/r50_jpu_encnet_ade20k': 42.75,
    'fastfcn/r50_jpu_encnet_pascal_context': 51.05,
    'fastfcn/r50_jpu_psp_pascal_context': 50.89,
    'gscnn/wrn38_cityscapes': 80.8,
    'gscnn/wrn38_cityscapes_released': 80.8,
    'hanet/mobilenetv2_deeplabv3plus_bdd100k': 60.05,
    'hanet/mobilenetv2_deeplabv3plus_cityscapes': 74.96,
    'hanet/r101_deeplabv3plus_bdd100k': 64.56,
    'hanet/r101_deeplabv3plus_cityscapes': 80.29,
    'hanet/r101_deeplabv3plus_cityscapes_os16': 79.31,
    'hanet/r101_deeplabv3plus_cityscapes_sliding': 82.05,
    'hanet/r101_deeplabv3plus_cityscapes_trainval': 82.1,
    'hanet/r50_deeplabv3plus_cityscapes': 77.78,
    'hanet/rx101_deeplabv3plus_cityscapes': 83.2,
    'hmsa/hrnet_ocr_cityscapes': 85.4,
    'hmsa/hrnet_ocr_cityscapes_autolabel': 86.3,
    'hmsa/hrnet_ocr_cityscapes_averaged': 84.9,
    'hmsa/hrnet_ocr_mapillary': 61.1,
    'hmsa/hrnet_ocr_mapillary_2177': 61.05,
    'magnet/hrnet18s_ocr_cityscapes': 68.2,
    'magnet/hrnet18s_ocr_cityscapes_fast': 67.37,
    'magnet/hrnet18s_ocr_cityscapes_plain': 63.24,
    'magnet/r50_fpn_deepglobe': 72.1,
    'magnet/r50_fpn_deepglobe_fast': 68.22,
    'magnet/r50_fpn_deepglobe_plain': 67.22,
    'oneformer/convnext_l_ade20k': 56.6,
    'oneformer/convnext_l_cityscapes': 83.0,
    'oneformer/swin_l_ade20k': 57.0,
    'oneformer/swin_l_cityscapes': 83.0,
    'pixel_contrast/hrnet_cityscapes': 80.18,
    'pixel_contrast/hrnet_cityscapes_memory_paper': 81.0,
    'pixel_contrast/hrnet_cityscapes_plain': 79.27,
    'pixel_contrast/hrnet_coco_stuff10k': 39.3,
    'pixel_contrast/hrnet_ocr_cityscapes_memory_paper': 83.2,
    'pixel_contrast/hrnet_ocr_coco_stuff10k': 41.0,
    'pixel_contrast/hrnet_ocr_pascal_context': 57.2,
    'pixel_contrast/hrnet_pascal_context': 55.1,
    'pixel_contrast/r101_deeplabv3_cityscapes': 77.67,
    'pixel_contrast/r101_deeplabv3_cityscapes_memory_paper': 79.2,
    'pixel_contrast/r101_deeplabv3_cityscapes_plain': 72.75,
    'pssl/pp_liteseg_cityscapes': 79.06,
    'pssl/stdc2_voc12aug': 74.49,
    'spnet/r101_ade20k': 45.6,
    'spnet/r101_cityscapes': 81.9,
    'spnet/r101_pascal_context': 54.5,
    'spnet/r50_ade20k': 45.03,
    'spnet/r50_cityscapes': 79.5,
}
NOT_TESTED = ('Cityscapes test',)  # has no public labels


def name_of(path: Path) -> str:
    return f'{path.parent.name}/{path.stem}'


@pytest.mark.parametrize('path', CONFIGS, ids=name_of)
def test_a_config_has_the_number_of_its_paper_and_its_children_do_not(path: Path) -> None:
    cfg = prepare.load_config(str(path))
    score = paper_score(cfg)
    if score is None:
        assert name_of(path) not in NUMBERS
        return
    assert score.miou == NUMBERS[name_of(path)]
    written = path.read_text().partition('paper = ')[0] + (path.parent / 'README.md').read_text()
    assert str(score.miou) in written
    data_set = ' '.join(data_set_name(cfg))
    assert score.is_of(data_set) is (score.split not in NOT_TESTED), data_set


def test_every_number_is_of_a_config() -> None:
    assert set(NUMBERS) <= set(map(name_of, CONFIGS))


def test_a_child_has_no_number_but_that_of_its_own_file(tmp_path: Path) -> None:
    base = CONFIG_DIR / 'spnet/r101_cityscapes.py'
    (tmp_path / 'child.py').write_text(f'_base_ = {str(base)!r}\n')
    child = prepare.load_config(str(tmp_path / 'child.py'))
    assert 'paper' not in child and Config.fromfile(tmp_path / 'child.py').paper.miou == 81.9
    child.dump(tmp_path / 'dumped_child.py')  # as a training leaves it
    assert paper_score(prepare.load_config(str(tmp_path / 'dumped_child.py'))) is None
    prepare.load_config(str(base)).dump(tmp_path / 'dumped.py')
    assert paper_score(prepare.load_config(str(tmp_path / 'dumped.py'))).miou == 81.9


@pytest.mark.parametrize('paper', [dict(miou=1.0), dict(miou=1.0, split='A val', table=2), 3])
def test_other_keys_are_refused(paper: object) -> None:
    with pytest.raises(UserError, match='give a dict of miou, split, source'):
        paper_score(Config(dict(paper=paper)))
    assert paper_score(Config(dict(paper=None))) is None


@pytest.mark.parametrize(
    ('data_set', 'same'),
    [
        ('ADE20K validation', True),
        ('ade20k val', True),
        ('ADE20K test', False),
        ('ADE20KFull val', False),
        ('ADE20K', False),
        ('', False),
    ],
)
def test_the_data_sets_of_number_and_test_are_compared(data_set: str, same: bool) -> None:
    assert PaperScore(1.0, 'ADE20K val', 'Table 1').is_of(data_set) is same
