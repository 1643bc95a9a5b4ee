"""Multi-head attention that stores no weights, sine positions, and the blocks of transformers."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...layers.sizes import Size


class Attention(nn.Module):
    """Multi-head attention with the parameters of ``nn.MultiheadAttention``.

    ``nn.MultiheadAttention`` stores the weights of all heads, (N, heads, Q, L), and needs a mask
    of every head.

    Args:
        channels: Width C.
        num_heads: Number of heads.
        dropout: Probability with which a weight is dropped in training.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * channels, channels))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * channels))
        self.out_proj = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform weights, biases of 0."""
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.in_proj_bias)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def project(self, x: Tensor, index: int) -> Tensor:
        """Queries (index 0), keys (1) or values (2) of x (N, L, C)."""
        weight, bias = self.in_proj_weight.chunk(3)[index], self.in_proj_bias.chunk(3)[index]
        return F.linear(x, weight, bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Mixture of values for each query, (N, Q, C).

        Args:
            query: (N, Q, C).
            key: (N, L, C).
            value: (N, L, C).
            allowed: Bool, broadcast to (N, heads, Q, L); True where a query sees a key. A query
                that sees no key gets zeros or NaN.
            is_causal: Whether a query sees only keys up to its own position.
        """
        q, k, v = (self.project(x, i) for i, x in enumerate((query, key, value)))
        return self.attend(q, k, v, allowed, is_causal)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        allowed: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """As ``forward``, for queries, keys and values that are projected."""
        q, k, v = (
            x.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value)
        )  # (N, heads, L, D)
        dropout = self.dropout if self.training else 0.0
        is_plain = allowed is None and not is_causal
        if dropout and is_plain and q.is_cpu and torch.is_grad_enabled():
            # With dropout PyTorch has no CPU kernel that stores no weights.
            heads = zip(q.split(1, 1), k.split(1, 1), v.split(1, 1), strict=True)
            mixed = torch.cat([_attend_again(*head, dropout) for head in heads], dim=1)
        else:
            mixed = F.scaled_dot_product_attention(
                q, k, v, attn_mask=allowed, dropout_p=dropout, is_causal=is_causal
            )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def _attend_again(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """Attention that computes its weights again in the backward pass."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)

    return checkpoint(attend, query, key, value, use_reentrant=False)


def sine_positions(size: Size, channels: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Sine encoding of rows, (h, C / 2), and of columns, (w, C / 2).

    The encoding of pixel (i, j) is the concatenation of row i and column j. Coordinates run from
    2 pi / n to 2 pi.

    Args:
        size: Size (h, w) of the map.
        channels: Width C, a multiple of 4.
        like: Tensor whose device and dtype the result has.
    """
    steps = torch.arange(channels // 4, device=like.device, dtype=torch.float32)
    frequency = 10000 ** (2 * steps / (channels // 2))
    encodings = []
    for length in size:
        position = torch.arange(1, length + 1, device=like.device, dtype=torch.float32)
        angle = (position / (length + 1e-6) * (2 * torch.pi))[:, None] / frequency
        encodings.append(torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1).to(like.dtype))
    return encodings[0], encodings[1]


def sine_map(size: Size, channels: int, like: Tensor) -> Tensor:
    """Sine encoding of all pixels, row by row: (h * w, C)."""
    rows, columns = sine_positions(size, channels, like)
    return over_map(F.pad(rows, (0, rows.shape[1])), F.pad(columns, (columns.shape[1], 0)))


def over_map(rows: Tensor, columns: Tensor) -> Tensor:
    """Sums of each row vector (h, C) and each column vector (w, C): (h * w, C)."""
    return (rows[:, None] + columns).flatten(0, 1)


class FeedForward(nn.Module):
    """Two linear layers with ReLU, added to the input, then a layer norm.

    Args:
        channels: Width C.
        hidden: Width between the layers.
        dropout: Probability of dropout after each layer.
    """

    def __init__(self, channels: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) to the same."""
        hidden = self.dropout(self.linear1(x).relu())
        return self.norm(x + self.dropout(self.linear2(hidden)))


class Mlp(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        widths: Width of the input, and of the output of each layer.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., width of the input) to (..., width of the output)."""
        *hidden, last = self.layers
        for layer in hidden:
            x = layer(x).relu()
        return last(x)


def init_matrices(module: nn.Module, init: Callable[[Tensor], Tensor]) -> None:
    """Initialises all matrices of a module by ``init``."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            init(parameter)
