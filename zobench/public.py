"""The public names, which the package imports when the first of them is used."""

from zobench import estimators, kernels, maps, methods, optim, theory
from zobench.auto import AutoEpsilon
from zobench.combination import Combination, Term
from zobench.estimator import Estimate, Estimator, LineEstimator, More, Round, Shrinking
from zobench.forward_gradient import ForwardGradient
from zobench.groups import Groups
from zobench.law import (
    AdaptiveLaw,
    BlockBandit,
    BlockBanditCredit,
    Blocks,
    BlocksCredit,
    Cone,
    Coordinate,
    Diagonal,
    Gaussian,
    InverseCurvature,
    Isotropic,
    Law,
    LowRank,
    Orthogonal,
    PerTensor,
    PerTensorCredit,
    Rademacher,
    Radial,
    RandomMask,
    SmallWeights,
    Sphere,
    Subspace,
    Tied,
    Uniform,
)
from zobench.montecarlo import Moments, controlled_moments, estimate, moments
from zobench.plan import Plan
from zobench.query import query
from zobench.random.keys import derive, keyed
from zobench.refreshed import Adaptive, Refreshed
from zobench.rule import (
    SGD,
    Adam,
    AdaMeZO,
    FactorMomentum,
    Gains,
    Interpolated,
    IterateAverage,
    Momentum,
    Muon,
    NormalisedCore,
    PowerMuon,
    SignSGD,
    TensorClip,
    UpdateRule,
    schedule,
)
from zobench.space import FlatSpace, InForwardSpace, ModuleSpace, ParameterSpace, Space
from zobench.stencil import (
    CentralStencil,
    ForwardStencil,
    KernelStencil,
    OnePointStencil,
    RichardsonStencil,
    SlopeStencil,
    Stencil,
    SymmetricStencil,
    TelescopingStencil,
    ThreePointStencil,
    least_noise,
)

__all__ = [
    "SGD", "AdaMeZO", "Adam", "Adaptive", "AdaptiveLaw", "AutoEpsilon", "BlockBandit", "BlockBanditCredit", "Blocks",
    "BlocksCredit", "CentralStencil", "Combination", "Cone", "Coordinate", "Diagonal", "Estimate", "Estimator",
    "FactorMomentum", "FlatSpace", "ForwardGradient", "ForwardStencil", "Gains", "Gaussian", "Groups",
    "InForwardSpace", "Interpolated", "InverseCurvature", "Isotropic", "IterateAverage", "KernelStencil", "Law",
    "LineEstimator", "LowRank", "ModuleSpace", "Moments", "Momentum", "More", "Muon", "NormalisedCore",
    "OnePointStencil", "Orthogonal", "ParameterSpace", "PerTensor", "PerTensorCredit", "Plan", "PowerMuon",
    "Rademacher", "Radial", "RandomMask", "Refreshed", "RichardsonStencil", "Round", "Shrinking", "SignSGD",
    "SlopeStencil", "SmallWeights", "Space", "Sphere", "Stencil", "Subspace", "SymmetricStencil", "TelescopingStencil",
    "TensorClip", "Term", "ThreePointStencil", "Tied", "Uniform", "UpdateRule", "controlled_moments", "derive",
    "estimate", "estimators", "kernels", "keyed", "least_noise", "maps", "methods", "moments", "optim", "query",
    "schedule", "theory",
]  # fmt: skip
