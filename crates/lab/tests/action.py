"""Golden data of a small V-JEPA 2-AC: a PyTorch model with random weights, written from a description of the released one.

    python crates/lab/tests/action.py tests/golden/vjepa2_ac

writes released.pt, with entries and names as in the released file, and io.safetensors. Needs torch and safetensors.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

WIDTH, DEPTH, HEADS = 48, 2, 3  # the encoder's
PRED_WIDTH, PRED_DEPTH, PRED_HEADS = 36, 2, 2
FRAMES, SIDE, PATCH, TUBELET, BATCH = 3, 48, 16, 2, 2
GRID = SIDE // PATCH


def turn(x, positions):
    """V-JEPA 2's rotation of x [..., tokens, part] by positions [tokens]: the half of the angles is tiled, not interleaved."""
    half = x.shape[-1] // 2
    angles = positions[:, None].double() * 10000.0 ** (-torch.arange(half).double() / half)
    angles = torch.cat([angles, angles], dim=-1)
    pairs = x.unflatten(-1, (half, 2))
    partner = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return x * angles.cos().to(x.dtype) + partner * angles.sin().to(x.dtype)


def turn_on_axes(x, places):
    """Turns the three parts of heads [B, heads, tokens, d] by places [tokens, 3]; what is left of a head stays."""
    part = 2 * ((x.shape[-1] // 3) // 2)
    parts = [turn(x[..., i * part : (i + 1) * part], places[:, i]) for i in range(3)]
    return torch.cat([*parts, x[..., 3 * part :]], dim=-1)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x, places, allowed):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = turn_on_axes(q, places), turn_on_axes(k, places)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x, places, allowed=None):
        x = x + self.attn(self.norm1(x), places, allowed)
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self):
        super().__init__()
        size = (TUBELET, PATCH, PATCH)
        self.proj = nn.Conv3d(3, WIDTH, kernel_size=size, stride=size)


def places_of(times, grid):
    """Time, row and column of every patch."""
    axes = [torch.arange(times), torch.arange(grid), torch.arange(grid)]
    return torch.cartesian_prod(*axes)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.blocks = nn.ModuleList(Block(WIDTH, HEADS) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, clip):
        x = self.patch_embed.proj(clip).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, places_of(1, GRID))
        return self.norm(x)


class Predictor(nn.Module):
    def __init__(self):
        super().__init__()
        self.predictor_embed = nn.Linear(WIDTH, PRED_WIDTH)
        self.action_encoder = nn.Linear(7, PRED_WIDTH)
        self.state_encoder = nn.Linear(7, PRED_WIDTH)
        self.extrinsics_encoder = nn.Linear(6, PRED_WIDTH)
        self.predictor_blocks = nn.ModuleList(Block(PRED_WIDTH, PRED_HEADS) for _ in range(PRED_DEPTH))
        self.predictor_norm = nn.LayerNorm(PRED_WIDTH, eps=1e-6)
        self.predictor_proj = nn.Linear(PRED_WIDTH, WIDTH)

    def forward(self, tokens, states, actions):
        batch, patches = tokens.shape[0], GRID * GRID
        frames = self.predictor_embed(tokens).reshape(batch, FRAMES, patches, PRED_WIDTH)
        conditions = [self.action_encoder(actions).unsqueeze(2), self.state_encoder(states).unsqueeze(2)]
        x = torch.cat([*conditions, frames], dim=2).flatten(1, 2)
        in_time = torch.stack([torch.tensor([t, 0, 0]) for t in range(FRAMES)])
        of_patches = places_of(FRAMES, GRID).reshape(FRAMES, patches, 3)
        places = torch.cat([in_time[:, None].expand(FRAMES, 2, 3), of_patches], dim=1).flatten(0, 1)
        frame = torch.arange(FRAMES).repeat_interleave(patches + 2)
        allowed = frame[:, None] >= frame[None, :]
        for block in self.predictor_blocks:
            x = block(x, places, allowed)
        x = x.reshape(batch, FRAMES, patches + 2, PRED_WIDTH)[:, :, 2:].flatten(1, 2)
        x = self.predictor_proj(self.predictor_norm(x))
        return F.layer_norm(x, (WIDTH,))


def main(folder):
    torch.manual_seed(7)
    encoder, predictor = Encoder(), Predictor()
    for module in (encoder, predictor):
        for name, parameter in module.named_parameters():
            spread = 0.3 if "qkv" in name or "embed" in name or "encoder" in name else 0.1
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            nn.init.normal_(parameter, centre, spread)
    clip = torch.randn(BATCH, 3, FRAMES, SIDE, SIDE)
    states, actions = torch.randn(2, BATCH, FRAMES, 7).unbind()
    with torch.no_grad():
        alone = clip.transpose(1, 2).flatten(0, 1).unsqueeze(2).expand(-1, -1, TUBELET, -1, -1)
        tokens = F.layer_norm(encoder(alone), (WIDTH,)).reshape(BATCH, -1, WIDTH)
        following = predictor(tokens, states, actions)
    io = {"clip": clip, "states": states, "actions": actions, "tokens": tokens, "next_tokens": following}
    save_file({name: value.contiguous() for name, value in io.items()}, folder / "io.safetensors")
    released = {
        "encoder": {f"module.backbone.{name}": value for name, value in encoder.state_dict().items()},
        "predictor": {f"module.{name}": value for name, value in predictor.state_dict().items()},
    }
    torch.save(released, folder / "released.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
