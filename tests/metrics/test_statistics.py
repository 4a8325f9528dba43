"""Statistics of parts, and the figures that are computed from them."""

import operator
from functools import reduce

import pytest
import torch

from lcm_distill.core.errors import UserError
from lcm_distill.metrics.feature_sample import Sample
from lcm_distill.metrics.frechet import Gaussian, Moments
from lcm_distill.metrics.interface import Extractor
from lcm_distill.metrics.metric_definitions import CLIP_SCORE, FID, KID
from lcm_distill.metrics.preprocessing import unchanged
from lcm_distill.metrics.protocol import MetricProtocol, Weights, measure
from lcm_distill.metrics.statistics import MeanScore, Statistics

PARTS = (5, 1, 40, 3, 100, 17, 34)


def features(count, dim=6, seed=0):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def of_parts(x, scores, order, limit, add):
    ends = torch.tensor(PARTS).cumsum(0).tolist()
    spans = [range(end - length, end) for end, length in zip(ends, PARTS, strict=True)]
    parts = [Statistics.of(x[list(spans[i])], spans[i], limit, scores[spans[i].start : spans[i].stop]) for i in order]
    return reduce(add, parts)


@pytest.mark.parametrize("add", [operator.add, operator.iadd])
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5, 6), (6, 2, 4, 0, 5, 1, 3)])
def test_seven_uneven_parts_equal_one_pass(order, add):
    x, scores = features(200), features(200, 1, seed=1)[:, 0].tolist()
    whole, merged = Statistics.of(x, range(200), 50, scores), of_parts(x, scores, order, 50, add)
    assert isinstance(merged.moments, Moments) and merged.moments.count == 200
    assert torch.allclose(merged.moments.mean(), whole.moments.mean(), rtol=1e-10)
    assert torch.allclose(merged.moments.covariance(), whole.moments.covariance(), rtol=1e-10)
    assert merged.features is not None and whole.features is not None
    assert torch.equal(merged.features, whole.features)
    assert merged.sample is not None and whole.sample is not None
    assert torch.equal(merged.sample.ids.sort().values, whole.sample.ids)
    assert merged.caption_scores is not None and whole.caption_scores is not None
    assert merged.caption_scores.mean() == pytest.approx(whole.caption_scores.mean(), rel=1e-10)


def test_a_sample_is_spread_over_all_images():
    sample = Sample.of(features(2000), range(2000), 500)
    assert len(sample.ids.unique()) == 500
    assert abs(float(sample.ids.float().mean()) - 999.5) < 4 * 2000 / (12 * 500) ** 0.5
    assert Sample.of(features(20), range(20), 500).ids.tolist() == list(range(20))


def test_mean_of_scores():
    total = MeanScore.of([1.0, 0.0, 0.5]) + MeanScore.of([0.5])
    assert (total.count, total.total, total.mean()) == (4, 2.0, 0.5)


def test_mean_and_covariance_alone_cannot_be_added_to():
    alone = Statistics(Gaussian(torch.zeros(6), torch.eye(6)))
    with pytest.raises(TypeError, match="number of images"):
        _ = alone + Statistics.of(features(4), range(4), 9)


def load_nothing(weights: Weights, device: torch.device) -> Extractor:
    raise NotImplementedError  # figures are computed from features


def protocol(*figures, **traits):
    return MetricProtocol("test", None, unchanged, load_nothing, figures, **traits)


def test_figures_are_those_that_the_reference_suffices_for():
    generated = Statistics.of(features(60), range(60), 99, [0.25] * 60)
    full = Statistics.of(features(60, seed=2), range(60), 99)
    alone = Statistics(Gaussian(full.moments.mean(), full.moments.covariance()))
    both = protocol(FID, KID, CLIP_SCORE)
    assert set(measure(both, generated, full)) == {"fid", "kid", "clip_score"}
    assert set(measure(both, generated, alone)) == {"fid", "clip_score"}
    assert measure(both, generated, None) == {"clip_score": 0.25}
    assert measure(both, generated, alone)["fid"] == pytest.approx(measure(both, generated, full)["fid"], rel=1e-9)


def test_too_few_images_are_refused_unless_the_protocol_allows_them():
    few = Statistics.of(features(6), range(6), 99)
    with pytest.raises(UserError, match="6 images are too few for a Fréchet distance of 6 features"):
        measure(protocol(FID), few, few)
    assert measure(protocol(FID, allows_few=True), few, few)["fid"] == pytest.approx(0, abs=1e-9)
