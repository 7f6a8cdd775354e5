"""Run by the interpreter that has confseq: its values for what stdin asks, as JSON.

normal   [s, v, v_opt, alpha_opt]       log of its one-sided normal mixture
bound    [v, alpha, v_opt, alpha_opt]   its boundary for s
sign     [k, n, v_opt, alpha_opt]       log of its one-sided beta-binomial mixture, of n signs
bets     [xs, mean, stake]              log of its betting martingale, one stake, xs in [0, 1]
"""

import json
import sys

import numpy as np
from confseq import boundaries
from confseq.betting import betting_mart


def log_of_bets(xs, mean, stake):
    if not xs:
        return 0.0
    capital = betting_mart(
        np.array(xs),
        mean,
        lambdas_fn_positive=lambda x, m: np.full(len(x), stake),
        theta=1,
        trunc_scale=1,
    )
    return float(np.log(capital[-1]))


def log_of_signs(k, n, v_opt, alpha):
    told = boundaries.beta_binomial_log_mixture(k - n / 2, n / 4, v_opt, 0.5, 0.5, alpha, True)
    return float(told)


ANSWERS = {
    "normal": lambda s, v, v_opt, alpha: float(
        boundaries.normal_log_mixture(s, v, v_opt, alpha, True)
    ),
    "bound": lambda v, alpha, v_opt, opt: float(
        boundaries.normal_mixture_bound(v, alpha, v_opt, opt, True)
    ),
    "sign": log_of_signs,
    "bets": log_of_bets,
}
asked = json.load(sys.stdin)
json.dump({kind: [ANSWERS[kind](*one) for one in told] for kind, told in asked.items()}, sys.stdout)
