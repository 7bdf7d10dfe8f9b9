"""Fine-tuning VM-HAN behind BERT-base in bf16 on one CUDA device, ZeRO 1 and 2: samples/s, peak memory, and MFU.

    PYTHONPATH=. python tests/bench/bench_finetune_gpu.py             (--small true runs a tiny one, on any device)

BERT-base of random weights reads contexts shaped as in MNRE; features of images and objects are stand-ins, random. MFU
is the floating-point operations of a step over its time, over the same of a bf16 matrix product measured in this run.
Counted are BERT's: for each word piece and layer 12 d^2 + 2 d l multiply-adds (four products of attention and the
feed-forward; attention over l pieces), times 2 operations, times 3 for forward and backward; what VM-HAN adds is left
out. Derived here from BERT's shape.
"""

import argparse
import time

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertModel

from hgscale.models.encoders import TextBatch
from hgscale.models.multimodal import ContextBatch, RelationLoss, RelationModel
from hgscale.models.vmhan import Vmhan, VmhanModelConfig
from hgscale.train.config import EngineConfig
from hgscale.train.engine import make_engine

NUM_TOKENS, NUM_OBJECTS, NUM_LABELS, VISION_SIZE = 32, 3, 23, 768
ENTITIES = {2: 5553, 3: 1461, 4: 291, 5: 42, 6: 7, 7: 2}  # contexts of MNRE's training split with so many


class Text(nn.Module):
    """BERT as ``RelationModel`` wants it: word pieces to mentions and a sentence."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.model = BertModel(config, add_pooling_layer=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, spans: torch.Tensor):
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        places = torch.arange(hidden.shape[1], device=hidden.device)
        inside = ((spans[..., :1] <= places) & (places < spans[..., 1:])).to(hidden.dtype)
        mentions = torch.einsum("rel,rlt->ret", inside, hidden) / inside.sum(-1, keepdim=True).clamp(min=1)
        return mentions, hidden.mean(1)


def context_batch(num_rows: int, device: torch.device, seed: int) -> ContextBatch:
    """Contexts of MNRE's shape; all their pairs."""
    rng = np.random.default_rng(seed)
    counts = rng.choice(list(ENTITIES), num_rows, p=np.array(list(ENTITIES.values())) / sum(ENTITIES.values()))
    e = int(counts.max())
    pairs = [(row, i, j) for row, count in enumerate(counts) for j in range(count) for i in range(j)]
    starts = rng.integers(1, NUM_TOKENS - 3, (num_rows, e))
    slots = [(row, slot) for row in range(num_rows) for slot in range(1 + NUM_OBJECTS)]
    return ContextBatch(
        text=TextBatch(
            torch.from_numpy(rng.integers(1000, 2000, (num_rows, NUM_TOKENS))),
            torch.ones(num_rows, NUM_TOKENS, dtype=torch.int64),
            torch.from_numpy(np.stack([starts, starts + 2], axis=-1)),
        ),
        mentions=None,
        sentence=None,
        visual=torch.from_numpy(rng.standard_normal((len(slots), VISION_SIZE), dtype=np.float32)),
        slots=torch.tensor(slots),
        entity_mask=torch.from_numpy(np.arange(e) < counts[:, None]),
        image_mask=torch.ones(num_rows, dtype=torch.bool),
        object_mask=torch.ones(num_rows, NUM_OBJECTS, dtype=torch.bool),
        prior=None,
        pairs=torch.tensor(pairs),
        labels=torch.from_numpy(rng.integers(0, NUM_LABELS, len(pairs))),
        pair_weight=1 / len(pairs),
        row_weight=1 / num_rows,
        kl_scale=1.0,
    ).to(device)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def matmul_rate(device: torch.device, size: int) -> float:
    """Floating-point operations per second of a large bf16 product."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    synchronize(device)
    started = time.perf_counter()
    for _ in range(10):
        a @ a
    synchronize(device)
    return 10 * 2 * size**3 / (time.perf_counter() - started)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", default="false")
    small = parser.parse_args().small == "true"
    if not (small or torch.cuda.is_available()):
        print("skipped: no CUDA device here")
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
    bert = BertConfig(**shape) if small else BertConfig()
    num_rows, num_steps = (16, 3) if small else (256, 20)
    rate = matmul_rate(device, 512 if small else 8192)
    d, layers = bert.hidden_size, bert.num_hidden_layers
    flops = 6 * num_rows * NUM_TOKENS * layers * (12 * d**2 + 2 * d * NUM_TOKENS)
    batches = [context_batch(num_rows, device, seed) for seed in range(4)]
    print(f"{device}: {rate / 1e12:.2f} Tflop/s in bf16 matrix products; {num_rows} contexts a step")
    print(f"{'':>8} {'contexts/s':>11} {'peak GiB':>9} {'MFU':>7}")
    for stage in (1, 2):
        network = Vmhan(VmhanModelConfig(text_size=d, vision_size=VISION_SIZE, num_labels=NUM_LABELS))
        loss = RelationLoss(RelationModel(network, Text(bert), nn.Identity()))  # type: ignore[arg-type]
        config = EngineConfig(zero_stage=stage, precision="bf16")
        engine = make_engine(config, loss, micro_batch=num_rows, num_micro=1, device=device)
        for step in range(3):
            engine.step([batches[step]], 1e-4)
        synchronize(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        for step in range(num_steps):
            engine.step([batches[step % 4]], 1e-4)
        synchronize(device)
        seconds = (time.perf_counter() - started) / num_steps
        peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
        name = f"ZeRO {stage}"
        print(f"{name:>8} {num_rows / seconds:>11,.0f} {peak:>9.2f} {flops / seconds / rate:>7.1%}", flush=True)


if __name__ == "__main__":
    main()
