"""Queries from the task token, and their refinement by masked attention (Sec. 3.3)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers.sizes import Size, size_of
from .attention import (
    Attention,
    FeedForward,
    Mlp,
    init_matrices,
    over_map,
    sine_map,
    sine_positions,
)


class Prediction(NamedTuple):
    """Predictions of the queries before or after a layer.

    ``logits`` (N, Q, K + 1) are those of the classes; the last class is "no object". The mask
    logits of a query are the products of its ``embedding`` (N, Q, C) and the mask features.
    """

    logits: Tensor
    embedding: Tensor


class Decoded(NamedTuple):
    """Result of the mask decoder.

    ``predictions`` are those before the first layer and after each layer, ``mask_features``
    (N, C, h, w) have stride 4, and ``queries`` (N, Q, C) are those before the first layer.
    ``regions`` are bool masks (N, Q, h, w) of the pixels that each layer's attention sees.
    """

    predictions: list[Prediction]
    mask_features: Tensor
    queries: Tensor
    regions: list[Tensor]


class QueryLayer(nn.Module):
    """Self-attention of the queries, attention to the map, and a feed-forward block.

    Args:
        channels: Width C.
        hidden: Width of the feed-forward block.
        num_heads: Number of heads.
        dropout: Probability of dropout, also of attention weights.
    """

    def __init__(self, channels: int, hidden: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(channels, num_heads, dropout)
        self.norm1 = nn.LayerNorm(channels)
        self.cross_attn = Attention(channels, num_heads, dropout)
        self.norm2 = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels, hidden, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, position: Tensor, features: Tensor, conv: nn.Conv2d, size: Size
    ) -> Tensor:
        """X (N, Q, C) to the same.

        As released, the values are the sine positions of the map alone. The keys are these
        positions plus a 1x1 convolution of the features.

        Args:
            x: Queries.
            position: Position of each query, (Q, C).
            features: Mask features (N, h * w, C).
            conv: The convolution. Its bias is not used, because softmax cancels what all keys
                have in common.
            size: Size (h, w) of the map.
        """
        query = x + position
        x = self.norm1(x + self.dropout(self.self_attn(query, query, x)))
        attention = self.cross_attn
        _, key_weight, value_weight = attention.in_proj_weight.chunk(3)
        # A row and a column vector make the position of a pixel, so two small products are enough.
        rows, columns = sine_positions(size, x.shape[2], x)
        (key_rows, key_columns), (value_rows, value_columns) = (
            (F.linear(rows, left), F.linear(columns, right))
            for left, right in (w.chunk(2, dim=1) for w in (key_weight, value_weight))
        )
        folded = key_weight @ conv.weight.flatten(1)
        keys = F.linear(features, folded) + over_map(key_rows, key_columns)
        values = over_map(value_rows, value_columns) + attention.in_proj_bias.chunk(3)[2]
        mixed = attention.attend(
            attention.project(x + position, 0), keys, values.expand(len(x), -1, -1)
        )
        return self.ffn(self.norm2(x + self.dropout(mixed)))


class QueryTransformer(nn.Module):
    """Makes queries of the task token, which sees the map.

    Args:
        channels: Width C.
        hidden: Width of the feed-forward blocks.
        num_heads: Number of heads.
        num_layers: Number of layers.
        dropout: Probability of dropout.
    """

    def __init__(
        self, channels: int, hidden: int, num_heads: int, num_layers: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            QueryLayer(channels, hidden, num_heads, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels)
        conv: Any = nn.Conv2d(channels, channels, 1)
        conv.bias.requires_grad_(False)  # see QueryLayer
        self.conv = conv

    def forward(self, token: Tensor, position: Tensor, mask_features: Tensor) -> Tensor:
        """Queries (N, Q - 1, C).

        Args:
            token: Task tokens (N, C).
            position: Positions (Q - 1, C) of the queries.
            mask_features: (N, C, h, w).
        """
        features = mask_features.flatten(2).mT
        x = token[:, None].expand(-1, len(position), -1)
        for layer in self.layers:
            x = layer(x, position, features, self.conv, size_of(mask_features))
        return self.norm(x)


class MaskedLayer(nn.Module):
    """Attention of the queries to one level inside of their masks, then among themselves.

    Args:
        channels: Width C.
        hidden: Width of the feed-forward block.
        num_heads: Number of heads.
    """

    def __init__(self, channels: int, hidden: int, num_heads: int) -> None:
        super().__init__()
        self.cross_attn = Attention(channels, num_heads)
        self.norm1 = nn.LayerNorm(channels)
        self.self_attn = Attention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.ffn = FeedForward(channels, hidden)

    def forward(
        self, x: Tensor, position: Tensor, key: Tensor, value: Tensor, region: Tensor
    ) -> Tensor:
        """X (N, Q, C) to the same.

        Args:
            x: Queries.
            position: Position of each query, (Q, C).
            key: (N, h * w, C).
            value: (N, h * w, C).
            region: Pixels that each query sees, bool (N, Q, h, w).
        """
        allowed = region.flatten(2)[:, None]
        x = self.norm1(x + self.cross_attn(x + position, key, value, allowed))
        query = x + position
        return self.ffn(self.norm2(x + self.self_attn(query, query, x)))


class MaskDecoder(nn.Module):
    """Task token and features to the classes and masks of Q queries.

    Args:
        channels: Width C.
        num_classes: Number of classes K.
        num_queries: Number of queries Q, the task token among them.
        num_layers: Number of layers; each reads one of the three levels.
        hidden: Width of the feed-forward blocks.
        num_heads: Number of heads.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        num_queries: int,
        *,
        num_layers: int = 9,
        hidden: int = 2048,
        num_heads: int = 8,
    ) -> None:
        super().__init__()
        self.query_transformer = QueryTransformer(channels, hidden, num_heads)
        self.layers = nn.ModuleList(
            MaskedLayer(channels, hidden, num_heads) for _ in range(num_layers)
        )
        init_matrices(self, nn.init.xavier_uniform_)
        self.query_transformer.conv.reset_parameters()
        self.norm = nn.LayerNorm(channels)  # also of the task token
        self.query_embed = nn.Embedding(num_queries, channels)
        self.level_embed = nn.Embedding(3, channels)
        self.class_embed = nn.Linear(channels, num_classes + 1)
        self.mask_embed = Mlp(channels, channels, channels, channels)

    def forward(self, token: Tensor, mask_features: Tensor, levels: Sequence[Tensor]) -> Decoded:
        """Predictions before the first layer and after each layer.

        Args:
            token: Task tokens (N, C) before any norm.
            mask_features: (N, C, h, w), stride 4.
            levels: Levels (N, C, h, w) of strides 32, 16 and 8.
        """
        token = self.norm(token)
        # a copy: PyTorch cannot count the operations of a module that gets a view of a parameter
        numbers = torch.arange(self.query_embed.num_embeddings, device=token.device)
        position = self.query_embed(numbers)
        queries = self.query_transformer(token, position[:-1], mask_features)
        queries = torch.cat([queries, token[:, None]], dim=1)
        keys, values = self._memory(levels)
        with torch.no_grad():  # resizing and the product commute, so it is done once
            small = [_resize(mask_features, size_of(level)) for level in levels]
        x, regions = queries, []
        predictions = [self.predict(x)]
        for i, layer in enumerate(self.layers):
            level = i % len(levels)
            regions.append(attention_region(predictions[-1].embedding, small[level]))
            x = layer(x, position, keys[level], values[level], regions[-1])
            predictions.append(self.predict(x))
        return Decoded(predictions, mask_features, queries, regions)

    def _memory(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values (N, h * w, C) of each level before their projection."""
        values = [
            level.flatten(2).mT + embed
            for level, embed in zip(levels, self.level_embed.weight, strict=True)
        ]
        positions = (sine_map(size_of(level), level.shape[1], level) for level in levels)
        keys = [value + position for value, position in zip(values, positions, strict=True)]
        return keys, values

    def predict(self, x: Tensor) -> Prediction:
        """Prediction of queries x (N, Q, C)."""
        x = self.norm(x)
        return Prediction(self.class_embed(x), self.mask_embed(x))


@torch.no_grad()
def attention_region(embedding: Tensor, features: Tensor) -> Tensor:
    """Pixels that each query sees, bool (N, Q, h, w): those of its mask, or all for an empty mask.

    Args:
        embedding: Mask embeddings (N, Q, C).
        features: Mask features (N, C, h, w) at the size of the level.
    """
    region = mask_logits(embedding, features) >= 0
    return region | ~region.flatten(2).any(2)[..., None, None]


def mask_logits(embedding: Tensor, features: Tensor) -> Tensor:
    """Mask logits (N, Q, h, w) of embeddings (N, Q, C) and features (N, C, h, w)."""
    return torch.einsum('nqc,nchw->nqhw', embedding, features)


def _resize(x: Tensor, size: Size) -> Tensor:
    return F.interpolate(x, size, mode='bilinear', align_corners=False)
