"""Methods that differ by what is done with the estimate of mezo."""

from zobench.methods.row import CENTRAL, Method

ZO_BENCH = "Zhang et al. 2024, arXiv 2402.11592"

ROWS = (
    Method(
        "zo-momentum",
        "v <- 0.9 v + g, x <- x - lr v, g of mezo",
        "2 n",
        ZO_BENCH,
        CENTRAL,
        "momentum",
        "1 number a weight",
    ),
    Method(
        "zo-adam",
        "x <- x - lr m / (sqrt(v) + 1e-8), m and v Adam's averages of g of mezo",
        "2 n",
        ZO_BENCH,
        CENTRAL,
        "adam",
        "2 numbers a weight",
    ),
    Method(
        "adamezo",
        "x <- x - 100 lr m / (sqrt(v) + 1e-5), m = sum_k 0.7^k g_(t-k), v = sum_k 0.9^k g_(t-k)^2, k = 0 ... 9",
        "2 n",
        "AdaMeZO, ICML 2026",
        CENTRAL,
        "adamezo",
        "10 n keys and scalars",
    ),
)
