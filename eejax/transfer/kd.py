"""Knowledge distillation: the student learns the softened answers of the teacher."""

import jax
import jax.numpy as jnp
import optax

from eejax.core import Distiller, Knowledge


def kd(T: float = 4.0) -> Distiller:
    """Distils output features: ``T^2 KL(softmax(z_t / T) || softmax(z_s / T))`` of each sample.

    The factor ``T^2`` keeps the size of the gradient when the temperature changes, so the weight
    beside a loss on labels need not. For large ``T`` the gradient tends to that of matching
    centred logits, ``(z_s - z_t) / classes``. No gradient reaches the teacher.

    If the teacher names the classes it knows (``class_mask``), both softmaxes run over those alone:
    the student hears nothing about the others.

    Args:
      T: temperature, > 0; higher tells more about the classes the teacher holds unlikely.

    Returns:
      A distiller without parameters that reads the logits ``[batch, classes]`` of both and ignores
      labels.

    Raises:
      ValueError: the temperature is not positive.

    References:
      Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.

    Example:
      >>> teacher = Knowledge(logits=jnp.array([[2.0, 0.0], [0.0, 0.0]]))
      >>> student = Knowledge(logits=jnp.zeros((2, 2)))
      >>> [round(float(x), 3) for x in kd(T=1.0).apply({}, student, teacher, None)]
      [0.328, 0.0]
    """
    if not T > 0:
        raise ValueError(f"T must be > 0, got {T!r}")

    def apply(aux, student, teacher, labels):
        del aux, labels
        z_s, z_t = student.logits, jax.lax.stop_gradient(teacher.logits)
        if teacher.class_mask is not None:
            # Finite, as minus infinity would make NaN of 0 * (inf - inf); its softmax is 0 anyway.
            low = jnp.finfo(z_s.dtype).min / 2
            z_s, z_t = (jnp.where(teacher.class_mask[None], z, low) for z in (z_s, z_t))
        log_s, log_t = jax.nn.log_softmax(z_s / T), jax.nn.log_softmax(z_t / T)
        return T**2 * optax.losses.kl_divergence_with_log_targets(log_s, log_t)

    return Distiller(init=_no_parameters, apply=apply)


def with_labels(distiller: Distiller, alpha: float) -> Distiller:
    """Adds true labels: ``alpha * cross-entropy + (1 - alpha) * distiller`` of each sample.

    Args:
      distiller: any distiller.
      alpha: weight of the labels, in [0, 1]. Hinton et al. found a low one best; 0.1 is usual.

    Returns:
      A distiller with the parameters of the given one; its labels are ``[batch]`` int.

    Raises:
      ValueError: the weight is out of range.

    Example:
      >>> same = Knowledge(logits=jnp.array([[0.0, 0.0]]))
      >>> distiller = with_labels(kd(), alpha=0.5)
      >>> loss = distiller.apply({}, same, same, jnp.array([1]))
      >>> round(float(loss[0]), 4)  # log(2) / 2.
      0.3466
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], got {alpha!r}")

    def apply(aux, student, teacher, labels):
        ce = optax.softmax_cross_entropy_with_integer_labels(student.logits, labels)
        return alpha * ce + (1 - alpha) * distiller.apply(aux, student, teacher, labels)

    return Distiller(init=distiller.init, apply=apply)


def _no_parameters(key: jax.Array, student: Knowledge, teacher: Knowledge) -> dict:
    del key, student, teacher
    return {}
