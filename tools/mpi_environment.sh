# Settings of Open MPI and its libraries for one machine, for scripts to source: as root too, on fewer cores than ranks,
# in containers that forbid reading another process's memory. On a cluster the launcher's own settings hold instead.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_hwloc_base_binding_policy=none
export OMPI_MCA_btl_vader_single_copy_mechanism=none
export OPENBLAS_NUM_THREADS=1  # Verne's own threads call it
