"""The default strategy: its model against a dense one, its gain against Monte Carlo, its finds against brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import optuna
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from dovetail.errors import ConfigError
from dovetail.objective import Constraint, Objective
from dovetail.search.front import free_boxes, hypervolume, non_dominated
from dovetail.search.problem import Problem
from dovetail.search.strategies.acquisition import (
    expected_excess,
    expected_hypervolume_improvement,
    improvement_bound,
)
from dovetail.search.strategies.distances import decision_gaps
from dovetail.search.strategies.gain import HypervolumeGain
from dovetail.search.strategies.gaussian_process import (
    BEND_DEVIATION,
    EXPONENT_PRIOR,
    LENGTH_PRIOR,
    NOISE_FLOOR,
    NOISE_PRIOR,
    Hyperparameters,
    Posterior,
    _loss,
)
from dovetail.search.strategies.optuna_sampler import ParetoSampler
from dovetail.search.strategies.pareto import ParetoStrategy
from dovetail.search.strategies.quality_model import QualityModel
from dovetail.search.strategies.warp import IDENTITY, Warp
from dovetail.testing.strategies import drive, sample_problem, score

DRAWS = 400


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def test_a_suggestion_is_computed_on_one_thread_whatever_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[int]] = []

    def watched(model: QualityModel) -> None:
        seen.append(blas_threads())
        fit(model)

    problem, fit = sample_problem((4, 3, 5)), QualityModel.fit
    monkeypatch.setattr(QualityModel, "fit", watched)
    with threadpool_limits(2, user_api="blas"):
        drive(ParetoStrategy(problem), score(problem), 8)
        assert blas_threads() == {2}
    assert seen
    assert all(threads == {1} for threads in seen)


@pytest.fixture
def observed():
    problem = sample_problem((4, 3, 5))
    rows = problem.space.rows()
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(rows))[:14]
    y = np.array([score(problem)(tuple(row))[0] for row in rows[chosen].tolist()])
    bends = (0.5, -1.0, 0.0, 2.0, 0.3, 0.0, -0.7, 0.2, 1.0)  # 3 + 2 + 4 gaps
    hyper = Hyperparameters(lengths=(0.7, 1.5, 3.0), bends=bends, exponent=1.3, noise=1e-3)
    return decision_gaps(problem.space.decisions), hyper, rows, chosen, y


def dense_posterior(gaps, hyper, rows, chosen, y):
    """Textbook formulas with explicit inverses: mean, deviation at all rows."""

    def kernel(a, b):
        bends = iter(hyper.bends)
        apart = np.zeros((len(a), len(b)))
        for d, gap_GCC in enumerate(gaps):
            far = sum(gap_CC[a[:, d][:, None], b[:, d][None]] * np.exp(next(bends)) for gap_CC in gap_GCC)
            apart += (far / hyper.lengths[d]) ** hyper.exponent
        return np.exp(-apart)

    inverse = np.linalg.inv(kernel(rows[chosen], rows[chosen]) + (hyper.noise + NOISE_FLOOR) * np.eye(len(chosen)))
    mean = inverse.sum(axis=0) @ y / inverse.sum()
    variance = (y - mean) @ inverse @ (y - mean) / len(y)
    cross = kernel(rows, rows[chosen])
    left = 1 - np.einsum("pn,nm,pm->p", cross, inverse, cross)
    return mean + cross @ inverse @ (y - mean), np.sqrt(np.maximum(left, 1e-8) * variance)


def test_the_posterior_equals_the_textbook_formulas(observed):
    gaps, hyper, rows, chosen, y = observed
    posterior = Posterior(gaps, hyper, rows[chosen], y, rows)
    mean, deviation = dense_posterior(gaps, hyper, rows, chosen, y)
    for found in (posterior.pool(), posterior.at(rows)):
        np.testing.assert_allclose(found[0], mean, atol=1e-4)
        np.testing.assert_allclose(found[1], deviation, atol=2e-4)


def test_adding_one_by_one_equals_starting_with_all(observed):
    gaps, hyper, rows, chosen, y = observed
    grown = Posterior(gaps, hyper, rows[chosen[:5]], y[:5], rows)
    for i in range(5, len(chosen)):
        grown.add(rows[chosen[i]], float(y[i]))
    whole = Posterior(gaps, hyper, rows[chosen], y, rows)
    # the profiled mean and variance stay those of the last fit: with them equal, only the update is compared
    shrunk, expected = (p.pool()[1] / np.sqrt(p.variance) for p in (grown, whole))
    np.testing.assert_allclose(shrunk, expected, atol=1e-3)
    np.testing.assert_allclose(grown.at(rows)[0], grown.pool()[0], atol=1e-4)


def test_believing_a_row_moves_no_mean_and_can_be_forgotten(observed):
    gaps, hyper, rows, chosen, y = observed
    posterior = Posterior(gaps, hyper, rows[chosen], y, rows)
    before, state = posterior.pool(), posterior.state()
    posterior.add(rows[-1], None)
    np.testing.assert_array_equal(posterior.pool()[0], before[0])
    assert posterior.pool()[1][-1] < 0.2 * before[1][-1]
    posterior.restore(state)
    np.testing.assert_array_equal(posterior.pool()[1], before[1])


def test_everywhere_the_mean_is_that_of_the_rows_and_the_deviation_no_smaller(observed):
    gaps, hyper, rows, chosen, y = observed
    posterior = Posterior(gaps, hyper, rows[chosen], y, rows[:1])
    mean, bound = posterior.everywhere()
    exact, deviation = posterior.at(rows)  # rows in the order of enumeration
    np.testing.assert_allclose(mean, exact, atol=1e-4)
    assert (bound >= deviation - 1e-5).all()
    assert (bound < np.sqrt(posterior.variance) - 1e-3).mean() > 0.9
    alone = Posterior(gaps, hyper, rows[chosen[:1]], y[:1] + 1.0, rows[:1])  # of one observation the bound is exact
    np.testing.assert_allclose(alone.everywhere()[1], alone.at(rows)[1], atol=1e-9)


@pytest.mark.parametrize("decisions", [1, 2, 3])
def test_the_gradient_of_the_likelihood_is_its_slope(observed, decisions):
    gaps, hyper, rows, chosen, y = observed
    gaps, near = gaps[:decisions], rows[chosen]
    apart = [g[:, near[:, d][:, None], near[:, d][None]] for d, g in enumerate(gaps)]
    lengths, bends = np.log(hyper.lengths[:decisions]), hyper.bends[: sum(map(len, gaps))]
    theta = np.concatenate([lengths, bends, [hyper.exponent, np.log(hyper.noise)]])
    y = (y - y.mean()) / y.std()
    _, gradient = _loss(theta, apart, y)
    for i, step in enumerate(1e-5 * np.eye(len(theta))):
        slope = (_loss(theta + step, apart, y)[0] - _loss(theta - step, apart, y)[0]) / 2e-5
        assert gradient[i] == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_the_likelihood_is_that_of_the_kernel_that_the_posterior_uses(observed):
    gaps, hyper, rows, chosen, y = observed
    near, count = rows[chosen], len(chosen)
    posterior = Posterior(gaps, hyper, near, y, rows)
    covariance = posterior.kernel(near, near) + (hyper.noise + NOISE_FLOOR) * np.eye(count)
    apart = [g[:, near[:, d][:, None], near[:, d][None]] for d, g in enumerate(gaps)]
    theta = np.concatenate([np.log(hyper.lengths), hyper.bends, [hyper.exponent, np.log(hyper.noise)]])
    found, _ = _loss(theta, apart, y)
    likelihood = 0.5 * count * np.log(posterior.variance) + 0.5 * np.linalg.slogdet(covariance)[1]
    centre = np.repeat([LENGTH_PRIOR[0], 0, EXPONENT_PRIOR[0], NOISE_PRIOR[0]], [3, 9, 1, 1])
    deviation = np.repeat([LENGTH_PRIOR[1], BEND_DEVIATION, EXPONENT_PRIOR[1], NOISE_PRIOR[1]], [3, 9, 1, 1])
    assert found == pytest.approx(likelihood + 0.5 * float((((theta - centre) / deviation) ** 2).sum()), rel=1e-9)


def test_distances_grow_with_size_from_zero_to_one():
    for gaps in decision_gaps(sample_problem((4, 3, 5)).space.decisions):
        table = gaps.sum(axis=0)
        assert (np.diff(table[0]) > 0).all()
        assert table[0, 0] == 0
        assert table[0, -1] == pytest.approx(1)


def test_gaps_lie_between_the_choices_on_their_two_sides_and_sum_to_the_distance():
    gaps = decision_gaps(sample_problem((4, 3, 5)).space.decisions)
    assert [len(g) for g in gaps] == [3, 2, 4]
    assert (gaps[0][1] > 0).tolist() == [[False, False, True, True]] * 2 + [[True, True, False, False]] * 2
    assert gaps[2].sum(axis=0)[0, -1] == pytest.approx(1)


def test_choices_of_one_size_are_apart_and_repeats_are_not():
    problem = sample_problem((4, 3), repeated=True)
    first = decision_gaps(problem.space.decisions)[0].sum(axis=0)
    assert first[0, 3] == 0
    assert (first[0, 1:3] > 0).all()


def test_where_noise_is_known_choices_stand_where_it_puts_them():
    decisions = sample_problem((4, 3, 5)).space.decisions
    known, unknown, width = decision_gaps(decisions, [(0.5, 0.1, 0.1, 0.0), None, None])
    table = known.sum(axis=0)
    assert len(known) == 2
    assert table[1, 2] == 0
    assert table[0, 3] == pytest.approx(1)
    assert table[1, 3] == pytest.approx(0.9 * 0.2 + 0.1 * 0.5)
    assert (unknown == decision_gaps(decisions)[1]).all()
    assert (width == decision_gaps(decisions)[2]).all()


def test_choices_that_lose_nothing_are_not_apart():
    decisions = sample_problem((4, 3, 5)).space.decisions
    assert decision_gaps(decisions, [(0.0,) * 4, None, None])[0].shape == (0, 4, 4)
    problem = replace(sample_problem((4, 3, 5)), rounding_noise=lambda: [(0.0,) * 4, (0.2, 0.1, 0.1), None])
    told = drive(ParetoStrategy(problem), score(problem), 60)
    assert len(set(told)) == 60


def test_known_noise_saves_evaluations_where_it_says_what_matters():
    """The first decision loses all below its last choice, which bits do not tell."""
    problem = sample_problem((6, 6, 3))
    noise = [(0.9, 0.9, 0.9, 0.9, 0.9, 0.0), (0.9, 0.0, 0.0, 0.0, 0.0, 0.0), None]

    def quality(row):
        return 1 - 0.5 * noise[0][row[0]] - 0.3 * noise[1][row[1]] + 0.01 * row[2]

    needed = {}
    for told in (False, True):
        its = replace(problem, rounding_noise=lambda: noise) if told else problem
        best = max(map(quality, map(tuple, its.space.rows().tolist())))
        strategy, needed[told] = ParetoStrategy(its), 0
        while True:
            (row,) = strategy.ask(1)
            needed[told] += 1
            strategy.tell(row, (quality(row), float(its.costs(np.array([row]))[0, 0])))
            if quality(row) == best and row[1] == 1:
                break
    assert needed[True] < needed[False]


def test_expected_excess_is_the_mean_of_what_is_above():
    draws = np.random.default_rng(0).normal(0.3, 0.5, 400_000)
    for level in (-1.0, 0.2, 1.5):
        found = float(expected_excess(np.array(0.3), np.array(0.5), np.array(level)))
        assert found == pytest.approx(np.maximum(draws - level, 0).mean(), rel=0.02)


@pytest.mark.parametrize(("qualities", "costs"), [(1, 1), (1, 2), (2, 1), (1, 0), (2, 0)])
def test_expected_improvement_equals_monte_carlo_over_the_hypervolume(qualities, costs):
    rng = np.random.default_rng(qualities * 10 + costs)
    figures = qualities + costs
    front, reference = rng.uniform(0, 1, (8, figures)), np.full(figures, -0.1)
    front = front[non_dominated(front)]
    mean, deviation = rng.uniform(0.2, 1, (3, qualities)), rng.uniform(0.05, 0.3, (3, qualities))
    known = rng.uniform(0, 1, (3, costs))
    found = expected_hypervolume_improvement(mean, deviation, known, *free_boxes(front, reference))
    base = hypervolume(front, reference)
    for i in range(3):
        draws = np.hstack([rng.normal(mean[i], deviation[i], (DRAWS, qualities)), np.tile(known[i], (DRAWS, 1))])
        gains = [hypervolume(np.vstack([front, z]), reference) - base for z in draws]
        assert found[i] == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(DRAWS) + 1e-4)


@pytest.mark.parametrize(("qualities", "costs"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (2, 0)])
def test_no_gain_is_larger_than_its_bound_and_pruning_keeps_the_largest(qualities, costs):
    rng, figures = np.random.default_rng(0), qualities + costs
    front, reference = rng.uniform(0, 1, (20, figures)), np.repeat([-0.1, -0.01], [qualities, costs])
    front = front[non_dominated(front)]
    mean, deviation = rng.normal(0.4, 0.3, (3000, qualities)), rng.uniform(0.01, 0.2, (3000, qualities))
    known = rng.uniform(0, 1, (3000, costs))
    exact = expected_hypervolume_improvement(mean, deviation, known, *free_boxes(front, reference))
    gain = HypervolumeGain(front=front, reference=reference)
    for wider in (1.0, 1.5):
        bound = gain.bound(mean, wider * deviation, known)
        assert (exact <= bound * (1 + 1e-9) + 1e-12).all()
    pruned = gain.of(mean, deviation, known)
    assert pruned.argmax() == exact.argmax()
    assert pruned.max() == exact.max()


def test_bounds_of_several_qualities_tell_what_may_gain_from_what_may_not():
    """Of candidates between the reference and the front's best, few are within reach of the largest gain."""
    rng, figures = np.random.default_rng(1), 3
    front, reference = rng.uniform(0.3, 1, (60, figures)), np.full(figures, -0.05)
    front = front[non_dominated(front)]
    mean, deviation = rng.uniform(0, 1, (20_000, 2)), rng.uniform(0.005, 0.03, (20_000, 2))
    known = rng.uniform(0, 1, (20_000, 1))
    gain = HypervolumeGain(front=front, reference=reference)
    assert (gain.bound(mean, deviation, known) > gain.of(mean, deviation, known).max()).mean() < 0.2


@pytest.mark.parametrize("seen", [np.linspace(0, 1, 9), np.linspace(0, 9, 40) ** 3, -np.geomspace(0.01, 5, 30)])
def test_no_gain_through_a_warp_is_larger_than_its_bound_and_pruning_keeps_the_largest(seen):
    rng, warp = np.random.default_rng(1), Warp.of(seen)
    low, high = warp.places[0], warp.places[-1]
    front = np.column_stack([rng.uniform(low, high, 20), rng.uniform(0, 1, 20)])
    front, reference = front[non_dominated(front)], np.array([low - 0.1, -0.01])
    span = high - low
    mean, deviation = rng.normal(low + 0.4 * span, 0.3 * span, (3000, 1)), span * rng.uniform(0.01, 0.2, (3000, 1))
    known = rng.uniform(0, 1, (3000, 1))
    lower, upper, weight = warp.split(*free_boxes(front, reference))
    exact = expected_hypervolume_improvement(mean, deviation, known, lower, upper, weight)
    bound = improvement_bound(mean, deviation, known, front, reference, warp)
    assert (exact <= bound * (1 + 1e-9) + 1e-15).all()
    pruned = HypervolumeGain(front=front, reference=reference, warp=warp).of(mean, deviation, known)
    assert pruned.argmax() == exact.argmax()
    assert pruned.max() == exact.max()


def test_a_warp_is_increasing_meets_its_knots_and_goes_on_beyond_them():
    warp = Warp.of(np.array([1.0, 1.0, 2.0, 9.0]))  # ranks 0, 1/2, 1; shares 0, 1/8, 1
    np.testing.assert_allclose(warp.places, [0, 0.3125, 1])
    np.testing.assert_allclose(warp(np.array([1.0, 1.5, 2.0, 5.5, 9.0])), [0, 0.15625, 0.3125, 0.65625, 1])
    np.testing.assert_allclose(warp(np.array([0.0, 16.0])), [-0.3125, 1.6875])
    assert Warp.of(np.full(3, 0.5)) == IDENTITY


def test_shares_are_warped_to_their_log_odds():
    warp = Warp.of(np.array([0.0, 0.3, 1.0]))
    share = np.linspace(0.02, 0.98, 97)
    np.testing.assert_allclose(warp(share), np.log((share + 0.005) / (1 - share + 0.005)), atol=0.06)
    np.testing.assert_allclose(warp(share) + warp(1 - share), 0, atol=1e-9)
    np.testing.assert_allclose(warp(np.array(warp.values)), warp.places, atol=1e-12)
    assert (warp.slopes > 0).all()


def test_the_steepest_slope_above_a_place_is_that_of_the_pieces_from_there_on():
    warp = Warp(values=(0.0, 1.0, 4.0, 5.0), places=(0.0, 1.0, 2.0, 3.0))  # slopes 1, 3, 1
    np.testing.assert_array_equal(warp.steepest_above(np.array([-1.0, 0.5, 1.5, 2.5, 9.0])), [3, 3, 3, 1, 1])


def test_expected_improvement_through_a_warp_equals_monte_carlo_over_values():
    rng = np.random.default_rng(5)
    front, reference = rng.uniform(0, 1, (8, 2)), np.array([-0.1, -0.1])
    front = front[non_dominated(front)]
    warp = Warp.of(rng.uniform(0, 1, 30) ** 3)
    mean, deviation, known = np.array([[0.3], [0.8]]), np.array([[0.2], [0.3]]), np.array([[0.5], [0.9]])
    warped_front, warped_reference = front.copy(), reference.copy()
    warped_front[:, 0], warped_reference[0] = warp(front[:, 0]), warp(reference[0])
    found = HypervolumeGain(front=warped_front, reference=warped_reference, warp=warp).of(mean, deviation, known)
    places, base = np.linspace(-2, 3, 20_001), hypervolume(front, reference)
    values = np.interp(places, warp(np.linspace(-9, 9, 90_001)), np.linspace(-9, 9, 90_001))
    for i in range(2):
        draws = np.interp(rng.normal(mean[i, 0], deviation[i, 0], 4 * DRAWS), places, values)
        gains = [hypervolume(np.vstack([front, [y, known[i, 0]]]), reference) - base for y in draws]
        assert found[i] == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(4 * DRAWS) + 1e-3)


def test_the_front_of_a_small_space_is_found_in_a_fraction_of_it():
    problem = sample_problem((5, 5, 5, 5))
    rows = problem.space.rows()
    points = np.array([score(problem)(tuple(row)) for row in rows.tolist()]) * [1, -1]
    worst = points.min(axis=0)
    found = drive(ParetoStrategy(problem), score(problem), 40)
    reached = np.array([score(problem)(row) for row in found]) * [1, -1]
    assert hypervolume(reached, worst) >= 0.98 * hypervolume(points, worst)


@pytest.mark.parametrize("weighted_sum", [False, True])
@pytest.mark.parametrize("limit", [(), (Constraint(metric="bits", op="<=", limit=14, is_cost=True),)])
def test_a_space_swept_at_each_refit_gives_the_plan_of_one_scored_whole(monkeypatch, weighted_sum, limit):
    problem = sample_problem((4, 5, 4, 5), weighted_sum=weighted_sum, constraints=limit)
    evaluate, told = score(problem), np.random.default_rng(1).permutation(problem.space.size)[:30]
    whole, swept = ParetoStrategy(problem), None
    monkeypatch.setattr("dovetail.search.strategies.pool.WHOLE", 1)
    monkeypatch.setattr("dovetail.search.strategies.pareto.SWEPT", 60)
    monkeypatch.setattr("dovetail.search.strategies.pareto.KEPT", 20)
    swept = ParetoStrategy(problem)
    for row in map(problem.space.row_at, told.tolist()):
        for strategy in (whole, swept):
            strategy.tell(row, evaluate(row))
    assert swept.ask(1) == whole.ask(1)


def test_a_space_swept_for_several_qualities_gives_the_plan_of_one_scored_whole(monkeypatch):
    problem = sample_problem((4, 5, 4, 5))
    accuracy, bits = problem.objectives
    problem = replace(problem, objectives=(accuracy, Objective(name="loss", direction="minimize"), bits))
    told = np.random.default_rng(1).permutation(problem.space.size)[:30]
    whole = ParetoStrategy(problem)
    monkeypatch.setattr("dovetail.search.strategies.pool.WHOLE", 1)
    monkeypatch.setattr("dovetail.search.strategies.pareto.SWEPT", 60)
    monkeypatch.setattr("dovetail.search.strategies.pareto.KEPT", 20)
    swept = ParetoStrategy(problem)
    for row in map(problem.space.row_at, told.tolist()):
        values = (row[0] + 0.3 * row[1] - 0.1 * row[2] ** 2, 2.0 ** -row[3] + 0.1 * row[2], float(sum(row)))
        for strategy in (whole, swept):
            strategy.tell(row, values)
    assert swept.ask(1) == whole.ask(1)


def test_a_space_of_a_million_plans_is_searched_whole():
    problem = sample_problem((4,) * 10)
    found = drive(ParetoStrategy(problem), score(problem), 16)
    assert len(set(found)) == 16
    sizes = [np.asarray(d.sizes) for d in problem.space.decisions]
    assert found[0] == tuple(int(s.argmin()) for s in sizes)  # the cheapest of all, not of a sample
    assert found[1] == tuple(int(s.argmax()) for s in sizes)


def test_a_weighted_sum_finds_its_optimum_early():
    problem = sample_problem((5, 5, 5, 5), weighted_sum=True)
    best = max(problem.scalar(score(problem)(tuple(row))) for row in problem.space.rows().tolist())
    found = drive(ParetoStrategy(problem), score(problem), 40)
    assert max(problem.scalar(score(problem)(row)) for row in found) == pytest.approx(best)


def test_the_first_plans_are_the_cheapest_and_the_dearest():
    problem = sample_problem((4, 3, 5))
    assert set(ParetoStrategy(problem).ask(2)) == {(0, 0, 0), (3, 2, 4)}


def test_several_qualities_costs_and_a_limit_on_quality_are_searched_together():
    plain = sample_problem((4, 4, 4))

    def price(rows):
        return {"bits": plain.price(rows)["bits"], "area": rows.sum(axis=1).astype(float)}

    problem = Problem(
        plain.space,
        (
            Objective(name="accuracy", direction="maximize"),
            Objective(name="bits", direction="minimize", is_cost=True),
            Objective(name="loss", direction="minimize"),
            Objective(name="area", direction="minimize", is_cost=True),
        ),
        price,
        (Constraint(metric="accuracy", op=">=", limit=0.5),),
    )

    def evaluate(row):
        accuracy, bits = score(plain)(row)
        return accuracy, bits, (1 - accuracy) ** 2, float(sum(row))

    rows = drive(ParetoStrategy(problem), evaluate, 25, batch=3)
    assert len(set(rows)) == 25
    kept = [row for row in rows[6:] if evaluate(row)[0] >= 0.5]
    assert len(kept) > 12  # most of what the model chooses keeps the limit


def test_costs_alone_need_no_model():
    plain = sample_problem((4, 3, 5))
    problem = Problem(plain.space, (plain.objectives[1],), plain.price)
    rows = drive(ParetoStrategy(problem), lambda row: (float(problem.costs(np.array([row]))[0, 0]),), 10)
    assert rows[0] == (0, 0, 0)
    assert len(set(rows)) == 10


def test_optuna_studies_can_use_it_as_a_sampler():
    problem = sample_problem((4, 3, 5))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=ParetoSampler(problem))

    def objective(trial):
        row = tuple(
            d.labels.index(trial.suggest_categorical(d.name, d.labels))
            if d.kind == "width"
            else trial.suggest_int(d.name, 0, d.num_choices - 1)
            for d in problem.space.decisions
        )
        rows.append(row)
        return score(problem)(row)

    rows: list[tuple[int, ...]] = []
    study.optimize(objective, n_trials=25)
    assert len(set(rows)) == 25
    assert rows == drive(ParetoStrategy(problem), score(problem), 25)


def test_the_sampler_refuses_a_weighted_sum():
    with pytest.raises(ConfigError, match="ParetoStrategy"):
        ParetoSampler(sample_problem(weighted_sum=True))
