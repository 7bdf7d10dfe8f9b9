"""The door: ``hgscale VERB --config FILE [--section.key value ...]``. One verb per job, nothing else."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgscale.errors import ConfigError, HgscaleError

if TYPE_CHECKING:
    from hgscale.study.report import ReportResult

USAGE = """usage: hgscale VERB --config FILE [--section.key value ...]

  inspect    describe a world: sizes, weights, identifiability, what counting achieves at given N
  generate   write a world, and samples of it, as Parquet shards; made by any number of workers, checked by --verify
  pretrain   masked modelling on the samples of a world, ending with its recovery
  finetune   VM-HAN on relations in sentences with images (MNRE, MORE, planted), ending with scores; --audit true: leaks
  recover    read a hypergraph out of a finished run, in the same or another way
  study      run the missing cells of a scaling study, many trainings that differ in a few fields
  report     tables, figures and one page of a study, or of several side by side
  preflight  check a pretrain config against this machine or a cluster, or plan it for one that is not there
  submit     run another verb on a Ray cluster, and follow it: hgscale submit VERB --address URL --config FILE ...

hgscale VERB --help           every field, explained
hgscale VERB --print_config   the config that would run, as YAML

exit status: 0 done, 1 the run failed, 2 the request was wrong
"""
SUBMITTABLE = ("generate", "pretrain", "finetune", "recover", "study", "report")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; errors a caller can repair are one line on standard error."""
    args = list(sys.argv[1:] if argv is None else argv)
    verbs: dict[str, Callable[[Sequence[str]], int | None]]
    verbs = {
        "inspect": _inspect,
        "generate": _generate,
        "pretrain": _pretrain,
        "finetune": _finetune,
        "recover": _recover,
        "study": _study,
        "report": _report,
        "preflight": _preflight,
        "submit": _submit,
    }
    if not args or args[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if args else 2
    if args[0] == "--version":
        from hgscale import __version__

        print(__version__)
        return 0
    if args[0] not in verbs:
        print(f"hgscale: {args[0]} is not a verb; use {', '.join(verbs)}", file=sys.stderr)
        return 2
    try:
        return verbs[args[0]](args[1:]) or 0
    except HgscaleError as error:
        print(f"hgscale: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("hgscale: interrupted; the same command goes on where this one was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (as `hgscale inspect | head` does): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _inspect(args: Sequence[str]) -> None:
    from hgscale import config
    from hgscale.data.inspect import InspectConfig, inspect

    print(inspect(config.parse(InspectConfig, args, "inspect", also_known=_pretrain_schema(args))).text())


def _generate(args: Sequence[str]) -> None:
    from hgscale import config
    from hgscale.cluster.generate import GenerateConfig, generate

    print(generate(config.parse(GenerateConfig, args, "generate", also_known=_pretrain_schema(args))).text())


def _pretrain(args: Sequence[str]) -> None:
    from hgscale import config
    from hgscale.pretrain.run import PretrainConfig, pretrain

    result = pretrain(config.parse(PretrainConfig, args, "pretrain"))
    summary, run_dir = result.summary, result.run_dir
    print(_recovery_text(summary))
    print(f"run           {run_dir}")
    if (run_dir / "recovery.png").exists():
        print(f"figure        {run_dir / 'recovery.png'}")
    print(f"mlflow        {result.how_to_open}")


def _finetune(args: Sequence[str]) -> None:
    from hgscale import config
    from hgscale.finetune.run import FinetuneConfig, audit_of, finetune, world_of

    what = config.parse(FinetuneConfig, args, "finetune")
    if what.write_world is not None:
        world = world_of(what, Path(what.write_world))
        print(f"world         {world.num_nodes:,} names in {world.num_edges:,} hyperedges; {what.write_world}")
        return
    if what.audit:
        print(audit_of(what).text())
        return
    result = finetune(what)
    print(_scores_text(result.summary))
    print(f"run           {result.run_dir}")
    if (result.run_dir / "scores.png").exists():
        print(f"figures       {result.run_dir / 'scores.png'}, {result.run_dir / 'attention.png'}")
    print(f"mlflow        {result.how_to_open}")


def _recover(args: Sequence[str]) -> None:
    from hgscale import config
    from hgscale.pretrain.recover import RecoverConfig, recover

    result = recover(config.parse(RecoverConfig, args, "recover", also_known=_pretrain_schema(args)))
    print(_recovery_text(result.summary))
    print(f"numbers       {result.path}")


def _study(args: Sequence[str]) -> None:
    from hgscale import config
    from hgscale.study.grid import StudyConfig
    from hgscale.study.run import run_study

    result = run_study(config.parse(StudyConfig, args, "study"))
    if result.report is None:
        print(result.plan)
        return
    _print_report(result.report)
    print(f"mlflow        {result.how_to_open}")


def _report(args: Sequence[str]) -> None:
    from hgscale import config
    from hgscale.study.report import ReportConfig, report

    _print_report(report(config.parse(ReportConfig, args, "report")))


def _preflight(args: Sequence[str]) -> None:
    from hgscale import config
    from hgscale.pretrain.preflight import PreflightConfig, preflight

    result = preflight(config.parse(PreflightConfig, args, "preflight"))
    print(result.text())
    if result.failed:
        raise ConfigError(f"preflight failed: {', '.join(result.failed)}; what to do stands below each")


def _submit(args: Sequence[str]) -> int:
    from hgscale import config
    from hgscale.cluster.submit import Job, SubmitConfig, split_options, submit

    own, others = split_options(args)
    verb = others.pop(0) if others and not others[0].startswith("--") else None
    if verb is None and {"--help", "-h"} & set(others):
        config.parse(SubmitConfig, ["--help"], "submit VERB")
    if verb not in SUBMITTABLE:
        said = "no verb is given" if verb is None else f"{verb} is no verb for a cluster"
        raise ConfigError(f"submit: {said}; use one of {', '.join(SUBMITTABLE)}, as hgscale submit pretrain --config F")
    also_known = _pretrain_schema(others) if verb in ("generate", "recover") else None
    what: Any = config.parse(_schema(verb), others, f"submit {verb}", also_known=also_known)
    result = submit(config.parse(SubmitConfig, own, "submit"), Job(verb, what, lambda: _check(verb, what)))
    print(f"hgscale: {result.text}", file=sys.stderr)
    return result.exit_code


def _schema(verb: str) -> type:
    """The config of a verb."""
    import hgscale

    return getattr(hgscale, f"{verb.capitalize()}Config")


def _check(verb: str, what: Any) -> None:
    """Refuse a config as its verb would."""
    if verb in ("pretrain", "finetune"):
        what.check_task()
        what.sizes(what.cluster.min_workers, what.cluster.max_workers)
    if verb == "study":
        from hgscale.study.grid import cells

        cells(what)


def _print_report(result: "ReportResult") -> None:
    print(result.text)
    if result.figures:
        print(f"figure        {result.figures[0]}")


def _pretrain_schema(args: Sequence[str]) -> type | None:
    """A file written for pretrain serves the other verbs too; its schema is heavy, so only when there is a file."""
    if not any(arg.startswith("--config") for arg in args):
        return None
    from hgscale.pretrain.run import PretrainConfig

    return PretrainConfig


def _scores_text(summary: dict[str, Any]) -> str:
    lines = [f"{'':13} {'F1':>7} {'precision':>10} {'recall':>7} {'accuracy':>9} {'calibration error':>18}"]
    for split in ("val", "test"):
        f1, precision, recall, accuracy, ece = (
            summary[f"{split}_{name}"] for name in ("f1", "precision", "recall", "accuracy", "ece")
        )
        lines.append(f"{split:13} {f1:7.4f} {precision:10.4f} {recall:7.4f} {accuracy:9.4f} {ece:18.4f}")
    if summary["leaks"]:
        lines.append(f"leaks         {summary['leaks']}: not comparable with clean numbers")
    return "\n".join(lines)


def _recovery_text(summary: dict[str, object]) -> str:
    def number(name: str) -> str:
        value = summary.get(name)
        return "-" if value is None else f"{value:.4f}"

    interval = ""
    if summary.get("recovery_l1_low") is not None:
        interval = f"   95% [{number('recovery_l1_low')}, {number('recovery_l1_high')}]"
    return "\n".join(
        [
            f"recovery l1   {number('recovery_l1')}{interval}   ({summary['readout']}; off the support "
            f"{number('off_support_mass')})",
            f"count floor   {number('count_floor_l1')}   expected of counting {summary['num_samples']:,} samples",
            f"counting      {number('count_l1')}   on the very samples the model saw",
            f"ratio         {number('ratio_to_floor')} to the floor, {number('ratio_to_count')} to counting",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
