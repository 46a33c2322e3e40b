r"""Beyond the trained length: copying, recall and counting, by layer and positions.

Small causal transformers with each kind of position, without any, an LSTM and a GRU
learn each task on inputs up to a length, and are tried at it, at one and a half times,
twice and four times it. Learned positions have rows for all of the trial, of which
training reaches the first alone, unless each row of a batch begins at a random one.
Networks of the kinds that are compared in counting, where each is right at a length or
wrong, have seeds of their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from experiments import lab
from experiments.attention import _length_runs as runs
from experiments.attention._length_runs import KINDS
from experiments.attention._length_tasks import TASKS

MODULE = "experiments.attention._length_runs"
# A network knows the trained length if at most one sequence in twenty has an error.
KNOWN = 0.95
# What a figure shows: words of one length, of which there is one, or all answers.
SHOWN = {"copying": "answers", "recall": "answers", "counting": "exact"}
WORDS = {"answers": "answers right", "exact": "words right"}
COMPARED = "lstm", "gru", "none", "sinusoidal"
LEARNERS = "lstm", "none", "sinusoidal", "learned", "rotary", "alibi"


@dataclass(frozen=True)
class Config(runs.Training):
    """Of a training; which kinds of network learn each task, and the seeds."""

    copying: tuple[str, ...] = ("sinusoidal", "learned", "rotary")
    recall: tuple[str, ...] = (*LEARNERS, "learned_shifted")
    counting: tuple[str, ...] = tuple(KINDS)
    keep: str | None = "runs/length_generalization"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    counting_seeds: tuple[int, ...] = tuple(range(10))


def mean_of(task: str, key: str, values: list[float]) -> dict[str, float]:
    """A mean with its interval; of networks that are right or wrong, Wilson's."""
    if (task, key) != ("counting", "exact"):
        return lab.mean_interval(values)
    share = lab.share_interval(round(sum(values)), len(values))
    return {"mean": share["share"], "low": share["low"], "high": share["high"]}


def pooled(task: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the networks of one kind: means by length, and how many know the trained."""
    known = sum(run["exact"][0] >= KNOWN for run in found)
    means = {
        key: [
            mean_of(task, key, list(values))
            for values in zip(*(run[key] for run in found), strict=True)
        ]
        for key in ("exact", "answers")
    }
    case: dict[str, Any] = {"runs": len(found), "known": known, **means}
    case["parameters"] = found[0]["parameters"]
    for key in ("moved", "moved_beyond"):
        if key in found[0]:
            case[key] = max(run[key] for run in found)
    return case


def networks(config: Config, task: str, kind: str) -> dict[str, Any]:
    """All networks of one kind."""
    compared = task == "counting" and kind in COMPARED
    seeds = config.counting_seeds if compared else config.seeds
    return {"all": [runs.measure(config, task, kind, seed) for seed in seeds]}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Train all networks, those of a kind kept in a file when they are done."""
    # What a network does not depend on which others there are.
    alone = replace(config, copying=(), recall=(), counting=())
    # The longest trainings last.
    grid = [(task, kind) for task in reversed(TASKS) for kind in getattr(config, task)]
    cases: dict[str, Any] = {}
    for task, kind in track(grid, "length_generalization"):
        make = partial(networks, config, task, kind)
        found = lab.kept(alone, MODULE, f"{task}-{kind}", make)["all"]
        cases[f"{task}_{kind}"] = {"task": task, "kind": kind, **pooled(task, found)}
    return {"series": {"lengths": list(config.try_at)}, "cases": cases}


def percent(share: float) -> str:
    """A share as a whole number of per cent; only 0 and 1 are written 0 and 100."""
    text = f"{100 * share:.0f}"
    if (text, share > 0) == ("0", True):
        return "<1"
    return ">99" if (text, share < 1) == ("100", True) else text


def cell_at(place: int) -> lab.Cell:
    """Sequences without an error with the interval, and below it right answers."""

    def write(row: Mapping[str, Any]) -> str:
        exact, answers = row["exact"][place], row["answers"][place]
        ends = f"({percent(exact['low'])} to {percent(exact['high'])})"
        return f"{percent(exact['mean'])} {ends}<br>{percent(answers['mean'])}"

    return write


def table_of(task: str) -> Any:
    """A line for each kind, a column for each length of the trial."""

    def made(record: Mapping[str, Any]) -> lab.Table:
        config = record["run"]["config"]
        columns: dict[str, str | lab.Cell] = {
            f"know {config['train_to']}": lambda row: f"{row['known']} of {row['runs']}"
        }
        for place, length in enumerate(config["try_at"]):
            columns[f"at {length}, %"] = cell_at(place)
        rows = [
            {"name": case["kind"], **case}
            for case in record["cases"].values()
            if case["task"] == task
        ]
        labels = {row["name"]: KINDS[row["name"]].label for row in rows}
        return lab.Table(columns, lambda _: rows, labels=labels, heading="network")

    return made


def tasks_of(record: Mapping[str, Any]) -> list[str]:
    """The tasks that were asked for."""
    return [task for task in TASKS if record["run"]["config"][task]]


def tables(record: Mapping[str, Any]) -> dict[str, Any]:
    """A table for each task."""
    return {task: table_of(task) for task in tasks_of(record)}


def draw(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Right answers by length, a panel for each task."""
    config, cases = record["run"]["config"], record["cases"]
    places = range(len(config["try_at"]))
    tasks = tasks_of(record)
    panels = figure.subplots(1, len(tasks), sharey=True)
    lines: dict[str, Any] = {}
    for axes, task in zip(panels, tasks, strict=True):
        for i, kind in enumerate(LEARNERS):
            if f"{task}_{kind}" not in cases:
                continue
            # Side by side, so that lines that all but meet can be told apart.
            aside = 0.07 * (i - (len(LEARNERS) - 1) / 2)
            points = cases[f"{task}_{kind}"][SHOWN[task]]
            (lines[KINDS[kind].label],) = axes.plot(
                [place + aside for place in places],
                [100 * point["mean"] for point in points],
                color=theme.colours[i],
                linestyle=lab.DASHES[i],
                marker="o",
                markersize=3,
            )
        axes.set_xticks(places, [str(length) for length in config["try_at"]])
        axes.set_xlabel("length")
        axes.set_title(f"{task}, {WORDS[SHOWN[task]]}")
    panels[0].set_ylabel("%")
    panels[0].set_ylim(-3, 103)
    figure.legend(lines.values(), list(lines), loc="outside lower center", ncols=3)


# Their answers are many; those of counting are few, and a share may end in a half.
DRAWN = {f"{task}_{kind}" for task in ("copying", "recall") for kind in KINDS}
HALF_AT_TWICE = lab.above("exact.2.mean", 0.5, lab.share)

experiment = lab.Experiment(
    small=Config(
        copying=(),
        recall=(
            *("lstm", "none", "sinusoidal", "learned", "rotary", "alibi"),
            "learned_shifted",
        ),
        counting=("lstm", "gru"),
        tests=64,
        keep=None,
        seeds=(0,),
        counting_seeds=(0, 1, 2),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C192",
            "No row of a learned table beyond the longest input of training has moved; "
            "where rows of a batch began at random positions, some have.",
            lab.exactly("moved_beyond", lambda case: case["moved_beyond"] == 0),
            case="recall_learned",
            control="recall_learned_shifted",
        ),
        lab.Claim(
            "C194",
            "At twice the trained number of pairs transformers without positions "
            "recall every value of more than half of the lists; with sinusoidal ones "
            "they do not.",
            HALF_AT_TWICE,
            case="recall_none",
            control="recall_sinusoidal",
        ),
        lab.Claim(
            "C195",
            "At twice the trained number of pairs transformers with ALiBi of slopes "
            "1/16 and 1/256 recall every value of more than half of the lists; with "
            "rotary positions they do not.",
            HALF_AT_TWICE,
            case="recall_alibi",
            control="recall_rotary",
        ),
        lab.Claim(
            "C196.counting",
            "At one and a half times the trained length more than half of the LSTMs "
            "are right on $a^n b^n$; of the GRUs they are fewer.",
            lab.above("exact.1.mean", 0.5, lab.share),
            case="counting_lstm",
            control="counting_gru",
        ),
        lab.Claim(
            "C196.recall",
            "After as many updates transformers without positions recall every value "
            "of more than half of the lists of the trained length; LSTMs do not.",
            lab.above("exact.0.mean", 0.5, lab.share),
            case="recall_none",
            control="recall_lstm",
        ),
    ],
    numbers=[
        lab.each("runs"),
        lab.each("known"),
        lab.each("parameters"),
        lab.each("moved"),
        lab.each("moved_beyond"),
        *(
            lab.each(f"{quantity}.{place}.mean", f"{quantity}_{word}", percent, cases)
            for quantity, cases in (("exact", None), ("answers", DRAWN))
            for place, word in enumerate(("trained", "half_more", "twice", "four"))
        ),
    ],
    tables=tables,
    figures={"beyond": draw},
)
