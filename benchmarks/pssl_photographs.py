"""Photographs of COCO whose main object is clear, in class folders, and a mask of this object.

python benchmarks/pssl_photographs.py data/coco/tiny work_dirs/pssl/photographs

The main object is the largest one. It covers a tenth of the photograph or more, and at least twice
as many pixels as the next one.
"""

import shutil
import sys
from pathlib import Path

import cv2
from pycocotools.coco import COCO

LEAST_SHARE, LEAST_RATIO = 0.1, 2.0


def main(source: Path, out: Path) -> None:
    count = 0
    for file in sorted(source.glob('annotations/instances_*.json')):
        coco = COCO(str(file))
        for image in coco.loadImgs(coco.getImgIds()):
            objects = coco.loadAnns(coco.getAnnIds(image['id'], iscrowd=False))
            objects.sort(key=lambda one: -one['area'])
            areas = [one['area'] for one in objects] + [0, 0]
            large = areas[0] >= LEAST_SHARE * image['width'] * image['height']
            if not large or areas[0] < LEAST_RATIO * areas[1]:
                continue
            (name,) = (path for path in source.rglob(image['file_name']))
            folder = coco.loadCats(objects[0]['category_id'])[0]['name'].replace(' ', '_')
            for kind in ('images', 'masks'):
                (out / kind / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(name, out / 'images' / folder)
            mask = (out / 'masks' / folder / image['file_name']).with_suffix('.png')
            cv2.imwrite(str(mask), coco.annToMask(objects[0]))
            count += 1
    print(f'{count} photographs in {out}')


if __name__ == '__main__':
    main(Path(sys.argv[1]), Path(sys.argv[2]))
