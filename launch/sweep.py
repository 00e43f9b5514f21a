"""Trains and evaluates a grid of categories, cases and seeds, each cell once.

    python -m launch.sweep --config=configs/ablation.py --data_dir=D --weights_dir=W \\
        --categories=screw,leather --seeds=0,1,2 --workdir=runs/ablation

The same command resumes a killed sweep; launch.report then writes its tables. Cells without weights
or data are reported as missing. A failure does not stop the other cells; the exit code is 1.
"""

import functools
import sys

from absl import flags

from pfm_jax import datasets
from pfm_jax.config import SweepConfig
from pfm_jax.runs import record
from pfm_jax.runs.run import resolved
from pfm_jax.sweeps import engines, results
from pfm_jax.sweeps.jobs import fail, run_job, unfinished
from pfm_jax.sweeps.plan import Job, jobs, make_plan, tells_what_is_done
from pfm_jax.system import mirror
from pfm_jax.types import Sources

from .common import cli, paths, recipe, values

CONFIG = recipe.define("Sweep, by name or path.")
DATA_DIR = paths.define("data_dir", None, "Folder of the categories, or an archive.")
WEIGHTS_DIR = paths.define("weights_dir", None, "Folder of pretrained weights.")
CATEGORIES = flags.DEFINE_list("categories", ["all"], "Categories, or 'all'.")
CASES = flags.DEFINE_list("cases", [], "Subset of the sweep's cases; all by default.")
SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of each case.")
WORKDIR = paths.define("workdir", None, "Folder of the sweep, or its URL.", required=True)
ENGINE = flags.DEFINE_enum("engine", "local", ["local", "ray"], "Engine that runs the jobs.")
JOB = flags.DEFINE_string("job", None, "Job RUN/CATEGORY to run in this process.")


def command(job: Job) -> list[str]:
    return [*cli.command("sweep"), *sys.argv[1:], f"--job={job.name}"]


def main() -> None:
    config, seeds = recipe.value(CONFIG, SweepConfig), values.whole_numbers(SEEDS)
    sources, data = resolved(Sources(DATA_DIR.value, WEIGHTS_DIR.value)), config.base.data.dataset
    of = functools.partial(datasets.categories, data, sources.data_path)
    plan = make_plan(config, [c for n in CATEGORIES.value for c in of(n)], seeds, CASES.value)
    todo = [job for job in jobs(plan) if JOB.value in (None, job.name)]
    work = functools.partial(run_job, plan, sources=sources, workdir=mirror.absolute(WORKDIR.value))
    if JOB.value:
        engines.end_with_parent()
        work(*todo)
        return
    with mirror.local_folder(WORKDIR.value, mirror.nothing) as workdir:
        record.write_json(workdir / "sweep.json", plan.to_json())
    outcomes = engines.ray(todo, work) if ENGINE.value == "ray" else engines.local(todo, command)
    with mirror.local_folder(WORKDIR.value, tells_what_is_done) as workdir:
        for job, reason in zip(todo, outcomes, strict=True):
            if reason:
                fail(plan, job.category, unfinished(plan, job, workdir), workdir, reason)
        cells = results.cells(plan, workdir)
    print(results.summary(cells))
    sys.exit(1 if results.failures(cells) else 0)


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
