"""A Gaussian process over plans, kept up to date observation by observation.

Legend: N observed rows, P pool rows (the candidates), D decisions, C choices of one decision, G gaps of all decisions.

Kernel. Between two choices of decision d lie gaps g of width w_dg; rows covary as

    k(x, x') = prod_d exp(-((1 / l_d) x sum of w_dg e^(bend_dg) over the gaps g between x_d and x'_d)^e)

the gamma-exponential kernel, between the Laplace kernel (e = 1) and the Gaussian (2) as smooth as the data say, with a
length per decision (its relevance) on an axis that bends: that a step from 12 to 8 bits costs much in one layer and
nothing in another, no fixed axis knows. Quality is modelled as constant
mean + s^2 x (kernel + noise); the mean and s^2 are profiled out of the likelihood, lengths, bends and noise maximise it
under log-normal priors.

Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, algorithm 2.1, equation 4.18 and section
5.4.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.linalg.blas import strsm
from scipy.optimize import minimize

from dovetail.search.space import Rows

__all__ = ["LIKELIHOOD_ROWS", "Hyperparameters", "Posterior", "correlations", "fit"]

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]

# Mean and deviation of the exponent, the kernel's smoothness.
EXPONENT_PRIOR = (1.25, 0.2)
EXPONENT_BOUNDS = (1.0, 1.9)
# Mean and deviation of log length: across its range a decision alone leaves a correlation of about a half.
LENGTH_PRIOR = (0.4, 0.8)
LENGTH_BOUNDS = (-3.0, 3.0)  # of log length: no decision is ever believed to have no effect at all
# Deviation of a bend: a gap counts for a third or for three times as much as its width says.
BEND_DEVIATION = 1.2
BEND_BOUNDS = (-4.0, 4.0)
# Of log noise: accuracy on a finite sample is a step function, so a thousandth of the variance is noise.
NOISE_PRIOR = (-6.9, 1.0)
NOISE_FLOOR = 1e-5  # keeps the Cholesky factor well away from singular in 32-bit updates
TABLE = 1 << 10  # rows of several decisions whose correlations are multiplied before they are looked up
LIKELIHOOD_ROWS = 192  # the likelihood of this many rows pins the lengths down; more only cost n^3


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """What the likelihood chooses.

    Args:
        lengths: per decision.
        bends: per gap, decision after decision: log of the factor by which it is wider than its width.
        exponent: of distance in the kernel.
        noise: as a share of the signal's variance.
    """

    lengths: tuple[float, ...]
    bends: tuple[float, ...]
    exponent: float
    noise: float

    @classmethod
    def initial(cls, gaps: Sequence[Floats]) -> Hyperparameters:
        """The modes of the priors."""
        return cls(
            lengths=(float(np.exp(LENGTH_PRIOR[0])),) * len(gaps),
            bends=(0.0,) * sum(map(len, gaps)),
            exponent=EXPONENT_PRIOR[0],
            noise=float(np.exp(NOISE_PRIOR[0])),
        )


def correlations(gaps: Sequence[Floats], hyper: Hyperparameters) -> list[Floats]:
    """exp(-(bent distance / length)^exponent) between the choices of each decision: [C, C] per decision."""
    rates = np.exp(hyper.bends) / np.repeat(hyper.lengths, [len(gap_GCC) for gap_GCC in gaps])
    parts = np.split(rates, np.cumsum([len(gap_GCC) for gap_GCC in gaps])[:-1])
    far = [np.tensordot(part, gap_GCC, axes=1) for part, gap_GCC in zip(parts, gaps, strict=True)]
    return [np.exp(-(far_CC**hyper.exponent)) for far_CC in far]


def fit(
    gaps: Sequence[Floats], rows_ND: Rows, y_N: Floats, start: Hyperparameters, *, iterations: int = 30
) -> Hyperparameters:
    """Hyper-parameters that maximise likelihood x prior, by L-BFGS from `start`; of the newest rows where many.

    Args:
        gaps: from `decision_gaps`.
        rows_ND, y_N: what was observed.
        start: where to begin.
        iterations: of L-BFGS at most.
    """
    rows_ND, y_N = rows_ND[-LIKELIHOOD_ROWS:], y_N[-LIKELIHOOD_ROWS:]
    deviation = y_N.std()
    if len(y_N) < 2 or deviation == 0:
        return start
    y_N = (y_N - y_N.mean()) / deviation
    apart = [g[:, rows_ND[:, d][:, None], rows_ND[:, d][None]] for d, g in enumerate(gaps)]
    theta = np.concatenate([np.log(start.lengths), start.bends, [start.exponent, np.log(start.noise)]])
    bounds = [LENGTH_BOUNDS] * len(gaps) + [BEND_BOUNDS] * len(start.bends) + [EXPONENT_BOUNDS, (-11.0, 0.0)]
    found = minimize(
        _loss,
        theta,
        args=(apart, y_N),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": iterations},
    )
    lengths, bends, (exponent, noise) = np.split(found.x, [len(gaps), len(found.x) - 2])
    return Hyperparameters(
        lengths=tuple(np.exp(lengths).tolist()),
        bends=tuple(bends.tolist()),
        exponent=float(exponent),
        noise=float(np.exp(noise)),
    )


def _loss(theta: Floats, apart: Sequence[Floats], y_N: Floats) -> tuple[float, Floats]:
    """Negative log of (likelihood x prior), mean and variance profiled out, and its gradient by (log lengths, bends,
    exponent, log noise).

    Args:
        theta: where.
        apart: the gaps between the observed rows, per decision: [G, N, N].
        y_N: what was observed.
    """
    count, decisions = len(y_N), len(apart)
    exponent, noise = float(theta[-2]), float(np.exp(theta[-1]))
    bends = np.split(theta[decisions:-2], np.cumsum([len(gap_GNN) for gap_GNN in apart])[:-1])
    rates = [np.exp(bend_G - length) for bend_G, length in zip(bends, theta[:decisions], strict=True)]
    far = [np.tensordot(rate_G, gap_GNN, axes=1) for rate_G, gap_GNN in zip(rates, apart, strict=True)]
    powers = [far_NN**exponent for far_NN in far]
    kernel_NN = np.exp(-sum(powers))
    factor_NN = np.linalg.cholesky(kernel_NN + (noise + NOISE_FLOOR) * np.eye(count))
    inverse_NN = cho_solve((factor_NN, True), np.eye(count))
    residual_N = y_N - _profiled_mean(inverse_NN.sum(axis=0), y_N)
    alpha_N = inverse_NN @ residual_N
    variance = max(float(residual_N @ alpha_N) / count, 1e-12)
    weight_NN = 0.5 * (inverse_NN - np.outer(alpha_N, alpha_N) / variance)
    by_distance_NN = -weight_NN * kernel_NN
    positive = [np.maximum(far_NN, 1e-12) for far_NN in far]
    by_bend = [
        rate_G * np.tensordot(gap_GNN, by_distance_NN * (exponent * power_NN / far_NN), axes=2)
        for rate_G, gap_GNN, power_NN, far_NN in zip(rates, apart, powers, positive, strict=True)
    ]
    by_length = [-float(part_G.sum()) for part_G in by_bend]
    by_exponent = sum(
        float((by_distance_NN * power_NN * np.log(far_NN)).sum())
        for power_NN, far_NN in zip(powers, positive, strict=True)
    )
    gradient = np.concatenate([by_length, *by_bend, [by_exponent, np.trace(weight_NN) * noise]])
    gaps = len(theta) - decisions - 2
    centre = np.concatenate([np.full(decisions, LENGTH_PRIOR[0]), np.zeros(gaps), [EXPONENT_PRIOR[0], NOISE_PRIOR[0]]])
    spread = np.concatenate(
        [np.full(decisions, LENGTH_PRIOR[1]), np.full(gaps, BEND_DEVIATION), [EXPONENT_PRIOR[1], NOISE_PRIOR[1]]]
    )
    z = (theta - centre) / spread
    loss = 0.5 * count * np.log(variance) + np.log(np.diag(factor_NN)).sum() + 0.5 * float(z @ z)
    return float(loss), gradient + z / spread


def _profiled_mean(column_sums: Floats, y_N: Floats) -> float:
    return float(column_sums @ y_N / column_sums.sum())


class Posterior:
    """Mean and variance of quality at every pool row, given what was observed; exact after each `add`.

    With L the Cholesky factor of the observed covariance, V = L^-1 K(observed, pool) grows by one row per
    observation, and mean and variance of the whole pool follow from that row: O(N x P) an observation instead of
    O(N^2 x P). V is kept in 32 bits.

    Args:
        gaps: from `decision_gaps`.
        hyper: lengths, bends and noise.
        rows_ND, y_N: what was observed.
        pool_PD: the candidates.
    """

    def __init__(
        self, gaps: Sequence[Floats], hyper: Hyperparameters, rows_ND: Rows, y_N: Floats, pool_PD: Rows
    ) -> None:
        self._tables = correlations(gaps, hyper)
        self._tables32 = [table.astype(np.float32) for table in self._tables]
        self._noise = hyper.noise + NOISE_FLOOR
        self._pool = [(part, _places(pool_PD[:, part], self._tables32[part])) for part in _parts(self._tables32)]
        count = len(rows_ND)
        self._rows_ND = rows_ND.copy()
        self._factor_NN = np.linalg.cholesky(self.kernel(rows_ND, rows_ND) + self._noise * np.eye(count))
        solved = cho_solve((self._factor_NN, True), np.stack([np.ones(count), y_N], axis=1))
        self.centre = float(solved[:, 1].sum() / solved[:, 0].sum())
        self._white_N = solve_triangular(self._factor_NN, y_N - self.centre, lower=True)
        self.variance = max(float(self._white_N @ self._white_N) / count, 1e-12)
        self._pool_V = np.empty((max(2 * count, 64), len(pool_PD)), dtype=np.float32)
        for n, row in enumerate(rows_ND):
            self._pool_V[n] = self._kernel_with_pool(row)
        factor_NN = self._factor_NN.astype(np.float32, order="F")
        held = self._pool_V[:count].T  # in Fortran's order, so that V^T L^T = K^T is solved where it lies
        held[:] = strsm(1.0, factor_NN, held, side=1, lower=1, trans_a=1, overwrite_b=1)
        self._mean_P: Floats32 = self._white_N.astype(np.float32) @ self._pool_V[:count]
        self._left_P: Floats32 = np.ones(len(pool_PD), dtype=np.float32)
        for seen_P in self._pool_V[:count]:
            self._left_P -= seen_P * seen_P

    def __len__(self) -> int:
        return len(self._rows_ND)

    def kernel(self, a_AD: Rows, b_BD: Rows) -> Floats:
        """Correlations between rows: [A, B]."""
        product = np.ones((len(a_AD), len(b_BD)))
        for d, table in enumerate(self._tables):
            product *= table[a_AD[:, d][:, None], b_BD[:, d][None]]
        return product

    def _kernel_with_pool(self, row_D: Rows) -> Floats32:
        factors = (
            _products([table[[c]] for table, c in zip(self._tables32[part], row_D[part], strict=True)], 1).take(
                places_P
            )
            for part, places_P in self._pool
        )
        product: Floats32 = next(factors)
        for factor in factors:
            product *= factor
        return product

    def pool(self) -> tuple[Floats32, Floats32]:
        """Mean and standard deviation at each pool row: [P], [P]."""
        deviation = np.sqrt(np.maximum(self._left_P, np.float32(1e-8)) * np.float32(self.variance))
        return self._mean_P + np.float32(self.centre), deviation

    def at(self, rows_AD: Rows) -> tuple[Floats, Floats]:
        """Mean and standard deviation at any rows: [A], [A]."""
        white_NA = solve_triangular(
            self._factor_NN, self.kernel(self._rows_ND, rows_AD), lower=True, check_finite=False
        )
        left = np.maximum(1 - np.einsum("na,na->a", white_NA, white_NA), 1e-8)
        return self.centre + self._white_N @ white_NA, np.sqrt(left * self.variance)

    def everywhere(self) -> tuple[Floats32, Floats32]:
        """Mean, and an upper bound on the standard deviation, at every row of the space, in the order of enumeration:
        [size], [size].

        The kernel is a product, so over a space cut into its first and its last decisions it factorises: the mean is
        one matrix product of [N, rows of the head] and [N, rows of the tail]. The bound is the deviation that the one
        nearest observation leaves: what else was observed only makes it smaller.
        """
        head_NH, tail_NT = (
            _products([self._tables32[d][self._rows_ND[:, d]] for d in part], len(self))
            for part in _halves([len(table) for table in self._tables32])
        )
        weight_N = solve_triangular(self._factor_NN, self._white_N, lower=True, trans="T").astype(np.float32)
        mean_HT = (weight_N[:, None] * head_NH).T @ tail_NT
        nearest_HT, product_HT = np.zeros_like(mean_HT), np.empty_like(mean_HT)
        for head_H, tail_T in zip(head_NH, tail_NT, strict=True):
            np.maximum(nearest_HT, np.multiply.outer(head_H, tail_T, out=product_HT), out=nearest_HT)
        left_HT = np.maximum(1 - nearest_HT * nearest_HT / np.float32(1 + self._noise), np.float32(1e-8))
        return mean_HT.ravel() + np.float32(self.centre), np.sqrt(left_HT.ravel() * np.float32(self.variance))

    def add(self, row_D: Rows, y: float | None) -> None:
        """Observe a row; with None believe the mean there: the variance shrinks, no mean moves (kriging believer)."""
        count = len(self)
        link_N = solve_triangular(
            self._factor_NN, self.kernel(self._rows_ND, row_D[None])[:, 0], lower=True, check_finite=False
        )
        pivot = float(np.sqrt(max(1 + self._noise - link_N @ link_N, self._noise / 2)))
        white = 0.0 if y is None else (y - self.centre - float(link_N @ self._white_N)) / pivot
        if count == len(self._pool_V):
            self._pool_V = np.concatenate([self._pool_V, np.empty_like(self._pool_V)])
        new_P = self._kernel_with_pool(row_D)
        new_P -= link_N.astype(np.float32) @ self._pool_V[:count]
        new_P *= np.float32(1 / pivot)
        self._pool_V[count] = new_P
        self._mean_P = self._mean_P + np.float32(white) * new_P
        self._left_P = self._left_P - new_P * new_P
        grown = np.zeros((count + 1, count + 1))
        grown[:count, :count], grown[count, :count], grown[count, count] = self._factor_NN, link_N, pivot
        self._factor_NN = grown
        self._white_N = np.append(self._white_N, white)
        self._rows_ND = np.vstack([self._rows_ND, row_D[None]])

    def state(self) -> tuple[int, Floats32, Floats32]:
        """What `restore` needs to forget later additions."""
        return len(self), self._mean_P, self._left_P

    def restore(self, state: tuple[int, Floats32, Floats32]) -> None:
        """Forget everything added since `state` was taken."""
        count, self._mean_P, self._left_P = state
        self._factor_NN, self._white_N, self._rows_ND = (
            self._factor_NN[:count, :count],
            self._white_N[:count],
            self._rows_ND[:count],
        )


def _parts(tables: Sequence[Floats32]) -> list[slice]:
    """Decisions in runs of at most `TABLE` rows together, or one by one: at least one run."""
    starts, rows = [0], 1
    for d, table in enumerate(tables):
        rows *= len(table)
        if rows > TABLE and d > starts[-1]:
            starts.append(d)
            rows = len(table)
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(tables)], strict=True)]


def _places(rows_PD: Rows, tables: Sequence[Floats32]) -> NDArray[np.intp]:
    """Where rows stand in the enumeration of some decisions: [P]."""
    return np.asarray(np.ravel_multi_index(tuple(rows_PD.T), [len(table) for table in tables]))


def _products(factors: Sequence[Floats32], count: int) -> Floats32:
    """Correlations of `count` rows with every row of some decisions, by those alone, from their correlations by each
    decision [count, choices]: [count, rows], in the order of enumeration."""
    product = np.ones((count, 1), dtype=np.float32)
    for factor in factors:
        product = (product[:, :, None] * factor[:, None, :]).reshape(count, -1)
    return product


def _halves(counts: Sequence[int]) -> tuple[range, range]:
    """The decisions cut in two where the numbers of rows of both parts add up to the least."""
    cut = min(range(len(counts) + 1), key=lambda k: math.prod(counts[:k]) + math.prod(counts[k:]))
    return range(cut), range(cut, len(counts))
