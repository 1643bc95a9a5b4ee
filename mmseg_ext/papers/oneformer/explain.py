"""Maps that explain a result: masks of queries, regions of attention, likeness to texts."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...segmentors.protocols import Maps
from .decoder import Decoded, mask_logits
from .text import TextBatch

SHOWN = 6  # queries


def explain_decoded(head: Any, decoded: Decoded) -> Maps:
    """Maps of the queries with the highest scores; see ``OneFormerHead.explain``."""
    logits, embedding = decoded.predictions[-1]
    scores, classes = logits.softmax(2)[..., :-1].max(2)  # (N, Q)
    top = scores.topk(min(SHOWN, scores.shape[1])).indices
    maps: Maps = {}
    for rank, queries in enumerate(top.T):
        rows = torch.arange(len(queries), device=queries.device)
        masks = mask_logits(embedding[rows, queries][:, None], decoded.mask_features)
        title = _title(head.class_names, classes[rows, queries], scores[rows, queries])
        maps[f'query_{rank + 1}{title}'] = masks.sigmoid()
    for i, region in enumerate(decoded.regions):
        best = region[torch.arange(len(top), device=top.device), top[:, 0]]
        maps[f'region_{i + 1}_of_query_1'] = best[:, None]
    if head.text_branch is not None:
        maps['likeness_to_class_names'] = _likeness(head, decoded.queries, top)
    return maps


def _title(names: Sequence[str], classes: Tensor, scores: Tensor) -> str:
    """Class and score of a query, for a batch of one image; images of a batch share the names."""
    if len(classes) > 1:
        return ''
    return f': {names[int(classes[0])].partition(",")[0]} {float(scores[0]):.2f}'


def _likeness(head: Any, queries: Tensor, top: Tensor) -> Tensor:
    """Cosine of queries ``top`` (N, M) and of the text of each class, a table (N, K, M, 1)."""
    texts = [[f'a photo with a {name}' for name in head.class_names]]
    batch = TextBatch.of(texts).to(queries.device)
    branch = head.text_branch
    vectors = branch.projector(branch.encoder(batch.ids, batch.ends))[batch.rows[0]]  # (K, C)
    chosen = queries.gather(1, top[..., None].expand(-1, -1, queries.shape[2]))
    cosine = F.cosine_similarity(chosen[:, None], vectors[None, :, None], dim=3)
    return cosine[..., None]
