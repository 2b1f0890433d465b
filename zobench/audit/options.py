"""The options of `zobench audit` and `zobench methods`."""

from dataclasses import dataclass

from zobench.run.options import argument, option


@dataclass(frozen=True)
class AuditOptions:
    """Audit an estimator from outside: print what it does, which composition of zobench it equals, and each check."""

    target: str = argument("package.module:object[:option=value...], or a method's name", default="")
    program: str = option(
        "", "a program in any language in place of TARGET (docs/audit.md)", code=True, also=("--command",)
    )
    array: str = option("numpy", "arrays that a plain function is given: numpy or torch")
    vary: str = option("epsilon", "option of the target that is the displacement")
    problem: tuple[str, ...] = option(
        ("quadratic", "smooth"), "linear, quadratic, smooth, or package.module:function of a problem with a gradient"
    )
    dim: int = option(6, "number of variables")
    epsilons: tuple[float, ...] = option(
        (0.05, 0.1, 0.2, 0.4), "displacements at which the target is measured, if it takes one"
    )
    samples: int = option(2000, "number of estimates behind each measured value")
    out: str = option("runs/audit", "folder of the results")
    figure: str = option(
        "", "a file .pdf, .svg, .png or .pgf, after which figures of bias, MSE and cosine are named (extra: figures)"
    )


@dataclass(frozen=True)
class MethodsOptions:
    """List the methods of zobench: name, evaluations a step, formula, law x stencil x map x rule, options."""

    markdown: bool = option(False, "print the table in Markdown")
