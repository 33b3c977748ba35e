"""The learning rate as a function of the step. Knows nothing else."""

from model.config import OptimizerConfig


def learning_rate(step: int, config: OptimizerConfig, max_steps: int, model_width: int) -> float:
    """The rate of step ``step``, counted from 1.

    - ``inverse_sqrt``: linear to the peak over warmup_steps, then peak * sqrt(warmup_steps / step).
    - ``noam`` (equation 3 of the paper): M ** -0.5 * min(step ** -0.5, step * warmup ** -1.5), times the peak.
    - ``trapezoid``: linear to the peak, constant, then linear to zero over the last decay_share of max_steps
      (Hagele et al. 2024, arXiv:2405.18392): nothing but the end depends on max_steps, so a run can be prolonged.
    """
    warmup = config.warmup_steps
    if config.schedule == "noam":
        return config.peak_learning_rate * model_width**-0.5 * min(step**-0.5, step * warmup**-1.5)
    rise = min(1.0, step / warmup)
    if config.schedule == "inverse_sqrt":
        return config.peak_learning_rate * rise * (warmup / max(step, warmup)) ** 0.5
    fall = (max_steps + 1 - step) / (config.decay_share * max_steps)
    return config.peak_learning_rate * max(0.0, min(rise, fall, 1.0))
