"""What the tests of Qwen's families share."""

import io

import torch

from mmlens.adapter import MediaSizes
from mmlens.hook_names import mlp_hook


def webp(frames, rate):
    """An animated picture of some frames a second, lossless."""
    stream, seconds = io.BytesIO(), 1000 // rate
    frames[0].save(
        stream, "WEBP", save_all=True, append_images=frames[1:], duration=seconds, lossless=True
    )
    return stream.getvalue()


@torch.no_grad()
def rows_reached(model, batch, module, layer=0):
    """For each row: the rows whose logits move when its positions in a tower are silenced."""
    media = model.media_rows(batch)
    rows = model.adapter.tower_rows(module, batch.inputs, media)
    plain, real = model(batch), batch.groups.attention
    reached = []
    for row in range(batch.shape[0]):
        turns = iter(rows)

        def silence(tensor, hook, row=row, turns=turns):
            return tensor.masked_fill((next(turns) == row)[..., None], 0)

        hooks = [(mlp_hook(module, layer, "post"), silence)]
        moved = (model.run_with_hooks(batch, fwd_hooks=hooks) - plain).abs().amax(-1)
        assert next(turns, None) is None
        reached.append([r for r in range(batch.shape[0]) if moved[r][real[r]].max() > 1e-4])
    return reached


@torch.no_grad()
def moves_logits(model, batch, module, layer):
    """Whether silencing a layer of a tower changes the logits."""
    hooks = [(mlp_hook(module, layer, "post"), lambda tensor, hook: tensor * 0)]
    return not torch.equal(model.run_with_hooks(batch, fwd_hooks=hooks), model(batch))


def tokens_of(model, processor, **sizes):
    """Tokens that media of some sizes take, told by the sizes."""
    return model.adapter.media_tokens(processor, MediaSizes(**sizes))
