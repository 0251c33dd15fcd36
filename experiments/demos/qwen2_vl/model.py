"""The model of `demo/qwen2-vl`, its tokenizer, its processor and how its questions are packed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from experiments.demos import clips
from experiments.demos.demo import Demo
from experiments.demos.qwen2_vl.data import TrainingMedia, build
from experiments.demos.qwen2_vl.evaluation import Medium, judge, more_tables, pictures_of
from experiments.demos.trainee import (
    Trainee,
    answer_greedily,
    build_tokenizer,
    decoder_settings,
    second_moment,
    whitening,
)
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
            **decoder_settings(tokenizer),
            # Heads of 32: the three axes share 16 frequencies. With a base of 100 the slowest, those
            # of the width, still tell neighbouring positions apart.
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100.0,
                "mrope_section": [4, 6, 6],
            },
        },
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()},
        tie_word_embeddings=False,
    )
    model = Qwen2VLForConditionalGeneration(config)
    answer_greedily(model.generation_config, tokenizer)
    return model


class Qwen2VLTrainee(Trainee):
    """What the general training code asks of this model family."""

    image_token = "<|image_pad|>"

    def __init__(self, texts: Sequence[str]) -> None:
        processor = build_processor(texts)
        super().__init__(processor, build_model(processor))
        joint = ["<|vision_end|>", "<|vision_start|>"]
        self.joint = torch.tensor(self.tokenizer.convert_tokens_to_ids(joint))

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

    @torch.no_grad()
    def whiten(self, media: Sequence[Medium]) -> None:
        """Start the patch embedding as a whitening of the patches."""
        weight = self.model.model.visual.patch_embed.proj.weight
        filters = whitening(second_moment(self.pixels(media)[0]), len(weight))
        weight.copy_(filters.reshape(weight.shape))

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
        first.weight.copy_(whitening(second_moment(found - mean), first.out_features, floor=0.02))
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


def whiten_merger(trainee: Qwen2VLTrainee, media: TrainingMedia, seed: int) -> None:
    """Before joint training: start the merger from what the trained tower gives for 500 media."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(media), size=500)
    trainee.whiten_merger([media.draw(int(index), rng).medium for index in chosen])


DEMO = Demo(
    "qwen2-vl",
    lambda out, _: build(out, out.parents[1] / "llava-next" / "data"),  # needs no other files
    TrainingMedia,
    Qwen2VLTrainee,
    AxisPacker,
    recipe={"tower": "visual.blocks", "batch": 16, "packed": 4, "tower_share": 0.3},
    before_joint=whiten_merger,
    judge=judge,
    more_tables=more_tables,
    words={"medium": "medium", "media": "media"},
)
