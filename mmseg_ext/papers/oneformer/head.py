"""OneFormer's decode head."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from ...errors import UserError
from ...layers.levels import require_levels, resize
from ...layers.precision import at_least_float32
from ...layers.sizes import Size, input_size, size_of
from ...segmentors.protocols import Maps, Point
from .attention import Mlp
from .criterion import Criterion, ImageTargets
from .decoder import Decoded, MaskDecoder, mask_logits
from .explain import explain_decoded
from .inference import semantic_scores
from .matching import WEIGHTS, Weights
from .pixel_decoder import PixelDecoder
from .targets import OneFormerTargets, Targets, targets_of
from .text import CONTEXT_LENGTH, TextBatch, TextBranch, check_task, image_texts, task_ids


@MODELS.register_module()
class OneFormerHead(BaseModule):
    """Levels of a backbone to the classes and masks of queries, for the task of a sentence.

    In ``EncoderDecoder`` it predicts the semantic result. ``OneFormer`` also gives instances and
    panoptic segments.

    Args:
        in_channels: Widths of four levels, strides 4 to 32.
        num_classes: Number of classes K.
        in_index: Their positions among the levels of the backbone.
        channels: Width C, a multiple of 32.
        num_queries: Number of queries Q.
        num_heads: Number of heads of all attention.
        pixel_layers: Number of layers of the pixel decoder.
        pixel_hidden: Width of the feed-forward blocks of the pixel decoder.
        num_layers: Number of layers of the mask decoder.
        hidden: Width of the feed-forward blocks of the mask decoder and the query transformer.
        num_context: Number of learned vectors beside the texts of an image.
        text_width: Width of the text encoder, a multiple of 64.
        text_layers: Number of its layers.
        num_points: Number of points at which masks are compared in training.
        loss_weights: Weights of the terms: ``dict(ce=2.0, mask=5.0, dice=5.0, contrastive=0.5)``.
            With ``contrastive=0`` there is no text branch.
        thing_classes: Class indices of things; None for those of the data set.
        ignore_index: Label of ignored pixels.
        norm_cfg: Not used; the norms are group norms and layer norms.

    Raises:
        UserError: One level only, other than four levels, a width that the heads do not divide, or
            more context vectors than queries.
    """

    reads_levels = True
    training_parts = ('text_branch', 'criterion')
    align_corners = False
    explains_pixels = False

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        num_classes: int,
        in_index: Sequence[int] = (0, 1, 2, 3),
        channels: int = 256,
        num_queries: int = 150,
        num_heads: int = 8,
        pixel_layers: int = 6,
        pixel_hidden: int = 1024,
        num_layers: int = 9,
        hidden: int = 2048,
        num_context: int = 16,
        text_width: int = 256,
        text_layers: int = 6,
        num_points: int = 12544,
        loss_weights: Mapping[str, float] | None = None,
        thing_classes: Sequence[int] | None = None,
        ignore_index: int = 255,
        norm_cfg: Mapping | None = None,
        init_cfg: Mapping | None = None,
    ) -> None:
        super().__init__(init_cfg)
        require_levels(self, in_channels)
        _check_sizes(in_channels, channels, num_heads, num_queries, num_context)
        self.in_channels, self.in_index = list(in_channels), list(in_index)
        self.num_classes = self.out_channels = num_classes
        self.num_queries, self.num_context = num_queries, num_context
        self.ignore_index, self.norm_cfg = ignore_index, norm_cfg
        self.thing_classes = thing_classes
        self.dataset_meta: Mapping[str, Any] = {}
        self.pixel_decoder = PixelDecoder(
            in_channels,
            channels,
            num_layers=pixel_layers,
            hidden=pixel_hidden,
            num_heads=num_heads,
        )
        self.task_mlp = Mlp(CONTEXT_LENGTH, channels, channels)
        self.mask_decoder = MaskDecoder(
            channels,
            num_classes,
            num_queries,
            num_layers=num_layers,
            hidden=hidden,
            num_heads=num_heads,
        )
        weights = Weights(**loss_weights) if loss_weights else WEIGHTS
        self.criterion = Criterion(num_classes, num_points=num_points, weights=weights)
        self.text_branch: TextBranch | None = None
        if weights.contrastive:
            self.text_branch = TextBranch(
                channels, num_context=num_context, width=text_width, num_layers=text_layers
            )
        self.draws = OneFormerTargets(ignore_index=ignore_index)

    @property
    def things(self) -> Sequence[int]:
        """Class indices of things: those of the config, else of the data set, else none."""
        if self.thing_classes is not None:
            return self.thing_classes
        return self.dataset_meta.get('thing_classes') or ()

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes of the data set, with synonyms where it has them (ADE20K).

        Without a data set they are numbered, with a warning.
        """
        names = self.dataset_meta.get('full_names') or self.dataset_meta.get('classes')
        if names:
            return names
        warnings.warn('the model knows no names of classes: its texts number them', stacklevel=2)
        return [f'class {i}' for i in range(self.num_classes)]

    def task_tokens(self, ids: Tensor) -> Tensor:
        """Task tokens (N, C) before any norm, float32 or wider under autocast too.

        The ids themselves are the input of the MLP, up to 49407, which half precision cannot hold.

        Args:
            ids: Ids (N, 77) of the sentences.
        """
        first, second = self.task_mlp.layers  # type: Any, Any
        with torch.autocast(ids.device.type, enabled=False):
            x = at_least_float32(ids.to(first.weight.dtype))
            x = F.linear(x, *map(at_least_float32, (first.weight, first.bias))).relu()
            return F.linear(x, *map(at_least_float32, (second.weight, second.bias)))

    def run(self, levels: Sequence[Tensor], tasks: Sequence[str]) -> Decoded:
        """Predictions for levels (N, C_i, H_i, W_i) and the task of each image."""
        selected = [levels[i] for i in self.in_index]
        tokens = self.task_tokens(task_ids(tasks).to(selected[0].device))
        mask_features, maps = self.pixel_decoder(selected)
        return self.mask_decoder(tokens, mask_features, maps)

    def forward(self, levels: Sequence[Tensor], task: str = 'semantic') -> Tensor | Decoded:
        """Levels to the score of each class, (N, K, h, w) at stride 4; in training to ``Decoded``.

        Args:
            levels: Levels (N, C_i, H_i, W_i) of the backbone.
            task: Task of all images.
        """
        decoded = self.run(levels, [task] * len(levels[0]))
        if self.training:
            return decoded
        return self.scores(decoded, size_of(decoded.mask_features))

    def scores(self, decoded: Decoded, size: Size) -> Tensor:
        """Score of each class, (N, K, H, W), at a size."""
        logits, embedding = decoded.predictions[-1]
        images = []
        for i, features in enumerate(decoded.mask_features.split(1)):

            def masks_of(queries: Tensor, i: int = i, features: Tensor = features) -> Tensor:
                masks = mask_logits(embedding[i : i + 1, queries], features)
                return resize(masks, size, False)[0]

            images.append(semantic_scores(logits[i], masks_of, size))
        return torch.stack(images)

    def predict(
        self, inputs: Sequence[Tensor], batch_img_metas: list[dict], test_cfg: Mapping | None
    ) -> Tensor:
        """Score of each class, (N, K, H, W), at the size of the images.

        Args:
            inputs: Levels of the backbone.
            batch_img_metas: Meta of each image.
            test_cfg: Settings; ``task`` is the task.
        """
        task = (test_cfg or {}).get('task', 'semantic')
        decoded = self.run(inputs, [check_task(task)] * len(inputs[0]))
        return self.scores(decoded, input_size(batch_img_metas[0]))

    @torch.no_grad()
    def explain(
        self,
        levels: Sequence[Tensor],
        *,
        point: Point | None = None,
        label: Tensor | None = None,
        **side_inputs: Any,
    ) -> Maps:
        """Maps of the queries for levels (N, C_i, H_i, W_i) and the ``task`` of the side inputs.

        Returns:
            - ``query_<i>`` (N, 1, h, w) in [0, 1]: mask of the query with the i-th best score; for
              a single image the name also has the class and the score.
            - ``region_<i>_of_query_1`` (N, 1, h, w), bool: pixels that layer i of the mask decoder
              sees for the best query.
            - ``likeness_to_class_names`` (N, K, M, 1): cosine of the M queries (rows) and the texts
              of the classes (columns), where there is a text branch.
        """
        tasks = [side_inputs.get('task', 'semantic')] * len(levels[0])
        return explain_decoded(self, self.run(levels, tasks))

    def loss(
        self, inputs: Sequence[Tensor], batch_data_samples: list, train_cfg: Mapping | None = None
    ) -> dict[str, Tensor]:
        """Losses of all predictions, and the contrastive loss of queries and texts.

        Args:
            inputs: Levels (N, C_i, H_i, W_i) of the backbone.
            batch_data_samples: Data samples with the targets that ``OneFormerTargets`` made, or
                with labels of which they are made now.
            train_cfg: Not used.
        """
        targets = [targets_of(sample, self.draws) for sample in batch_data_samples]
        size = size_of(batch_data_samples[0].gt_sem_seg.data)  # it is padded as the images are
        decoded = self.run(inputs, [target.task for target in targets])
        device = decoded.mask_features.device
        texts = self.text_vectors(targets, device) if self.text_branch is not None else None
        image_targets = [
            ImageTargets(torch.tensor(t.labels, dtype=torch.long).to(device), t.masks(size))
            for t in targets
        ]
        return self.criterion(
            decoded.predictions, decoded.mask_features, image_targets, decoded.queries, texts
        )

    def text_vectors(self, targets: Sequence[Targets], device: torch.device) -> Tensor:
        """Vectors (N, Q, C) of the texts of each image."""
        assert self.text_branch is not None
        length = self.num_queries - self.num_context
        names = self.class_names
        texts = [image_texts(t.task, t.labels, names, length) for t in targets]
        return self.text_branch(TextBatch.of(texts).to(device))


def _check_sizes(
    in_channels: Sequence[int], channels: int, num_heads: int, num_queries: int, num_context: int
) -> None:
    if len(in_channels) != 4:
        raise UserError(
            f'OneFormerHead reads four levels of strides 4 to 32, got in_channels={in_channels}: '
            'give four levels'
        )
    if channels % 32 or channels % num_heads:
        raise UserError(
            f'channels={channels} must be a multiple of 32 (group norm) and of num_heads='
            f'{num_heads}'
        )
    if num_queries <= num_context:
        raise UserError(
            f'num_queries={num_queries} leaves no query for a text beside num_context='
            f'{num_context}: take more queries'
        )
