"""Class-uniform sampling: centroids and counts."""

from mmseg_ext.datasets.class_centroids import class_centroids, epoch_counts, tile_origins
from tests.parity.case import Case, Kind, Results


def run_centroids(case: Case) -> Results:
    h, label = case.hyper, case.inputs['labels'].numpy()
    rows = class_centroids(label, h['num_classes'], h['tile'])
    return dict(centroids=rows, tiles=tile_origins(*label.shape, h['tile'])), {}


def run_epoch_counts(case: Case) -> Results:
    h = case.hyper
    counts = epoch_counts(h['num_images'], h['pct'], h['centroids_per_class'])
    return counts._asdict(), {}


KINDS = {'centroids': Kind(run_centroids, 0), 'epoch_counts': Kind(run_epoch_counts, 0)}
