"""Plans of sweeps: few runs for many cases; the paper's ablation."""

from __future__ import annotations

import dataclasses

import pytest

from configs import ablation, sensitivity
from pfm_jax.config import Config
from pfm_jax.sweeps.plan import Case, Job, Plan, jobs, make_plan, replaced
from pfm_jax.sweeps.report import published
from pfm_jax.types import LEVELS, InputError
from tests.small_sweep import small_sweep
from tests.synthetic import small_config

LATENT = dict.fromkeys(LEVELS, 8)


def test_cases_that_differ_in_levels_are_one_run() -> None:
    plan = make_plan(small_sweep(), ("grid",), (0,))
    assert set(plan.configs) == {"pfm", "whole", "random", "unknown"}
    assert plan.cases["deep"] == Case("whole", ("conv4_x",))
    assert plan.cases["pfm"] == Case("pfm", ("conv4_x",))
    assert plan.combinations("whole") == (("conv2_x", "conv4_x"),)
    assert plan.configs["whole"].mapping.latent == LATENT
    assert jobs(plan) == [
        Job("grid", ("pfm", "whole")),
        Job("grid", ("random",)),
        Job("grid", ("unknown",)),
    ]
    assert Plan.from_json(plan.to_json()) == plan
    other_c = dataclasses.replace(
        small_sweep(), cases={"a": {}, "b": {"mapping.latent": {"conv4_x": 9}}}
    )
    assert set(make_plan(other_c, ("grid",), (0,)).configs) == {"a", "b"}


def test_cases_with_a_memory_are_trained_each() -> None:
    """It is of the stages of all their levels."""
    base = replaced(small_config(), {"scoring.memory": True})
    sweep = dataclasses.replace(small_sweep(), base=base)
    assert make_plan(sweep, ("grid",), (0,), ["deep", "whole"]).configs.keys() == {"deep", "whole"}


def test_the_ablation_is_table_7() -> None:
    plan = make_plan(ablation.get_config(), ("screw",), (0,))
    assert [f"case_{n}" for n in published.ABLATION] == [c for c in plan.cases if "case" in c]
    both, depths = ("forward", "backward"), {1: 3, 2: 3, 3: 2, 4: 1}
    for name, case in plan.cases.items():
        number = int(name.rsplit("_", 1)[1])
        config = plan.configs[case.run]
        assert config.mapping.directions == (both[:1] if number == 1 else both)
        assert config.networks.pretrained == (number != 9)
        if number in depths:
            assert case.levels == (f"conv{depths[number] + 1}_x",)
        elif number not in (5, 6, 7):
            assert case.levels == LEVELS
    assert plan.cases["case_10"] == plan.cases["r18_r50_8"], "the same case is one run"
    networks = plan.configs[plan.cases["case_12"].run].networks
    assert (networks.source, networks.target) == ("vgg16_bn", "vgg19_bn")
    assert len(plan.configs) == 8
    assert make_plan(sensitivity.get_config(), ("screw",), (0,)).configs.keys() == {
        *("default", "half_c", "double_c", "plain_prediction", "no_memory"),
        *("paper_scoring", "paper_schedule"),
    }


def test_unknown_cases_and_fields_are_input_errors() -> None:
    with pytest.raises(InputError, match=r"cases: unknown nine; choose from pfm"):
        make_plan(small_sweep(), ("grid",), (0,), ["nine"])
    with pytest.raises(InputError, match=r"config\.train\.stepz"):
        replaced(Config(), {"train.stepz": 3})
