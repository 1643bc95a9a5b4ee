import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmseg_ext.benchmark.report import _choose, _Listed, read_curves, report_data
from tests.benchmark import browser
from tests.benchmark.conftest import Made


def test_a_report_of_a_few_models_is_small_and_asks_nothing_of_the_network(made: Made) -> None:
    page = (made.out / 'report.html').read_text()
    assert len(page) < 10 * 2**20
    ours = page[page.rindex('<script>') :] + page[: page.index('<script>')]
    assert "texttemplate: few ? '%{z:.0f}'" in ours  # a cell shows its number
    assert 'http' not in ours and 'src="' not in ours and '<link' not in ours


def test_it_holds_scores_curves_confusion_and_pictures(made: Made) -> None:
    data = report_data(made.rows)
    json.dumps(data, allow_nan=False)
    first, other, second, third, gone = data['models']
    assert first['curves'] == dict(
        loss=[[10, 20], [2, 1]], val_loss=[[20], [1.5]], mIoU=[[20], [30]]
    )
    assert second['curves'] == {}
    assert first['iou'][3] is None and len(first['iou']) == 4
    assert [
        sum(row) if row[0] is not None else None for row in first['confusion']
    ] == pytest.approx([100, 100, 100, None], abs=0.1)
    assert other['failed'] and gone['failed'] and not third['failed']
    (group,) = data['groups']
    assert group['models'] == [0, 2] and group['images'] == 1
    (picture,) = group['pictures']
    assert picture['name'] == '0.png' and set(picture['outputs']) == {0, 2}
    assert picture['outputs'][0]['score'] == made.rows[0].result.scores['mIoU']


def test_the_worst_images_come_first_and_the_best_is_among_them() -> None:
    images = [_Listed(i, '', [float(i), i + 2.0]) for i in np.random.default_rng(0).permutation(50)]
    images.append(_Listed(99, '', [float('nan')]))
    chosen = [image.number for image in _choose(images)]
    assert chosen[:8] == list(range(8)) and chosen[-1] == 49 and len(chosen) == 12
    assert [image.number for image in _choose(images[:1])] == [images[0].number]


def test_the_hosts_log_gives_curves_and_long_ones_are_averaged(tmp_path: Path) -> None:
    log = tmp_path / '20260101/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    lines = [dict(loss=2.0 * (i % 2), lr=1.0, iter=i, step=i) for i in range(1600)]
    log.write_text('\n'.join(map(json.dumps, [*lines, dict(mIoU=40.0, step=1600)])))
    curves = read_curves(tmp_path)
    assert curves['mIoU'] == [[1600.0], [40.0]]
    assert len(curves['loss'][0]) == 400 and set(curves['loss'][1]) == {1.0}
    assert read_curves(tmp_path / 'nothing') == {}


@pytest.fixture
def page(made: Made, tmp_path: Path) -> Iterator[browser.Browser]:
    if browser.PATH is None:
        pytest.skip(f'no browser: none of {", ".join(browser.NAMES)} is installed')
    opened = browser.Browser(tmp_path / 'profile')
    opened.open(made.out / 'report.html')
    yield opened
    opened.close()


NAMES = "[...document.querySelectorAll('#scores tbody td:first-child')].map(c => c.textContent)"
SHOWN = "document.querySelectorAll('#panels .model').length"


def test_a_browser_sorts_filters_and_shows_it(page: browser.Browser, made: Made) -> None:
    names = [row.name for row in made.rows]
    assert page.value(NAMES) == names
    for _ in range(2):  # the best first, then the worst first; what has no score last
        page.click('#scores th:nth-child(3) button')
        scores = [row.result.scores['mIoU'] for row in made.rows if row.result]
        found = page.value(
            "[...document.querySelectorAll('#scores td:nth-child(3)')].map(c => c.textContent)"
        )
        up = page.value("document.querySelector('#scores th[aria-sort]').ariaSort") == 'ascending'
        assert [float(text) for text in found[:2]] == sorted(scores, reverse=not up)
    assert up

    assert page.value(SHOWN) == 3  # input and label, and two models
    picture = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] == 1200 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50

    page.click('#filter')
    page.type('second')
    assert page.value(NAMES) == [made.rows[2].name]
    assert page.value(SHOWN) == 2
    assert page.value("document.querySelectorAll('#pareto .scatterlayer .points path').length") == 1
    assert page.value("document.querySelector('#classes td:last-child').textContent") == '–'
    assert page.errors == []
