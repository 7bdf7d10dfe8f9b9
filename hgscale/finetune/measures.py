"""What reports say of fine-tunings: scores on the test split."""

from collections.abc import Iterable

from hgscale.errors import ConfigError
from hgscale.train.reports import Column, Lines, Look, Measures, SameData, Summary, Told

WORDS = {
    "test_f1": "test F1",
    "test_accuracy": "test accuracy",
    "test_precision": "test precision",
    "test_recall": "test recall",
    "val_f1": "val F1",
    "test_ece": "test calibration error",
    "num_contexts": "training contexts",
}
SCORES = ("test_f1", "test_accuracy", "test_precision", "test_recall", "val_f1", "test_ece")
COLUMNS = tuple(map(Column, (*SCORES, "core_minutes")))
F1 = Told("test_f1", "Test F1")


def refuse_mixed_leaks(summaries: Iterable[Summary], where: str) -> None:
    """Refuse to tell runs that saw the label given away together with such as did not.

    Args:
        summaries: of finished runs; ``leaks`` is "" for clean ones.
        where: named first in the error.

    Raises:
        ConfigError: if there are both.
    """
    leaks = {str(summary.get("leaks", "")) for summary in summaries}
    if len(leaks) > 1:
        leaky = next(filter(None, sorted(leaks)))
        raise ConfigError(
            f"{where}: some cells were given the label away (by {leaky}) and others were not, so their scores do not "
            "compare; make two studies of them"
        )


MEASURES = Measures(
    headline="test_f1",
    lower_is_better=False,
    x="num_contexts",
    words=WORDS,
    main=SCORES,
    short=COLUMNS,
    short_at_one_x=COLUMNS,
    told=(F1,),
    differences=F1,
    panels=(
        Lines(
            name="scores",
            title="Scores",
            caption="Scores on the test split: F1 is the micro average over related pairs, accuracy is over all pairs.",
            looks=(
                Look("test_accuracy", "accuracy", "orange"),
                Look("test_recall", "recall", "pink"),
                Look("test_precision", "precision", "green"),
                Look("test_f1", "F1", "blue"),
            ),
            label="test split",
            log=False,
            against_x=True,
        ),
    ),
    same_data=SameData("data_digest", "data", "data"),
    refuse=refuse_mixed_leaks,
)
