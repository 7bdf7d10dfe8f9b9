"""The data card of a directory of shards, with the front matter that dataset hubs read."""

import json

from hgscale.data.disk.manifest import Manifest

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_LARGER = ((10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B"))


def card_of(manifest: Manifest, licence: str) -> str:
    """README.md: what the data are, by which law, under which licence, and how to read them."""
    sections = [_front(manifest, licence), _what(manifest), _law(manifest), _columns(manifest), _reading(manifest)]
    sections.append(f"## Licence\n\n{licence}\n")
    return "\n".join(sections)


def _front(manifest: Manifest, licence: str) -> str:
    category = next((name for most, name in _SIZES + _LARGER if manifest.num_edges < most), "100B<n<1T")
    lines = ["---", f"license: {licence.lower()}", f"pretty_name: {_name(manifest)}"]
    lines += ["tags:", "- hypergraph", "- synthetic" if manifest.world["path"] is None else "- converted"]
    lines += ["size_categories:", f"- {category}", "configs:"]
    lines += ["- config_name: edges", "  default: true", "  data_files: edges/*.parquet"]
    if manifest.samples:
        lines += ["- config_name: samples", "  data_files: samples/*.parquet"]
    return "\n".join([*lines, "---", ""])


def _name(manifest: Manifest) -> str:
    source = manifest.world["generator"] if manifest.world["path"] is None else "file"
    return f"Weighted hypergraph, {source}, {manifest.num_nodes} nodes, {manifest.num_edges} edges"


def _what(manifest: Manifest) -> str:
    rows = [f"| {size} | {int(entry['num_edges']):,} | {entry['mass']:.6g} |" for size, entry in manifest.sizes.items()]
    num_samples = sum(entry.num_samples for entry in manifest.samples)
    drawn = (
        f", and {num_samples:,} samples drawn from it by weight (seed {manifest.samples_seed})" if num_samples else ""
    )
    return "\n".join(
        [
            f"# {_name(manifest)}",
            "",
            f"A weighted hypergraph: distinct sets of nodes, whose weights sum to 1{drawn}.",
            "",
            "| nodes in an edge | edges | total weight |",
            "|---|---|---|",
            *rows,
            "",
            f"Nodes are numbered from 0 to {manifest.num_nodes - 1}"
            + (f"; their names stand in `{manifest.labels.file}`, in order." if manifest.labels else "."),
            f"Digest {manifest.digest}. Every file's sha256 is in `manifest.json`.",
            "",
        ]
    )


def _law(manifest: Manifest) -> str:
    text = (
        "Made by `hgscale generate` from this world, seed included" if manifest.world["path"] is None else "Made from"
    )
    return f"## Law\n\n{text}:\n\n```json\n{json.dumps(manifest.world, indent=1)}\n```\n"


def _columns(manifest: Manifest) -> str:
    lines = ["## Schema", "", "| file | column | type | meaning |", "|---|---|---|---|"]
    lines += ["| `edges/*.parquet` | `nodes` | list of int32 | the nodes of an edge, ascending |"]
    lines += ["| | `weight` | float64 | its probability; over all files they sum to 1 |"]
    if manifest.samples:
        lines += ["| `samples/*.parquet` | `id` | int64 | number of the sample, from 0 |"]
        lines += ["| | `nodes` | list of int32 | the nodes of the edge drawn, in the sample's own random order |"]
    if any(shard.table for shard in manifest.shards):
        lines += ["| `table/*.npy` | `alias`, `weight`, `nodes` | records | for drawing edges by weight from disk |"]
    return "\n".join([*lines, ""])


def _reading(manifest: Manifest) -> str:
    return """## Reading

```python
import datasets, pandas, polars, ray

datasets.load_dataset("parquet", data_files="DIR/edges/*.parquet", split="train", streaming=True)
ray.data.read_parquet("DIR/edges")
pandas.read_parquet("DIR/edges")
polars.scan_parquet("DIR/edges/*.parquet")
```

To train on it: `world.path: DIR` in any `hgscale pretrain` config.
"""
