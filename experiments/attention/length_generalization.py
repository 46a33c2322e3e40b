r"""Beyond the trained length: copying, recall and counting, by layer and positions.

Small causal transformers with each kind of position, without any, an LSTM and a GRU
learn each task on inputs up to a length, and are tried at it, at one and a half times,
twice and four times it. Learned positions have rows for all of the trial, of which
training reaches the first alone, unless each row of a batch begins at a random one.
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
LEARNERS = "lstm", "none", "sinusoidal", "learned", "rotary", "alibi"


@dataclass(frozen=True)
class Config(runs.Training):
    """Of a training; which kinds of network learn each task, and the seeds."""

    copying: tuple[str, ...] = LEARNERS
    recall: tuple[str, ...] = LEARNERS
    counting: tuple[str, ...] = tuple(KINDS)
    keep: str | None = "runs/length_generalization"
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


def pooled(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the networks of one kind: means by length, and how many know the trained."""
    known = sum(run["exact"][0] >= KNOWN for run in found)
    means = {
        key: [
            lab.mean_interval(values)
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


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Train all networks, each kept in a file when it ends."""
    grid = [
        (task, kind, seed)
        for seed in config.seeds
        # The longest trainings last.
        for task in reversed(TASKS)
        for kind in getattr(config, task)
    ]
    # What a network does not depend on which others there are.
    alone = replace(config, copying=(), recall=(), counting=(), seeds=())
    done = {}
    for task, kind, seed in track(grid, "length_generalization"):
        make = partial(runs.measure, config, task, kind, seed)
        done[task, kind, seed] = lab.kept(alone, MODULE, f"{task}-{kind}-{seed}", make)
    cases: dict[str, Any] = {}
    for task in TASKS:
        for kind in getattr(config, task):
            found = [done[task, kind, seed] for seed in config.seeds]
            cases[f"{task}_{kind}"] = {"task": task, "kind": kind, **pooled(found)}
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
        kinds = [{**case} for case in record["cases"].values() if case["task"] == task]
        labels = {kind["kind"]: KINDS[kind["kind"]].label for kind in kinds}
        rows = [{"name": kind["kind"], **kind} for kind in kinds]
        return lab.Table(columns, lambda _: rows, labels=labels, heading="network")

    return made


def draw(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Sequences without an error by length, a panel for each task."""
    config, labels = record["run"]["config"], [KINDS[k].label for k in LEARNERS]
    places = range(len(config["try_at"]))
    panels = figure.subplots(1, len(TASKS), sharey=True)
    for axes, task in zip(panels, TASKS, strict=True):
        for i, kind in enumerate(LEARNERS):
            # Side by side, so that lines at 0 and at 100 per cent can be told apart.
            aside = 0.07 * (i - (len(LEARNERS) - 1) / 2)
            points = record["cases"][f"{task}_{kind}"]["exact"]
            axes.plot(
                [place + aside for place in places],
                [100 * point["mean"] for point in points],
                color=theme.colours[i],
                linestyle=lab.DASHES[i],
                marker="o",
                markersize=3,
            )
        axes.set_xticks(places, [str(length) for length in config["try_at"]])
        axes.set_xlabel("length")
        axes.set_title(task)
    panels[0].set_ylabel("sequences without an error, %")
    panels[0].set_ylim(-3, 103)
    lines = panels[-1].get_lines()
    figure.legend(lines, labels, loc="outside lower center", ncols=3)


HALF = lab.above("exact.2.mean", 0.5, lab.share)

experiment = lab.Experiment(
    small=Config(
        copying=(),
        recall=("lstm", "none", "sinusoidal", "rotary", "alibi"),
        counting=("none", "sinusoidal", "learned", "learned_shifted"),
        keep=None,
        seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C191",
            "Transformers without positions are right on more than half of the words "
            "$a^n b^n$ of twice the trained length; with sinusoidal ones they are not.",
            HALF,
            case="counting_none",
            control="counting_sinusoidal",
        ),
        lab.Claim(
            "C192.rows",
            "No row of a learned table beyond the longest input of training has moved; "
            "where rows of a batch began at random positions, some have.",
            lab.exactly("moved_beyond", lambda case: case["moved_beyond"] == 0),
            case="counting_learned",
            control="counting_learned_shifted",
        ),
        lab.Claim(
            "C192.start",
            "With learned positions that began at random ones in training more than "
            "half of the words of twice the trained length are right; with the same "
            "table and positions from 0 they are not.",
            HALF,
            case="counting_learned_shifted",
            control="counting_learned",
        ),
        lab.Claim(
            "C194",
            "At twice the trained number of pairs transformers without positions "
            "recall every value of more than half of the lists; with sinusoidal ones "
            "they do not.",
            HALF,
            case="recall_none",
            control="recall_sinusoidal",
        ),
        lab.Claim(
            "C195",
            "At twice the trained number of pairs transformers with ALiBi recall every "
            "value of more than half of the lists; with rotary positions they do not.",
            HALF,
            case="recall_alibi",
            control="recall_rotary",
        ),
        lab.Claim(
            "C196",
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
            lab.each(f"{quantity}.{place}.mean", f"{quantity}_{word}", percent)
            for quantity in ("exact", "answers")
            for place, word in enumerate(("trained", "half_more", "twice", "four"))
        ),
    ],
    tables={task: table_of(task) for task in TASKS},
    figures={"exact": draw},
)
