"""The chain that ships is sound, and a file that is not says why in one line."""

import pytest

from lcm_distill.config import load_preset
from lcm_distill.config.ablation import SECTIONS, load_ablation, parse_ablation
from lcm_distill.core.errors import UserError
from lcm_distill.stages.ablate import changes, step_config

ORIGINAL = """
settings = ["evaluate.models=['teacher', 'student']", "evaluate.teacher=[['heun', 18]]"]

[[step]]
name = "original"
why = "The start."
preset = "original"
"""
DEFAULT = """
[[step]]
name = "default"
why = "All at once."
set = ["distill.guidance_embedder=zero", "distill.guidance_range=[1.0, 3.0]", "distill.learning_rate=2e-4",
       "distill.warmup_steps=20", "distill.distance=huber", "distill.sigma_distribution=lognormal",
       "distill.objective=tuning", "distill.tuning.gap_ratio=0.5", "distill.tuning.halvings=1",
       "distill.solver=dpmpp_2s", "distill.matching.shared_noise=true", "distill.publish=average",
       "distill.matching.weight=1", "distill.adversarial.weight=0.1",
       "evaluate.student_steps=[1, 2, 4]", "evaluate.student_sigmas.2=[80.0, 3.0]",
       "evaluate.student_sigmas.4=[80.0, 8.0, 2.0, 0.5]", "evaluate.student_sigmas.5=[80.0, 8.0, 3.0, 1.2, 0.5]"]
"""


def step(name: str, *lines: str) -> str:
    return "\n".join(["[[step]]", f"name = '{name}'", "why = 'Because.'", *lines, ""])


def test_the_chain_leads_from_the_original_to_the_default():
    steps = load_ablation("shapes").steps
    chain = [step for step in steps if step.in_chain]
    config = load_preset("shapes", load_ablation("shapes").settings)
    original = load_preset("original", load_ablation("shapes").settings)
    assert (chain[0].name, chain[-1].name) == ("original", "default")
    assert step_config(config, chain[0], 0).differences(original, SECTIONS) == ["distill.seed = 0, not None"]
    assert step_config(config, chain[-1], 0).differences(config, SECTIONS) == ["distill.seed = 0, not None"]


def test_a_step_changes_one_key_or_one_group():
    config = load_preset("shapes", load_ablation("shapes").settings)
    groups = {
        "warm-up": {"distill.learning_rate", "distill.warmup_steps"},
        "schedule": {f"evaluate.student_sigmas.{steps}" for steps in (2, 4, 5)},
        "wide-pairs": {"distill.tuning.gap_ratio", "distill.solver", "evaluate.student_sigmas.2"},
        "default": {"distill.tuning.halvings", "distill.solver", "distill.matching.shared_noise"},
        "phased": {"distill.objective", "evaluate.student_steps"},
    }
    for step in load_ablation("shapes").steps[1:]:
        keys = {change.split(" = ")[0] for change in changes(config, step)}
        assert keys == groups.get(step.name, keys) and (len(keys) == 1 or step.name in groups)


def test_settings_of_the_user_reach_every_step_that_does_not_change_them():
    config = load_preset("shapes", [*load_ablation("shapes").settings, "distill.steps=7", "distill.learning_rate=1e-3"])
    rates = {step.name: step_config(config, step, 3).distill.learning_rate for step in load_ablation("shapes").steps}
    assert (rates["original"], rates["huber"], rates["default"], rates["scm"]) == (8e-5, 1e-3, 1e-3, 1e-3)
    assert {step_config(config, step, 3).distill.steps for step in load_ablation("shapes").steps} == {7}
    assert {step_config(config, step, 3).distill_seed for step in load_ablation("shapes").steps} == {3}


def test_branches_start_from_their_base_and_the_chain_goes_on_without_them():
    branch = step("slow", "base = 'original'", "set = ['distill.learning_rate=1e-6']")
    original, slow, default = parse_ablation(ORIGINAL + branch + DEFAULT, "shapes").steps
    assert slow.base == default.base == original and not slow.in_chain
    config = load_preset("shapes")
    assert changes(config, slow) == ["distill.learning_rate = 1e-06, not 8e-05"]
    assert step_config(config, default, 0).distill.learning_rate == config.distill.learning_rate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ORIGINAL + step("lr", "set = ['distill.learning_rat=1']") + DEFAULT,
            "ablation of shapes, step lr: unknown key distill.learning_rat: did you mean learning_rate?",
        ),
        (
            ORIGINAL + DEFAULT.replace("distance=huber", "distance=l2"),
            "ablation of shapes: step default still differs from preset shapes: distill.distance = 'l2', not 'huber'",
        ),
        (ORIGINAL + DEFAULT + step("more"), "the chain ends in step 'more', not in 'default'"),
        (DEFAULT, "the first step, and no other, has a preset: see step 'default'"),
        (ORIGINAL + step("two", "preset = 'shapes'") + DEFAULT, "has a preset: see step 'two'"),
        (ORIGINAL + step("original") + DEFAULT, "two steps are called 'original'"),
        (ORIGINAL + DEFAULT + step("x", "base = 'later'"), "step 'x' has base 'later', which is no earlier step"),
        (
            ORIGINAL + DEFAULT + step("x", "base = 'default'", "set = ['data.images=5']"),
            "step x changes data.images: steps share all but distill and evaluate.student_*",
        ),
        (ORIGINAL + DEFAULT + step("x", "base = 'default'", "set = ['evaluate.images=5']"), "changes evaluate.images"),
        (ORIGINAL + DEFAULT + step("x", "base = 'default'", "set = ['distill.seed=5']"), "changes distill.seed"),
        (ORIGINAL + DEFAULT + step("x y", "base = 'default'"), "step.2.name = 'x y'"),
        (ORIGINAL + DEFAULT + step("x", "bsae = 'default'"), "unknown key step.2.bsae"),
        ("step = []", "ablation of shapes: step = []"),
        ("step = = 1", "ablation of shapes is not TOML"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text, message):
    with pytest.raises(UserError) as caught:
        parse_ablation(text, "shapes")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_steps_and_presets():
    with pytest.raises(UserError, match="the ablation has no step 'nothing': choose from original, zero-embedder"):
        load_ablation("shapes").select(["nothing"])
    with pytest.raises(UserError, match="no ablation ships for preset 'original': choose shapes"):
        load_ablation("original")
