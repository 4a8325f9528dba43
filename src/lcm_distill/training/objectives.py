"""The objective that a configuration chooses."""

from lcm_distill.config import Config
from lcm_distill.diffusion.noise import karras_sigmas
from lcm_distill.diffusion.objectives.discrete import Discrete
from lcm_distill.diffusion.objectives.interface import Objective
from lcm_distill.diffusion.objectives.pairs import PairLoss, l2, pseudo_huber
from lcm_distill.diffusion.objectives.phased import Phased
from lcm_distill.diffusion.objectives.scm import ContinuousTime
from lcm_distill.diffusion.objectives.tuning import Tuning
from lcm_distill.diffusion.samplers import SOLVERS


def build_objective(config: Config) -> Objective:
    """What `distill.objective` names, with the settings of its table."""
    settings, levels = config.distill, config.diffusion
    pair_loss = PairLoss(SOLVERS[settings.solver], l2 if settings.distance == "l2" else pseudo_huber(settings.huber))
    match settings.objective:
        case "tuning":
            own = settings.tuning
            return Tuning(
                pair_loss,
                own.gap_ratio,
                own.halvings,
                own.widening,
                own.weighting == "inverse_gap",
                levels.sigma_min,
                own.snap_below,
            )
        case "discrete":
            schedule = karras_sigmas(settings.discrete.points, levels.sigma_min, levels.sigma_max, levels.rho)
            return Discrete(pair_loss, schedule[:-1].flip(0), settings.discrete.skip)
        case "scm":
            return ContinuousTime(levels.sigma_data, levels.sigma_min, settings.scm.normalisation, settings.scm.warmup)
        case "phased":
            edges = (levels.sigma_min, *reversed(settings.phased.edges))
            return Phased(pair_loss, settings.phased.gap_ratio, edges)
