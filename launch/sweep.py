"""A grid of categories, cases and seeds, each cell done once.

    python -m launch.sweep --config=configs/ablation.py --data_dir=D --weights_dir=W \\
        --categories=screw,leather --seeds=0,1,2 --workdir=runs/ablation

A sweep that was killed goes on when the same command is given again. Cells whose weights or data
are not there are reported as missing; one that fails is reported and does not stop the others, and
the exit code is 1. Then: python -m launch.report --workdir=runs/ablation
"""

import functools
import json
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from launch import cli, values
from pfm_jax import datasets, engines, files, results, sweep
from pfm_jax.config import SweepConfig
from pfm_jax.plan import Job, jobs, make_plan
from pfm_jax.run import Sources

CONFIG = config_flags.DEFINE_config_file("config", help_string="The sweep, a file of configs/.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "The folder of the categories, or an archive.")
WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "A folder of pretrained weights.")
CATEGORIES = flags.DEFINE_list("categories", ["all"], "Some, or 'all'.")
CASES = flags.DEFINE_list("cases", [], "Some of the sweep's; all of them without this flag.")
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "The seeds of each case.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the sweep is kept.", required=True)
ENGINE = flags.DEFINE_enum("engine", "local", ["local", "ray"], "Who does the jobs.")
JOB = flags.DEFINE_string("job", None, "One job, RUN/CATEGORY, in this process.")
flags.mark_flag_as_required("config")


def command(job: Job) -> list[str]:
    """Of a process that does a job of this sweep."""
    return [sys.executable, "-m", "launch.sweep", *sys.argv[1:], f"--job={job.name}"]


def main() -> None:
    config, workdir = values.recipe(CONFIG, SweepConfig), Path(WORKDIR.value).absolute()
    sources, data = Sources(DATA_DIR.value, WEIGHTS_DIR.value).resolved(), config.base.data.dataset
    seeds = values.whole_numbers(SEEDS)
    categories = [
        found
        for name in CATEGORIES.value
        for found in datasets.categories(data, sources.data_path, name, files.cache_dir())
    ]
    plan = make_plan(config, categories, seeds, CASES.value)
    todo = [job for job in jobs(plan) if JOB.value in (None, job.name)]
    work = functools.partial(sweep.run_job, plan, sources=sources, workdir=workdir)
    if JOB.value:
        engines.end_with_parent()
        for job in todo:
            work(job)
        return
    files.write(workdir / "sweep.json", (json.dumps(plan.to_json(), indent=2) + "\n").encode())
    outcomes = engines.ray(todo, work) if ENGINE.value == "ray" else engines.local(todo, command)
    for job, reason in zip(todo, outcomes, strict=True):
        if reason:
            sweep.fail(plan, job, workdir, reason)
    cells = results.cells(plan, workdir)
    print(results.summary(cells))
    sys.exit(1 if results.failures(cells) else 0)


if __name__ == "__main__":
    cli.run(main)
