"""Eight fake CPU devices, and the strictness under which every test runs."""

import os

# Before JAX starts: the kernel-selection of XLA:CPU is the same in tests and in real runs, so only
# the number of devices is set here.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
