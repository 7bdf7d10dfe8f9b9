"""`python -m tests.chaos --faults 200 --seed 0`: trainings on two Ray workers, with faults, beside one without.

Each training suffers a few faults at random moments, and is to end as the one that suffered none: the same samples in
the same order, the same losses and weights, bit for bit, in one MLflow run. Prints the table of tests/README.md.
"""

import argparse
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.chaos.faults import Fault
from tests.chaos.harness import NUM_STEPS, DriverFault, Training, compare, private_ray

# (what befalls whom, when): how often, against the others.
WEIGHTS: dict[tuple[str, str], float] = {
    ("kill", "start"): 1,
    ("kill", "load"): 1,
    ("kill", "step"): 4,
    ("kill", "evaluate"): 2,
    ("kill", "checkpoint"): 4,
    ("kill", "save"): 2,
    ("kill", "hash"): 1,
    ("kill", "commit"): 1,
    ("kill", "rename"): 2,
    ("kill", "remove"): 1,
    ("kill", "log"): 1,
    ("kill", "finish"): 1,
    ("term", "step"): 3,
    ("hang", "step"): 0.5,
    ("freeze", "step"): 0.5,
    ("kill", "driver"): 2,
    ("term", "driver"): 2,
}
RANK_0_ONLY = ("hash", "commit", "rename", "remove", "log", "finish")
LONGEST_DELAY_S = {"step": 0.02, "evaluate": 0.1, "checkpoint": 0.15, "save": 0.05, "load": 0.05, "finish": 0.3}
WORDS = {
    "kill": "SIGKILL of a worker",
    "term": "SIGTERM to a worker",
    "hang": "a worker that hangs",
    "freeze": "a worker that is frozen (SIGSTOP)",
}
MOMENTS = {
    "start": "before it has loaded anything",
    "load": "while it loads a checkpoint",
    "step": "in a step",
    "evaluate": "in an evaluation",
    "checkpoint": "anywhere in a checkpoint",
    "save": "while it writes its share",
    "hash": "while files are hashed",
    "commit": "before the rename",
    "rename": "after the rename, before or after the manifest",
    "remove": "while old ones are removed",
    "log": "at a line of the log",
    "finish": "in the last read-out",
}


def draw(rng: random.Random, num_faults: int) -> tuple[list[Fault], list[DriverFault]]:
    """A training's faults, at rising steps."""
    plan, of_driver = [], []
    steps = sorted(rng.sample(range(20, NUM_STEPS - 100), num_faults))
    for step in steps:
        what, moment = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if moment == "driver":
            of_driver.append(DriverFault(signal.SIGKILL if what == "kill" else signal.SIGTERM, step))
            continue
        rank = 0 if moment in RANK_0_ONLY else rng.randrange(2)
        delay_s = rng.uniform(0, LONGEST_DELAY_S.get(moment, 0.0)) if what != "hang" else 0.0
        plan.append(Fault(what, moment, rank, 0 if moment in ("start", "load") else step, delay_s))
    return plan, of_driver


def name_of(fault: Fault | DriverFault) -> str:
    if isinstance(fault, DriverFault):
        return f"{fault.number.name} of the driver"
    return f"{WORDS[fault.what]} {MOMENTS[fault.moment]}"


def main() -> int:
    """Run, print, and return 1 if a training was not survived or differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults_of_a_training", type=int, default=4)
    parser.add_argument("--zero_stage", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    options = {"engine.zero_stage": args.zero_stage}
    injected: Counter[str] = Counter()
    bad: dict[str, Counter[str]] = {"not survived": Counter(), "samples": Counter(), "bits": Counter()}
    began, num_trainings = time.monotonic(), 0
    recoveries: list[float] = []
    with tempfile.TemporaryDirectory() as folder, private_ray(num_cpus=2) as cluster:
        whole = Training(Path(folder) / "whole", cluster.address, options)
        assert whole.run() == 0, whole.output.read_text()
        while (num_injected := sum(injected.values())) < args.faults:
            plan, of_driver = draw(rng, min(args.faults_of_a_training, args.faults - num_injected))
            num_trainings += 1
            training = Training(Path(folder) / str(num_trainings), cluster.address, options, plan)
            code = training.run(of_driver)
            happened = [name_of(fault) for fault in [*(plan[number] for number in training.happened()), *of_driver]]
            injected.update(happened)
            recoveries += [
                seconds
                for number in training.happened()
                if plan[number].what == "kill" and (seconds := training.recovery_s(number)) is not None
            ]
            verdict = compare(training, whole) if code == 0 else {"not survived": f"exit code {code}"}
            for kind in verdict:
                bad[kind].update(happened)
            line = f"{sum(injected.values())}/{args.faults} {(time.monotonic() - began) / 60:.0f} min"
            print(f"{line}: {', '.join(happened)}: {verdict or 'equal'}", file=sys.stderr, flush=True)
            if verdict:
                print(training.output.read_text()[-3000:], file=sys.stderr, flush=True)
    print("| fault | injected | survived | samples lost or repeated in | not bit-equal |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, count in sorted(injected.items()):
        survived = count - bad["not survived"][name]
        print(f"| {name} | {count} | {survived} | {bad['samples'][name]} | {bad['bits'][name]} |")
    print(f"\n{sum(injected.values())} faults in {num_trainings} trainings, seed {args.seed}, ZeRO {args.zero_stage}.")
    if recoveries:
        middle, longest = statistics.median(recoveries), max(recoveries)
        print(f"From a killed worker to the next step: {middle:.0f} s in the median, at most {longest:.0f} s.")
    return int(any(sum(counter.values()) for counter in bad.values()))


if __name__ == "__main__":
    sys.exit(main())
