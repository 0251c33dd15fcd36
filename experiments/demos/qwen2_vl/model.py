"""The model of `demo/qwen2-vl`, its tokenizer, its processor and how it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from experiments.demos import clips, evaluation
from experiments.demos.llava_next.model import build_tokenizer
from experiments.demos.qwen2_vl.data import TrainingMedia
from experiments.demos.training import Example, Packer

PATCH, MERGE, TIME = 8, 2, 2
#: Fewest and most pixels of a picture or a frame: 4 and 16 tokens.
PIXELS = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
SPECIAL = (
    "<|endoftext|>",
    "<unk>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def build_processor(texts: Sequence[str]) -> Qwen2VLProcessor:
    """The processor: every picture and frame at its own size, in steps of 16 pixels."""
    tokenizer = build_tokenizer(
        [*texts, "user assistant system"],
        SPECIAL,
        bos=None,
        eos="<|im_end|>",
        pad="<|endoftext|>",
        extra={
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            "vision_bos_token": "<|vision_start|>",
            "vision_eos_token": "<|vision_end|>",
            "turn_token": "<|im_start|>",
        },
    )
    shape = {
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": TIME,
        "size": PIXELS,
    }
    frames = {"fps": clips.RATE, "do_sample_frames": False, "cap_pixels_per_frame": False}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shape),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**shape, **frames),
        chat_template=TEMPLATE,
    )


def build_model(processor: Qwen2VLProcessor) -> Qwen2VLForConditionalGeneration:
    """An untrained model that fits the processor."""
    tokenizer: Any = processor.tokenizer
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    config = Qwen2VLConfig(
        vision_config={
            "depth": 3,
            "embed_dim": 128,
            "hidden_size": 128,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": TIME,
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 896,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            # Heads of 32: the three axes share 16 frequencies. With a base of 100 the slowest, those
            # of the width, still tell neighbouring positions apart.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100.0,
                "mrope_section": [4, 6, 6],
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()},
        tie_word_embeddings=False,
    )
    model = Qwen2VLForConditionalGeneration(config)
    settings = model.generation_config
    settings.do_sample, settings.max_new_tokens = False, 8
    settings.bos_token_id, settings.eos_token_id = None, tokenizer.eos_token_id
    settings.pad_token_id = tokenizer.pad_token_id
    return model


#: Names of controls: another medium instead; a clip that stands still or runs backward.
SHUFFLED = ("shuffled", "shuffled_any")
ORDERS = ("still", "backward")
#: A picture, a list of pictures, or the frames of a clip.
Medium = Image.Image | list[Image.Image] | np.ndarray


def pictures_of(medium: Medium) -> list[Image.Image]:
    """The pictures of a medium that is no clip."""
    return medium if isinstance(medium, list) else [medium]  # type: ignore[list-item]


class Qwen2VLTrainee:
    """A `demo/qwen2-vl` in the terms of `training`."""

    image_token = "<|image_pad|>"

    def __init__(self, texts: Sequence[str]) -> None:
        self.processor = build_processor(texts)
        self.tokenizer: Any = self.processor.tokenizer
        self.model = build_model(self.processor)
        joint = ["<|vision_end|>", "<|vision_start|>"]
        self.joint = torch.tensor(self.tokenizer.convert_tokens_to_ids(joint))

    def prompt(self, text: str) -> str:
        """The prompt of a question, with one placeholder for its picture."""
        content = [{"type": "image"}, {"type": "text", "text": text}]
        message = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(  # type: ignore[return-value]
            message, add_generation_prompt=True, tokenize=False
        )

    def pixels(self, media: Sequence[Medium]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Patches and grids of pictures and clips in turn, and how many grids each medium has."""
        patches: list[Any] = [None] * len(media)
        grids: list[Any] = [None] * len(media)
        still = [i for i, medium in enumerate(media) if not isinstance(medium, np.ndarray)]
        moving = [i for i, medium in enumerate(media) if isinstance(medium, np.ndarray)]
        if still:
            shown = [picture for i in still for picture in pictures_of(media[i])]
            found: Any = self.processor.image_processor(shown, return_tensors="pt")
            rows, grid = found["pixel_values"], found["image_grid_thw"]
            counts = [len(pictures_of(media[i])) for i in still]
            self._share(still, counts, rows, grid, patches, grids)
        if moving:
            videos = [torch.from_numpy(media[i]).permute(0, 3, 1, 2) for i in moving]
            found = self.processor.video_processor(videos, return_tensors="pt")
            rows, grid = found["pixel_values_videos"], found["video_grid_thw"]
            self._share(moving, [1] * len(moving), rows, grid, patches, grids)
        return torch.cat(patches), torch.cat(grids), [len(grid) for grid in grids]

    @staticmethod
    def _share(
        indices: list[int],
        counts: list[int],
        rows: torch.Tensor,
        grid: torch.Tensor,
        patches: list[Any],
        grids: list[Any],
    ) -> None:
        """Put each medium's part of a processor's output in its place."""
        parts = grid.split(counts)
        lengths = [int(part.prod(1).sum()) for part in parts]
        for index, part, own in zip(indices, parts, rows.split(lengths), strict=True):
            patches[index], grids[index] = own, part

    def media(self, media: Sequence[Medium]) -> list[torch.Tensor]:
        """The embeddings that stand for each medium in the prompt, `[tokens, width]`.

        Between the pictures of a pair lie the end of the first and the start of the second.
        """
        patches, grids, counts = self.pixels(media)
        merged = self.model.model.visual(patches, grid_thw=grids).pooler_output
        features = iter(merged.split((grids.prod(1) // MERGE**2).tolist()))
        joint = self.embed(self.joint)
        found = []
        for count in counts:
            parts = [next(features)]
            for _ in range(count - 1):
                parts += [joint, next(features)]
            found.append(torch.cat(parts))
        return found

    def tower(self, media: Sequence[Medium]) -> torch.Tensor:
        """Mean features of the first and the last frame or picture, before they are merged."""
        patches, grids, counts = self.pixels(media)
        states = self.model.model.visual(patches, grid_thw=grids).last_hidden_state
        frames = [int(g[1] * g[2]) for g in grids for _ in range(int(g[0]))]
        means = torch.stack([part.mean(0) for part in states.split(frames)])
        owned = [int(part[:, 0].sum()) for part in grids.split(counts)]
        return torch.stack([torch.cat([own[0], own[-1]]) for own in means.split(owned)])

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token embeddings."""
        return self.model.get_input_embeddings()(ids)

    def decode(
        self, embeddings: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """The decoder's last hidden states, with positions `[axis, batch, pos]`."""
        decoder = self.model.model.language_model
        return decoder(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states."""
        return self.model.lm_head(hidden)

    @torch.no_grad()
    def whiten(self, media: Sequence[Medium]) -> None:
        """Start the patch embedding as a whitening of the patches.

        From the usual start the mean of a patch drowns its pattern, which is then learned slowly.
        """
        patches = self.pixels(media)[0]
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        weight = self.model.model.visual.patch_embed.proj.weight
        values, vectors = values[-len(weight) :], vectors[:, -len(weight) :]
        filters = vectors / (values + 1e-3 * values.mean()).sqrt()
        rotation = torch.linalg.qr(torch.randn(len(weight), len(weight))).Q
        weight.copy_((filters @ rotation).T.reshape(weight.shape))

    @torch.no_grad()
    def whiten_merger(self, media: Sequence[Medium]) -> None:
        """Start the merger's first layer as a whitening of what the trained tower gives it.

        The few things that the tower sees most strongly would drown the others, colour for one.
        """
        patches, grids, _ = self.pixels(media)
        visual: Any = self.model.model.visual
        found = visual.merger.ln_q(visual(patches, grid_thw=grids).last_hidden_state)
        first = visual.merger.mlp[0]
        found = found.reshape(-1, first.in_features)
        mean = found.mean(0)
        values, vectors = torch.linalg.eigh((found - mean).T @ (found - mean) / len(found))
        filters = vectors / (values + 0.02 * values.mean()).sqrt()
        rotation = torch.linalg.qr(torch.randn(first.out_features, first.out_features)).Q
        first.weight.copy_((filters @ rotation).T)
        first.bias.copy_(-first.weight @ mean)


class AxisPacker(Packer):
    """A packer for multimodal rotary positions: `[axis, batch, pos]`, by the model's own rule."""

    trainee: Qwen2VLTrainee

    def positions(self, examples: Sequence[Example], text: torch.Tensor, head: int) -> torch.Tensor:
        """Positions in time, height and width; of text on all three axes the same."""
        rows = [self.head_types(example.medium) for example in examples]
        types = torch.zeros(len(rows), head + 1, dtype=torch.long)
        real = torch.zeros_like(types)
        grids: dict[int, list[tuple[int, int, int]]] = {1: [], 2: []}
        for number, (row, kind, own) in enumerate(rows):
            types[number, : len(row)] = torch.tensor(row)
            real[number, : len(row) + 1] = 1  # with the first token of a slot
            grids[kind] += own
        model: Any = self.trainee.model.model
        found, _ = model.get_rope_index(
            types,
            types,
            image_grid_thw=torch.tensor(grids[1]) if grids[1] else None,
            video_grid_thw=torch.tensor(grids[2]) if grids[2] else None,
            attention_mask=real,
        )
        lengths = real.sum(1) - 1
        start = found[:, torch.arange(len(rows)), lengths]
        inside = text[:, head:] - lengths[:, None]
        return torch.cat([found[..., :head], start[..., None] + inside], -1)

    def head_types(self, medium: Medium) -> tuple[list[int], int, list[tuple[int, int, int]]]:
        """Token types before the question, the type of the medium, and its grids."""
        moving = isinstance(medium, np.ndarray)
        if moving:
            frames, height, width = medium.shape[:3]
            sizes = [(frames // TIME, height, width)]
        else:
            sizes = [(1, picture.height, picture.width) for picture in pictures_of(medium)]
        grids = [(time, height // PATCH, width // PATCH) for time, height, width in sizes]
        kind = 2 if moving else 1
        row = [0] * len(self.prefix)
        for number, (time, height, width) in enumerate(grids):
            row += [0] * (len(self.trainee.joint) if number else 0)
            row += [kind] * (time * height * width // MERGE**2)
        return row, kind, grids


def trainee_of(path: Path) -> tuple[Qwen2VLTrainee, AxisPacker, TrainingMedia]:
    """An untrained model with its packer and the training media of a shipped split."""
    media = TrainingMedia(path)
    texts = [text for wordings in media.wordings.values() for text in wordings]
    made = Qwen2VLTrainee([*texts, *media.answers])
    return made, AxisPacker(made, media.wordings, media.answers), media


def task(medium: Medium) -> str:
    """What is shown: a picture, a pair of pictures or a video."""
    if isinstance(medium, np.ndarray):
        return "video"
    return "pair" if isinstance(medium, list) else "picture"


def answer(
    model: Any, processor: Any, texts: Sequence[str], media: Sequence[Medium], batch: int = 64
) -> list[str]:
    """Greedy answers about pictures, pairs and clips."""
    found = [""] * len(texts)
    for name in ("picture", "pair", "video"):
        chosen = [index for index, medium in enumerate(media) if task(medium) == name]
        if chosen:
            kind = "videos" if name == "video" else "images"
            asked, shown = [texts[i] for i in chosen], [media[i] for i in chosen]
            written = evaluation.answer(model, processor, asked, shown, kind, batch)
            for index, text in zip(chosen, written, strict=True):
                found[index] = text
    return found


def plain(media: Sequence[Medium], shade: int) -> list[Medium]:
    """Media of the same sizes that show one shade of grey."""
    made: dict[Any, Medium] = {}

    def make(medium: Medium) -> Medium:
        if isinstance(medium, list):
            return [make(picture) for picture in medium]  # type: ignore[misc]
        key = evaluation.size(medium)
        if key not in made:
            made[key] = (
                np.full(key, shade, dtype=np.uint8)
                if isinstance(medium, np.ndarray)
                else Image.new("RGB", medium.size, (shade,) * 3)
            )
        return made[key]

    return [make(medium) for medium in media]


def in_tasks(table: pd.DataFrame) -> dict[str, list[Medium]]:
    """Another medium in the place of each, of the same task: of the same domain, and of any."""
    found = {name: pd.Series(index=table.index, dtype=object) for name in SHUFFLED}
    for _, part in table.groupby(table.medium.map(task)):
        for name, media in evaluation.shuffles(part).items():
            found[name][part.index] = pd.Series(media, index=part.index, dtype=object)
    return {name: list(column) for name, column in found.items()}


def in_other_order(clips_shown: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Clips that stand still at their first frame, and clips that run backward."""
    made = {id(c): (c[:1].repeat(len(c), 0), c[::-1].copy()) for c in clips_shown}
    return {name: [made[id(c)][number] for c in clips_shown] for number, name in enumerate(ORDERS)}


def evaluate(out: Path, data: Path, split: str, controls: bool) -> pd.DataFrame:
    """Judge a saved checkpoint in float32; `still` and `backward` are judged on clips alone."""
    processor = Qwen2VLProcessor.from_pretrained(out)
    model: Any = Qwen2VLForConditionalGeneration.from_pretrained(out, dtype=torch.float32).eval()
    decoders = {"images": evaluation.open_picture, "videos": clips.decode}
    train = evaluation.read(data / "train.parquet", decoders)
    table = evaluation.read(data / f"{split}.parquet", decoders)
    media = list(table.medium)
    asked = partial(answer, model, processor)
    grey = {"blank": plain(media, 128), "black": plain(media, 0)} if controls else {}
    result = evaluation.evaluate(train, table, asked, grey | (in_tasks(table) if controls else {}))
    result["task"] = table.medium.map(task)
    if controls:
        moving = table[result.task == "video"]
        for name, shown in in_other_order(list(moving.medium)).items():
            written = pd.Series(asked(list(moving.text), shown), index=moving.index)
            result[f"{name}_right"] = (written == moving.answer).astype(float)
    return result


def more_tables(result: pd.DataFrame) -> dict[str, Any]:
    """Figures by task, and of the questions on clips beside clips in another order."""
    standard = [name for name in result if result[name].dtype == bool and name != "accuracy"]
    found = {"task": evaluation.by(result, "task", standard)}
    named: Any = result.rename(columns={f"{name}_right": name for name in ORDERS})
    orders = [name for name in ORDERS if name in named]
    moving = named[named.task == "video"]
    return found | {"question on clips": evaluation.by(moving, "question", orders)}
