"""DistilBERT in PyTorch, eager, on one thread, as the library transformers computes it.

``python eager.py WEIGHTS REQUEST``, the weights as ``.safetensors``, the request as ``.npz``
"""

from __future__ import annotations

import sys

import numpy as np
import torch  # noqa: TID253 - a program of its own, which needs it at once
from safetensors.torch import load_file
from torch import nn  # noqa: TID253
from torch.nn import functional  # noqa: TID253
from turns import take_turns

WIDTH, INNER, HEADS = 768, 3072, 12


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_lin, self.k_lin = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.v_lin, self.out_lin = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        def split(y: torch.Tensor) -> torch.Tensor:
            return y.view(*y.shape[:2], HEADS, -1).transpose(1, 2)

        heads = [split(layer(x)) for layer in (self.q_lin, self.k_lin, self.v_lin)]
        seen = functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        return self.out_lin(seen.transpose(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin1, self.lin2 = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin2(functional.gelu(self.lin1(x)))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.ffn = Attention(), FeedForward()
        self.sa_layer_norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.output_layer_norm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        x = self.sa_layer_norm(self.attention(x, mask) + x)
        return self.output_layer_norm(self.ffn(x) + x)


class Embeddings(nn.Module):
    def __init__(self, words: int, places: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(words, WIDTH)
        self.position_embeddings = nn.Embedding(places, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ids.shape[1])
        return self.LayerNorm(self.word_embeddings(ids) + self.position_embeddings(places))


class Encoder(nn.Module):
    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        tables = (f"embeddings.{name}_embeddings.weight" for name in ("word", "position"))
        self.embeddings = Embeddings(*(len(weights[name]) for name in tables))
        count = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("trans"))
        self.transformer = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(count))})
        self.load_state_dict(weights)

    def forward(self, ids: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        # As transformers has it: without padding there is nothing to hide.
        mask = None if present.all() else present[:, None, None, :].bool()
        x = self.embeddings(ids)
        for layer in self.transformer["layer"]:
            x = layer(x, mask)
        wide = present[:, :, None].to(x.dtype)
        return (x * wide).sum(1) / wide.sum(1).clamp(min=1e-9)


torch.set_num_threads(1)
model = Encoder(load_file(sys.argv[1])).eval()
request = np.load(sys.argv[2])
feeds = [torch.from_numpy(request[name]) for name in ("input_ids", "attention_mask")]


@torch.inference_mode()
def answer() -> np.ndarray:
    return model(*feeds).numpy()


take_turns(answer)
