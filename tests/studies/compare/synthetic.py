"""Synthetic records of a comparison, with known differences."""

from __future__ import annotations

from studies.compare.records import Records

SEEDS = (0, 1, 2, 3, 4)
GAIN = 0.05  # of the second model over the first, for each seed


def synthetic_records() -> Records:
    """Three models: a baseline, one that is better by GAIN, and one that differs by noise."""
    records = Records()
    noise = (0.004, -0.003, 0.002, -0.005, 0.001)
    for index, (model, gain) in enumerate((("base", 0.0), ("better", GAIN), ("same", 0.0))):
        for seed in SEEDS:
            shift = gain + (noise[seed] if model == "same" else 0.001 * seed * (model == "better"))
            for split in ("val", "test"):
                for checkpoint in ("best", "last"):
                    value = 0.5 + 0.01 * seed + shift
                    row = {"model": model, "seed": seed, "split": split, "checkpoint": checkpoint}
                    row |= {"P": 0.8, "R": 0.7, "mAP50": value + 0.3, "mAP50-95": value}
                    row |= {"AP/cat": value - 0.1, "AP/dog, old": value + 0.1}
                    row |= {"flags": f"--cfg {model}.yaml", "run": f"{index}{seed}", "commit": "abc"}
                    row |= {"parameters": 1e6 * (index + 1), "gflops": 4.0 + index, "minutes": 2.0}
                    row |= {"latency": 10.0 + index, "latency_low": 9.0, "latency_high": 12.0}
                    records.results.append(row)
            for epoch in range(1, 11):
                value = (0.5 + 0.01 * seed + shift) * epoch / 10
                row = {"model": model, "seed": seed, "epoch": epoch, "mAP50": value, "loss": 1 / epoch}
                records.curves.append(row | {"mAP50-95": value})
    return records
