"""Deterministic weights for parity checks, keyed by parameter name.

Every parameter or buffer of a checkpoint is filled from a PCG64 stream seeded by
the CRC-32 of its name, so two programs that agree on checkpoint names agree on
every number without a checkpoint file ever being exchanged.
"""

import zlib

import numpy as np


def recipe_value(name: str, shape: tuple) -> np.ndarray:
    """Return float32 values for the checkpoint entry `name` with `shape`."""
    # H-CLIP ties one set of OFT parameters under a name in every block of both
    # towers; every alias takes the value of the part after the block prefix.
    if "attn_q_proj_oft" in name:
        name = name[name.index("attn_q_proj_oft") :]
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    noise = rng.standard_normal(shape, dtype=np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if "oft_layer_R" in name:
        # channels 0..3: text (skew generator, 0 = identity); 4..9: vision (identity)
        base = np.zeros(shape, dtype=np.float32)
        base[..., 4:] = np.eye(shape[0], dtype=np.float32)[:, :, None, None]
        return base + 0.02 * noise
    if "oft_relation" in name:
        # H-CLIP mixes with one square matrix; HyperCLIP++ with two, w2 (n, 4n) after w1
        # (4n, n). There w2 gives each text slot (near 0 above) the image slots' mean.
        base = np.eye(*shape, dtype=np.float32)
        if shape == (10, 40):
            base[:4, 4:10] = np.float32(1 / 6)
        return base + 0.02 * noise
    if "hyperbolic_attn" in name:
        return np.eye(shape[-1], dtype=np.float32)[None] + 0.02 * noise
    if leaf in ("positional_embedding", "class_embedding", "padding_tokens", "padding_guidance"):
        return 0.1 * noise
    if "token_embedding" in name:
        return 0.3 * noise
    if name.endswith("prototypes"):
        return noise / np.linalg.norm(noise, axis=-1, keepdims=True)
    if leaf in ("log_temperatures", "mix_weight"):
        return 0.3 * noise
    if len(shape) <= 1:
        return (1.0 + 0.1 * noise) if leaf == "weight" else 0.02 * noise
    if leaf in ("proj", "text_projection"):
        return noise * np.float32(shape[0] ** -0.5)
    fan_in = int(np.prod(shape[1:]))
    return noise * np.float32(fan_in**-0.5)


# Buffers that are not weights: masks, counters, flags.
KEEP = (
    "attn_mask",
    "cross_attention_dim",
    "hidden_size",
    "prototype_initialized",
    "logit_scale",
    "num_batches_tracked",
    "pixel_mean",
    "pixel_std",
)


def fill(state_dict: dict) -> dict:
    """Fill a torch state dict in place by the recipe and return it."""
    import torch

    for name, tensor in state_dict.items():
        if name.endswith(KEEP) or not torch.is_floating_point(tensor):
            continue
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(recipe_value(name, tuple(tensor.shape))))
    return state_dict


def image(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth, non-repeating RGB picture, uint8 (3, height, width)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    out = np.zeros((3, height, width), dtype=np.float32)
    for channel in range(3):
        for _ in range(12):
            fx, fy = rng.uniform(-0.08, 0.08, 2)
            out[channel] += rng.uniform(0.3, 1.0) * np.sin(fx * x + fy * y + rng.uniform(0, 6.283))
        out[channel] += rng.standard_normal((height, width), dtype=np.float32) * 0.2
    low, high = out.min(), out.max()
    return np.round((out - low) / (high - low) * 255).astype(np.uint8)


def labels(seed: int, height: int, width: int, classes: int, ignore: int = 255) -> np.ndarray:
    """Blocky labels, int64 (height, width), with some pixels ignored."""
    rng = np.random.Generator(np.random.PCG64(seed))
    grid = rng.integers(0, classes, (height // 32, width // 32))
    out = np.kron(grid, np.ones((32, 32), dtype=np.int64)).astype(np.int64)
    out[rng.random(out.shape) < 0.05] = ignore
    return out
