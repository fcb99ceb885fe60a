"""Directions and edited weights as NumPy and PyTorch compute them, for the tests of the room `ablation`.

    python tools/ablation_golden.py crates/ablation/tests/golden/ablation.json

Everything is computed from definitions, in f64: the edited weight is made as a matrix, never through p, q and s.
Winsorization uses torch.quantile. The script also prints how much of an edit with `full` row
normalization a truncated randomized SVD of the weight's change leaves out (rank 3, torch.svd_lowrank with q = 10 and
niter = 6), which is how an adapter without magnitudes approximates it. It is only printed: no test depends on it.
"""

import json
import pathlib
import sys

import numpy as np
import torch

SITES, D_MODEL, D_IN = 5, 6, 4
QUANTILE = 0.85
STRENGTHS = {"none": 1.1, "pre": 0.7, "full": 1.3}
INDEXES = [0.0, 0.25, 1.5, 2.999, 3.0]


def normalize(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def winsorize(residuals: np.ndarray) -> np.ndarray:
    # In f64: on an f32 tensor torch.quantile rounds the rank itself to f32, which moves a limit by 1e-7 of d_model times
    # the distance of the two components that it lies between.
    tensor = torch.from_numpy(residuals)
    limits = torch.quantile(tensor.double().abs(), QUANTILE, dim=-1, keepdim=True).float()
    return torch.clamp(tensor, -limits, limits).numpy()


def directions(bad: np.ndarray, good: np.ndarray, orthogonalize: bool) -> np.ndarray:
    """[sites, d_model], from residuals [prompts, sites, d_model]."""
    bad_mean, good_mean = bad.astype(np.float64).mean(0), good.astype(np.float64).mean(0)
    result = []
    for b, g in zip(bad_mean, good_mean):
        r = normalize(b - g)
        if orthogonalize:
            g = normalize(g)
            r = normalize(r - (r @ g) * g)
        result.append(r)
    return np.array(result)


def interpolate(layers: np.ndarray, index: float) -> np.ndarray:
    lower = int(index)
    upper = min(lower + 1, len(layers) - 1)
    return normalize(layers[lower] + (index - lower) * (layers[upper] - layers[lower]))


def edited(weight: np.ndarray, r: np.ndarray, strength: float, kind: str) -> np.ndarray:
    """The definitions, for a weight [d_model, d_in] without rows of zeros."""
    if kind == "none":
        return weight - strength * np.outer(r, r @ weight)
    norms = np.linalg.norm(weight, axis=1, keepdims=True)
    unit = weight / norms
    change = strength * np.outer(r, r @ unit)
    if kind == "pre":
        return weight - norms * change
    rows = unit - change
    return norms * rows / np.linalg.norm(rows, axis=1, keepdims=True)


def left_out_by_svd(rng: np.random.Generator, d_model: int, d_in: int, strength: float) -> float:
    """The share of the change (Frobenius norm) that the truncated SVD misses."""
    weight = rng.normal(0, 0.02, (d_model, d_in))
    change = torch.from_numpy(edited(weight, normalize(rng.normal(size=d_model)), strength, "full") - weight)
    torch.manual_seed(0)
    u, s, v = torch.svd_lowrank(change.float(), q=10, niter=6)
    kept = (u[:, :3] * s[:3]) @ v[:, :3].T
    return ((change - kept).norm() / change.norm()).item()


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    rng = np.random.default_rng(20261123)
    base = rng.normal(0, 1, (SITES, D_MODEL))
    step = rng.normal(0, 1, (SITES, D_MODEL))
    good = (base + rng.normal(0, 0.5, (7, SITES, D_MODEL))).astype(np.float32)
    bad = (base + step + rng.normal(0, 0.5, (5, SITES, D_MODEL))).astype(np.float32)
    good[:, :, 2] *= 20  # a massive activation, for winsorization to cut
    weight = rng.normal(0, 0.3, (D_MODEL, D_IN)).astype(np.float32)
    gain = rng.uniform(0.5, 2.0, D_MODEL).astype(np.float32)
    x = rng.normal(0, 1, D_IN)

    plain = directions(bad, good, orthogonalize=False)
    clean = directions(winsorize(bad), winsorize(good), orthogonalize=True)
    r = interpolate(clean[1:], 1.5)
    under_gain = normalize(gain.astype(np.float64) * r)
    wide = weight.astype(np.float64)
    goldens = {
        "quantile": QUANTILE,
        "bad": bad.reshape(len(bad), -1).tolist(),
        "good": good.reshape(len(good), -1).tolist(),
        "winsorized_good": winsorize(good).reshape(len(good), -1).tolist(),
        "plain_directions": plain.tolist(),
        "winsorized_orthogonal_directions": clean.tolist(),
        "global": [{"index": index, "direction": interpolate(clean[1:], index).tolist()} for index in INDEXES],
        "weight": weight.tolist(),
        "gain": gain.tolist(),
        "x": x.tolist(),
        "edits": [
            {
                "row_normalization": kind,
                "direction_index": 1.5,
                "strength": strength,
                "merged": edited(wide, r, strength, kind).tolist(),
                "merged_under_gain": edited(wide, under_gain, strength, kind).tolist(),
                "y": (edited(wide, r, strength, kind) @ x).tolist(),
            }
            for kind, strength in STRENGTHS.items()
        ],
    }
    out.write_text(json.dumps(goldens, indent=1) + "\n")
    for d_model, d_in in [(576, 576), (576, 1536), (2048, 8192)]:
        for strength in (0.8, 1.0, 1.5):
            share = left_out_by_svd(rng, d_model, d_in, strength)
            print(f"{d_model} x {d_in}, strength {strength}: a rank-3 svd_lowrank leaves out {100 * share:.2f} % of the change")


if __name__ == "__main__":
    main()
