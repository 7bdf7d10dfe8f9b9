"""`python driver.py PLAN MARKS OPTIONS...`: `hgscale pretrain OPTIONS...` whose workers suffer the faults of a plan."""

import functools
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    import faults
    import ray.cloudpickle

    from hgscale.cli import main
    from hgscale.cluster import carry_out

    ray.cloudpickle.register_pickle_by_value(faults)  # workers do not see this folder
    plan = [faults.Fault(**entry) for entry in json.loads(Path(sys.argv[1]).read_text())]
    carry_out._call = functools.partial(faults.train_with_faults, plan, Path(sys.argv[2]))
    sys.exit(main(["pretrain", *sys.argv[3:]]))
