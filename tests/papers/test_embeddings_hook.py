"""What a training with contrast leaves of its vectors and its memory."""

from pathlib import Path

import cv2
import pytest
import torch

from mmseg_ext.errors import UserError
from mmseg_ext.papers.pixel_contrast import EmbeddingsHook, embeddings_hook
from mmseg_ext.visualization import embeddings
from mmseg_ext.visualization.embeddings import draw_embeddings, principal_components, tsne
from tests.engine.tiny_run import last_checkpoint, train, with_validation
from tests.papers.test_pixel_contrast import contrast_run, data  # noqa: F401

COLORS = [[200, 0, 0], [0, 200, 0], [0, 0, 200]]


def test_pictures_after_each_validation_and_a_memory_of_the_fill(
    data: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    cfg = with_validation(contrast_run(data, tmp_path), 1)
    cfg.custom_hooks.append(dict(type='EmbeddingsHook', num_images=4, tsne=True))
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.metainfo.palette = COLORS
    assert train(cfg) == [(0, '')]
    pictures = sorted((tmp_path / 'embeddings').glob('*.png'))
    assert [path.stem for path in pictures] == ['000005', '000010']
    picture = cv2.imread(str(pictures[-1]))[..., ::-1]
    for color in COLORS:
        assert (abs(picture.astype(int) - color).max(2) < 8).sum() > 20
    fill = last_checkpoint(tmp_path)['message_hub']['runtime_info']['bank_fill']
    assert list(fill) == [5]  # the last validation comes after the last checkpoint
    assert (torch.tensor(fill[5]) > 0).all() and torch.tensor(fill[5]).shape == (3, 2)


def test_heads_without_contrast_show_the_features_before_their_classifier(
    data: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    cfg = with_validation(contrast_run(data, tmp_path), 1)
    wrapper = cfg.model.decode_head
    shared = {name: wrapper[name] for name in ('in_channels', 'in_index', 'num_classes')}
    cfg.model.decode_head = dict(wrapper.head, **shared)
    cfg.train_cfg.max_epochs = 1
    cfg.custom_hooks.append(dict(type='EmbeddingsHook'))
    assert train(cfg) == [(0, '')]
    assert (tmp_path / 'embeddings' / '000005.png').is_file()


def test_principal_components_are_those_of_the_largest_variance() -> None:
    torch.manual_seed(0)
    plane = torch.randn(200, 2) * torch.tensor([5.0, 2.0])
    rotation = torch.linalg.qr(torch.randn(6, 6)).Q
    vectors = (torch.cat([plane, torch.zeros(200, 4)], 1) + 3) @ rotation
    found = principal_components(vectors)
    expected = plane - plane.mean(0)
    torch.testing.assert_close(found.norm(dim=1), expected.norm(dim=1), rtol=1e-4, atol=1e-4)
    assert found[:, 0].var() > found[:, 1].var()


def clusters(number: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors (3 * number, 16) around three directions, and their classes."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(3).repeat_interleave(number)
    noise = 0.1 * torch.randn(len(label), 16, generator=generator)
    return torch.eye(16)[label] + noise, label


def test_tsne_puts_neighbours_side_by_side_and_is_the_same_again() -> None:
    vectors, label = clusters()
    points = tsne(vectors)
    distances = torch.cdist(points, points).fill_diagonal_(torch.inf)
    assert (label[distances.argmin(1)] == label).all()
    assert torch.equal(points, tsne(vectors))
    assert tsne(vectors[:4]).isfinite().all()  # fewer points than the usual perplexity


def test_tsne_is_drawn_beside_the_principal_axes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, 'TSNE_POINTS', 50)
    vectors, label = clusters()
    widths = {}
    for with_tsne in (False, True):
        path = tmp_path / f'{with_tsne}.png'
        draw_embeddings(path, vectors, label, ('a', 'b', 'c'), COLORS, with_tsne=with_tsne)
        picture = cv2.imread(str(path))[..., ::-1].astype(int)
        widths[with_tsne] = picture.shape[1]
    right = picture[:, picture.shape[1] // 2 : -200]  # without the legend
    for color in COLORS:
        assert (abs(right - color).max(2) < 8).sum() > 20
    assert widths[True] - widths[False] == 700


def test_without_scikit_learn_tsne_is_refused_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embeddings_hook, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='needs scikit-learn: pip install scikit-learn'):
        EmbeddingsHook(tsne=True)
    EmbeddingsHook()
