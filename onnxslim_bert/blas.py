"""numpy's own threads, which spin while they wait: a third more CPU time for no less wall time."""

BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")  # set to 1 unless the user set them
